//! The scheduler: how long tasks waited for a CPU, how long they ran, how long they
//! were off the CPU, how often they were switched to, by unit.
//!
//! Preferred form, one program: when the tracepoint fires, the kernel still has
//! the time the next task was queued (`sched_info.last_queued`), that of its last
//! arrival on a CPU (`last_arrival`) and the run queue's clock in memory, so there is
//! no stamp to keep and no clock to read. A wait that crosses a migration is counted
//! in two parts. Fall-back, three programs: the stamp is kept with the task and both
//! times are read from the clock; there is no time off the CPU then.
//!
//! Time off the CPU is what is left of a task's cycles, from one arrival to the next,
//! without the slices it ran: both are added up when they end, and the agent takes
//! the difference. It is charged when the task gets a CPU again.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::{CpuCell, SchedCell};
use holdfast_agent_ebpf::depth;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::settings::state;
use holdfast_agent_ebpf::slots::{DETAIL, undetailed_row};

use crate::support::count::{CPUS, interval, lost, record, record_many};
use crate::support::kernel::{Pointer, member, offset, setting, task_cgroup_id};
use crate::support::storage::TaskStorage;
use crate::support::units::{self, MAPPED};

/// A row per unit slot, for each CPU: the agent sets the size.
#[btf_map]
static SCHED: Array<SchedCell, 1, MAPPED> = Array::new();

/// When a task became runnable; 0 while it is not.
#[btf_map]
static TASKS: TaskStorage<u64> = TaskStorage::new();

/// In a task's state: it has ended and does not come back (`TASK_DEAD`).
const DEAD: u32 = 0x80;

/// Switches that are further apart than this are all looked at, whatever the depth.
const RARE_NS: u64 = 20_000;

struct Switch {
    previous: Pointer,
    next: Pointer,
    involuntary: bool,
    /// The previous task has ended.
    last: bool,
}

/// What is known of a task that gets the CPU; 0 for what is not.
struct Arrival {
    /// When it became runnable.
    queued: u64,
    /// When it got a CPU the last time.
    before: u64,
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
            last: state as u32 & DEAD != 0,
        }
    }
}

/// Run-queue latency, CPU time and switches; the form without stamps.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) {
    let Some((cpu, here)) = here() else { return };
    if here.depth >= depth::SAMPLED {
        // What is remembered of the task that runs goes out of date.
        here.running = 0;
        if here.skip > 0 {
            here.skip -= 1;
            return;
        }
        return sample(cpu, here, &Switch::read(&ctx));
    }
    let switch = Switch::read(&ctx);
    let next = switch.next;
    account(cpu, here, &switch, clock(next), |_| arrival(next));
}

/// The switch of the form with task storage, which looks at every switch whatever the
/// depth: its stamps would be gone.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch_storage(ctx: BtfTracePointContext) {
    let Some((cpu, here)) = here() else { return };
    let switch = Switch::read(&ctx);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: `previous` is a task.
    if switch.involuntary && unsafe { member::<u32>(switch.previous, offset!(task_pid)) } != 0 {
        queue(here, switch.previous, now);
    }
    let next = switch.next;
    account(cpu, here, &switch, now, |here| {
        if !stamping(here) {
            return Arrival { queued: 0, before: 0 };
        }
        // SAFETY: `next` is a tracepoint's argument; storage is a whole stamp.
        let queued =
            unsafe { TASKS.get(next, false).map_or(0, |stamp| core::mem::take(&mut *stamp)) };
        // One from before a time without stamps may be of an earlier wait.
        Arrival { queued: if queued < here.changed { 0 } else { queued }, before: 0 }
    });
}

/// Stamps a task that was woken.
#[btf_tracepoint(function = "sched_wakeup")]
pub fn sched_wakeup(ctx: BtfTracePointContext) {
    wake(ctx.arg(0));
}

/// Stamps a task that was born.
#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn sched_wakeup_new(ctx: BtfTracePointContext) {
    wake(ctx.arg(0));
}

#[inline(always)]
fn wake(task: Pointer) {
    let Some((_, here)) = here() else { return };
    if stamping(here) {
        // SAFETY: a helper without arguments.
        queue(here, task, unsafe { bpf_ktime_get_ns() });
    }
}

#[inline(always)]
fn queue(here: &CpuCell, task: Pointer, now: u64) {
    if !stamping(here) {
        return;
    }
    // SAFETY: `task` is a tracepoint's argument; storage is a whole stamp.
    match unsafe { TASKS.get(task, true) } {
        Some(stamp) => unsafe { *stamp = now },
        None => lost(Loss::TaskStorage),
    }
}

/// Whether stamps of our own are kept: not where no wait is recorded.
#[inline(always)]
fn stamping(here: &CpuCell) -> bool {
    here.depth < depth::SAMPLED
}

/// This CPU and what it remembers.
#[inline(always)]
fn here<'a>() -> Option<(u32, &'a mut CpuCell)> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(here) = CPUS.get_ptr_mut(cpu) else {
        lost(Loss::OutOfRange);
        return None;
    };
    // SAFETY: the look-up gave this CPU's cell, and switches do not nest.
    Some((cpu, unsafe { &mut *here }))
}

/// The clock of the run queue that `next` is on: this CPU's.
#[inline(always)]
fn clock(next: Pointer) -> u64 {
    // SAFETY: `next` is a task, and each member is followed by its own type.
    unsafe {
        let queue: Pointer = member(next, offset!(task_cfs_rq));
        let rq: Pointer = member(queue, offset!(cfs_rq_rq));
        member(rq, offset!(rq_clock))
    }
}

/// What the kernel itself knows of a task that gets the CPU.
#[inline(always)]
fn arrival(next: Pointer) -> Arrival {
    // SAFETY: `next` is a task.
    unsafe {
        Arrival {
            queued: member(next, offset!(task_last_queued)),
            before: member(next, offset!(task_last_arrival)),
        }
    }
}

/// Charges the unit that leaves the CPU and the one that gets it. The idle task
/// belongs to no unit.
#[inline(always)]
fn account(
    cpu: u32,
    here: &mut CpuCell,
    switch: &Switch,
    now: u64,
    arrival: impl FnOnce(&CpuCell) -> Arrival,
) {
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
                if switch.last {
                    (*cell).last_slices_ns += ran;
                }
            }
            (*cell).involuntary += u64::from(switch.involuntary);
        }
    }

    // SAFETY: `next` is a task.
    if unsafe { member::<u32>(switch.next, offset!(task_pid)) } == 0 {
        here.running = 0;
        here.idle += 1;
        return;
    }
    // SAFETY: `next` is a task.
    let unit = units::flagged_slot(unsafe { task_cgroup_id(switch.next) });
    let slot = unit as u32;
    here.running = u64::from(slot) + 1;
    let Some(cell) = SCHED.get_ptr_mut(first_row + slot) else { return lost(Loss::OutOfRange) };
    let arrival = arrival(here);
    if arrival.queued == 0 {
        // The kernel stamps no arrival without it: the next cycle is this one, too.
        if here.depth < depth::SAMPLED {
            lost(Loss::SwitchUnstamped);
        }
    } else if here.depth < depth::SAMPLED {
        let detailed =
            here.depth == depth::FULL || here.depth == depth::GATED && unit & DETAIL != 0;
        let place = if detailed { Some(cell) } else { undetailed(first_row) };
        let Some(place) = place else { return lost(Loss::OutOfRange) };
        // SAFETY: both look-ups gave a cell that only this CPU's switches write.
        unsafe {
            if let Some(waited) = interval(arrival.queued, now) {
                record(&raw mut (*place).wait, waited);
            }
        }
    }
    // SAFETY: the look-up gave a cell that only this CPU's switches write.
    unsafe {
        if arrival.queued != 0
            && arrival.before != 0
            && let Some(cycle) = interval(arrival.before, now)
        {
            (*cell).cycles_ns += cycle;
        }
        // Last: a reader that sees it changed finds the rest changed, too.
        (*cell).switches += 1;
    }
}

/// Charges both units with a switch that counts for all since the last one looked at.
/// Needs nothing that those passed over would have left behind.
#[inline(always)]
fn sample(cpu: u32, here: &mut CpuCell, switch: &Switch) {
    let first_row = cpu * setting!(unit_rows);
    let now = clock(switch.next);
    let weight = here.weight.max(1);
    let n = u64::from(weight);
    let gap = now.wrapping_sub(core::mem::replace(&mut here.since, now));
    // Where there is little to save, a slice would only be taken for many.
    let stride = if gap > n * RARE_NS { 1 } else { stride(now) };
    (here.skip, here.weight) = (stride - 1, stride);

    // SAFETY: `previous` is a task.
    if unsafe { member::<u32>(switch.previous, offset!(task_pid)) } != 0 {
        // SAFETY: `previous` is a task.
        let slot = units::slot(unsafe { task_cgroup_id(switch.previous) });
        let Some(cell) = SCHED.get_ptr_mut(first_row + slot) else { return lost(Loss::OutOfRange) };
        // SAFETY: `previous` is a task; the look-up gave a cell that only this CPU's
        // switches write.
        unsafe {
            if let Some(ran) = interval(member(switch.previous, offset!(task_last_arrival)), now) {
                (*cell).on_cpu_ns += ran * n;
                if switch.last {
                    (*cell).last_slices_ns += ran * n;
                }
            }
            if switch.involuntary {
                (*cell).involuntary += n;
            }
        }
    }

    // SAFETY: `next` is a task.
    if unsafe { member::<u32>(switch.next, offset!(task_pid)) } == 0 {
        here.idle += n;
        return;
    }
    // SAFETY: `next` is a task.
    let slot = units::slot(unsafe { task_cgroup_id(switch.next) });
    let Some(cell) = SCHED.get_ptr_mut(first_row + slot) else { return lost(Loss::OutOfRange) };
    let arrival = arrival(switch.next);
    if arrival.queued == 0 {
        lost(Loss::SwitchUnstamped);
    } else if here.depth == depth::SAMPLED {
        let Some(place) = undetailed(first_row) else { return lost(Loss::OutOfRange) };
        // SAFETY: the look-up gave a cell that only this CPU's switches write.
        unsafe {
            if let Some(waited) = interval(arrival.queued, now) {
                record_many(&raw mut (*place).wait, waited, weight);
            }
        }
    }
    // SAFETY: the look-up gave a cell that only this CPU's switches write.
    unsafe {
        if arrival.queued != 0
            && arrival.before != 0
            && let Some(cycle) = interval(arrival.before, now)
        {
            (*cell).cycles_ns += cycle * n;
        }
        (*cell).switches += n;
    }
}

/// The cell of this CPU for distributions that are kept for the host alone.
#[inline(always)]
fn undetailed(first_row: u32) -> Option<*mut SchedCell> {
    SCHED.get_ptr_mut(first_row + undetailed_row(setting!(unit_rows)))
}

/// How many switches on is the next one to look at: [`depth::SAMPLE`] in the mean. Not
/// always as many, or loads that take turns would always show the same side.
#[inline(always)]
fn stride(now: u64) -> u32 {
    const HALF: u32 = depth::SAMPLE as u32 - 1;
    // The last digits of the time are as good as chance once they are spread.
    let chance = (now.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
    1 + (chance & HALF) + (chance >> 16 & HALF)
}
