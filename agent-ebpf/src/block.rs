//! Block I/O: latency, size and errors of requests, by device and kind, and by unit.
//!
//! The request carries the time it was made, so one program at completion knows
//! what the issuer saw: queue and device together. A second one, at issue, leaves a
//! stamp in a small table of sets keyed by the request's address, which tells the two
//! apart and remembers whose request it is: completions run on top of anybody. So do
//! issues where there is an I/O scheduler; there a third program stamps the request when
//! it goes to the scheduler. The table has no locks, and what finds no room is counted.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::{
    BlockCell, IN_FLIGHT_SHIFT, REQUEST_STAMPS, REQUEST_WAYS, RequestSet, RequestStamp,
    UnitBlockCell, UnitDiskCell, operation,
};
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::slots::{device_key, request_set};

use crate::support::count::{add_shared, interval, lost, record, record_shared};
use crate::support::kernel::{Pointer, cgroup_id, identity, member, offset, setting};
use crate::support::units::{self, MAPPED};

/// A row per device, for each CPU: the agent sets the size.
#[btf_map]
pub static BLOCK: Array<BlockCell, 1, MAPPED> = Array::new();

/// A row per unit slot: the agent sets the size.
#[btf_map]
static UNIT_DISK: Array<UnitDiskCell, 1, MAPPED> = Array::new();

/// A row per unit slot, for each device: the agent sets the size.
#[btf_map]
static UNIT_BLOCK: Array<UnitBlockCell, 1, MAPPED> = Array::new();

#[btf_map]
static REQUESTS: Array<RequestSet, { REQUEST_STAMPS as usize / REQUEST_WAYS }, 0> = Array::new();

/// `REQ_OP_MASK` and the operations of `enum req_op` that have a name here.
const OPERATION_MASK: u32 = 0xff;
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 2;

/// A request goes to the I/O scheduler. Whose it is has to be known now: it is whoever
/// comes by that takes it out again and issues it.
#[btf_tracepoint(function = "block_rq_insert")]
pub fn block_rq_insert(ctx: BtfTracePointContext) {
    remember(ctx.arg(0), 0);
}

/// A request goes to the device.
#[btf_tracepoint(function = "block_rq_issue")]
pub fn block_rq_issue(ctx: BtfTracePointContext) {
    // SAFETY: a helper without arguments.
    remember(ctx.arg(0), unsafe { bpf_ktime_get_ns() });
}

/// Leaves the stamp of a request, or adds to the one it has when it was issued; 0 for one
/// that was not.
#[inline(always)]
fn remember(request: Pointer, issued: u64) {
    let key = identity(request);
    // SAFETY: `request` is a request.
    let start: u64 = unsafe { member(request, offset!(request_start)) };
    if start == 0 {
        // Counted at completion.
        return;
    }
    let Some(set) = REQUESTS.get_ptr_mut(request_set(key)) else {
        return lost(Loss::OutOfRange);
    };
    // SAFETY: the look-up gave a whole set. Two CPUs may write it at once: an entry
    // whose request and start do not match is not believed.
    unsafe {
        let [first, second] = &mut (*set).entries;
        let (mine, other) = if second.request == key { (second, first) } else { (first, second) };
        if mine.request == key && mine.start == start {
            // Known since it was inserted, or issued or inserted again, perhaps by a
            // worker of the kernel: the unit stays.
            mine.issued = issued;
            return;
        }
        let entry = if mine.request == key || mine.request == 0 || other.request != 0 {
            mine
        } else {
            other
        };
        let overwritten = entry.request != 0 && entry.request != key;
        *entry = RequestStamp { request: key, start, issued, slot: unit(request) };
        if overwritten {
            lost(Loss::RequestOverwritten);
        }
    }
}

/// A request, or a part of one, has completed.
#[btf_tracepoint(function = "block_rq_complete")]
pub fn block_rq_complete(ctx: BtfTracePointContext) {
    let request: Pointer = ctx.arg(0);
    let failed = ctx.arg::<u32>(1) != 0;
    let completed: u32 = ctx.arg(2);
    // SAFETY: `request` is a request.
    let (remaining, flags, start) = unsafe {
        (
            member::<u32>(request, offset!(request_bytes)),
            member::<u32>(request, offset!(request_flags)),
            member::<u64>(request, offset!(request_start)),
        )
    };
    if completed < remaining {
        return;
    }
    let operation = match flags & OPERATION_MASK {
        // A write that asks for a flush before or after it completes twice, the
        // second time without data; a bare flush is a write without data whose
        // work is done, and counted, by a request of kind FLUSH.
        READ | WRITE if remaining == 0 => return,
        READ => operation::READ,
        WRITE => operation::WRITE,
        FLUSH => operation::FLUSH,
        _ => operation::OTHER,
    };

    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: `request` is a request.
    let row = units::device_row(unsafe { device(request) });
    let Some(cell) = BLOCK.get_ptr_mut(cpu * setting!(device_rows) + row) else {
        return lost(Loss::OutOfRange);
    };
    // SAFETY: the look-up gave a cell that only this program on this CPU writes,
    // and kinds are positions in its arrays.
    unsafe {
        if failed {
            (*cell).errors += 1;
        }
        if operation < operation::SIZED {
            // Not `completed`, which is the same here: so the size tells whether the
            // offset of what remains is right.
            record(&raw mut (*cell).size[operation & 1], u64::from(remaining));
        }
        if start == 0 {
            return lost(Loss::RequestUnstamped);
        }
        let now = bpf_ktime_get_ns();
        let stamp = take(request, start);
        let Some(took) = interval(start, now) else { return };
        record(&raw mut (*cell).latency[operation & 3], took);
        if stamp.issued == 0 {
            return;
        }
        let done = Done { operation, failed, bytes: u64::from(completed), row, slot: stamp.slot };
        if operation >= operation::SIZED {
            return charge_error(&done);
        }
        let Some(queued) = interval(start, stamp.issued) else { return };
        let Some(served) = interval(stamp.issued, now) else { return };
        record(&raw mut (*cell).queue[operation & 1], queued);
        record(&raw mut (*cell).service[operation & 1], served);
        charge(&done, took, served);
    }
}

/// A request that has completed, for its unit.
struct Done {
    operation: usize,
    failed: bool,
    bytes: u64,
    row: u32,
    slot: u32,
}

/// Adds a read or write to its unit's cells.
#[inline(always)]
fn charge(done: &Done, took: u64, served: u64) {
    let Some(unit) = UNIT_DISK.get_ptr_mut(done.slot) else { return lost(Loss::OutOfRange) };
    let row = if done.row < setting!(shared_devices) { done.row } else { 0 };
    let Some(shared) = UNIT_BLOCK.get_ptr_mut(row * setting!(unit_rows) + done.slot) else {
        return lost(Loss::OutOfRange);
    };
    // SAFETY: the look-ups gave whole cells.
    unsafe {
        if done.failed {
            add_shared(&raw mut (*unit).errors, 1);
        }
        add_shared(&raw mut (*unit).bytes[done.operation & 1], done.bytes);
        record_shared(&raw mut (*unit).latency[done.operation & 1], took);
        add_shared(&raw mut (*shared).wait_ns, took);
        add_shared(&raw mut (*shared).in_flight, done.bytes * served >> IN_FLIGHT_SHIFT);
        add_shared(&raw mut (*shared).requests, 1);
    }
}

/// Adds the failure of a flush, discard or other request to its unit's cell.
#[inline(always)]
fn charge_error(done: &Done) {
    if !done.failed {
        return;
    }
    match UNIT_DISK.get_ptr_mut(done.slot) {
        // SAFETY: the look-up gave a whole cell.
        Some(unit) => unsafe { add_shared(&raw mut (*unit).errors, 1) },
        None => lost(Loss::OutOfRange),
    }
}

/// What was known of a request at its issue.
struct Issue {
    /// When it was; 0 when that is not known.
    issued: u64,
    /// Slot of its unit.
    slot: u32,
}

/// Takes the stamp of a request out of the table. Nothing is known of one that was
/// issued before the program was attached, or whose stamp had to make room, which was
/// counted then.
#[inline(always)]
fn take(request: Pointer, start: u64) -> Issue {
    let mut found = Issue { issued: 0, slot: 0 };
    let key = identity(request);
    let Some(set) = REQUESTS.get_ptr_mut(request_set(key)) else { return found };
    // SAFETY: the look-up gave a whole set; nobody else completes this request.
    for entry in unsafe { &mut (*set).entries } {
        if entry.request == key {
            if entry.start == start {
                found = Issue { issued: entry.issued, slot: entry.slot as u32 };
            }
            entry.request = 0;
        }
    }
    found
}

/// The slot of the unit that a request is issued for.
///
/// # Safety
///
/// `request` must be a `struct request`.
#[inline(always)]
unsafe fn unit(request: Pointer) -> u64 {
    if setting!(request_has_cgroup) == 1 {
        // What writes back for a unit is not the unit, but the request knows.
        // SAFETY: each member is followed by its own type.
        let known = units::slot(unsafe { charged_to(request) });
        if known != 0 {
            return known.into();
        }
    }
    // SAFETY: a helper without arguments.
    units::slot(unsafe { bpf_get_current_cgroup_id() }).into()
}

/// Id of the cgroup that a request is charged to; 1, which is the root's, when it is
/// not one of version 2: ids of other hierarchies mean something else.
///
/// # Safety
///
/// `request` must be a `struct request`.
#[inline(always)]
unsafe fn charged_to(request: Pointer) -> u64 {
    unsafe {
        let bio: Pointer = member(request, offset!(request_bio));
        let group: Pointer = member(bio, offset!(bio_group));
        let controller: Pointer = member(group, offset!(group_controller));
        let cgroup: Pointer = member(controller, offset!(controller_cgroup));
        let root: Pointer = member(cgroup, offset!(cgroup_root));
        if root.is_null() || member::<u32>(root, offset!(root_hierarchy)) != 0 {
            return 1;
        }
        cgroup_id(cgroup)
    }
}

/// The key of the request's disk.
///
/// # Safety
///
/// `request` must be a `struct request`.
#[inline(always)]
unsafe fn device(request: Pointer) -> u64 {
    unsafe {
        let disk: Pointer = if setting!(disk_in_request) == 1 {
            member(request, offset!(request_disk))
        } else {
            let queue: Pointer = member(request, offset!(request_queue));
            member(queue, offset!(queue_disk))
        };
        device_key(member(disk, offset!(disk_major)), member(disk, offset!(disk_minor)))
    }
}
