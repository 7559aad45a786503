//! What agent and collector really share: the clocks, strict configuration, the set-up of logs.

#![forbid(unsafe_code)]

pub mod clock;
