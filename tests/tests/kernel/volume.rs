//! An ext4 file system of our own, on a loop device.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use holdfast_tests::{Unit, need};
use tempfile::TempDir;

use crate::block::Loop;
use crate::rig::{Rig, SLOT};
use crate::role;
use holdfast_agent::catalogue::{HOST_SYNC, UNIT_SYNC};
use holdfast_core::clock::BootTime;

const BYTES: u64 = 32 << 20;
const SYNCS: u64 = 50;

/// Mounted for as long as it lives.
pub(crate) struct Volume {
    mount: PathBuf,
    _device: Loop,
    _folder: TempDir,
}

impl Volume {
    /// `None` when this machine cannot make one, which has then been said.
    pub(crate) fn create() -> Result<Option<Self>> {
        if !["mkfs.ext4", "mount", "umount"].iter().all(|program| need::program(program)) {
            return Ok(None);
        }
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
        fs::File::create(&image)?.set_len(BYTES)?;
        fs::create_dir(&mount)?;
        let Some(device) = Loop::attach(&image)? else {
            need::skip("needs loop devices");
            return Ok(None);
        };
        run(Command::new("mkfs.ext4").arg("-q").arg(device.path()))?;
        run(Command::new("mount").arg("-t").arg("ext4").arg(device.path()).arg(&mount))?;
        Ok(Some(Self { mount, _device: device, _folder: folder }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg(&self.mount).status();
    }
}

/// Runs a command to a good end.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

#[test]
fn syncs_are_counted_exactly_in_both_forms() -> Result<()> {
    let Some(mut typed) = Rig::start()? else { return Ok(()) };
    let mut raw = Rig::beside(&["sync_enter/tp_btf"])?;
    let Some(volume) = Volume::create()? else { return Ok(()) };
    let variant = |rig: &Rig| {
        let programs = rig.kernel.programs().iter();
        programs.filter(|p| p.name == "sync_enter").map(|p| p.variant).next()
    };
    ensure!(variant(&typed) == Some("tp_btf"), "{:?}", variant(&typed));
    ensure!(variant(&raw) == Some("raw_tp"), "{:?}", variant(&raw));

    let unit = Unit::create("syncs")?;
    for rig in [&mut typed, &mut raw] {
        rig.watch_unit(&unit)?;
        rig.tick()?;
    }
    let path = volume.path().join("file");
    let start = BootTime::now();
    role::run(&unit, &format!("sync {SYNCS} {}", path.display()))?;
    let most = BootTime::now().since(start).as_nanos() as u64;
    for rig in [&mut typed, &mut raw] {
        rig.tick()?;
        let (unit, host) = (rig.histogram(UNIT_SYNC, SLOT), rig.histogram(HOST_SYNC, 0));
        ensure!(unit.total() == SYNCS, "{} of {SYNCS} syncs", unit.total());
        // None is done without a write to the device.
        ensure!(unit.sum > SYNCS * 10_000 && unit.sum < most, "{} of {most} ns", unit.sum);
        ensure!(host.total() >= SYNCS, "{} on the host", host.total());
        let lost = rig.lost("ebpf.sync_map_full");
        ensure!(lost == 0, "{lost} lost");
    }
    Ok(())
}
