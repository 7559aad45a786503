//! The agent of Holdfast: one daemon on each host.

#![deny(unsafe_code)]

pub mod backoff;
pub mod catalogue;
pub mod frame;
pub mod host;
pub mod kernel;
pub mod losses;
pub mod probes;
pub mod report;
pub mod summary;
pub mod units;
pub mod uplink;
