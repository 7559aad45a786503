//! Test hosts: real systemd as PID 1 in namespaces of its own, on a bridge.
//!
//! A host shares the kernel with this machine and nothing else: it has its own
//! processes, mounts, network, cgroup root and name. There is no user namespace,
//! because eBPF needs real capabilities: hosts isolate against accidents, not
//! against attacks. All names begin with `holdfast-` and our process id; what a
//! run that was killed left behind is swept by the next.

mod base;
pub(crate) mod init;
mod network;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_core::clock::BootTime;

pub(crate) use self::base::base;
pub(crate) use self::network::Switch;
use crate::cgroup::{self, Cgroup};
use crate::debian;
use crate::leash::Leashed;
use crate::shell;
use crate::stop::Stop;

/// Programs a test host needs on this machine, and the Debian packages that bring them.
const NEEDS: &[(&str, &str)] = &[
    ("debootstrap", "debootstrap"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];
/// How long systemd may take to come up.
const BOOT: Duration = Duration::from_secs(30);
/// How long systemd may take to go down.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// How often something that is waited for is looked at.
const STEP: Duration = Duration::from_millis(50);

/// A running host; killed and cleared away when dropped.
pub(crate) struct Host {
    name: String,
    /// In this order: processes end before what they use goes.
    process: Leashed,
    leader: u32,
    _cgroup: Cgroup,
    _port: network::Port,
    _files: tempfile::TempDir,
}

/// Sweeps away what killed runs left behind, and installs what this machine lacks
/// for test hosts.
pub(crate) fn prepare() -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("test hosts need root");
    }
    let lacks: Vec<&str> = NEEDS
        .iter()
        .filter(|(program, _)| shell::find(program).is_none())
        .map(|need| need.1)
        .collect();
    if !lacks.is_empty() {
        debian::install("test hosts need programs that are missing", &lacks)?;
    }
    network::sweep(is_left_behind)?;
    cgroup::sweep(is_left_behind)?;
    sweep_files()
}

/// What all names of this process begin with.
fn prefix() -> String {
    format!("holdfast-{}-", std::process::id())
}

/// Removes the folders of earlier runs, by their names.
fn sweep_files() -> Result<()> {
    let folder = std::env::temp_dir();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_str().is_some_and(is_left_behind) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Whether a name belongs to a run whose process is gone, or has ended and only
/// nobody has waited for it.
fn is_left_behind(name: &str) -> bool {
    let pid = name.strip_prefix("holdfast-").and_then(|rest| rest.split_once('-'));
    let pid = pid.and_then(|(pid, _)| pid.parse::<u32>().ok());
    let status = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status"));
    pid.is_some_and(|pid| status(pid).map_or(true, |status| status.contains("\nState:\tZ")))
}

impl Host {
    /// Boots host number `number` (1 to 250) on the switch, from the base's files,
    /// and waits until systemd has started everything.
    pub(crate) fn start(base: &Path, switch: &Switch, number: u8, stop: &Stop) -> Result<Self> {
        let name = format!("h{number}");
        let files = tempfile::Builder::new()
            .prefix(&format!("{}{name}-", prefix()))
            .tempdir()
            .context("no folder for the host's files")?;
        let port = switch.plug(number)?;
        let cgroup = Cgroup::create(&format!("{}{name}", prefix()))?;
        // The leash joins the cgroup first: so the cgroup namespace is rooted there,
        // and systemd cannot touch this machine's own groups.
        let mut arguments: Vec<OsString> =
            ["netns", "exec", port.namespace()].map(Into::into).into();
        // While it waits, unshare is deaf to the signal that the leash asked for.
        arguments.extend(["setpriv", "--pdeathsig", "KILL", "unshare"].map(Into::into));
        arguments.extend(["--pid", "--mount", "--uts", "--ipc", "--cgroup"].map(Into::into));
        arguments.extend(["--fork", "--kill-child=SIGKILL"].map(Into::into));
        // Not by path: a build meanwhile may have replaced the file.
        arguments.push(format!("/proc/{}/exe", std::process::id()).into());
        arguments.extend([
            "host-init".into(),
            name.clone().into(),
            base.into(),
            files.path().into(),
        ]);
        let ip = shell::find("ip").context("no ip program")?;
        let console = files.path().join("console");
        let mut process = Leashed::start(&ip, arguments, &cgroup.folders(), Some(&console))?;
        let leader = wait(BOOT, stop, || Ok(child_of(process.pid())))
            .with_context(|| fs::read_to_string(&console).unwrap_or_default())?;
        process.check()?;
        let host = Self { name, process, leader, _cgroup: cgroup, _port: port, _files: files };
        wait(BOOT, stop, || {
            let state = host.try_run(["systemctl", "is-system-running"])?;
            Ok(matches!(state.stdout.trim_ascii(), b"running" | b"degraded").then_some(()))
        })
        .with_context(|| {
            format!(
                "{} does not come up: {}",
                host.name,
                fs::read_to_string(&console).unwrap_or_default()
            )
        })?;
        Ok(host)
    }

    /// Its name, which is its host name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What a command inside prints; anything but success is an error.
    pub(crate) fn run<const N: usize>(&self, command: [&str; N]) -> Result<String> {
        shell::output(&mut self.command(&command))
    }

    /// How a command inside ended, and what it printed.
    pub(crate) fn try_run<const N: usize>(
        &self,
        command: [&str; N],
    ) -> Result<std::process::Output> {
        self.command(&command)
            .output()
            .with_context(|| format!("cannot run {} inside", command.join(" ")))
    }

    /// Copies a file into the folder `to` inside; returns its path there.
    pub(crate) fn push(&self, from: &Path, to: &str) -> Result<String> {
        let name =
            from.file_name().and_then(|name| name.to_str()).context("a file without a name")?;
        let inside = format!("{to}/{name}");
        let outside = PathBuf::from(format!("/proc/{}/root{inside}", self.leader));
        fs::copy(from, &outside)
            .with_context(|| format!("cannot copy {} to {inside}", from.display()))?;
        Ok(inside)
    }

    /// Shuts it down in order.
    pub(crate) fn power_off(mut self, stop: &Stop) -> Result<()> {
        // The connection to systemd may break before the answer comes.
        let _broken = self.try_run(["systemctl", "poweroff"]);
        wait(SHUTDOWN, stop, || Ok(self.process.check().is_err().then_some(())))
            .with_context(|| format!("{} does not go down", self.name))
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--target"]);
        nsenter.arg(self.leader.to_string());
        nsenter.args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "TERM=dumb",
        ]);
        nsenter.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]).args(command);
        nsenter
    }
}

/// Looks at something until it is there, for at most `limit`.
pub(crate) fn wait<T>(
    limit: Duration,
    stop: &Stop,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = BootTime::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if BootTime::now().since(start) > limit {
            bail!("not within {} s", limit.as_secs());
        }
        if stop.wait(STEP) {
            bail!("stopped");
        }
    }
}

/// The first child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_runs_left_is_swept() {
        assert!(!is_left_behind(&format!("{}h1", prefix())));
        // No process ever has this id: the kernel's limit is 2^22.
        assert!(is_left_behind("holdfast-4194305-h1"));
        for other in ["holdfast-agent", "tb-h1", "holdfast--h1", "holdfast-1-h1"] {
            assert!(!is_left_behind(other), "{other}");
        }
    }
}
