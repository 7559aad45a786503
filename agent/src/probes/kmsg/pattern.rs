//! Which lines of the kernel's log mean what: a table, and the little language of
//! its templates. Pure.
//!
//! In a template `{}` is the instance, `*` is anything, the rest is literal. It
//! must match from the beginning of the line; what follows it may be anything. The
//! instance ends where the text after `{}` begins, or at the first space, comma,
//! colon or bracket when nothing follows; after a `*` it is one word.
//!
//! The texts are those of the kernel's sources, 4.19 to 6.18; where a text changed,
//! each form has its row.

use crate::conditions::{
    DISK_CONTROLLER, DISK_IO_ERROR, FILESYSTEM_ERROR, FILESYSTEM_READ_ONLY, HARD_LOCKUP,
    HARDWARE_ERROR, HUNG_TASK, Kind, LINK_DOWN, MACHINE_CHECK, MEMORY_ERROR, OUT_OF_MEMORY,
    OVERHEATING, RCU_STALL, SOFT_LOCKUP,
};

/// One row.
pub(super) struct Pattern {
    /// What the line looks like.
    pub(super) template: &'static str,
    /// What it speaks for, or against.
    pub(super) kind: &'static Kind,
    /// For it; against it otherwise.
    pub(super) stands: bool,
}

const fn raises(template: &'static str, kind: &'static Kind) -> Pattern {
    Pattern { template, kind, stands: true }
}

const fn clears(template: &'static str, kind: &'static Kind) -> Pattern {
    Pattern { template, kind, stands: false }
}

/// The table; the first row that matches counts.
pub(super) static PATTERNS: &[Pattern] = &[
    // block/blk-core.c: "%s error, dev %s, sector %llu op …", before 5.16 with the
    // function's name in front. "critical target" and "operation not supported" are
    // left out: discards that a disk does not know cause them every day.
    raises("I/O error, dev {}, sector", &DISK_IO_ERROR),
    raises("*: I/O error, dev {}, sector", &DISK_IO_ERROR),
    raises("critical medium error, dev {}, sector", &DISK_IO_ERROR),
    raises("*: critical medium error, dev {}, sector", &DISK_IO_ERROR),
    raises("timeout error, dev {}, sector", &DISK_IO_ERROR),
    raises("*: timeout error, dev {}, sector", &DISK_IO_ERROR),
    raises("protection error, dev {}, sector", &DISK_IO_ERROR),
    raises("*: protection error, dev {}, sector", &DISK_IO_ERROR),
    raises("device offline error, dev {}, sector", &DISK_IO_ERROR),
    // fs/buffer.c
    raises("Buffer I/O error on dev {}, logical block", &DISK_IO_ERROR),
    raises("Buffer I/O error on device {}, logical block", &DISK_IO_ERROR),
    // drivers/nvme/host/pci.c and core.c. The number of queues is printed when the
    // controller works again.
    raises("nvme {}: controller is down; will reset", &DISK_CONTROLLER),
    raises("nvme {}: Disabling device after reset failure", &DISK_CONTROLLER),
    raises("nvme {}: Removing after probe failure", &DISK_CONTROLLER),
    raises("nvme {}: Device not ready; aborting", &DISK_CONTROLLER),
    raises("nvme {}: I/O *timeout, reset controller", &DISK_CONTROLLER),
    clears("nvme {}: */*default/read/poll queues", &DISK_CONTROLLER),
    // fs/ext4/super.c
    raises("EXT4-fs ({}): Remounting filesystem read-only", &FILESYSTEM_READ_ONLY),
    raises("EXT4-fs error (device {})", &FILESYSTEM_ERROR),
    clears("EXT4-fs ({}): unmounting filesystem", &FILESYSTEM_ERROR),
    // fs/xfs: xfs_error.c, xfs_fsops.c, xfs_buf.c
    raises("XFS ({}): *orruption", &FILESYSTEM_ERROR),
    raises("XFS ({}): Internal error", &FILESYSTEM_ERROR),
    raises("XFS ({}): metadata I/O error", &FILESYSTEM_ERROR),
    raises("XFS ({}): log I/O error", &FILESYSTEM_ERROR),
    raises("XFS ({}): Log I/O Error", &FILESYSTEM_ERROR),
    raises("XFS ({}): Filesystem has been shut down due to", &FILESYSTEM_ERROR),
    clears("XFS ({}): Unmounting Filesystem", &FILESYSTEM_ERROR),
    // fs/btrfs/messages.c; the device may be followed by " state …".
    raises("BTRFS error (device {}", &FILESYSTEM_ERROR),
    raises("BTRFS critical (device {}", &FILESYSTEM_ERROR),
    raises("BTRFS: error (device {}", &FILESYSTEM_ERROR),
    clears("BTRFS info (device {}): last unmount of filesystem", &FILESYSTEM_ERROR),
    // kernel/watchdog.c
    raises("watchdog: BUG: soft lockup - CPU#{} stuck", &SOFT_LOCKUP),
    raises("NMI watchdog: BUG: soft lockup - CPU#{} stuck", &SOFT_LOCKUP),
    raises("*Watchdog detected hard LOCKUP on cpu {}", &HARD_LOCKUP),
    // kernel/rcu/tree_stall.h
    raises("*INFO: rcu*detected stall", &RCU_STALL),
    raises("*INFO: rcu*detected expedited stalls", &RCU_STALL),
    // kernel/hung_task.c; names of tasks may hold spaces.
    raises("INFO: task {} blocked *for more than", &HUNG_TASK),
    // arch/x86/kernel/cpu/mce
    raises("mce: [Hardware Error]: CPU {}: Machine Check", &MACHINE_CHECK),
    raises("[Hardware Error]: CPU {}: Machine Check", &MACHINE_CHECK),
    raises("mce: [Hardware Error]: Machine check events logged", &MACHINE_CHECK),
    // drivers/thermal/intel/therm_throt.c, before 5.6 without "is"
    raises("*CPU{}: Core temperature*above threshold", &OVERHEATING),
    raises("*CPU{}: Package temperature*above threshold", &OVERHEATING),
    clears("*CPU{}: Core temperature/speed normal", &OVERHEATING),
    clears("*CPU{}: Package temperature/speed normal", &OVERHEATING),
    // drivers/edac/edac_mc.c: "%d UE %s on %s …"; mm/memory-failure.c
    raises("EDAC {}: * UE ", &HARDWARE_ERROR),
    raises("EDAC {}: * CE ", &MEMORY_ERROR),
    raises("Memory failure: *recovery action for", &HARDWARE_ERROR),
    // mm/oom_kill.c: the summary line names the group that ran out since 4.19;
    // without a limit it is the host.
    raises("oom-kill:constraint=CONSTRAINT_MEMCG,*oom_memcg={},task_memcg=", &OUT_OF_MEMORY),
    raises("Out of memory: Kill", &OUT_OF_MEMORY),
    // Network drivers: "…: eth0: NIC Link is Down", "… eth0: Link is Up - 1Gbps/Full …"
    raises("*{}: *ink is Down", &LINK_DOWN),
    raises("*{}: *ink is down", &LINK_DOWN),
    raises("*{}: Link down", &LINK_DOWN),
    clears("*{}: *ink is Up", &LINK_DOWN),
    clears("*{}: *ink is up", &LINK_DOWN),
    clears("*{}: Link up", &LINK_DOWN),
];

/// What `line` says: the row and the instance.
pub(super) fn find(line: &str) -> Option<(&'static Pattern, &str)> {
    PATTERNS.iter().find_map(|pattern| Some((pattern, matches(pattern.template, line)?)))
}

/// The instance in `line`, empty when the template has none; `None` when it does not match.
fn matches<'l>(template: &str, line: &'l str) -> Option<&'l str> {
    let (mut template, mut line, mut instance) = (template, line, "");
    while !template.is_empty() {
        let any = template.starts_with('*');
        template = template.strip_prefix('*').unwrap_or(template);
        let named = template.starts_with("{}");
        template = template.strip_prefix("{}").unwrap_or(template);
        let (literal, rest) =
            template.split_at(template.find(['*', '{']).unwrap_or(template.len()));
        let skipped = if named && literal.is_empty() {
            line.find([' ', ',', ':', ')', ']']).unwrap_or(line.len())
        } else {
            line.find(literal)?
        };
        if !any && !named && skipped > 0 {
            return None;
        }
        let (before, after) = (line.get(..skipped)?, line.get(skipped..)?);
        if named {
            instance = if any { before.rsplit(' ').next()? } else { before };
            if instance.is_empty() {
                return None;
            }
        }
        (line, template) = (after.get(literal.len()..)?, rest);
    }
    Some(instance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::KINDS;

    /// Lines as kernels print them: what they mean, and of what.
    const LINES: &[(&str, &Kind, bool, &str)] = &[
        // 6.18, 5.10, 4.19
        (
            "I/O error, dev sda, sector 2056 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2",
            &DISK_IO_ERROR,
            true,
            "sda",
        ),
        (
            "blk_update_request: I/O error, dev sdb, sector 0 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0",
            &DISK_IO_ERROR,
            true,
            "sdb",
        ),
        ("print_req_error: I/O error, dev sdc, sector 1024", &DISK_IO_ERROR, true, "sdc"),
        (
            "blk_update_request: critical medium error, dev sda, sector 52 op 0x0:(READ) flags 0x0",
            &DISK_IO_ERROR,
            true,
            "sda",
        ),
        (
            "critical medium error, dev nvme0n1, sector 931 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
            &DISK_IO_ERROR,
            true,
            "nvme0n1",
        ),
        (
            "Buffer I/O error on dev dm-0, logical block 0, async page read",
            &DISK_IO_ERROR,
            true,
            "dm-0",
        ),
        (
            "Buffer I/O error on dev sda1, logical block 61, lost async page write",
            &DISK_IO_ERROR,
            true,
            "sda1",
        ),
        (
            "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff",
            &DISK_CONTROLLER,
            true,
            "nvme0",
        ),
        ("nvme nvme1: I/O 12 QID 3 timeout, reset controller", &DISK_CONTROLLER, true, "nvme1"),
        (
            "nvme nvme1: I/O tag 12 (000c) opcode 0x1 (Write) QID 3 timeout, reset controller",
            &DISK_CONTROLLER,
            true,
            "nvme1",
        ),
        ("nvme nvme0: Disabling device after reset failure: -19", &DISK_CONTROLLER, true, "nvme0"),
        ("nvme nvme0: 16/0/0 default/read/poll queues", &DISK_CONTROLLER, false, "nvme0"),
        (
            "EXT4-fs error (device loop0): trigger_test_error:129: comm bash: hello",
            &FILESYSTEM_ERROR,
            true,
            "loop0",
        ),
        (
            "EXT4-fs error (device dm-1) in ext4_reserve_inode_write:5764: Corrupt filesystem",
            &FILESYSTEM_ERROR,
            true,
            "dm-1",
        ),
        ("EXT4-fs (loop0): Remounting filesystem read-only", &FILESYSTEM_READ_ONLY, true, "loop0"),
        (
            "EXT4-fs (loop0): unmounting filesystem 161c69a1-0e4a-4821-ba50-3026d4c22f53.",
            &FILESYSTEM_ERROR,
            false,
            "loop0",
        ),
        (
            "XFS (sda2): Metadata corruption detected at xfs_agf_read_verify+0xe1/0x110 [xfs], xfs_agf block 0x1",
            &FILESYSTEM_ERROR,
            true,
            "sda2",
        ),
        (
            "XFS (sda2): Corruption of in-memory data (0x8) detected at xfs_defer_finish_noroll+0x27e/0x420 (fs/xfs/libxfs/xfs_defer.c:573).  Shutting down filesystem.",
            &FILESYSTEM_ERROR,
            true,
            "sda2",
        ),
        ("XFS (dm-3): log I/O error -5", &FILESYSTEM_ERROR, true, "dm-3"),
        (
            "XFS (dm-3): Filesystem has been shut down due to log error (0x2).",
            &FILESYSTEM_ERROR,
            true,
            "dm-3",
        ),
        (
            "XFS (dm-3): metadata I/O error in \"xfs_trans_read_buf_map+0x25d/0x530\" at daddr 0x2 len 1 error 5",
            &FILESYSTEM_ERROR,
            true,
            "dm-3",
        ),
        (
            "XFS (dm-3): Unmounting Filesystem 4c5d1ea2-0000-4e7a-93f0-6f3c0e2a7a11",
            &FILESYSTEM_ERROR,
            false,
            "dm-3",
        ),
        (
            "BTRFS error (device sdb): bad tree block start, mirror 1 want 30408704 have 0",
            &FILESYSTEM_ERROR,
            true,
            "sdb",
        ),
        (
            "BTRFS error (device sdb state EA): Transaction aborted (error -5)",
            &FILESYSTEM_ERROR,
            true,
            "sdb",
        ),
        (
            "BTRFS: error (device sdb) in btrfs_commit_transaction:2460: errno=-5 IO failure (Error while writing out transaction)",
            &FILESYSTEM_ERROR,
            true,
            "sdb",
        ),
        (
            "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [kworker/3:1:245]",
            &SOFT_LOCKUP,
            true,
            "3",
        ),
        (
            "NMI watchdog: BUG: soft lockup - CPU#11 stuck for 23s! [migration/11:60]",
            &SOFT_LOCKUP,
            true,
            "11",
        ),
        ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 2", &HARD_LOCKUP, true, "2"),
        ("watchdog: CPU2: Watchdog detected hard LOCKUP on cpu 2", &HARD_LOCKUP, true, "2"),
        ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", &RCU_STALL, true, ""),
        ("rcu: INFO: rcu_sched self-detected stall on CPU", &RCU_STALL, true, ""),
        ("INFO: rcu_sched self-detected stall on CPU", &RCU_STALL, true, ""),
        (
            "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-.... } 6 jiffies s: 77 root: 0x2/.",
            &RCU_STALL,
            true,
            "",
        ),
        (
            "INFO: task jbd2/sda1-8:345 blocked for more than 120 seconds.",
            &HUNG_TASK,
            true,
            "jbd2/sda1-8:345",
        ),
        (
            "INFO: task a b c:7 blocked in I/O wait for more than 122 seconds.",
            &HUNG_TASK,
            true,
            "a b c:7",
        ),
        (
            "mce: [Hardware Error]: CPU 4: Machine Check: 0 Bank 5: be00000000800400",
            &MACHINE_CHECK,
            true,
            "4",
        ),
        (
            "mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 4: b200000000070f0f",
            &MACHINE_CHECK,
            true,
            "0",
        ),
        ("mce: [Hardware Error]: Machine check events logged", &MACHINE_CHECK, true, ""),
        (
            "mce: CPU3: Core temperature is above threshold, cpu clock is throttled (total events = 1)",
            &OVERHEATING,
            true,
            "3",
        ),
        (
            "CPU3: Core temperature above threshold, cpu clock throttled (total events = 1)",
            &OVERHEATING,
            true,
            "3",
        ),
        ("mce: CPU3: Core temperature/speed normal (total events = 1)", &OVERHEATING, false, "3"),
        (
            "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x1 offset:0x0 grain:32)",
            &MEMORY_ERROR,
            true,
            "MC0",
        ),
        (
            "EDAC MC1: 1 UE ie31200 UE on mc#1csrow#0channel#0 (csrow:0 channel:0 page:0x0 offset:0x0 grain:8)",
            &HARDWARE_ERROR,
            true,
            "MC1",
        ),
        (
            "Memory failure: 0x1234: recovery action for dirty LRU page: Recovered",
            &HARDWARE_ERROR,
            true,
            "",
        ),
        (
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/system.slice/a.service,task_memcg=/system.slice/a.service,task=app,pid=20924,uid=0",
            &OUT_OF_MEMORY,
            true,
            "/system.slice/a.service",
        ),
        (
            "Out of memory: Killed process 1234 (app) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0",
            &OUT_OF_MEMORY,
            true,
            "",
        ),
        (
            "Out of memory: Kill process 1234 (app) score 905 or sacrifice child",
            &OUT_OF_MEMORY,
            true,
            "",
        ),
        ("e1000e 0000:00:19.0 eth0: NIC Link is Down", &LINK_DOWN, true, "eth0"),
        ("igb 0000:01:00.0 eno1: igb: eno1 NIC Link is Down", &LINK_DOWN, true, "eno1"),
        ("r8169 0000:02:00.0 enp2s0: Link is Down", &LINK_DOWN, true, "enp2s0"),
        ("mlx5_core 0000:3b:00.0 ens1f0: Link down", &LINK_DOWN, true, "ens1f0"),
        ("tg3 0000:03:00.0 eth2: Link is down", &LINK_DOWN, true, "eth2"),
        (
            "e1000e 0000:00:19.0 eth0: NIC Link is Up 1000 Mbps Full Duplex, Flow Control: Rx/Tx",
            &LINK_DOWN,
            false,
            "eth0",
        ),
        (
            "r8169 0000:02:00.0 enp2s0: Link is Up - 1Gbps/Full - flow control rx/tx",
            &LINK_DOWN,
            false,
            "enp2s0",
        ),
    ];

    #[test]
    fn lines_of_real_kernels_are_understood() {
        for (line, kind, stands, instance) in LINES {
            let found = find(line).map(|(p, instance)| (p.kind.name, p.stands, instance));
            assert_eq!(found, Some((kind.name, *stands, *instance)), "{line}");
        }
        for kind in KINDS {
            assert!(
                LINES.iter().any(|(_, of, ..)| of.name == kind.name),
                "no line of {}",
                kind.name
            );
        }
    }

    #[test]
    fn every_row_has_a_line() {
        let used: Vec<_> =
            LINES.iter().filter_map(|(line, ..)| Some(find(line)?.0.template)).collect();
        let rare = [
            "Package",
            "Log I/O Error",
            "Internal error",
            "critical (device",
            "[Hardware Error]: CPU {}",
        ];
        for Pattern { template, .. } in PATTERNS {
            let simple = rare.iter().any(|part| template.contains(part));
            let text = template
                .trim_start_matches("*: ")
                .trim_start_matches('*')
                .replace("{}", "x1")
                .replace('*', " ");
            assert!(used.contains(template) || simple || find(&text).is_some(), "{template}");
        }
    }

    #[test]
    fn everyday_and_odd_lines_mean_nothing() {
        for line in [
            "",
            "loop0: detected capacity change from 0 to 32768",
            "EXT4-fs (loop0): mounted filesystem 161c69a1 r/w with ordered data mode. Quota mode: none.",
            "operation not supported error, dev loop1, sector 0 op 0x9:(WRITE_ZEROES) flags 0x800",
            "critical target error, dev sda, sector 8 op 0x3:(DISCARD) flags 0x800",
            "I/O error, dev , sector",
            "I/O error, dev sda",
            "EXT4-fs error (device",
            "INFO: task blocked for more than",
            "IPv6: ADDRCONF(NETDEV_UP): eth0: link is not ready",
            "somebody says: EXT4-fs error (device sda)",
            "{}*{}",
            "ä: ink is Dow",
        ] {
            assert!(find(line).is_none(), "{line}");
        }
    }
}
