//! From a cgroup id or device number to its row.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use holdfast_agent_ebpf::slots::{DEVICE_SETS, Set, UNIT_SETS, device_set, unit_set};

/// The flag of arrays that the agent reads and writes in place.
pub const MAPPED: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
static UNITS: Array<Set, { UNIT_SETS as usize }, MAPPED> = Array::new();

#[btf_map]
static DEVICES: Array<Set, { DEVICE_SETS as usize }, MAPPED> = Array::new();

/// The slot of the unit whose cgroup it is; 0 for a cgroup of no known unit.
#[inline(always)]
pub fn slot(cgroup_id: u64) -> u32 {
    flagged_slot(cgroup_id) as u32
}

/// The same in the lower half, and flags such as
/// [`DETAIL`](holdfast_agent_ebpf::slots::DETAIL) in the upper one.
#[inline(always)]
pub fn flagged_slot(cgroup_id: u64) -> u64 {
    find(UNITS.get_ptr(unit_set(cgroup_id)), cgroup_id)
}

/// The row of a device, by its [`device_key`](holdfast_agent_ebpf::slots::device_key).
#[inline(always)]
pub fn device_row(key: u64) -> u32 {
    find(DEVICES.get_ptr(device_set(key)), key) as u32
}

#[inline(always)]
fn find(set: Option<*const Set>, key: u64) -> u64 {
    let Some(set) = set else { return 0 };
    // SAFETY: the look-up gave a pointer to a whole set.
    let entries = unsafe { &(*set).entries };
    for entry in entries {
        if entry.key == key {
            return entry.row;
        }
    }
    0
}
