//! Syncs of files (fsync, fdatasync, writes with O_DSYNC): how long the caller was
//! held up, by unit.
//!
//! Only ext4 has a pair of tracepoints for it. Where the kernel describes them they are
//! typed; where ext4 is a module, whose types are elsewhere, the raw form of the same
//! two programs does, as no argument is looked at.

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use holdfast_agent_ebpf::cells::Histogram;
use holdfast_agent_ebpf::loss::Loss;

use crate::support::count::{interval, lost, record_shared};
use crate::support::units::{self, MAPPED};

/// A row per unit slot: the agent sets the size.
#[btf_map]
static SYNC: Array<Histogram, 1, MAPPED> = Array::new();

/// Thread id to when it began.
#[btf_map]
static SYNCING: HashMap<u32, u64, 512> = HashMap::new();

/// A task begins to sync a file.
#[btf_tracepoint(function = "ext4_sync_file_enter")]
pub fn sync_enter(_: BtfTracePointContext) {
    begin();
}

/// The file is synced, or cannot be.
#[btf_tracepoint(function = "ext4_sync_file_exit")]
pub fn sync_exit(_: BtfTracePointContext) {
    end();
}

/// As `sync_enter`, where the tracepoint's type is not known.
#[raw_tracepoint(tracepoint = "ext4_sync_file_enter")]
pub fn sync_enter_raw(_: RawTracePointContext) {
    begin();
}

/// As `sync_exit`, where the tracepoint's type is not known.
#[raw_tracepoint(tracepoint = "ext4_sync_file_exit")]
pub fn sync_exit_raw(_: RawTracePointContext) {
    end();
}

#[inline(always)]
fn begin() {
    let thread = bpf_get_current_pid_tgid() as u32;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if SYNCING.insert(thread, now, 0).is_err() {
        lost(Loss::SyncMapFull);
    }
}

#[inline(always)]
fn end() {
    let thread = bpf_get_current_pid_tgid() as u32;
    // SAFETY: nobody but this thread uses its entry.
    let Some(start) = (unsafe { SYNCING.get(thread) }).copied() else {
        return lost(Loss::SyncUnmatched);
    };
    let _ = SYNCING.remove(thread);
    // SAFETY: helpers without arguments.
    let (now, cgroup) = unsafe { (bpf_ktime_get_ns(), bpf_get_current_cgroup_id()) };
    let Some(took) = interval(start, now) else { return };
    match SYNC.get_ptr_mut(units::slot(cgroup)) {
        // SAFETY: the look-up gave a whole histogram.
        Some(histogram) => unsafe { record_shared(histogram, took) },
        None => lost(Loss::OutOfRange),
    }
}
