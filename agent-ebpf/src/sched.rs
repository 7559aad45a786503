//! The scheduler: how long tasks waited for a CPU, how long they ran, how often
//! they were switched to, by unit.
//!
//! Preferred form, one program: when the tracepoint fires, the kernel still has
//! the time the next task was queued (`sched_info.last_queued`) and the run
//! queue's clock in memory, so there is no stamp to keep and no clock to read. A
//! wait that crosses a migration is counted in two parts. Fall-back, three
//! programs: the stamp is kept with the task and both times are read from the clock.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::SchedCell;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::settings::state;
use holdfast_agent_ebpf::slots::attest_row;

use crate::support::count::{CPUS, interval, lost, record};
use crate::support::kernel::{Pointer, member, offset, setting, task_cgroup_id};
use crate::support::storage::TaskStorage;
use crate::support::units::{self, MAPPED};

/// A row per unit slot, for each CPU: the agent sets the size.
#[btf_map]
static SCHED: Array<SchedCell, 1, MAPPED> = Array::new();

/// When a task became runnable; 0 while it is not.
#[btf_map]
static TASKS: TaskStorage<u64> = TaskStorage::new();

struct Switch {
    previous: Pointer,
    next: Pointer,
    involuntary: bool,
}

impl Switch {
    /// The arguments, whose order and number differ between kernels.
    ///
    /// Each is loaded from its place before any choice is made: the verifier
    /// allows no computed offset into the arguments.
    #[inline(always)]
    fn read(ctx: &BtfTracePointContext) -> Self {
        let preempted: u64 = ctx.arg(0);
        let second: u64 = ctx.arg(1);
        let third: u64 = ctx.arg(2);
        let source = setting!(previous_state);
        let fourth: u64 = if source == state::ARGUMENT { ctx.arg(3) } else { 0 };
        let (previous, next, given) = if setting!(state_before_tasks) == 1 {
            (third, fourth, second)
        } else {
            (second, third, fourth)
        };
        let previous = previous as Pointer;
        // SAFETY: `previous` is a task.
        let state = unsafe {
            match source {
                state::ARGUMENT => given,
                state::UNDERSCORED => {
                    u64::from(member::<u32>(previous, offset!(task_underscored_state)))
                }
                _ => member(previous, offset!(task_plain_state)),
            }
        };
        Self {
            previous,
            next: next as Pointer,
            involuntary: preempted & 1 == 1 || state as u32 == 0,
        }
    }
}

/// Run-queue latency, CPU time and switches; the form without stamps.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) {
    let switch = Switch::read(&ctx);
    // SAFETY: `next` is a task, and each member is followed by its own type.
    let (clock, queued) = unsafe {
        let queue: Pointer = member(switch.next, offset!(task_cfs_rq));
        let rq: Pointer = member(queue, offset!(cfs_rq_rq));
        (
            member::<u64>(rq, offset!(rq_clock)),
            member::<u64>(switch.next, offset!(task_last_queued)),
        )
    };
    account(&switch, clock, || queued);
}

/// The switch of the form with task storage.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch_storage(ctx: BtfTracePointContext) {
    let switch = Switch::read(&ctx);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: `previous` is a task.
    if switch.involuntary && unsafe { member::<u32>(switch.previous, offset!(task_pid)) } != 0 {
        queue(switch.previous, now);
    }
    let next = switch.next;
    account(&switch, now, || {
        // SAFETY: `next` is a tracepoint's argument; storage is a whole stamp.
        unsafe { TASKS.get(next, false).map_or(0, |stamp| core::mem::take(&mut *stamp)) }
    });
}

/// Stamps a task that was woken.
#[btf_tracepoint(function = "sched_wakeup")]
pub fn sched_wakeup(ctx: BtfTracePointContext) {
    // SAFETY: a helper without arguments.
    queue(ctx.arg(0), unsafe { bpf_ktime_get_ns() });
}

/// Stamps a task that was born.
#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn sched_wakeup_new(ctx: BtfTracePointContext) {
    // SAFETY: a helper without arguments.
    queue(ctx.arg(0), unsafe { bpf_ktime_get_ns() });
}

#[inline(always)]
fn queue(task: Pointer, now: u64) {
    // SAFETY: `task` is a tracepoint's argument; storage is a whole stamp.
    match unsafe { TASKS.get(task, true) } {
        Some(stamp) => unsafe { *stamp = now },
        None => lost(Loss::TaskStorage),
    }
}

/// Charges the unit that leaves the CPU and the one that gets it. The idle task
/// belongs to no unit.
#[inline(always)]
fn account(switch: &Switch, now: u64, queued: impl FnOnce() -> u64) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(here) = CPUS.get_ptr_mut(cpu) else { return lost(Loss::OutOfRange) };
    // SAFETY: the look-up gave this CPU's cell, and switches do not nest.
    let here = unsafe { &mut *here };
    let first_row = cpu * setting!(unit_rows);

    let since = core::mem::replace(&mut here.since, now);
    if here.running != 0 {
        // The unit was found when its task came: one walk to a cgroup per switch.
        let Some(cell) = SCHED.get_ptr_mut(first_row + here.running as u32 - 1) else {
            return lost(Loss::OutOfRange);
        };
        // SAFETY: the look-up gave a cell that only this CPU's switches write.
        unsafe {
            if let Some(ran) = interval(since, now) {
                (*cell).on_cpu_ns += ran;
            }
            (*cell).involuntary += u64::from(switch.involuntary);
        }
    }

    // SAFETY: `next` is a task.
    let id = unsafe { member::<u32>(switch.next, offset!(task_pid)) };
    if id == 0 {
        here.running = 0;
        return;
    }
    // SAFETY: `next` is a task.
    let slot = units::slot(unsafe { task_cgroup_id(switch.next) });
    here.running = u64::from(slot) + 1;
    let Some(cell) = SCHED.get_ptr_mut(first_row + slot) else { return lost(Loss::OutOfRange) };
    // SAFETY: the look-up gave a cell that only this CPU's switches write.
    unsafe {
        let queued = queued();
        if queued == 0 {
            lost(Loss::SwitchUnstamped);
        } else if let Some(waited) = interval(queued, now) {
            record(&raw mut (*cell).wait, waited);
        }
        // On a busy host the idle task never runs; that its id would be known is proven by
        // those of others.
        if slot == attest_row(setting!(unit_rows)) {
            (*cell).ids += u64::from(id);
        }
        // Last: a reader that sees it changed finds the rest changed, too.
        (*cell).switches += 1;
    }
}
