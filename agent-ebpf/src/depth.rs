//! How much detail the programs keep. The agent lowers it, step by step and in this
//! order, when they cost more than they may, and raises it again.

/// Distributions of every unit.
pub const FULL: u64 = 0;
/// Distributions of units under pressure ([`DETAIL`](crate::slots::DETAIL)); those of
/// others only add to the host's.
pub const GATED: u64 = 1;
/// Distributions of the host only; counters of every unit.
pub const HOST: u64 = 2;
/// One event in [`SAMPLE`] is looked at and counts for all of them.
pub const SAMPLED: u64 = 3;
/// Counters only; of sampled events, where to look at each would cost more than at
/// depth [`SAMPLED`].
pub const COUNTERS: u64 = 4;

/// At depth [`SAMPLED`], one event in so many is looked at, in the mean. A power of two.
pub const SAMPLE: u64 = 16;
