//! Rare facts, through a ring buffer, rate-limited by CPU and kind.

use aya_ebpf::btf_maps::RingBuf;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::btf_map;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::records::{EVENTS_PER_SECOND, Event, RING_BYTES};

use super::count::{CPUS, lost};
use super::kernel::{Pointer, member, offset};

#[btf_map]
static EVENTS: RingBuf<Event, RING_BYTES> = RingBuf::new();

/// Tells of a process: its first thread is `leader`, its cgroup `cgroup_id`.
///
/// # Safety
///
/// `leader` must be a `struct task_struct`, as for [`member`].
#[inline(always)]
pub unsafe fn tell(kind: u32, leader: Pointer, cgroup_id: u64, status: u32) {
    // SAFETY: `leader` is a task; a name is sixteen bytes, read as two words.
    let (pid, command) = unsafe {
        let pid: u32 = member(leader, offset!(task_tgid));
        let comm = offset!(task_comm);
        (pid, [member(leader, comm), member(leader, comm + 8)])
    };
    send(kind, pid, cgroup_id, status, command);
}

/// Tells of a process of which only the id is known.
#[inline(always)]
pub fn send(kind: u32, pid: u32, cgroup_id: u64, status: u32, command: [u64; 2]) {
    // SAFETY: a helper without arguments.
    let at_ns = unsafe { bpf_ktime_get_boot_ns() };
    if !let_through(kind, at_ns) {
        return lost(Loss::EventRate);
    }
    let event = Event { kind, pid, cgroup_id, at_ns, status, reserved: 0, command };
    if EVENTS.output(event, 0).is_err() {
        lost(Loss::EventRing);
    }
}

#[inline(always)]
fn let_through(kind: u32, at_ns: u64) -> bool {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(cpu) = CPUS.get_ptr_mut(cpu) else { return false };
    // SAFETY: the look-up gave a pointer to a whole cell; kinds are constants
    // below the number of windows.
    let window = unsafe { &mut *(&raw mut (*cpu).windows[kind as usize & 1]) };
    let second = at_ns / 1_000_000_000;
    if window.second != second {
        window.second = second;
        window.events = 0;
    }
    window.events += 1;
    window.events <= EVENTS_PER_SECOND
}
