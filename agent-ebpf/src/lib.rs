//! What the eBPF programs and the agent share: names of maps and programs,
//! layouts of cells and records, bucket geometry, and which kernel members the
//! programs read.
//!
//! Compiled for both sides, so nothing can drift apart. It imports nothing.

#![no_std]

pub mod cells;
pub mod depth;
pub mod fields;
pub mod histogram;
pub mod loss;
pub mod offsets;
pub mod records;
pub mod settings;
pub mod slots;

/// Names of the maps.
pub mod maps {
    /// `cpus` × `unit_rows` [`SchedCell`](crate::cells::SchedCell).
    pub const SCHED: &str = "SCHED";
    /// `cpus` × `device_rows` [`BlockCell`](crate::cells::BlockCell).
    pub const BLOCK: &str = "BLOCK";
    /// `unit_rows` [`TcpCell`](crate::cells::TcpCell).
    pub const TCP: &str = "TCP";
    /// `unit_rows` [`Histogram`](crate::cells::Histogram) of time in direct reclaim.
    pub const RECLAIM: &str = "RECLAIM";
    /// `unit_rows` [`ProcessCell`](crate::cells::ProcessCell).
    pub const PROCESS: &str = "PROCESS";
    /// One [`CpuCell`](crate::cells::CpuCell) per possible CPU.
    pub const CPUS: &str = "CPUS";
    /// [`UNIT_SETS`](crate::slots::UNIT_SETS) sets: cgroup id to unit slot.
    pub const UNITS: &str = "UNITS";
    /// [`DEVICE_SETS`](crate::slots::DEVICE_SETS) sets: device number to device row.
    pub const DEVICES: &str = "DEVICES";
    /// One counter for each [`Loss`](crate::loss::Loss).
    pub const LOSSES: &str = "LOSSES";
    /// Ring buffer of [`Event`](crate::records::Event).
    pub const EVENTS: &str = "EVENTS";
    /// Hash: thread id to the time it entered direct reclaim.
    pub const RECLAIMING: &str = "RECLAIMING";
    /// Task storage: when the task became runnable.
    pub const TASKS: &str = "TASKS";
    /// Hash: place of a request to the time its device got it; used without BTF only.
    pub const ISSUED: &str = "ISSUED";
    /// Hash: address of a socket to when it began to connect; used without BTF only.
    pub const CONNECTING: &str = "CONNECTING";
    /// Socket storage: when the socket began to connect.
    pub const CONNECTS: &str = "CONNECTS";
}

/// Names of the read-only globals that the agent sets before it loads the object.
pub mod globals {
    /// An [`Offsets`](crate::offsets::Offsets).
    pub const OFFSETS: &str = "OFFSETS";
    /// A [`Fields`](crate::fields::Fields).
    pub const FIELDS: &str = "FIELDS";
    /// A [`Settings`](crate::settings::Settings).
    pub const SETTINGS: &str = "SETTINGS";
}
