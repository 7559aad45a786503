//! Interrupts: how often devices' handlers and deferred interrupts (softirqs) ran on
//! each CPU, and for how long.
//!
//! A deferred interrupt does not interrupt another on its CPU, and a device's handler
//! runs with interrupts off, so one stamp of each is enough. A handler may interrupt
//! a deferred interrupt: its time is taken off there. Reading the clock twice is most
//! of the cost, so when detail is shed, deferred interrupts are timed by sample and
//! still counted one by one.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::IrqCell;
use holdfast_agent_ebpf::depth::SAMPLED;
use holdfast_agent_ebpf::loss::Loss;

use crate::support::count::{interval, lost};
use crate::support::sample::stride;
use crate::support::units::MAPPED;

/// One per possible CPU: the agent sets the size.
#[btf_map]
static IRQS: Array<IrqCell, 1, MAPPED> = Array::new();

/// A deferred interrupt begins.
#[btf_tracepoint(function = "softirq_entry")]
pub fn softirq_entry(_: BtfTracePointContext) {
    let Some(here) = here() else { return };
    // SAFETY: this CPU's cell; the clock is a helper without arguments. The clock
    // first: a handler that comes between the two is then counted as both, not as less
    // than nothing.
    unsafe {
        if (*here).depth >= SAMPLED && (*here).skip > 0 {
            (*here).skip -= 1;
            return; // Without a stamp, it is only counted.
        }
        (*here).soft_since = bpf_ktime_get_ns();
        (*here).hard_before = (*here).hard.ns;
    }
}

/// A deferred interrupt ends.
#[btf_tracepoint(function = "softirq_exit")]
pub fn softirq_exit(ctx: BtfTracePointContext) {
    let kind: u32 = ctx.arg(0);
    let Some(here) = here() else { return };
    // SAFETY: this CPU's cell; the clock is a helper without arguments.
    unsafe {
        let since = core::mem::take(&mut (*here).soft_since);
        // Before the clock, for the same reason.
        let interrupted = (*here).hard.ns - (*here).hard_before;
        let Some(of_kind) = (*here).soft.get_mut(kind as usize) else {
            return lost(Loss::OutOfRange);
        };
        of_kind.count += 1;
        if since == 0 {
            return;
        }
        let sampled = (*here).depth >= SAMPLED;
        let n = if sampled { (*here).weight.max(1) } else { 1 };
        if let Some(ran) = interval(since + interrupted, bpf_ktime_get_ns()) {
            of_kind.ns += ran * u64::from(n);
        }
        if sampled {
            (*here).weight = stride((*here).looked, since, n);
            (*here).skip = (*here).weight - 1;
        }
        (*here).looked = since;
    }
}

/// A device's handler begins.
#[btf_tracepoint(function = "irq_handler_entry")]
pub fn irq_handler_entry(_: BtfTracePointContext) {
    let Some(here) = here() else { return };
    // SAFETY: this CPU's cell; a helper without arguments.
    unsafe { (*here).hard_since = bpf_ktime_get_ns() };
}

/// A device's handler ends.
#[btf_tracepoint(function = "irq_handler_exit")]
pub fn irq_handler_exit(_: BtfTracePointContext) {
    let Some(here) = here() else { return };
    // SAFETY: this CPU's cell; the clock is a helper without arguments.
    unsafe {
        let since = core::mem::take(&mut (*here).hard_since);
        if since == 0 {
            return; // It began before this program did.
        }
        if let Some(ran) = interval(since, bpf_ktime_get_ns()) {
            (*here).hard.ns += ran;
        }
        (*here).hard.count += 1;
    }
}

/// This CPU's cell.
#[inline(always)]
fn here() -> Option<*mut IrqCell> {
    // SAFETY: a helper without arguments.
    let cell = IRQS.get_ptr_mut(unsafe { bpf_get_smp_processor_id() });
    if cell.is_none() {
        lost(Loss::OutOfRange);
    }
    cell
}
