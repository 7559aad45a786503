//! Processes and threads that start, programs that are executed, and tasks that the
//! kernel finds hanging, by unit.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::records::kind;

use crate::exit::PROCESS;
use crate::support::count::{add_shared, lost};
use crate::support::events::{self, Subject};
use crate::support::kernel::{Pointer, member, offset, task_cgroup_id};
use crate::support::units;

/// A process executes another program.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) {
    // SAFETY: the first argument is a task; the look-up gives a whole cell.
    unsafe {
        let Some(cell) = PROCESS.get_ptr_mut(units::slot(task_cgroup_id(ctx.arg(0)))) else {
            return lost(Loss::OutOfRange);
        };
        add_shared(&raw mut (*cell).execs, 1);
    }
}

/// A process or thread starts; the unit is that of the new one.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) {
    let child: Pointer = ctx.arg(1);
    // SAFETY: both arguments are tasks; the look-up gives a whole cell.
    unsafe {
        let (pid, process) =
            (member::<u32>(child, offset!(task_pid)), member::<u32>(child, offset!(task_tgid)));
        let Some(cell) = PROCESS.get_ptr_mut(units::slot(task_cgroup_id(child))) else {
            return lost(Loss::OutOfRange);
        };
        if pid == process {
            add_shared(&raw mut (*cell).forks, 1);
        } else {
            add_shared(&raw mut (*cell).threads, 1);
        }
    }
}

/// The kernel has found a task that waited for longer than it tolerates.
#[btf_tracepoint(function = "sched_process_hang")]
pub fn sched_process_hang(ctx: BtfTracePointContext) {
    let task: Pointer = ctx.arg(0);
    // SAFETY: the argument is a task; the look-up gives a whole cell.
    unsafe {
        let cgroup_id = task_cgroup_id(task);
        let Some(cell) = PROCESS.get_ptr_mut(units::slot(cgroup_id)) else {
            return lost(Loss::OutOfRange);
        };
        add_shared(&raw mut (*cell).hung, 1);
        events::tell(&Subject { kind: kind::HUNG, cgroup_id, cell }, task, 0);
    }
}
