//! Memory: how long tasks stalled to reclaim memory themselves, and whom the
//! kernel killed because there was none.

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::Histogram;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::records::kind;

use crate::exit::PROCESS;
use crate::support::count::{add_shared, interval, lost, record_shared};
use crate::support::events::{self, Subject};
use crate::support::kernel::{Pointer, setting, task_cgroup_id};
use crate::support::units::{self, MAPPED};

/// A row per unit slot: the agent sets the size.
#[btf_map]
static RECLAIM: Array<Histogram, 1, MAPPED> = Array::new();

/// Thread id to when it entered reclaim. Preallocated: memory is short just then.
#[btf_map]
static RECLAIMING: HashMap<u32, u64, 1024> = HashMap::new();

/// A task found no free memory and begins to look for some.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn reclaim_begin(_: BtfTracePointContext) {
    begin();
}

/// It has found some, or given up.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
pub fn reclaim_end(_: BtfTracePointContext) {
    end();
}

/// A task ran into its cgroup's limit and begins to look for memory within it.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn cgroup_reclaim_begin(_: BtfTracePointContext) {
    begin();
}

/// It has found some, or given up.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
pub fn cgroup_reclaim_end(_: BtfTracePointContext) {
    end();
}

/// Notes when the current task began to reclaim.
#[inline(always)]
pub fn begin() {
    let thread = bpf_get_current_pid_tgid() as u32;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if RECLAIMING.insert(thread, now, 0).is_err() {
        lost(Loss::ReclaimMapFull);
    }
}

/// Charges the current task's unit with the time since then.
#[inline(always)]
pub fn end() {
    let thread = bpf_get_current_pid_tgid() as u32;
    // SAFETY: nobody but this thread uses its entry.
    let Some(start) = (unsafe { RECLAIMING.get(thread) }).copied() else {
        return lost(Loss::ReclaimUnmatched);
    };
    let _ = RECLAIMING.remove(thread);
    // SAFETY: helpers without arguments.
    let (now, cgroup) = unsafe { (bpf_ktime_get_ns(), bpf_get_current_cgroup_id()) };
    let Some(stalled) = interval(start, now) else { return };
    match RECLAIM.get_ptr_mut(units::slot(cgroup)) {
        // SAFETY: the look-up gave a whole histogram.
        Some(histogram) => unsafe { record_shared(histogram, stalled) },
        None => lost(Loss::OutOfRange),
    }
}

/// The kernel has chosen a process to kill.
#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim(ctx: BtfTracePointContext) {
    let victim: u64 = ctx.arg(0);
    let by_task = setting!(victim_is_task) == 1;
    // SAFETY: where it is a task, it is one of the tracepoint's arguments.
    let cgroup_id = if by_task { unsafe { task_cgroup_id(victim as Pointer) } } else { 0 };
    let Some(cell) = PROCESS.get_ptr_mut(units::slot(cgroup_id)) else {
        return lost(Loss::OutOfRange);
    };
    let subject = Subject { kind: kind::OOM, cgroup_id, cell };
    // SAFETY: the look-up gave a whole cell; the victim is a task where it is one.
    unsafe {
        add_shared(&raw mut (*cell).oom_kills, 1);
        if by_task {
            events::tell(&subject, victim as Pointer, 0);
        } else {
            events::send(&subject, victim as u32, 0, [0; 2]);
        }
    }
}
