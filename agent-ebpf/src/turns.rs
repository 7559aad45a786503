//! Who had a CPU of late: the short memory of each CPU from which a long wait is
//! charged to those who caused it.
//!
//! A turn is one word: how long, and who. Turns of one unit in a row are one turn,
//! so that the memory reaches back over changes of units, not of tasks.

/// Turns that a CPU remembers. A power of two.
pub const TURNS: usize = 16;
/// The lower bits of a turn: one more than the slot of the unit, 0 for the idle task.
/// The nanoseconds are above them.
pub const RUNNING_BITS: u32 = 12;
/// The bits of the unit.
pub const RUNNING: u64 = (1 << RUNNING_BITS) - 1;

/// Waits shorter than this are not charged turn by turn, which keeps the switch cheap:
/// at most ten thousand of the others fit into a second of a CPU's queue.
pub const LONG_WAIT_NS: u64 = 100_000;

/// Most rows of the matrix of victims and culprits.
pub const BLAME_ROWS: u32 = 128;

/// Where in the matrix the waits of `victim` for `culprit` are; units beyond the
/// matrix share row and column 0.
#[inline(always)]
#[must_use]
pub const fn charge_index(rows: u32, victim: u32, culprit: u32) -> u32 {
    row_of(rows, victim) * (rows + 1) + row_of(rows, culprit)
}

/// Where in the matrix the waits of `victim` are that passed while its CPU was idle:
/// the task was on its way, and no unit is to blame.
#[inline(always)]
#[must_use]
pub const fn idle_index(rows: u32, victim: u32) -> u32 {
    row_of(rows, victim) * (rows + 1) + rows
}

const fn row_of(rows: u32, slot: u32) -> u32 {
    if slot < rows { slot } else { 0 }
}
