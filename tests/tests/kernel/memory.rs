//! Memory that runs out, within a limit that no host notices.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use holdfast_agent::catalogue::{
    HOST_COMPACTION, HOST_RECLAIM, UNIT_COMPACTION, UNIT_EXITS_SIGNAL, UNIT_OOM_KILLS, UNIT_RECLAIM,
};
use holdfast_agent::kernel::KernelEvent;
use holdfast_core::clock::BootTime;
use holdfast_tests::{Unit, need};

use crate::process::events_of;
use crate::rig::{Rig, SLOT};
use crate::role;

const LIMIT: &str = "33554432";

#[tokio::test]
async fn a_process_that_outgrows_its_limit_stalls_and_is_killed() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let mut events = rig.kernel.take_events().context("no events")?;
    let unit = Unit::create("outgrows")?;
    let Some(limit) = Limit::set(&unit)? else {
        need::skip("needs the memory controller of cgroups");
        return Ok(());
    };
    let cgroup = rig.watch_unit(&unit)?;
    rig.tick()?;
    let status = role::start(&unit, limit.beside(), "outgrow 268435456")?.wait()?;
    ensure!(!status.success(), "it was not stopped");
    rig.tick()?;

    let found = events_of(&mut events, cgroup, 2).await?;
    let killed = found.iter().any(|event| {
        matches!(event, KernelEvent::OomKill { pid, command, .. } if *pid > 0 && !command.is_empty())
    });
    let ended = found.iter().any(|event| matches!(event, KernelEvent::Exit { signal: 9, .. }));
    ensure!(killed && ended, "{found:?}");
    let kills = rig.value(UNIT_OOM_KILLS, SLOT);
    ensure!(kills == 1.0, "{kills} kills");
    ensure!(rig.value(UNIT_EXITS_SIGNAL, SLOT) == 1.0, "not ended by a signal");
    let (unit, host) = (rig.histogram(UNIT_RECLAIM, SLOT), rig.histogram(HOST_RECLAIM, 0));
    ensure!(unit.total() > 0 && unit.sum > 0, "no stall was counted");
    ensure!(host.total() >= unit.total(), "{} on the host", host.total());
    Ok(())
}

#[test]
fn who_asks_for_compaction_waits_for_it() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let switch = "/proc/sys/vm/compact_memory";
    if !Path::new(switch).exists() {
        need::skip("needs CONFIG_COMPACTION");
        return Ok(());
    }
    let unit = Unit::create("compacts")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    let start = BootTime::now();
    let status = unit.run(&format!("echo 1 > {switch}"))?;
    let most = BootTime::now().since(start).as_nanos() as u64;
    ensure!(status.success(), "{status}");
    rig.tick()?;
    let (unit, host) = (rig.histogram(UNIT_COMPACTION, SLOT), rig.histogram(HOST_COMPACTION, 0));
    // One for each zone of memory that is in use.
    ensure!((1..=16).contains(&unit.total()), "{} stalls", unit.total());
    ensure!((1..most).contains(&unit.sum), "{} of {most} ns", unit.sum);
    ensure!(host.total() >= unit.total(), "{} on the host", host.total());
    let lost = rig.lost("ebpf.reclaim_map_full");
    ensure!(lost == 0, "{lost} lost");
    Ok(())
}

/// A memory limit for a unit: its own, or that of a cgroup of version 1 beside it.
pub(crate) enum Limit {
    Own,
    Beside(PathBuf),
}

impl Limit {
    pub(crate) fn set(unit: &Unit) -> Result<Option<Self>> {
        let own = unit.folder().join("memory.max");
        if own.exists() {
            fs::write(own, LIMIT)?;
            let _no_swap = fs::write(unit.folder().join("memory.swap.max"), "0");
            return Ok(Some(Self::Own));
        }
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let memory = words.filter(|words| {
            words.get(2) == Some(&"cgroup")
                && words.get(3).is_some_and(|options| options.split(',').any(|o| o == "memory"))
        });
        let Some(mount) = memory.filter_map(|words| words.get(1).map(PathBuf::from)).next() else {
            return Ok(None);
        };
        // Below the cgroup we are in, whose limits go on to hold.
        let ours = fs::read_to_string("/proc/self/cgroup")?;
        let ours = ours.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path));
        let ours = ours.unwrap_or("/").trim_start_matches('/');
        let folder = mount.join(ours).join(&unit.name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(folder.join("memory.limit_in_bytes"), LIMIT)?;
        Ok(Some(Self::Beside(folder)))
    }

    pub(crate) fn beside(&self) -> Option<&str> {
        match self {
            Self::Own => None,
            Self::Beside(folder) => Path::to_str(folder),
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Self::Beside(folder) = self {
            let _gone = fs::remove_dir(folder);
        }
    }
}
