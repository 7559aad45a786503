//! What agent and collector really share: the clocks, strict configuration, the set-up of logs.

#![forbid(unsafe_code)]

pub mod address;
pub mod clock;
pub mod config;
pub mod logs;
