//! Harness for tests that need the real programs, several processes or the kernel.
//!
//! It starts collector and agent on free ports with temporary state, makes units
//! (cgroups) and processes that end badly, and waits for what must happen: by
//! looking until a deadline, never by sleeping for a guessed time. What a machine
//! cannot do is skipped with the reason ([`need`]).

#![forbid(unsafe_code)]

pub mod agent;
pub mod collector;
pub mod need;
pub mod process;
pub mod programs;
pub mod unit;
pub mod wait;

pub use agent::Agent;
pub use collector::Collector;
pub use unit::Unit;
