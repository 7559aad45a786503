//! The forms for kernels without a description of their types: classic tracepoints.
//!
//! A record is all they have: fields are read by a helper each, sockets and requests
//! are told apart by their addresses in bounded hashes instead of storage of their own,
//! and what happens in interrupts cannot be told to be of any unit. So they cost more
//! and know less, and are taken only where the typed forms cannot be had.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns,
};
use aya_ebpf::macros::{btf_map, tracepoint};
use aya_ebpf::programs::TracePointContext;
use holdfast_agent_ebpf::cells::{SLOW_CONNECT_NS, operation};
use holdfast_agent_ebpf::fields::Fields;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::records::kind;
use holdfast_agent_ebpf::slots::device_key;

use crate::block::BLOCK;
use crate::exit::PROCESS;
use crate::memory;
use crate::support::count::{add_shared, interval, lost, record, record_shared};
use crate::support::events::{self, Subject};
use crate::support::kernel::{frozen, setting};
use crate::support::units;
use crate::tcp::{CLOSE, ESTABLISHED, PROTOCOL_TCP, SYN_SENT, TCP, with};

/// Set and frozen by the agent before the load.
#[unsafe(no_mangle)]
static FIELDS: Fields = Fields::NONE;

/// Memory is taken as entries come: these maps are empty where the typed forms run.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// Where a request is: its disk and first sector.
#[repr(C)]
struct Place {
    device: u64,
    sector: u64,
}

/// Requests that a device works on, and when it was given them.
#[btf_map]
static ISSUED: HashMap<Place, u64, 1024, ON_DEMAND> = HashMap::new();

/// What is remembered of a socket while it connects.
#[repr(C)]
struct Connect {
    since: u64,
    slot: u64,
}

/// Addresses of sockets that connect.
#[btf_map]
static CONNECTING: HashMap<u64, Connect, 1024, ON_DEMAND> = HashMap::new();

/// The field of a record; 0 where the kernel does not have it or will not read it.
macro_rules! field {
    ($ctx:ident, $field:ident) => {
        // SAFETY: the offset is that of a field of this tracepoint's record.
        unsafe { read($ctx.as_ptr(), frozen(&FIELDS.$field)) }
    };
}

/// Whether the kernel has the field: for those that a program can do without.
macro_rules! has {
    ($field:ident) => {
        frozen(&FIELDS.$field) != 0
    };
}

/// # Safety
///
/// `offset` must be 0 or that of a field of type `T` of the record; a `T` may have
/// any bytes.
#[inline(always)]
unsafe fn read<T: Default>(record: *mut c_void, offset: u32) -> T {
    let mut value = T::default();
    if offset != 0 {
        // A helper, because the verifier takes no load at an offset that is not spelled
        // out. It leaves zeros where it cannot read.
        // SAFETY: the helper writes `value` and no more.
        unsafe {
            bpf_probe_read_kernel(
                (&raw mut value).cast(),
                size_of::<T>() as u32,
                record.wrapping_byte_add(offset as usize),
            )
        };
    }
    value
}

/// A device begins to work on a request.
#[tracepoint(category = "block", name = "block_rq_issue")]
pub fn classic_rq_issue(ctx: TracePointContext) -> u32 {
    let place =
        Place { device: key_of(field!(ctx, issue_device)), sector: field!(ctx, issue_sector) };
    // SAFETY: a helper without arguments.
    if ISSUED.insert(&place, unsafe { bpf_ktime_get_ns() }, 0).is_err() {
        lost(Loss::RequestMapFull);
    }
    0
}

/// A request, or a part of one, has completed.
#[tracepoint(category = "block", name = "block_rq_complete")]
pub fn classic_rq_complete(ctx: TracePointContext) -> u32 {
    complete(&ctx);
    0
}

#[inline(always)]
fn complete(ctx: &TracePointContext) {
    let place = Place {
        device: key_of(field!(ctx, complete_device)),
        sector: field!(ctx, complete_sector),
    };
    let sectors: u32 = field!(ctx, complete_sectors);
    let letters: [u8; 2] = field!(ctx, complete_kind);
    let error: u32 = field!(ctx, complete_error);
    // A letter for a flush that goes before, then the operation's own.
    let letter = match letters {
        [b'F', second @ (b'W' | b'R' | b'D' | b'N')] => second,
        [first, _] => first,
    };
    let operation = match letter {
        // As in the typed form: such a write completes twice.
        b'R' | b'W' if sectors == 0 => return,
        b'R' => operation::READ,
        b'W' => operation::WRITE,
        b'F' => operation::FLUSH,
        _ => operation::OTHER,
    };

    // SAFETY: nobody else uses the entry of a request that completes.
    let issued = unsafe { ISSUED.get(&place) }.copied();
    let _ = ISSUED.remove(&place);
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let row = units::device_row(place.device);
    let Some(cell) = BLOCK.get_ptr_mut(cpu * setting!(device_rows) + row) else {
        return lost(Loss::OutOfRange);
    };
    // SAFETY: the look-up gave a cell that only this program on this CPU writes,
    // and kinds are positions in its arrays.
    unsafe {
        (*cell).errors += u64::from(error != 0);
        if operation < operation::SIZED {
            record(&raw mut (*cell).size[operation & 1], u64::from(sectors) << SECTOR_SHIFT);
        }
        let Some(issued) = issued else { return lost(Loss::RequestUnmatched) };
        if let Some(took) = interval(issued, bpf_ktime_get_ns()) {
            record(&raw mut (*cell).latency[operation & 3], took);
        }
    }
}

/// Sectors are of 512 bytes, whatever the device's own are.
const SECTOR_SHIFT: u32 = 9;
/// Bits of a minor number in a device number of the kernel (`MINORBITS`).
const MINOR_BITS: u32 = 20;

#[inline(always)]
fn key_of(device: u32) -> u64 {
    device_key(device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1))
}

/// A segment is sent again, by the host: which socket's cannot be followed.
#[tracepoint(category = "tcp", name = "tcp_retransmit_skb")]
pub fn classic_retransmit(ctx: TracePointContext) -> u32 {
    let error: u32 = field!(ctx, retransmit_error);
    if error == 0 {
        // SAFETY: a whole cell.
        with(TCP.get_ptr_mut(0), |cell| unsafe { add_shared(&raw mut (*cell).retransmits, 1) });
    }
    0
}

/// The host sends a reset.
#[tracepoint(category = "tcp", name = "tcp_send_reset")]
pub fn classic_send_reset(_: TracePointContext) -> u32 {
    // SAFETY: a whole cell.
    with(TCP.get_ptr_mut(0), |cell| unsafe { add_shared(&raw mut (*cell).resets_sent, 1) });
    0
}

/// A reset has arrived at the host.
#[tracepoint(category = "tcp", name = "tcp_receive_reset")]
pub fn classic_receive_reset(_: TracePointContext) -> u32 {
    // SAFETY: a whole cell.
    with(TCP.get_ptr_mut(0), |cell| unsafe { add_shared(&raw mut (*cell).resets_received, 1) });
    0
}

/// A socket changes its state: connects begin and end here.
#[tracepoint(category = "sock", name = "inet_sock_set_state")]
pub fn classic_set_state(ctx: TracePointContext) -> u32 {
    let (old, new): (u32, u32) = (field!(ctx, state_old), field!(ctx, state_new));
    let (protocol, sock): (u16, u64) = (field!(ctx, state_protocol), field!(ctx, state_socket));
    if protocol != PROTOCOL_TCP || (old != SYN_SENT && new != SYN_SENT) {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if new == SYN_SENT {
        // The first SYN is sent by the task that connects, in a unit of its own.
        // SAFETY: a helper without arguments.
        let slot = units::slot(unsafe { bpf_get_current_cgroup_id() });
        let connect = Connect { since: now, slot: slot.into() };
        if CONNECTING.insert(&sock, connect, 0).is_err() {
            lost(Loss::ConnectMapFull);
        }
    } else {
        ended(sock, new, now);
    }
    0
}

#[inline(always)]
fn ended(sock: u64, new: u32, now: u64) {
    // SAFETY: nobody else uses the entry of a socket that changes its state.
    let Some(connect) = (unsafe { CONNECTING.get(&sock) }) else {
        return lost(Loss::ConnectUnmatched);
    };
    let (since, slot) = (connect.since, connect.slot);
    let _ = CONNECTING.remove(&sock);
    with(TCP.get_ptr_mut(slot as u32), |cell| {
        // SAFETY: a whole cell.
        unsafe {
            if new == ESTABLISHED {
                let Some(took) = interval(since, now) else { return };
                record_shared(&raw mut (*cell).connect, took);
                if took >= SLOW_CONNECT_NS {
                    add_shared(&raw mut (*cell).connects_slow, 1);
                }
            } else if new == CLOSE {
                add_shared(&raw mut (*cell).connects_failed, 1);
            }
        }
    });
}

/// A task found no free memory and begins to look for some.
#[tracepoint(category = "vmscan", name = "mm_vmscan_direct_reclaim_begin")]
pub fn classic_reclaim_begin(_: TracePointContext) -> u32 {
    memory::reclaim_begins();
    0
}

/// It has found some, or given up.
#[tracepoint(category = "vmscan", name = "mm_vmscan_direct_reclaim_end")]
pub fn classic_reclaim_end(_: TracePointContext) -> u32 {
    memory::reclaim_ends();
    0
}

/// A task ran into its cgroup's limit and begins to look for memory within it.
#[tracepoint(category = "vmscan", name = "mm_vmscan_memcg_reclaim_begin")]
pub fn classic_cgroup_reclaim_begin(_: TracePointContext) -> u32 {
    memory::reclaim_begins();
    0
}

/// It has found some, or given up.
#[tracepoint(category = "vmscan", name = "mm_vmscan_memcg_reclaim_end")]
pub fn classic_cgroup_reclaim_end(_: TracePointContext) -> u32 {
    memory::reclaim_ends();
    0
}

/// The kernel has chosen a process to kill.
#[tracepoint(category = "oom", name = "mark_victim")]
pub fn classic_mark_victim(ctx: TracePointContext) -> u32 {
    let Some(cell) = PROCESS.get_ptr_mut(0) else {
        lost(Loss::OutOfRange);
        return 0;
    };
    let pid = field!(ctx, victim_pid);
    let subject = Subject { kind: kind::OOM, cgroup_id: 0, cell };
    // SAFETY: the look-up gave a whole cell.
    unsafe {
        add_shared(&raw mut (*cell).oom_kills, 1);
        events::send(&subject, pid, 0, [0; 2]);
    }
    0
}

/// A thread ends; with the last one, its process.
#[tracepoint(category = "sched", name = "sched_process_exit")]
pub fn classic_process_exit(ctx: TracePointContext) -> u32 {
    let ids = bpf_get_current_pid_tgid();
    // Where the record does not say it, the first thread stands for the process.
    let dead = if has!(exit_group_dead) {
        let dead: u8 = field!(ctx, exit_group_dead);
        dead != 0
    } else {
        ids as u32 == (ids >> 32) as u32
    };
    if dead {
        // SAFETY: a helper without arguments.
        let cgroup = unsafe { bpf_get_current_cgroup_id() };
        match PROCESS.get_ptr_mut(units::slot(cgroup)) {
            // SAFETY: the look-up gave a whole cell.
            Some(cell) => unsafe { add_shared(&raw mut (*cell).exits, 1) },
            None => lost(Loss::OutOfRange),
        }
    }
    0
}
