//! How a program finds the row of a unit or device: a small table of sets, four
//! entries each, a set being one cache line.
//!
//! An array that only the agent writes: no locks, no allocation, one look-up. An
//! absent key means row 0, "everything else".

use crate::cells::{REQUEST_STAMPS, REQUEST_WAYS, Word};

/// Entries in a set.
pub const WAYS: usize = 4;
/// Sets of the unit table (8,192 entries).
pub const UNIT_SETS: u32 = 1 << UNIT_SET_BITS;
const UNIT_SET_BITS: u32 = 11;
/// Sets of the device table (256 entries).
pub const DEVICE_SETS: u32 = 1 << DEVICE_SET_BITS;
const DEVICE_SET_BITS: u32 = 6;

/// Rows at the end of the unit tables that no unit ever gets.
pub const RESERVED_ROWS: u32 = 2;

/// The reserved row of what the agent provokes to prove its probes.
#[inline(always)]
#[must_use]
pub const fn attest_row(unit_rows: u32) -> u32 {
    unit_rows - 1
}

/// The reserved row for distributions of units that are not looked at in detail:
/// it adds to the host and to no unit.
#[inline(always)]
#[must_use]
pub const fn undetailed_row(unit_rows: u32) -> u32 {
    unit_rows - 2
}

/// In [`Entry::row`]: the unit is under pressure, so its distributions are kept
/// when those of others are not.
pub const DETAIL: u64 = 1 << 32;

/// One key and its row.
#[repr(C)]
pub struct Entry {
    /// The key; 0 when the entry is free.
    pub key: Word,
    /// The row in the lower half; flags such as [`DETAIL`] in the upper one.
    pub row: Word,
}

/// All entries that a key may be in.
#[repr(C, align(64))]
pub struct Set {
    /// The entries.
    pub entries: [Entry; WAYS],
}

/// The set of a cgroup id. Ids are small and dense, so their last digits spread
/// them best.
#[inline(always)]
#[must_use]
pub const fn unit_set(cgroup_id: u64) -> u32 {
    (cgroup_id ^ cgroup_id >> 32) as u32 & (UNIT_SETS - 1)
}

/// The set of a device key. Minor numbers come in strides, so the golden ratio
/// spreads them.
#[inline(always)]
#[must_use]
pub const fn device_set(key: u64) -> u32 {
    (key.wrapping_mul(GOLDEN) >> (64 - DEVICE_SET_BITS)) as u32
}

/// The set of a request's stamp. Requests of a queue lie in rows, which the golden
/// ratio spreads more evenly than chance would.
#[inline(always)]
#[must_use]
pub const fn request_set(request: u64) -> u32 {
    const SETS: u32 = REQUEST_STAMPS / REQUEST_WAYS as u32;
    (request.wrapping_mul(GOLDEN) >> (64 - SETS.ilog2())) as u32
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The key of a block device. Never 0.
#[inline(always)]
#[must_use]
pub const fn device_key(major: u32, minor: u32) -> u64 {
    1 << 63 | (major as u64) << 32 | minor as u64
}
