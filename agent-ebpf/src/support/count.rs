//! Adding to cells: without atomics where a cell belongs to one CPU and one
//! program (the kernel does not run a program inside itself on one CPU), with
//! them where it is shared.

use core::arch::asm;

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use holdfast_agent_ebpf::cells::{CpuCell, Histogram};
use holdfast_agent_ebpf::histogram::{BUCKETS, bucket_of};
use holdfast_agent_ebpf::loss::{self, Loss};

use super::units::MAPPED;

#[btf_map]
static LOSSES: Array<u64, { loss::NAMES.len() }, MAPPED> = Array::new();

/// One per possible CPU: the agent sets the size.
#[btf_map]
pub static CPUS: Array<CpuCell, 1, MAPPED> = Array::new();

/// Counts something that had to be dropped.
#[inline(always)]
pub fn lost(cause: Loss) {
    if let Some(counter) = LOSSES.get_ptr_mut(cause as u32) {
        // SAFETY: the look-up gave a pointer to a whole counter.
        unsafe { add_shared(counter, 1) };
    }
}

/// The time from `start` to `end`, or `None` and a loss when it is negative.
#[inline(always)]
pub fn interval(start: u64, end: u64) -> Option<u64> {
    if end < start {
        lost(Loss::NegativeInterval);
        return None;
    }
    Some(end - start)
}

/// Adds to a counter that all CPUs share.
///
/// # Safety
///
/// `counter` must point to a counter in a map.
#[inline(always)]
pub unsafe fn add_shared(counter: *mut u64, n: u64) {
    // In assembly, because the language has no atomic addition for this target.
    // SAFETY: the caller's promise; the verifier checks the access again.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) n) };
}

/// Puts `new` into a number that all CPUs share; what was there before.
///
/// # Safety
///
/// `number` must point to a number in a map.
#[inline(always)]
pub unsafe fn exchange(number: *mut u64, new: u64) -> u64 {
    let mut value = new;
    // SAFETY: the caller's promise; the verifier checks the access again.
    unsafe { asm!("{1} = xchg_64({0} + 0, {1})", in(reg) number, inout(reg) value) };
    value
}

/// `row` as an index below `ROWS`, a power of two, bounded where every verifier sees it:
/// those before 6.2 or so forget a comparison of the lower half of a register.
#[inline(always)]
pub fn bounded<const ROWS: u32>(row: u32) -> usize {
    const { assert!(ROWS.is_power_of_two()) };
    let mut row = u64::from(row);
    // In assembly, because the compiler drops a mask that it knows to change nothing.
    // SAFETY: touches one register.
    unsafe { asm!("{0} &= {1}", inout(reg) row, const ROWS - 1) };
    row as usize
}

/// Counts `value` in a distribution of this CPU.
///
/// # Safety
///
/// `histogram` must point to a histogram in a map that no other CPU or program writes.
#[inline(always)]
pub unsafe fn record(histogram: *mut Histogram, value: u64) {
    // The sum last: a reader that sees it changed finds the count changed, too.
    unsafe {
        *bucket(histogram, value) += 1;
        (*histogram).sum += value;
    }
}

/// Counts `value` for `n` like it in a distribution of this CPU.
///
/// # Safety
///
/// As for [`record`].
#[inline(always)]
pub unsafe fn record_many(histogram: *mut Histogram, value: u64, n: u32) {
    unsafe {
        *bucket(histogram, value) += n;
        (*histogram).sum += value * u64::from(n);
    }
}

/// Counts `value` in a distribution that all CPUs share.
///
/// # Safety
///
/// `histogram` must point to a histogram in a map.
#[inline(always)]
pub unsafe fn record_shared(histogram: *mut Histogram, value: u64) {
    unsafe {
        asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) bucket(histogram, value), in(wreg) 1u32);
        add_shared(&raw mut (*histogram).sum, value);
    }
}

#[inline(always)]
unsafe fn bucket(histogram: *mut Histogram, value: u64) -> *mut u32 {
    // The mask, right before the use, is what the verifier bounds the access by.
    let index = bucket_of(value) as usize & (BUCKETS - 1);
    unsafe { (&raw mut (*histogram).counts).cast::<u32>().add(index) }
}
