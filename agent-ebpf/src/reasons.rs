//! Where the counters of the kernel's reasons and error numbers are.
//!
//! The numbers mean something else in each kernel, so the agent names them by the
//! kernel's own type information.

/// Reasons of the kernel's core that have a row of their own.
pub const CORE_DROPS: u32 = 256;
/// Rows for all other reasons, one for each subsystem that has its own; the first
/// is for those of the core that have no row.
pub const SUBSYSTEM_DROPS: u32 = 16;
/// Rows of one CPU.
pub const DROP_ROWS: u32 = CORE_DROPS + SUBSYSTEM_DROPS;
/// Rows for the reason of a reset; those beyond share the last one.
pub const RESET_ROWS: u32 = 64;
/// Rows for the error of a connect (`errno.h` ends at 133); those beyond share row 0. A
/// power of two, as [`RESET_ROWS`]: programs bound a row by a mask.
pub const ERROR_ROWS: u32 = 256;

/// The row of a reason for a drop: its subsystem is in the upper half. Always
/// below [`DROP_ROWS`].
#[inline(always)]
#[must_use]
pub const fn drop_row(reason: u32) -> u32 {
    let (subsystem, number) = (reason >> 16, reason & 0xffff);
    if subsystem == 0 && number < CORE_DROPS {
        number
    } else if subsystem < SUBSYSTEM_DROPS {
        CORE_DROPS + subsystem
    } else {
        CORE_DROPS
    }
}

/// The row of a reason for a reset. Always below [`RESET_ROWS`].
#[inline(always)]
#[must_use]
pub const fn reset_row(reason: u32) -> u32 {
    if reason < RESET_ROWS { reason } else { RESET_ROWS - 1 }
}

/// The row of an error number. Always below [`ERROR_ROWS`].
#[inline(always)]
#[must_use]
pub const fn error_row(error: u32) -> u32 {
    if error < ERROR_ROWS { error } else { 0 }
}
