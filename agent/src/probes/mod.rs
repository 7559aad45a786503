//! Probes: everything that yields signals.
//!
//! A probe reads its source once a tick and writes what it read into the frame.
//! It is one file and one row of [`PROBES`]. Level 0 probes read files and always
//! work; level 2 probes read what eBPF programs counted ([`crate::kernel`]).

mod block;
mod cgroup;
mod counted;
mod drops;
mod exit;
mod irq;
mod kmsg;
mod labels;
mod lifecycle;
mod memory;
mod mounts;
mod own;
mod pressure;
mod procfs;
mod sched;
mod sockets;
mod sync;
mod tasks;
mod tcp;

use crate::conditions::Evidence;
use crate::frame::Frame;
use crate::host::Root;
use crate::kernel::Kernel;
use crate::losses::Losses;
use crate::units::SharedMembers;

/// What a probe needs to open its source.
pub struct Context<'a> {
    /// Where the host's /proc, /sys and cgroups are.
    pub root: &'a Root,
    /// The loaded eBPF programs; `Err` when eBPF cannot be used here, with the reason.
    pub kernel: Result<&'a Kernel, &'a str>,
    /// The cgroups that have a slot, kept current; `Err` when there are none to be had, with the reason.
    pub members: Result<&'a SharedMembers, &'a str>,
    /// The agent's own loss counters.
    pub losses: &'a Losses,
}

/// An opened source of signals.
pub trait Probe {
    /// Reads the source and writes into `frame`. Signals that cannot be read
    /// stay `NaN`.
    ///
    /// # Errors
    ///
    /// When nothing at all could be read: one plain sentence, shown as the
    /// probe's reason until a later read works.
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String>;

    /// Appends what it found since the last call that speaks for or against a
    /// condition of the host ([`crate::conditions`]).
    fn evidence(&mut self, _out: &mut Vec<Evidence>) {}

    /// What is missing although the probe works; `None` when nothing is.
    fn degraded(&self) -> Option<&str> {
        None
    }
}

/// One row of the probe table.
pub struct Spec {
    /// Name, as in `catalogue::Signal::probe`.
    pub name: &'static str,
    /// What it watches, in one sentence.
    pub doc: &'static str,
    /// 0: files only. 2: eBPF with kernel BTF.
    pub level: u8,
    /// eBPF programs it reads, by program name; empty at level 0.
    pub programs: &'static [&'static str],
    /// Opens the source; the error is one plain sentence that says why it cannot
    /// be had and, where there is a way, how to get it.
    pub open: fn(&Context<'_>) -> Result<Box<dyn Probe>, String>,
}

/// The probes, in the order they are read. The procfs probe comes first because it
/// gives devices their rows; "self" comes last because it sees what the others lost.
pub const PROBES: &[Spec] = &[
    Spec {
        name: "procfs",
        doc: "CPU, memory, disks and network of the host from /proc",
        level: 0,
        programs: &[],
        open: procfs::open,
    },
    Spec {
        name: "pressure",
        doc: "Pressure stall information of the host from /proc/pressure",
        level: 0,
        programs: &[],
        open: pressure::open,
    },
    Spec {
        name: "cgroup",
        doc: "CPU, memory, I/O, tasks and pressure of each unit from its cgroup's files",
        level: 0,
        programs: &[],
        open: cgroup::open,
    },
    Spec {
        name: "sockets",
        doc: "Round-trip times and accept queues of each unit's TCP sockets from the kernel's socket diagnostics",
        level: 0,
        programs: &[],
        open: sockets::open,
    },
    Spec {
        name: "kmsg",
        doc: "Trouble that the kernel's log tells of: disks, file systems, CPUs, memory",
        level: 0,
        programs: &[],
        open: kmsg::open,
    },
    Spec {
        name: "mounts",
        doc: "File systems on block devices that turned read-only, from /proc/self/mountinfo",
        level: 0,
        programs: &[],
        open: mounts::open,
    },
    sched::SPEC,
    irq::SPEC,
    block::SPEC,
    memory::RECLAIM,
    memory::OOM,
    memory::COMPACTION,
    sync::SPEC,
    tasks::SPEC,
    tcp::SPEC,
    drops::SPEC,
    exit::SPEC,
    lifecycle::SPEC,
    Spec {
        name: "self",
        doc: "What the agent itself costs and had to drop",
        level: 0,
        programs: &[],
        open: own::open,
    },
];

/// The kernel side, which a probe of level 2 cannot be opened without.
fn kernel_of(kernel: Option<&Kernel>) -> Result<&Kernel, String> {
    kernel.ok_or_else(|| "the eBPF programs are no longer loaded".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::catalogue::SIGNALS;

    #[test]
    fn every_signal_has_its_probe_and_every_probe_a_signal() {
        let probes: BTreeSet<_> = PROBES.iter().map(|spec| spec.name).collect();
        let named: BTreeSet<_> = SIGNALS.iter().map(|signal| signal.probe).collect();
        assert_eq!(probes, named);
        assert_eq!(probes.len(), PROBES.len(), "a name twice");
    }

    #[test]
    fn levels_and_programs_agree() {
        for spec in PROBES {
            assert_eq!(spec.level == 0, spec.programs.is_empty(), "{}", spec.name);
            assert!(!spec.doc.ends_with('.'), "{}", spec.name);
        }
    }
}
