//! Reading the kernel's memory, and what the agent found out about it.

use core::arch::asm;
use core::ffi::c_void;

use holdfast_agent_ebpf::offsets::Offsets;
use holdfast_agent_ebpf::settings::Settings;

/// Set and frozen by the agent before the load.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets::NONE;

/// Set and frozen by the agent before the load.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = Settings::NONE;

/// A pointer into the kernel whose type the verifier knows.
pub type Pointer = *const c_void;

/// The value of a frozen global: opaque to the compiler, constant to the verifier.
#[inline(always)]
pub fn frozen(global: &u32) -> u32 {
    // SAFETY: a reference is valid; volatile because the agent replaces the
    // value after this was compiled.
    unsafe { core::ptr::from_ref(global).read_volatile() }
}

/// The offset of a member.
macro_rules! offset {
    ($field:ident) => {
        $crate::support::kernel::frozen(&$crate::support::kernel::OFFSETS.$field)
    };
}
pub(crate) use offset;

/// A setting.
macro_rules! setting {
    ($field:ident) => {
        $crate::support::kernel::frozen(&$crate::support::kernel::SETTINGS.$field)
    };
}
pub(crate) use setting;

/// The member of `base` at `offset`.
///
/// # Safety
///
/// `base` must come from a tracepoint's argument or another `member`, and
/// `offset` must be that of a member of type `T` of its structure. The verifier
/// refuses the program otherwise; a pointer that has become stale reads as 0.
#[inline(always)]
pub unsafe fn member<T: Copy>(base: Pointer, offset: u32) -> T {
    // Volatile: a plain load lets the compiler assume that `base` is not null,
    // split the load, or move it before a check.
    unsafe { base.wrapping_byte_add(offset as usize).cast::<T>().read_volatile() }
}

/// A pointer as a number to look up by: unique, and the same in all programs.
///
/// It is the distance from one of our globals, because the difference of two pointers
/// is the only arithmetic on them that the verifier takes for a number.
#[inline(always)]
pub fn identity(pointer: Pointer) -> u64 {
    let mut number = pointer as u64;
    // In assembly, so that the compiler does not calculate with the pointer first.
    // SAFETY: a subtraction of registers.
    unsafe {
        asm!("{0} -= {1}", inout(reg) number, in(reg) core::ptr::from_ref(&OFFSETS));
    }
    number
}

/// Id of the cgroup (of version 2) that `cgroup` points to.
///
/// # Safety
///
/// As for [`member`], with a `struct cgroup`.
#[inline(always)]
pub unsafe fn cgroup_id(cgroup: Pointer) -> u64 {
    unsafe {
        let node: Pointer = member(cgroup, offset!(cgroup_node));
        member(node, offset!(node_id))
    }
}

/// Id of the cgroup (of version 2) that a task is in.
///
/// # Safety
///
/// As for [`member`], with a `struct task_struct`.
#[inline(always)]
pub unsafe fn task_cgroup_id(task: Pointer) -> u64 {
    unsafe {
        let set: Pointer = member(task, offset!(task_cgroups));
        cgroup_id(member(set, offset!(css_set_cgroup)))
    }
}
