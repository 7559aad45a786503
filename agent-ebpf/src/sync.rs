//! Syncs of files (fsync, fdatasync, writes with O_DSYNC): how long the caller was
//! held up, by unit.
//!
//! All file systems' syncs go through one function, at whose entry and exit programs can
//! hang where the kernel has trampolines. Elsewhere there is a pair of tracepoints, of
//! ext4 alone. Where the kernel describes them they are typed; where ext4 is a module,
//! whose types are elsewhere, the raw form of the same two programs does, as no argument
//! is looked at.

use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry, fexit, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext, RawTracePointContext};
use holdfast_agent_ebpf::cells::Histogram;
use holdfast_agent_ebpf::loss::Loss;

use crate::support::count::{interval, lost, record_shared};
use crate::support::units::{self, MAPPED};

/// A row per unit slot: the agent sets the size.
#[btf_map]
static SYNC: Array<Histogram, 1, MAPPED> = Array::new();

/// Thread id to when it began, and the file; 0 where that is not known.
#[btf_map]
static SYNCING: HashMap<u32, [u64; 2], 512> = HashMap::new();

/// A sync within one that began so long ago is not within it: its end was missed.
const LOST_NS: u64 = 60_000_000_000;

/// A task begins to sync a file of whatever file system.
#[fentry(function = "vfs_fsync_range")]
pub fn sync_enter_any(context: FEntryContext) {
    begin(context.arg(0));
}

/// The file is synced, or cannot be.
#[fexit(function = "vfs_fsync_range")]
pub fn sync_exit_any(context: FExitContext) {
    end(context.arg(0));
}

/// A task begins to sync a file of ext4.
#[btf_tracepoint(function = "ext4_sync_file_enter")]
pub fn sync_enter(_: BtfTracePointContext) {
    begin(0);
}

/// The file is synced, or cannot be.
#[btf_tracepoint(function = "ext4_sync_file_exit")]
pub fn sync_exit(_: BtfTracePointContext) {
    end(0);
}

/// As `sync_enter`, where the tracepoint's type is not known.
#[raw_tracepoint(tracepoint = "ext4_sync_file_enter")]
pub fn sync_enter_raw(_: RawTracePointContext) {
    begin(0);
}

/// As `sync_exit`, where the tracepoint's type is not known.
#[raw_tracepoint(tracepoint = "ext4_sync_file_exit")]
pub fn sync_exit_raw(_: RawTracePointContext) {
    end(0);
}

#[inline(always)]
fn begin(file: u64) {
    let thread = bpf_get_current_pid_tgid() as u32;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: nobody but this thread uses its entry.
    if let Some([start, outer]) = unsafe { SYNCING.get(thread) }.copied() {
        // Overlay file systems sync a file by syncing the one below it.
        if outer != file && now.wrapping_sub(start) < LOST_NS {
            return;
        }
    }
    if SYNCING.insert(thread, [now, file], 0).is_err() {
        lost(Loss::SyncMapFull);
    }
}

#[inline(always)]
fn end(file: u64) {
    let thread = bpf_get_current_pid_tgid() as u32;
    // SAFETY: nobody but this thread uses its entry.
    let Some([start, outer]) = (unsafe { SYNCING.get(thread) }).copied() else {
        return lost(Loss::SyncUnmatched);
    };
    if outer != file {
        return;
    }
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
