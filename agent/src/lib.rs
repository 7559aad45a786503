//! The agent of Holdfast: one daemon on each host.

#![deny(unsafe_code)]

pub mod catalogue;
pub mod frame;
pub mod host;
pub mod kernel;
pub mod probes;
