//! Block I/O: latency, size and errors of requests, by device and kind.
//!
//! One program, at completion. The request carries the time it was made, so
//! latency is what the issuer saw: queue and device together.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::{BlockCell, operation};
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::slots::device_key;

use crate::support::count::{interval, lost, record};
use crate::support::kernel::{Pointer, member, offset, setting};
use crate::support::units::{self, MAPPED};

/// A row per device, for each CPU: the agent sets the size.
#[btf_map]
pub static BLOCK: Array<BlockCell, 1, MAPPED> = Array::new();

/// `REQ_OP_MASK` and the operations of `enum req_op` that have a name here.
const OPERATION_MASK: u32 = 0xff;
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 2;

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
        READ | WRITE if completed == 0 => return,
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
        (*cell).errors += u64::from(failed);
        if operation < operation::SIZED {
            record(&raw mut (*cell).size[operation & 1], u64::from(completed));
        }
        if start == 0 {
            return lost(Loss::RequestUnstamped);
        }
        if let Some(took) = interval(start, bpf_ktime_get_ns()) {
            record(&raw mut (*cell).latency[operation & 3], took);
        }
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
