//! What all programs share.

pub mod count;
pub mod events;
pub mod kernel;
pub mod sample;
pub mod storage;
pub mod units;
