//! TCP: segments sent again, resets, and what became of connects, by the unit
//! that owns the socket.
//!
//! Much of this runs in interrupts, on top of any task, so the unit is always
//! taken from the socket's own cgroup.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::cells::{SLOW_CONNECT_NS, TcpCell, TcpReasons};
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::reasons::{ERROR_ROWS, RESET_ROWS, error_row, reset_row};

use crate::support::count::{add_shared, bounded, interval, lost, record_shared};
use crate::support::kernel::{Pointer, cgroup_id, member, offset, setting};
use crate::support::storage::SocketStorage;
use crate::support::units::{self, MAPPED};

/// A row per unit slot: the agent sets the size.
#[btf_map]
pub static TCP: Array<TcpCell, 1, MAPPED> = Array::new();

/// One for all units.
#[btf_map]
static TCP_REASONS: Array<TcpReasons, 1, MAPPED> = Array::new();

/// What is remembered of a socket while it connects.
#[repr(C)]
struct Connect {
    since: u64,
    slot: u64,
}

#[btf_map]
static CONNECTS: SocketStorage<Connect> = SocketStorage::new();

/// `IPPROTO_TCP`.
pub const PROTOCOL_TCP: u16 = 6;

/// States of a connection, as in `enum`s of `net/tcp_states.h`.
pub const ESTABLISHED: u32 = 1;
/// As above.
pub const SYN_SENT: u32 = 2;
/// As above.
pub const CLOSE: u32 = 7;
/// First and last of those of a full socket; between them is `TIME_WAIT`, after them
/// `NEW_SYN_RECV`.
const FIRST: u8 = 1;
const TIME_WAIT: u8 = 6;
const LAST: u8 = 11;

const ENOMEM: i32 = 12;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;

/// A segment is sent again.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) {
    let (sock, buffer): (Pointer, Pointer) = (ctx.arg(0), ctx.arg(1));
    if setting!(retransmit_has_error) == 1 && ctx.arg::<u32>(2) != 0 {
        return;
    }
    // A buffer holds several segments where the network card cuts them.
    // SAFETY: `buffer` is a buffer whose control block is TCP's.
    let segments: u16 = unsafe { member(buffer, offset!(skb_control) + offset!(control_segments)) };
    // SAFETY: `sock` is a full socket.
    let cell = unsafe { cell_of(sock) };
    // SAFETY: a whole cell.
    with(cell, |cell| unsafe {
        add_shared(&raw mut (*cell).retransmits, u64::from(segments.max(1)));
    });
}

/// A reset is sent, perhaps for no socket of ours.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) {
    let sock: Pointer = ctx.arg(0);
    let cell = if sock.is_null() {
        TCP.get_ptr_mut(0)
    } else {
        // SAFETY: `sock` begins with what all kinds of sockets have in common.
        // Those that wait out their time, or are still asked for, are smaller and
        // have no cgroup. What is no state at all is no full socket either.
        unsafe {
            match member::<u8>(sock, offset!(sock_state)) {
                TIME_WAIT => TCP.get_ptr_mut(0),
                FIRST..=LAST => cell_of(sock),
                _ => TCP.get_ptr_mut(0),
            }
        }
    };
    // SAFETY: a whole cell.
    with(cell, |cell| unsafe { add_shared(&raw mut (*cell).resets_sent, 1) });
    if setting!(reset_has_reason) == 1 {
        let row = bounded::<RESET_ROWS>(reset_row(ctx.arg(2)));
        // SAFETY: a whole cell; the row is within the array.
        with(TCP_REASONS.get_ptr_mut(0), |reasons| unsafe {
            add_shared((&raw mut (*reasons).resets).cast::<u64>().add(row), 1);
        });
    }
}

/// A reset has arrived.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) {
    // SAFETY: the argument is a full socket.
    let cell = unsafe { cell_of(ctx.arg(0)) };
    // SAFETY: a whole cell.
    with(cell, |cell| unsafe { add_shared(&raw mut (*cell).resets_received, 1) });
}

/// A socket changes its state: connects begin and end here.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) {
    let sock: Pointer = ctx.arg(0);
    let (old, new): (u32, u32) = (ctx.arg(1), ctx.arg(2));
    if old != SYN_SENT && new != SYN_SENT {
        return;
    }
    // SAFETY: `sock` is a full socket.
    if unsafe { member::<u16>(sock, offset!(sock_protocol)) } != PROTOCOL_TCP {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if new == SYN_SENT {
        // SAFETY: `sock` is a full socket and an argument; storage is a whole stamp.
        unsafe {
            match CONNECTS.get(sock, true) {
                Some(connect) => *connect = Connect { since: now, slot: slot_of(sock).into() },
                None => lost(Loss::SocketStorage),
            }
        }
    } else {
        ended(sock, new, now);
    }
}

/// A socket, of whatever protocol, is refused memory.
#[btf_tracepoint(function = "sock_exceed_buf_limit")]
pub fn sock_exceed_buf_limit(ctx: BtfTracePointContext) {
    // SAFETY: the argument is a full socket.
    let cell = unsafe { cell_of(ctx.arg(0)) };
    // SAFETY: a whole cell.
    with(cell, |cell| unsafe { add_shared(&raw mut (*cell).memory_refused, 1) });
}

/// A packet finds a receive queue full.
#[btf_tracepoint(function = "sock_rcvqueue_full")]
pub fn sock_rcvqueue_full(ctx: BtfTracePointContext) {
    // SAFETY: the argument is a full socket.
    receive_full(unsafe { cell_of(ctx.arg(0)) });
}

/// The same for UDP, which has a way of its own. It also tells of memory that the
/// protocol as a whole may not have, but that is told above already.
#[btf_tracepoint(function = "udp_fail_queue_rcv_skb")]
pub fn udp_fail_queue_rcv_skb(ctx: BtfTracePointContext) {
    if ctx.arg::<u32>(0) as i32 == -ENOMEM {
        // SAFETY: the argument is a full socket.
        receive_full(unsafe { cell_of(ctx.arg(1)) });
    }
}

#[inline(always)]
fn receive_full(cell: Option<*mut TcpCell>) {
    // SAFETY: a whole cell.
    with(cell, |cell| unsafe { add_shared(&raw mut (*cell).receive_full, 1) });
}

#[inline(always)]
fn ended(sock: Pointer, new: u32, now: u64) {
    // SAFETY: `sock` is a full socket and an argument; storage is a whole stamp.
    let Some(connect) = (unsafe { CONNECTS.get(sock, false) }) else {
        return lost(Loss::ConnectUnmatched);
    };
    let (since, slot) = unsafe { (core::mem::take(&mut (*connect).since), (*connect).slot) };
    if since == 0 {
        return lost(Loss::ConnectUnmatched);
    }
    with(TCP.get_ptr_mut(slot as u32), |cell| {
        // SAFETY: `cell` is a whole cell, `sock` a full socket.
        unsafe {
            if new == ESTABLISHED {
                let Some(took) = interval(since, now) else { return };
                record_shared(&raw mut (*cell).connect, took);
                if took >= SLOW_CONNECT_NS {
                    add_shared(&raw mut (*cell).connects_slow, 1);
                }
            } else if new == CLOSE {
                let error = member::<u32>(sock, offset!(sock_error));
                // No error: the caller itself gave up.
                if error != 0 {
                    add_shared(&raw mut (*cell).connects_failed, 1);
                    let row = bounded::<ERROR_ROWS>(error_row(error));
                    with(TCP_REASONS.get_ptr_mut(0), |reasons| {
                        add_shared((&raw mut (*reasons).errors).cast::<u64>().add(row), 1);
                    });
                }
                if error == ECONNREFUSED {
                    add_shared(&raw mut (*cell).connects_refused, 1);
                } else if error == ETIMEDOUT {
                    add_shared(&raw mut (*cell).connects_timed_out, 1);
                }
            }
        }
    });
}

/// Counts in `cell`, or counts the loss where there is none.
#[inline(always)]
pub fn with<T>(cell: Option<*mut T>, count: impl FnOnce(*mut T)) {
    match cell {
        Some(cell) => count(cell),
        None => lost(Loss::OutOfRange),
    }
}

/// # Safety
///
/// `sock` must be a full `struct sock`.
#[inline(always)]
unsafe fn cell_of(sock: Pointer) -> Option<*mut TcpCell> {
    TCP.get_ptr_mut(unsafe { slot_of(sock) })
}

/// # Safety
///
/// `sock` must be a full `struct sock`.
#[inline(always)]
unsafe fn slot_of(sock: Pointer) -> u32 {
    units::slot(unsafe { cgroup_id(member(sock, offset!(sock_cgroup))) })
}
