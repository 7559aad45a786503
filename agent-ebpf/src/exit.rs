//! Ends of processes: how many, by what, and an event for each that did not end well.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::ProcessCell;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::records::kind;

use crate::support::count::{add_shared, lost};
use crate::support::events::{self, Subject};
use crate::support::kernel::{Pointer, member, offset, setting, task_cgroup_id};
use crate::support::units::{self, MAPPED};

/// A row per unit slot: the agent sets the size.
#[btf_map]
pub static PROCESS: Array<ProcessCell, 1, MAPPED> = Array::new();

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
        let signal: Pointer = member(task, offset!(task_signal));
        let dead = if setting!(exit_says_dead) == 1 {
            ctx.arg::<u64>(1) & 1 == 1
        } else {
            member::<u32>(signal, offset!(signal_live)) == 0
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
