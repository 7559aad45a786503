//! The eBPF programs and their readers against real kernel events of known
//! number: nothing here is simulated.
//!
//! Needs root and a kernel with BTF. The tests run one at a time, as each counts
//! everything that happens on the host.

#![forbid(unsafe_code)]

mod block;
mod classic;
mod loading;
mod memory;
mod process;
mod rig;
mod role;
mod sched;
mod tcp;
