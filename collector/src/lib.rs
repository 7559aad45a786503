//! The collector: takes what agents report, keeps it, and answers operators.

#![forbid(unsafe_code)]

pub mod buckets;
pub mod fleet;
pub mod history;
pub mod model;
