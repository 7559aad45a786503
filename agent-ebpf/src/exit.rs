//! Ends of processes: how many, by what, and an event for each that did not end well.

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::ProcessCell;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::records::kind;

use crate::support::count::{add_shared, exchange, lost};
use crate::support::events::{self, Subject};
use crate::support::kernel::{Pointer, identity, member, offset, setting, task_cgroup_id};
use crate::support::units::{self, MAPPED};

/// A row per unit slot: the agent sets the size.
#[btf_map]
pub static PROCESS: Array<ProcessCell, 1, MAPPED> = Array::new();

/// Ids of processes that were chosen to be killed because memory ran out and have not
/// ended yet; used only where the choice does not tell their unit.
#[btf_map]
pub static VICTIMS: HashMap<u32, u8, 64> = HashMap::new();

/// Which process was last counted as ended, by a part of its identity; used only where
/// the kernel does not say which of its threads was the last.
#[btf_map]
static ENDED: Array<u64, ENDED_ROWS> = Array::new();
const ENDED_ROWS: usize = 256;

/// `SIGNAL_GROUP_EXIT`: the whole process has one status.
const GROUP_EXIT: u32 = 4;
/// The part of a status that names the signal.
const SIGNAL_MASK: u32 = 0x7f;

/// A thread ends; with the last one, its process.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(ctx: BtfTracePointContext) {
    let task: Pointer = ctx.arg(0);
    // SAFETY: `task` is a task, and each member is followed by its own type.
    unsafe {
        if setting!(victim_is_task) == 0 {
            tell_victim(task);
        }
        let signal: Pointer = member(task, offset!(task_signal));
        let dead = if setting!(exit_says_dead) == 1 {
            ctx.arg::<u64>(1) & 1 == 1
        } else {
            member::<u32>(signal, offset!(signal_live)) == 0 && is_first(task, signal)
        };
        if !dead {
            return;
        }
        let leader: Pointer = member(task, offset!(task_leader));
        let status: u32 = if member::<u32>(signal, offset!(signal_flags)) & GROUP_EXIT != 0 {
            member(signal, offset!(signal_exit_code))
        } else {
            member(leader, offset!(task_exit_code))
        };
        let cgroup = task_cgroup_id(task);
        let Some(cell) = PROCESS.get_ptr_mut(units::slot(cgroup)) else {
            return lost(Loss::OutOfRange);
        };
        add_shared(&raw mut (*cell).exits, 1);
        // Threads that ended before have left theirs with the process, but for the first.
        let mut faults: u64 = member(signal, offset!(signal_major_faults));
        faults += member::<u64>(task, offset!(task_major_faults));
        if member::<u32>(task, offset!(task_pid)) != member::<u32>(task, offset!(task_tgid)) {
            faults += member::<u64>(leader, offset!(task_major_faults));
        }
        if faults != 0 {
            add_shared(&raw mut (*cell).major_faults, faults);
        }
        if status & SIGNAL_MASK != 0 {
            add_shared(&raw mut (*cell).by_signal, 1);
        } else if status != 0 {
            add_shared(&raw mut (*cell).by_error, 1);
        } else {
            return;
        }
        events::tell(&Subject { kind: kind::EXIT, cgroup_id: cgroup, cell }, leader, status);
    }
}

/// Whether nobody has yet counted the end of the process: threads that end at the same
/// time on several CPUs all find that none is left.
///
/// # Safety
///
/// `task` must be a `struct task_struct`, and `signal` its `struct signal_struct`.
#[inline(always)]
unsafe fn is_first(task: Pointer, signal: Pointer) -> bool {
    let place = identity(signal);
    // With the process id, because the place is soon another process's.
    // SAFETY: `task` is a task.
    let process = place ^ u64::from(unsafe { member::<u32>(task, offset!(task_tgid)) }) << 40;
    let row = (place / 1024) as u32 % ENDED_ROWS as u32;
    match ENDED.get_ptr_mut(row) {
        // SAFETY: the look-up gave a pointer to a whole number.
        Some(last) => unsafe { exchange(last, process) != process },
        None => true,
    }
}

/// Counts and tells a kill for want of memory, if this is the thread that was chosen.
///
/// # Safety
///
/// `task` must be a `struct task_struct`.
#[inline(always)]
unsafe fn tell_victim(task: Pointer) {
    // SAFETY: `task` is a task; the look-up gives a whole cell.
    unsafe {
        if VICTIMS.remove(member::<u32>(task, offset!(task_pid))).is_err() {
            return;
        }
        let cgroup_id = task_cgroup_id(task);
        let Some(cell) = PROCESS.get_ptr_mut(units::slot(cgroup_id)) else {
            return lost(Loss::OutOfRange);
        };
        add_shared(&raw mut (*cell).oom_kills, 1);
        events::tell(&Subject { kind: kind::OOM, cgroup_id, cell }, task, 0);
    }
}
