//! Memory: how long tasks stalled to reclaim memory or move it together themselves,
//! and whom the kernel killed because there was none.

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::Histogram;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::records::kind;

use crate::exit::{PROCESS, VICTIMS};
use crate::support::count::{add_shared, interval, lost, record_shared};
use crate::support::events::{self, Subject};
use crate::support::kernel::{Pointer, member, offset, setting, task_cgroup_id};
use crate::support::units::{self, MAPPED};

/// A row per unit slot: the agent sets the size.
#[btf_map]
static RECLAIM: Array<Histogram, 1, MAPPED> = Array::new();

/// A row per unit slot: the agent sets the size.
#[btf_map]
static COMPACTION: Array<Histogram, 1, MAPPED> = Array::new();

/// Thread id, with what it does in the upper half, to when it began: compaction may
/// happen within reclaim. Preallocated: memory is short just then.
#[btf_map]
static RECLAIMING: HashMap<u64, u64, 1024> = HashMap::new();

/// In the keys of [`RECLAIMING`].
const IN_RECLAIM: u64 = 0;
const IN_COMPACTION: u64 = 1 << 32;

/// `PF_KTHREAD`.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A task found no free memory and begins to look for some.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
pub fn reclaim_begin(_: BtfTracePointContext) {
    begin(IN_RECLAIM);
}

/// It has found some, or given up.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
pub fn reclaim_end(_: BtfTracePointContext) {
    end(IN_RECLAIM, &RECLAIM);
}

/// A task ran into its cgroup's limit and begins to look for memory within it.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
pub fn cgroup_reclaim_begin(_: BtfTracePointContext) {
    begin(IN_RECLAIM);
}

/// It has found some, or given up.
#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
pub fn cgroup_reclaim_end(_: BtfTracePointContext) {
    end(IN_RECLAIM, &RECLAIM);
}

/// A task needs memory in one piece and begins to move pages together.
#[btf_tracepoint(function = "mm_compaction_begin")]
pub fn compaction_begin(_: BtfTracePointContext) {
    if !in_background() {
        begin(IN_COMPACTION);
    }
}

/// It has done what it could.
#[btf_tracepoint(function = "mm_compaction_end")]
pub fn compaction_end(_: BtfTracePointContext) {
    if !in_background() {
        end(IN_COMPACTION, &COMPACTION);
    }
}

/// Whether a thread of the kernel does it, which holds up nobody.
#[inline(always)]
fn in_background() -> bool {
    // SAFETY: the helper gives the running task.
    let flags: u32 = unsafe { member(bpf_get_current_task_btf().cast(), offset!(task_flags)) };
    flags & KERNEL_THREAD != 0
}

#[inline(always)]
fn begin(what: u64) {
    let thread = bpf_get_current_pid_tgid() & 0xffff_ffff;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if RECLAIMING.insert(what | thread, now, 0).is_err() {
        lost(Loss::ReclaimMapFull);
    }
}

#[inline(always)]
fn end(what: u64, stalls: &'static Array<Histogram, 1, MAPPED>) {
    let key = what | (bpf_get_current_pid_tgid() & 0xffff_ffff);
    // SAFETY: nobody but this thread uses its entry.
    let Some(start) = (unsafe { RECLAIMING.get(key) }).copied() else {
        return lost(Loss::ReclaimUnmatched);
    };
    let _ = RECLAIMING.remove(key);
    // SAFETY: helpers without arguments.
    let (now, cgroup) = unsafe { (bpf_ktime_get_ns(), bpf_get_current_cgroup_id()) };
    let Some(stalled) = interval(start, now) else { return };
    match stalls.get_ptr_mut(units::slot(cgroup)) {
        // SAFETY: the look-up gave a whole histogram.
        Some(histogram) => unsafe { record_shared(histogram, stalled) },
        None => lost(Loss::OutOfRange),
    }
}

/// The kernel has chosen a process to kill. Where it tells the process id only, the
/// program on exits counts it, and tells of it, once the process is at its end.
#[btf_tracepoint(function = "mark_victim")]
pub fn oom_mark_victim(ctx: BtfTracePointContext) {
    let victim: u64 = ctx.arg(0);
    let by_task = setting!(victim_is_task) == 1;
    if !by_task && VICTIMS.insert(victim as u32, 0, 0).is_ok() {
        return;
    }
    // SAFETY: where it is a task, it is one of the tracepoint's arguments.
    let cgroup_id = if by_task { unsafe { task_cgroup_id(victim as Pointer) } } else { 0 };
    let slot = if by_task { units::slot(cgroup_id) } else { 0 };
    let Some(cell) = PROCESS.get_ptr_mut(slot) else {
        return lost(Loss::OutOfRange);
    };
    let subject = Subject { kind: kind::OOM, cgroup_id, cell };
    // SAFETY: the look-up gave a whole cell; the victim is a task where it is one.
    unsafe {
        add_shared(&raw mut (*cell).oom_kills, 1);
        if by_task {
            events::tell(&subject, victim as Pointer, 0);
        } else {
            lost(Loss::VictimMapFull);
            events::send(&subject, victim as u32, 0, [0; 2]);
        }
    }
}
