//! The kinds of conditions, one row each, with the rule that clears it.

use std::time::Duration;

use crate::report::Severity;

/// What can be looked at to see whether a condition still stands. A look that
/// tells nothing leaves it standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The instance is `NAME:PID`: it stands while that task sleeps uninterruptibly.
    Task,
    /// The instance is a network interface: it stands while that is there and not up.
    Interface,
    /// The instance is a block device: it stands while a file system on it is
    /// mounted and read-only.
    ReadOnly,
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Kind of the event when it is raised.
    pub name: &'static str,
    /// Kind of the event when it is cleared.
    pub cleared: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What it is, as the beginning of a sentence.
    pub title: &'static str,
    /// What its instance is; names the event's field.
    pub of: &'static str,
    /// It ends when no evidence came for so long. `None`: only its opposite, or the
    /// check, ends it.
    pub quiet: Option<Duration>,
    /// It ends when the present state says so.
    pub check: Option<Check>,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

macro_rules! kinds {
    ($($id:ident = $name:literal, $severity:ident, $title:literal, $of:literal, $quiet:expr, $check:expr;)+) => {
        $(#[doc = concat!("`", $name, "`: ", $title)]
        pub static $id: Kind = Kind {
            name: $name,
            cleared: concat!($name, ".cleared"),
            severity: Severity::$severity,
            title: $title,
            of: $of,
            quiet: match $quiet { 0 => None, seconds => Some(Duration::from_secs(seconds)) },
            check: $check,
        };)+
        /// All kinds.
        pub static KINDS: &[&Kind] = &[$(&$id,)+];
    };
}

// How long to wait for silence: longer than the kernel's own pause between two
// reports of the same thing (a soft lockup is reported every 20 s or so), and long
// enough that an error met now and then is one condition.
kinds! {
    DISK_IO_ERROR = "disk.io_error", Critical, "I/O errors on", "device", 10 * MINUTE, None;
    DISK_CONTROLLER = "disk.controller_failed", Critical, "the disk controller fails:", "controller", HOUR, None;
    // Errors stay on the disk: unmounting (for a check) is what ends it, or a day of silence.
    FILESYSTEM_ERROR = "filesystem.error", Critical, "the file system is damaged on", "device", 24 * HOUR, None;
    FILESYSTEM_READ_ONLY = "filesystem.read_only", Critical, "the file system turned read-only on", "device", 0, Some(Check::ReadOnly);
    SOFT_LOCKUP = "cpu.soft_lockup", Critical, "the kernel hangs on CPU", "cpu", 3 * MINUTE, None;
    HARD_LOCKUP = "cpu.hard_lockup", Critical, "the kernel hangs, interrupts off, on CPU", "cpu", 10 * MINUTE, None;
    RCU_STALL = "cpu.rcu_stall", Critical, "a CPU holds up the kernel's RCU", "cpu", 5 * MINUTE, None;
    // The kernel stops to report hung tasks after ten: silence means little, the task's state much.
    HUNG_TASK = "cpu.hung_task", Critical, "a task hangs in the kernel:", "task", HOUR, Some(Check::Task);
    OVERHEATING = "cpu.overheating", Warning, "too hot, so slowed down: CPU", "cpu", HOUR, None;
    MACHINE_CHECK = "cpu.machine_check", Critical, "the hardware reports machine checks, CPU", "cpu", HOUR, None;
    HARDWARE_ERROR = "memory.hardware_error", Critical, "memory has errors that cannot be corrected:", "controller", 24 * HOUR, None;
    MEMORY_ERROR = "memory.corrected_error", Warning, "memory has errors that were corrected:", "controller", 24 * HOUR, None;
    OUT_OF_MEMORY = "memory.exhausted", Critical, "memory ran out and processes are killed:", "unit", 10 * MINUTE, None;
    LINK_DOWN = "network.link_down", Warning, "no link on", "interface", 0, Some(Check::Interface);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_ends_somehow_and_has_a_name_of_its_own() {
        let names: BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in KINDS {
            assert!(holdfast_proto::limits::is_signal_name(kind.name), "{}", kind.name);
            assert_eq!(kind.cleared, format!("{}.cleared", kind.name));
            assert!(kind.quiet.is_some() || kind.check.is_some(), "{} never ends", kind.name);
        }
    }
}
