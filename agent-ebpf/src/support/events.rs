//! Rare facts, through a ring buffer, rate-limited by unit and kind.

use aya_ebpf::btf_maps::RingBuf;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_map;
use holdfast_agent_ebpf::cells::ProcessCell;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::records::kind::WINDOWS;
use holdfast_agent_ebpf::records::{EVENTS_PER_SECOND, Event, RING_BYTES};

use super::count::lost;
use super::kernel::{Pointer, member, offset};

#[btf_map]
static EVENTS: RingBuf<Event, RING_BYTES> = RingBuf::new();

/// What an event is about.
pub struct Subject {
    /// One of [`kind`](holdfast_agent_ebpf::records::kind).
    pub kind: u32,
    /// Id of the process's cgroup.
    pub cgroup_id: u64,
    /// The cell of its unit.
    pub cell: *mut ProcessCell,
}

/// Tells of a process whose first thread is `leader`.
///
/// # Safety
///
/// `leader` must be a `struct task_struct`, as for [`member`]; the cell must be in a map.
#[inline(always)]
pub unsafe fn tell(subject: &Subject, leader: Pointer, status: u32) {
    // SAFETY: `leader` is a task; a name is sixteen bytes, read as two words.
    unsafe {
        let pid: u32 = member(leader, offset!(task_tgid));
        let comm = offset!(task_comm);
        send(subject, pid, status, [member(leader, comm), member(leader, comm + 8)]);
    }
}

/// Tells of a process of which only the id is known.
///
/// # Safety
///
/// The cell must be in a map.
#[inline(always)]
pub unsafe fn send(subject: &Subject, pid: u32, status: u32, command: [u64; 2]) {
    let Subject { kind, cgroup_id, cell } = *subject;
    // SAFETY: a helper without arguments.
    let at_ns = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the caller's promise.
    if !unsafe { let_through(kind, cell, at_ns) } {
        return lost(Loss::EventRate);
    }
    let event = Event { kind, pid, cgroup_id, at_ns, status, reserved: 0, command };
    if EVENTS.output(event, 0).is_err() {
        lost(Loss::EventRing);
    }
}

#[inline(always)]
unsafe fn let_through(kind: u32, cell: *mut ProcessCell, at_ns: u64) -> bool {
    // SAFETY: a whole cell; kinds are constants below the number of windows.
    let window = unsafe { &mut *(&raw mut (*cell).windows[kind as usize & (WINDOWS - 1)]) };
    let second = at_ns / 1_000_000_000;
    if window.second != second {
        window.second = second;
        window.events = 0;
    }
    window.events += 1;
    window.events <= EVENTS_PER_SECOND
}
