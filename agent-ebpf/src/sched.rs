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
use holdfast_agent_ebpf::slots::{DETAIL, attest_row, undetailed_row};

use crate::blame;
use crate::support::count::{CPUS, interval, lost, record_many};
use crate::support::kernel::{Pointer, member, offset, setting, task_cgroup_id};
use crate::support::sample::stride;
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

/// Slices this long are all counted, whatever the depth: they are few, and one that is
/// missed or taken for many makes much of a difference.
const LONG_NS: u64 = 200_000;

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
    let switch = Switch::read(&ctx);
    let next = switch.next;
    if here.depth >= depth::SAMPLED {
        sample(cpu, here, &switch, clock(next));
    } else {
        account(cpu, here, &switch, clock(next), |_| Some(arrival(next)));
    }
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
    let idle = || unsafe { member::<u32>(switch.previous, offset!(task_pid)) } == 0;
    if switch.involuntary && stamping(here) && !idle() {
        queue(switch.previous, now);
    }
    let next = switch.next;
    account(cpu, here, &switch, now, |here| {
        if !stamping(here) {
            return None;
        }
        // SAFETY: `next` is a tracepoint's argument; storage is a whole stamp.
        let queued =
            unsafe { TASKS.get(next, false).map_or(0, |stamp| core::mem::take(&mut *stamp)) };
        // One from before a time without stamps may be of an earlier wait.
        Some(Arrival { queued: if queued < here.changed { 0 } else { queued }, before: 0 })
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
        queue(task, unsafe { bpf_ktime_get_ns() });
    }
}

#[inline(always)]
fn queue(task: Pointer, now: u64) {
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
    arrival: impl FnOnce(&CpuCell) -> Option<Arrival>,
) {
    let first_row = cpu * setting!(unit_rows);

    let since = core::mem::replace(&mut here.since, now);
    if here.running != 0 {
        // The unit was found when its task came: one walk to a cgroup per switch.
        let Some(cell) = SCHED.get_ptr_mut(first_row + here.running as u32 - 1) else {
            return lost(Loss::OutOfRange);
        };
        leave(cell, switch, interval(since, now), 1);
    }

    // SAFETY: `next` is a task.
    let id = unsafe { member::<u32>(switch.next, offset!(task_pid)) };
    if id == 0 {
        blame::hand_over(here, 0, now);
        here.idle += 1;
        return;
    }
    // SAFETY: `next` is a task.
    let unit = units::flagged_slot(unsafe { task_cgroup_id(switch.next) });
    blame::hand_over(here, u64::from(unit as u32) + 1, now);
    let arrival = arrival(here);
    if let Some(Arrival { queued, .. }) = &arrival
        && *queued != 0
    {
        blame::kept_waiting(here, unit as u32, now.saturating_sub(*queued), now);
    }
    arrive(first_row, here.depth, unit, arrival, now, 1);
    // On a busy host the idle task never runs; that its id would be known is proven by
    // those of others.
    let proving = attest_row(setting!(unit_rows));
    if unit as u32 == proving
        && let Some(cell) = SCHED.get_ptr_mut(first_row + proving)
    {
        // SAFETY: the look-up gave a cell that only this CPU's switches write.
        unsafe { (*cell).ids += u64::from(id) };
    }
}

/// Charges both units with a switch that counts for all since the last one looked at.
/// Needs nothing that those passed over would have left behind.
#[inline(always)]
fn sample(cpu: u32, here: &mut CpuCell, switch: &Switch, now: u64) {
    let first_row = cpu * setting!(unit_rows);
    // Which unit runs is not followed any more.
    here.running = 0;
    let long = now.wrapping_sub(core::mem::replace(&mut here.since, now)) >= LONG_NS;
    if here.skip > 0 {
        here.skip -= 1;
        if long {
            leave_unfollowed(first_row, switch, now, 1);
        }
        return;
    }
    let n = here.weight.max(1);
    here.weight = stride(here.looked, now, n);
    here.skip = here.weight - 1;
    here.looked = now;

    leave_unfollowed(first_row, switch, now, if long { 1 } else { n });
    // SAFETY: `next` is a task.
    if unsafe { member::<u32>(switch.next, offset!(task_pid)) } == 0 {
        here.idle += u64::from(n);
        return;
    }
    // SAFETY: `next` is a task.
    let unit = units::flagged_slot(unsafe { task_cgroup_id(switch.next) });
    arrive(first_row, here.depth, unit, Some(arrival(switch.next)), now, n);
}

/// Charges the unit that leaves the CPU, of which nothing is remembered.
#[inline(always)]
fn leave_unfollowed(first_row: u32, switch: &Switch, now: u64, n: u32) {
    // SAFETY: `previous` is a task.
    let (slot, came) = unsafe {
        if member::<u32>(switch.previous, offset!(task_pid)) == 0 {
            return;
        }
        (
            units::slot(task_cgroup_id(switch.previous)),
            member::<u64>(switch.previous, offset!(task_last_arrival)),
        )
    };
    let Some(cell) = SCHED.get_ptr_mut(first_row + slot) else { return lost(Loss::OutOfRange) };
    leave(cell, switch, interval(came, now), n);
}

/// Charges the unit that leaves the CPU with `n` slices like this one.
#[inline(always)]
fn leave(cell: *mut SchedCell, switch: &Switch, ran: Option<u64>, n: u32) {
    let n = u64::from(n);
    // SAFETY: a look-up gave the cell, which only this CPU's switches write.
    unsafe {
        if let Some(ran) = ran {
            (*cell).on_cpu_ns += ran * n;
            if switch.last {
                (*cell).last_slices_ns += ran * n;
            }
        }
        (*cell).involuntary += u64::from(switch.involuntary) * n;
    }
}

/// Charges the unit that gets the CPU with `n` arrivals like this one; nothing is known
/// of it where no stamps are kept.
#[inline(always)]
fn arrive(first_row: u32, depth: u64, unit: u64, arrival: Option<Arrival>, now: u64, n: u32) {
    let Some(cell) = SCHED.get_ptr_mut(first_row + unit as u32) else {
        return lost(Loss::OutOfRange);
    };
    match arrival {
        // The kernel stamps no arrival without it: this cycle is a part of the next.
        Some(Arrival { queued: 0, .. }) => lost(Loss::SwitchUnstamped),
        Some(Arrival { queued, before }) => {
            if before != 0
                && let Some(cycle) = interval(before, now)
            {
                // SAFETY: the look-up gave a cell that only this CPU's switches write.
                unsafe { (*cell).cycles_ns += cycle * u64::from(n) };
            }
            if depth < depth::COUNTERS
                && let Some(waited) = interval(queued, now)
            {
                let detailed = depth == depth::FULL || depth == depth::GATED && unit & DETAIL != 0;
                let place = if detailed { Some(cell) } else { undetailed(first_row) };
                let Some(place) = place else { return lost(Loss::OutOfRange) };
                // SAFETY: as above, whichever it is.
                unsafe { record_many(&raw mut (*place).wait, waited, n) };
            }
        }
        None => {}
    }
    // Last: a reader that sees it changed finds the rest changed, too.
    // SAFETY: as above.
    unsafe { (*cell).switches += u64::from(n) };
}

/// The cell of this CPU for distributions that are kept for the host alone.
#[inline(always)]
fn undetailed(first_row: u32) -> Option<*mut SchedCell> {
    SCHED.get_ptr_mut(first_row + undetailed_row(setting!(unit_rows)))
}
