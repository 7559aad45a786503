//! The kernel's log: what it says of broken disks, file systems, CPUs and memory.
//!
//! At the start the log of this boot is read from its beginning, so that what
//! broke before the agent came is known; then each tick what was added. Lines that
//! user space wrote are left out: anybody with the right to could feign a broken disk.

mod pattern;
mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};

use super::{Context, Probe};
use crate::catalogue::{
    LOG_CRITICAL, LOG_DISK, LOG_ERRORS, LOG_FILESYSTEM, LOG_HARDWARE, LOG_LOCKUPS, LOG_WARNINGS,
    SignalId,
};
use crate::conditions::{
    DISK_CONTROLLER, DISK_IO_ERROR, Evidence, FILESYSTEM_ERROR, FILESYSTEM_READ_ONLY, HARD_LOCKUP,
    HARDWARE_ERROR, HUNG_TASK, Kind, MACHINE_CHECK, MEMORY_ERROR, OUT_OF_MEMORY, RCU_STALL,
    SOFT_LOCKUP,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::attest::is_attest_cgroup;
use crate::losses::{Cause, Losses};
use crate::units::name;
use pattern::find;
use record::{Lines, Record};

/// Most records read in one tick, and while the past is read. A read takes a microsecond or two.
const PER_TICK: usize = 512;
const PER_TICK_OF_HISTORY: usize = 8192;
/// Longest record: `CONSOLE_EXT_LOG_MAX` of the kernel.
const RECORD_BYTES: usize = 8192;
/// Most findings kept until they are handed over.
const FINDINGS: usize = 1024;

/// Which counter each kind of trouble belongs to.
const COUNTED: &[(SignalId, &[&Kind])] = &[
    (LOG_DISK, &[&DISK_IO_ERROR, &DISK_CONTROLLER]),
    (LOG_FILESYSTEM, &[&FILESYSTEM_ERROR, &FILESYSTEM_READ_ONLY]),
    (LOG_LOCKUPS, &[&SOFT_LOCKUP, &HARD_LOCKUP, &RCU_STALL, &HUNG_TASK]),
    (LOG_HARDWARE, &[&MACHINE_CHECK, &HARDWARE_ERROR, &MEMORY_ERROR]),
];

/// The clock of the kernel's log against the boot-time clock.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    now: BootTime,
    /// Time that the host was suspended so far. A line from before a suspend looks
    /// younger than it is by that suspend, as its stamp does not tell which came later.
    suspended: Duration,
}

impl Clocks {
    fn read() -> Self {
        let now = BootTime::now();
        let awake = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let suspended = now.since_boot().saturating_sub(awake.unwrap_or(now.since_boot()));
        Self { now, suspended }
    }

    fn boot_time(self, stamp: Duration) -> BootTime {
        BootTime::new(stamp.saturating_add(self.suspended)).min(self.now)
    }
}

struct Log {
    file: File,
    lines: Lines,
    buffer: Vec<u8>,
    /// Whether what was there at the start is not yet read to its end.
    history: bool,
    findings: Vec<Evidence>,
    counts: Counts,
    losses: Losses,
}

#[derive(Debug, Default)]
struct Counts {
    critical: u64,
    errors: u64,
    warnings: u64,
    by_kind: [u64; COUNTED.len()],
}

pub(super) fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let path = context.root.path("dev/kmsg");
    let file = open_log(&path).map_err(|error| reason(&error))?;
    Ok(Box::new(Log {
        file,
        lines: Lines::default(),
        buffer: vec![0; RECORD_BYTES],
        history: true,
        findings: Vec::new(),
        counts: Counts::default(),
        losses: context.losses.clone(),
    }))
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no /dev/kmsg, so the kernel's log cannot be read; a unit needs \
             DeviceAllow=/dev/kmsg r with DevicePolicy=closed in place of PrivateDevices=yes"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "the kernel's log may not be read; that needs CAP_SYSLOG (kernel.dmesg_restrict is 1) \
             and the right to open /dev/kmsg"
                .to_owned()
        }
        _ => format!("the kernel's log cannot be read: {error}"),
    }
}

impl Log {
    /// Reads what was added; `Ok(true)` when all of it was read.
    fn advance(&mut self, clocks: Clocks) -> io::Result<bool> {
        let most = if self.history { PER_TICK_OF_HISTORY } else { PER_TICK };
        for _ in 0..most {
            let n = match self.file.read(&mut self.buffer) {
                Ok(0) => return Ok(true),
                Ok(n) => n,
                Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                    Errno::EAGAIN => return Ok(true),
                    Errno::EINTR => continue,
                    // Overwritten before it was read (how much, the kernel does not
                    // say); the next read goes on with the oldest there is.
                    Errno::EPIPE => {
                        self.losses.add(Cause::KernelLog, 1);
                        continue;
                    }
                    // Longer than any record should be; it is skipped.
                    Errno::EINVAL => {
                        self.losses.add(Cause::KernelLog, 1);
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let Self { lines, buffer, history, findings, counts, losses, .. } = self;
            let bytes = buffer.get(..n).unwrap_or_default();
            let too_long = lines.feed(bytes, |line| {
                let Some(record) = Record::parse(line) else { return };
                let found = understand(&record, *history, clocks);
                if !*history {
                    counts.add(record.level, found.as_ref());
                }
                let Some(found) = found else { return };
                if findings.len() < FINDINGS {
                    findings.push(found);
                } else {
                    losses.add(Cause::KernelLog, 1);
                }
            });
            self.losses.add(Cause::KernelLog, too_long);
        }
        Ok(false)
    }
}

fn understand(record: &Record<'_>, history: bool, clocks: Clocks) -> Option<Evidence> {
    let (pattern, instance) = find(record.text)?;
    // What attestation provokes when asked to is no trouble of the host.
    if pattern.kind == &OUT_OF_MEMORY && is_attest_cgroup(instance) {
        return None;
    }
    // The stamp of a line just written is less exact than the present: the log's
    // clock runs freely and drifts from the one that time servers correct.
    let at = if history { clocks.boot_time(record.at) } else { clocks.now };
    Some(Evidence {
        kind: pattern.kind,
        instance: instance_of(pattern.kind, instance),
        stands: pattern.stands,
        detail: record.text.to_owned(),
        at,
        history,
    })
}

/// The kernel names a group of processes by its path, people by its unit.
fn instance_of(kind: &Kind, text: &str) -> String {
    if kind == &OUT_OF_MEMORY && !text.is_empty() {
        return name::of(text.trim_start_matches('/')).text;
    }
    text.to_owned()
}

impl Counts {
    fn add(&mut self, level: u32, found: Option<&Evidence>) {
        match level {
            0..=2 => self.critical += 1,
            3 => self.errors += 1,
            4 => self.warnings += 1,
            _ => {}
        }
        let Some(found) = found.filter(|found| found.stands) else { return };
        for ((_, kinds), count) in COUNTED.iter().zip(&mut self.by_kind) {
            *count += u64::from(kinds.iter().any(|kind| kind.name == found.kind.name));
        }
    }
}

impl Probe for Log {
    fn read(&mut self, _: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let read_all = self.advance(Clocks::read()).map_err(|error| reason(&error))?;
        self.history &= !read_all;
        frame.set(LOG_CRITICAL, 0, self.counts.critical as f64);
        frame.set(LOG_ERRORS, 0, self.counts.errors as f64);
        frame.set(LOG_WARNINGS, 0, self.counts.warnings as f64);
        for ((signal, _), count) in COUNTED.iter().zip(self.counts.by_kind) {
            frame.set(*signal, 0, count as f64);
        }
        Ok(())
    }

    fn evidence(&mut self, out: &mut Vec<Evidence>) {
        // The past is told as a whole: what it began it may have ended.
        if !self.history {
            out.append(&mut self.findings);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::conditions::{Conditions, LINK_DOWN};
    use crate::frame::Shape;
    use crate::host::Root;

    struct Host {
        dir: tempfile::TempDir,
        losses: Losses,
        frame: Frame,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("dev")).unwrap();
            let frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 1 });
            Self { dir, losses: Losses::default(), frame }
        }

        fn log(&self, text: &str) {
            let path = self.dir.path().join("dev/kmsg");
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn open(&self) -> Result<Box<dyn Probe>, String> {
            let root = Root::new(self.dir.path());
            let context =
                Context { root: &root, kernel: Err("-"), members: Err("-"), losses: &self.losses };
            open(&context)
        }

        fn read(&mut self, probe: &mut dyn Probe) -> Vec<Evidence> {
            probe.read(None, &mut self.frame).unwrap();
            let mut out = Vec::new();
            probe.evidence(&mut out);
            out
        }
    }

    #[test]
    fn the_past_is_known_and_what_follows_is_counted() {
        let mut host = Host::new();
        host.log(
            "6,1,100,-;Linux version 6.18\n SUBSYSTEM=x\n3,2,200,-;I/O error, dev sda, sector 1 op\n",
        );
        let mut probe = host.open().unwrap();
        let found = host.read(&mut *probe);
        assert_eq!(found.len(), 1);
        assert!(found[0].history && found[0].kind == &DISK_IO_ERROR && found[0].instance == "sda");
        assert_eq!(host.frame.get(LOG_DISK, 0), 0.0, "not since the agent looks");
        // What a program wrote has another facility than the kernel's.
        host.log("11,3,300,-;EXT4-fs error (device sda1): feigned\n");
        host.log("3,4,400,-;Buffer I/O error on dev sda1, logical block 0, async page read\n4,5,");
        let found = host.read(&mut *probe);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].history && found[0].instance == "sda1");
        host.log("500,-;e1000e 0000:00:19.0 eth0: NIC Link is Down\n");
        let found = host.read(&mut *probe);
        assert!(found.len() == 1 && found[0].kind == &LINK_DOWN, "a line in two pieces");
        for (signal, count) in
            [(LOG_DISK, 1.0), (LOG_FILESYSTEM, 0.0), (LOG_ERRORS, 1.0), (LOG_WARNINGS, 1.0)]
        {
            assert_eq!(host.frame.get(signal, 0), count, "{}", signal.signal().name);
        }
        host.log("6,6,600,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/system.slice/a.service,task_memcg=/system.slice/a.service,task=x,pid=1,uid=0\n");
        assert_eq!(host.read(&mut *probe)[0].instance, "a.service");
        host.log("6,7,700,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/x/holdfast-attest-7,task_memcg=/x/holdfast-attest-7,task=x,pid=1,uid=0\n");
        assert!(host.read(&mut *probe).is_empty());
        assert_eq!(host.losses.total(), 0);
    }

    #[test]
    fn garbage_and_floods_are_bounded_and_counted() {
        let mut host = Host::new();
        host.log(&"\u{1}\u{ff}garbage;\n,,,;\n".repeat(1000));
        host.log(
            &"3,2,18446744073709551615,-;I/O error, dev sda, sector 1\n".repeat(FINDINGS + 10),
        );
        host.log(&"x".repeat(100_000));
        let mut probe = host.open().unwrap();
        let found = host.read(&mut *probe);
        assert_eq!(found.len(), FINDINGS);
        assert!(found.iter().all(|found| found.at <= BootTime::now()));
        assert!(host.losses.total() >= 10);
        let mut conditions = Conditions::default();
        let now = BootTime::now();
        found.into_iter().for_each(|found| conditions.take(found, now));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn without_the_log_it_says_what_is_needed() {
        let host = Host::new();
        assert!(host.open().err().unwrap().contains("no /dev/kmsg"));
        assert!(reason(&Errno::EPERM.into()).contains("CAP_SYSLOG"));
    }

    #[test]
    fn suspend_is_added_to_the_stamps() {
        let at = |seconds| BootTime::new(Duration::from_secs(seconds));
        let clocks = Clocks { now: at(10_000), suspended: Duration::from_secs(7_000) };
        assert_eq!(clocks.boot_time(Duration::from_secs(2_000)), at(9_000));
        assert_eq!(clocks.boot_time(Duration::from_secs(5_000)), at(10_000), "never the future");
        assert_eq!(clocks.boot_time(Duration::MAX), at(10_000));
    }
}
