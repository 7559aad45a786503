//! The eBPF programs and their readers against real kernel events of known
//! number: nothing here is simulated.
//!
//! Needs root and a kernel with BTF. The tests run one at a time, as each counts
//! everything that happens on the host.

#![forbid(unsafe_code)]

mod attest;
mod blame;
mod block;
mod depth;
mod detached;
mod drops;
mod irq;
mod loading;
mod memory;
mod mutation;
mod process;
mod rig;
mod role;
mod sched;
mod sockets;
mod tasks;
mod tcp;
mod volume;
