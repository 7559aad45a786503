//! What the page is made from, as read; `None` where it cannot be read.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::host::Root;
use crate::host::cgroup::mount_point;

/// Longest file that is read.
const TEXT_BYTES: usize = 1 << 20;

/// Whether something can be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// It is not there.
    #[default]
    Absent,
    /// It is there, but this process may not use it.
    Denied,
    /// It is there, but the kernel has it switched off.
    Off,
    /// It can be used.
    Usable,
}

impl Access {
    fn of<T>(result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Usable,
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EACCES | Errno::EPERM) => Self::Denied,
                Some(Errno::EOPNOTSUPP) => Self::Off,
                _ => Self::Absent,
            },
        }
    }
}

/// Everything that is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Release of the running kernel.
    pub kernel_release: String,
    /// Effective capabilities, as bits.
    pub capabilities: Option<u64>,
    /// The mode in brackets in the kernel's list; `None` where there is no lockdown.
    pub lockdown: Option<String>,
    /// The kernel's own types.
    pub btf: Access,
    /// The list of tracepoints.
    pub tracefs: Access,
    /// Whether the kernel can divert its own functions (for fentry).
    pub trampolines: bool,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i64>,
    /// `kernel.bpf_stats_enabled`.
    pub bpf_stats: Option<i64>,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<i64>,
    /// Whether the unified hierarchy is mounted.
    pub cgroup2: bool,
    /// Controllers that hierarchies of version 1 hold.
    pub cgroup1: Vec<String>,
    /// Controllers on the unified hierarchy.
    pub controllers: Vec<String>,
    /// Those of them that the root hands on to units.
    pub delegated: Vec<String>,
    /// Pressure stall information.
    pub psi: Access,
    /// The kernel's log.
    pub kmsg: Access,
    /// `kernel.dmesg_restrict`.
    pub dmesg_restrict: Option<i64>,
    /// Memory that the agent's own cgroup may take, in bytes; `None` when there is no limit.
    pub memory_limit: Option<u64>,
    /// The clock that time stamps come from.
    pub clock_source: String,
}

impl Facts {
    /// Reads them.
    #[must_use]
    pub fn read(root: &Root) -> Self {
        let text = |path: &str| read(root, path).unwrap_or_default();
        let number = |path: &str| text(path).trim().parse::<i64>().ok();
        let mounts = text("proc/self/mountinfo");
        let unified = mount_point(root).ok();
        let list = |name: &str| {
            let file = unified.as_ref().and_then(|mount| fs::read_to_string(mount.join(name)).ok());
            words(&file.unwrap_or_default())
        };
        Self {
            kernel_release: text("proc/sys/kernel/osrelease").trim().to_owned(),
            capabilities: capabilities(&text("proc/self/status")),
            lockdown: bracketed(&text("sys/kernel/security/lockdown")),
            btf: Access::of(fs::File::open(root.path("sys/kernel/btf/vmlinux"))),
            tracefs: tracefs(root),
            trampolines: !text("sys/kernel/tracing/available_filter_functions").is_empty(),
            perf_event_paranoid: number("proc/sys/kernel/perf_event_paranoid"),
            unprivileged_bpf_disabled: number("proc/sys/kernel/unprivileged_bpf_disabled"),
            bpf_stats: number("proc/sys/kernel/bpf_stats_enabled"),
            jit: number("proc/sys/net/core/bpf_jit_enable"),
            cgroup2: unified.is_some(),
            cgroup1: cgroup1(&mounts),
            controllers: list("cgroup.controllers"),
            delegated: list("cgroup.subtree_control"),
            psi: Access::of(read(root, "proc/pressure/cpu")),
            kmsg: kmsg(root),
            dmesg_restrict: number("proc/sys/kernel/dmesg_restrict"),
            memory_limit: memory_limit(root, &text("proc/self/cgroup"), &mounts),
            clock_source: text("sys/devices/system/clocksource/clocksource0/current_clocksource")
                .trim()
                .to_owned(),
        }
    }
}

/// The file's beginning, whatever bytes it holds.
fn read(root: &Root, path: &str) -> io::Result<String> {
    use io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(root.path(path))?.take(TEXT_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The effective set in a /proc/PID/status.
fn capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The word that is chosen in a list as `none [integrity] confidentiality`.
fn bracketed(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

fn tracefs(root: &Root) -> Access {
    let found = ["sys/kernel/tracing/events", "sys/kernel/debug/tracing/events"]
        .map(|path| Access::of(fs::read_dir(root.path(path))));
    if found.contains(&Access::Usable) {
        Access::Usable
    } else if found.contains(&Access::Denied) {
        Access::Denied
    } else {
        Access::Absent
    }
}

fn kmsg(root: &Root) -> Access {
    let flags = OFlag::O_NONBLOCK.bits();
    let path = root.path("dev/kmsg");
    Access::of(OpenOptions::new().read(true).custom_flags(flags).open(path))
}

/// Controllers of the mounted hierarchies of version 1.
fn cgroup1(mounts: &str) -> Vec<String> {
    const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "blkio", "pids"];
    let options = mounts.lines().filter_map(|line| {
        let mut system = line.split_once(" - ")?.1.split(' ');
        (system.next() == Some("cgroup")).then(|| system.nth(1)).flatten()
    });
    let mut found: Vec<String> = options
        .flat_map(|options| options.split(','))
        .filter(|option| CONTROLLERS.contains(option))
        .map(str::to_owned)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The smallest limit of the process's own cgroup and those above it.
fn memory_limit(root: &Root, cgroups: &str, mounts: &str) -> Option<u64> {
    let mut limits = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (mount, file) = if controllers.is_empty() {
            (mount_point(root).ok(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (memory_mount(root, mounts), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let Some(mount) = mount else { continue };
        let mut path = path.trim_start_matches('/');
        // Bounded: each turn takes a component off.
        loop {
            let limit = fs::read_to_string(mount.join(path).join(file));
            limits.extend(limit.ok().and_then(|limit| limit.trim().parse::<u64>().ok()));
            if path.is_empty() {
                break;
            }
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    // Version 1 writes "no limit" as a number near the largest.
    limits.into_iter().min().filter(|&limit| limit < 1 << 60)
}

fn memory_mount(root: &Root, mounts: &str) -> Option<std::path::PathBuf> {
    let point = mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let is = system.next() == Some("cgroup")
            && system.nth(1).is_some_and(|options| options.split(',').any(|o| o == "memory"));
        is.then(|| mount.split(' ').nth(4)).flatten()
    })?;
    Some(root.path(point.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                let path = tree.0.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }

        fn facts(&self) -> Facts {
            Facts::read(&Root::new(self.0.path()))
        }
    }

    #[test]
    fn a_modern_host_is_read_in_full() {
        let facts = Tree::new(&[
            ("proc/sys/kernel/osrelease", "6.18.5\n"),
            ("proc/self/status", "Name:\tx\nCapEff:\t000000c000000000\n"),
            ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
            ("sys/kernel/btf/vmlinux", "x"),
            ("sys/kernel/tracing/events/x", ""),
            ("proc/sys/kernel/perf_event_paranoid", "-1\n"),
            ("proc/self/mountinfo", "1 0 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
            ("sys/fs/cgroup/cgroup.subtree_control", "cpu\n"),
            ("proc/self/cgroup", "0::/system.slice/a.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "2000\n"),
            ("sys/fs/cgroup/system.slice/a.service/memory.max", "max\n"),
            ("proc/pressure/cpu", "some\n"),
            ("dev/kmsg", ""),
        ])
        .facts();
        assert_eq!((facts.kernel_release.as_str(), facts.capabilities), ("6.18.5", Some(3 << 38)));
        assert_eq!(
            (facts.lockdown.as_deref(), facts.perf_event_paranoid),
            (Some("integrity"), Some(-1))
        );
        assert!(facts.cgroup2 && facts.cgroup1.is_empty() && facts.controllers.len() == 2);
        assert_eq!((facts.delegated.len(), facts.memory_limit), (1, Some(2000)));
        for access in [facts.btf, facts.tracefs, facts.psi, facts.kmsg] {
            assert_eq!(access, Access::Usable);
        }
    }

    #[test]
    fn a_hybrid_host_and_one_that_tells_nothing() {
        let mount = "1 0 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                     2 0 0:3 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                     3 0 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let facts = Tree::new(&[
            ("proc/self/mountinfo", mount),
            ("proc/self/cgroup", "5:memory:/a\n0::/\nodd\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/unified/cgroup.controllers", "\n"),
        ])
        .facts();
        assert_eq!(facts.cgroup1, ["cpu", "cpuacct", "memory"]);
        assert_eq!((facts.cgroup2, facts.memory_limit), (true, Some(4096)));
        let nothing = Facts::read(&Root::new("/nonexistent"));
        assert_eq!(nothing, Facts::default());
        let odd = Tree::new(&[
            ("proc/self/status", "CapEff:\tnonsense\n"),
            ("sys/kernel/security/lockdown", "]none["),
            ("proc/sys/kernel/perf_event_paranoid", "99999999999999999999"),
        ]);
        assert_eq!(odd.facts(), Facts::default());
    }
}
