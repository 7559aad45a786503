//! A pass over all tasks: threads, processes, resident memory, uninterruptible sleep
//! and major faults, added up by unit.
//!
//! The agent starts each pass by reading the iterator to its end, which calls the
//! program once for each thread, one after the other and in the agent's own time. It
//! writes no text: the sums are the result.

use core::ffi::c_void;

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::btf_map;
use holdfast_agent_ebpf::cells::TaskCell;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::settings::rss;

use crate::support::count::lost;
use crate::support::kernel::{Pointer, member, offset, setting, task_cgroup_id};
use crate::support::units::{self, MAPPED};

/// A row per unit slot: the agent sets the size.
#[btf_map]
static TASK_SUMS: Array<TaskCell, 1, MAPPED> = Array::new();

/// `TASK_UNINTERRUPTIBLE`, and the flag of those who sleep so only not to be counted.
const UNINTERRUPTIBLE: u32 = 2;
const NO_LOAD: u32 = 0x400;

/// What the kernel hands to a program that is called for each task.
#[repr(C)]
struct Context {
    meta: Pointer,
    /// Null after the last one.
    task: Pointer,
}

/// One thread. In a hand-written section, as there is no macro for iterators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn count_task(ctx: *const c_void) -> i32 {
    // SAFETY: the kernel's context of this kind of program.
    let task = unsafe { (&raw const (*ctx.cast::<Context>()).task).read_volatile() };
    if !task.is_null() {
        // SAFETY: `task` is a task.
        unsafe { count(task) };
    }
    0
}

#[inline(always)]
unsafe fn count(task: Pointer) {
    // SAFETY: `task` is a task, and each member is followed by its own type; the
    // look-up gives a whole cell, which passes, one at a time, alone write.
    unsafe {
        let signal: Pointer = member(task, offset!(task_signal));
        // What is only waiting to be reaped was counted by the program on exits.
        if member::<u32>(signal, offset!(signal_live)) == 0 {
            return;
        }
        let Some(cell) = TASK_SUMS.get_ptr_mut(units::slot(task_cgroup_id(task))) else {
            return lost(Loss::OutOfRange);
        };
        let mut faults: u64 = member(task, offset!(task_major_faults));
        if member::<u32>(task, offset!(task_pid)) == member::<u32>(task, offset!(task_tgid)) {
            (*cell).processes += 1;
            (*cell).rss_pages += resident(task);
            faults += member::<u64>(signal, offset!(signal_major_faults));
        }
        (*cell).threads += 1;
        (*cell).major_faults += faults;
        let state = if setting!(state_underscored) == 1 {
            member::<u32>(task, offset!(task_underscored_state))
        } else {
            member::<u64>(task, offset!(task_plain_state)) as u32
        };
        if state & (UNINTERRUPTIBLE | NO_LOAD) == UNINTERRUPTIBLE {
            (*cell).uninterruptible += 1;
        }
    }
}

/// Pages that a process has in RAM, without what single CPUs have not yet added (at
/// most some tens of pages for each).
///
/// # Safety
///
/// `task` must be a `struct task_struct`.
#[inline(always)]
unsafe fn resident(task: Pointer) -> u64 {
    // SAFETY: each member is followed by its own type; threads of the kernel have no
    // memory of their own.
    let [file, anonymous, shared] = unsafe {
        let memory: Pointer = member(task, offset!(task_memory));
        if memory.is_null() {
            return 0;
        }
        match setting!(task_rss) {
            rss::PER_CPU => [
                member::<i64>(memory, offset!(rss_file)),
                member(memory, offset!(rss_anonymous)),
                member(memory, offset!(rss_shared)),
            ],
            // Verifiers of that time do not follow a path through an array.
            rss::PLAIN => [
                copied(memory, offset!(rss_plain_file)),
                copied(memory, offset!(rss_plain_anonymous)),
                copied(memory, offset!(rss_plain_shared)),
            ],
            _ => return 0,
        }
    };
    // Each may be a little below zero for a moment.
    let sum = file + anonymous + shared;
    if sum > 0 { sum as u64 } else { 0 }
}

/// The number of `base` at `offset`, through a helper; 0 where it cannot be read.
///
/// # Safety
///
/// As for [`member`].
#[inline(always)]
unsafe fn copied(base: Pointer, offset: u32) -> i64 {
    let mut number = 0i64;
    // SAFETY: the helper writes `number` and no more, and survives any address.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut number).cast(),
            size_of::<i64>() as u32,
            base.wrapping_byte_add(offset as usize),
        )
    };
    number
}
