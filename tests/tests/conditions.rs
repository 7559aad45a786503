//! A file system that really breaks, as the kernel tells it, all the way to the
//! collector's list of events.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use holdfast_proto::v1::Event;
use holdfast_tests::{Agent, Collector, need, process, wait};
use serde_json::Value;
use tempfile::TempDir;

/// A mounted ext4 file system on a loop device, which turns read-only on errors.
struct Disk {
    folder: TempDir,
    mounted: bool,
    /// The kernel's name of the loop device.
    device: String,
}

impl Disk {
    fn mount() -> Result<Self> {
        let folder = TempDir::with_prefix("holdfast disk-")?;
        let mut disk = Self { folder, mounted: false, device: String::new() };
        fs::File::create(disk.image())?.set_len(16 << 20)?;
        fs::create_dir(disk.point())?;
        run(Command::new("mkfs.ext4").arg("-q").arg(disk.image()))?;
        let options = "loop,errors=remount-ro";
        run(Command::new("mount").args(["-o", options]).arg(disk.image()).arg(disk.point()))?;
        disk.mounted = true;
        let losetup = Command::new("losetup").arg("-j").arg(disk.image()).output()?;
        let text = String::from_utf8(losetup.stdout)?;
        let device = text.split(':').next().and_then(|path| path.strip_prefix("/dev/"));
        disk.device = device.context("no loop device")?.to_owned();
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn point(&self) -> PathBuf {
        self.folder.path().join("point")
    }

    /// The kernel's own way to have an error: nothing on the disk is harmed.
    fn break_it(&self) -> Result<()> {
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", self.device);
        fs::write(&trigger, "a test").with_context(|| trigger)
    }

    fn unmount(&mut self) -> Result<()> {
        run(Command::new("umount").arg(self.point()))?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _gone = Command::new("umount").arg(self.point()).status();
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}

/// The kinds of the events so far that are about `device`, oldest first.
async fn kinds(collector: &Collector, device: &str) -> Result<Vec<String>> {
    let about = |event: &Event| {
        event.field.iter().any(|field| field.name == "device" && field.value == device)
    };
    let events = collector.events("").await?.into_iter().filter_map(|event| event.event);
    Ok(events.filter(about).map(|event| event.kind).collect())
}

#[tokio::test]
async fn a_broken_file_system_is_told_once_and_so_is_its_end() -> Result<()> {
    if !need::root() || !need::program("mkfs.ext4") || !need::program("losetup") {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let mut agent = Agent::start("conditions", &collector.url()).await?;
    collector.host_up("conditions").await?;
    let mut disk = Disk::mount()?;
    disk.break_it()?;
    let mut expected = vec!["filesystem.error", "filesystem.read_only"];
    wait::until("the error is told", async || {
        Ok((kinds(&collector, &disk.device).await?.len() == 2).then_some(()))
    })
    .await?;
    ensure!(kinds(&collector, &disk.device).await? == expected);
    let standing = agent.local(&["status"])?;
    let values = standing["values"].as_array().context("no values")?;
    let value = |name: &str| {
        let named = values.iter().find(|value| value["signal"] == name);
        named.and_then(|value| value["last"].as_f64()).unwrap_or_default()
    };
    ensure!(value("host.conditions") >= 2.0, "{standing}");

    // Unmounted and repaired while no agent looks; another one takes over the state.
    agent.stop().await?;
    disk.unmount()?;
    agent.start_again("conditions", &collector.url()).await?;
    expected.extend(["filesystem.error.cleared", "filesystem.read_only.cleared"]);
    let found = wait::until("the end is told", async || {
        let found = kinds(&collector, &disk.device).await?;
        Ok((found.len() >= 4).then_some(found))
    })
    .await?;
    ensure!(found == expected, "{found:?}");
    Ok(())
}

#[tokio::test]
async fn the_doctor_tells_with_and_without_an_agent() -> Result<()> {
    let collector = Collector::start().await?;
    let agent = Agent::start("doctor", &collector.url()).await?;
    let socket = agent.socket().to_string_lossy().into_owned();
    let asked = process::answer("holdfast", &["--json", "--socket", &socket, "local", "doctor"])?;
    let alone = process::answer("holdfast-agent", &["doctor", "--json"])?;
    let mut pages = Vec::new();
    for answer in [&asked, &alone] {
        let page: Value = serde_json::from_str(&answer.stdout)
            .with_context(|| format!("{}{}", answer.stdout, answer.stderr))?;
        let page = page.as_array().context("no list")?.clone();
        let missing = page.iter().any(|finding| finding["state"] == "missing");
        ensure!(answer.code == Some(i32::from(missing)), "{:?}: {page:?}", answer.code);
        pages.push(page);
    }
    let told = |page: &[Value]| {
        let lines = page.iter().map(|finding| (finding["name"].clone(), finding["state"].clone()));
        lines.collect::<Vec<_>>()
    };
    let [asked, alone] = pages.as_slice() else { unreachable!("two pages") };
    ensure!(asked.len() > 10 && told(asked) == told(alone), "{asked:?}\n{alone:?}");
    let text = process::answer("holdfast", &["--socket", &socket, "local", "doctor"])?;
    ensure!(text.stdout.contains("capabilities"), "{}", text.stdout);
    Ok(())
}
