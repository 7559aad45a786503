//! What the eBPF programs and the agent share: names of maps and programs,
//! layouts of cells and records, bucket geometry, and which kernel members the
//! programs read.
//!
//! Compiled for both sides, so nothing can drift apart. It imports nothing.

#![no_std]

pub mod cells;
pub mod depth;
pub mod histogram;
pub mod loss;
pub mod offsets;
pub mod reasons;
pub mod records;
pub mod settings;
pub mod slots;
pub mod turns;

/// Names of the maps.
pub mod maps {
    /// `cpus` × `unit_rows` [`SchedCell`](crate::cells::SchedCell).
    pub const SCHED: &str = "SCHED";
    /// `cpus` × `device_rows` [`BlockCell`](crate::cells::BlockCell).
    pub const BLOCK: &str = "BLOCK";
    /// `unit_rows` [`UnitDiskCell`](crate::cells::UnitDiskCell).
    pub const UNIT_DISK: &str = "UNIT_DISK";
    /// `shared_devices` × `unit_rows` [`UnitBlockCell`](crate::cells::UnitBlockCell).
    pub const UNIT_BLOCK: &str = "UNIT_BLOCK";
    /// [`RequestSet`](crate::cells::RequestSet)s of requests under way.
    pub const REQUESTS: &str = "REQUESTS";
    /// `unit_rows` [`TcpCell`](crate::cells::TcpCell).
    pub const TCP: &str = "TCP";
    /// One [`TcpReasons`](crate::cells::TcpReasons).
    pub const TCP_REASONS: &str = "TCP_REASONS";
    /// `cpus` × [`DROP_ROWS`](crate::reasons::DROP_ROWS) counters of packets dropped.
    pub const DROPS: &str = "DROPS";
    /// `unit_rows` [`Histogram`](crate::cells::Histogram) of time in direct reclaim.
    pub const RECLAIM: &str = "RECLAIM";
    /// `unit_rows` [`Histogram`](crate::cells::Histogram) of time in direct compaction.
    pub const COMPACTION: &str = "COMPACTION";
    /// `unit_rows` [`Histogram`](crate::cells::Histogram) of the time of file syncs.
    pub const SYNC: &str = "SYNC";
    /// `unit_rows` [`TaskCell`](crate::cells::TaskCell).
    pub const TASK_SUMS: &str = "TASK_SUMS";
    /// `unit_rows` [`ProcessCell`](crate::cells::ProcessCell).
    pub const PROCESS: &str = "PROCESS";
    /// `blame_rows` × (`blame_rows` + 1) counters of nanoseconds; see
    /// [`turns::charge_index`](crate::turns::charge_index).
    pub const PREEMPT: &str = "PREEMPT";
    /// One [`CpuCell`](crate::cells::CpuCell) per possible CPU.
    pub const CPUS: &str = "CPUS";
    /// One [`IrqCell`](crate::cells::IrqCell) per possible CPU.
    pub const IRQS: &str = "IRQS";
    /// [`UNIT_SETS`](crate::slots::UNIT_SETS) sets: cgroup id to unit slot.
    pub const UNITS: &str = "UNITS";
    /// [`DEVICE_SETS`](crate::slots::DEVICE_SETS) sets: device number to device row.
    pub const DEVICES: &str = "DEVICES";
    /// One counter for each [`Loss`](crate::loss::Loss).
    pub const LOSSES: &str = "LOSSES";
    /// Ring buffer of [`Event`](crate::records::Event).
    pub const EVENTS: &str = "EVENTS";
    /// Hash: thread id, and for what, to the time it entered direct reclaim or compaction.
    pub const RECLAIMING: &str = "RECLAIMING";
    /// Hash: thread id to the time it began to sync a file.
    pub const SYNCING: &str = "SYNCING";
    /// Hash: id of a process chosen to be killed, where only its end tells its unit.
    pub const VICTIMS: &str = "VICTIMS";
    /// Task storage: when the task became runnable.
    pub const TASKS: &str = "TASKS";
    /// Socket storage: when the socket began to connect.
    pub const CONNECTS: &str = "CONNECTS";
}

/// Names of the read-only globals that the agent sets before it loads the object.
pub mod globals {
    /// An [`Offsets`](crate::offsets::Offsets).
    pub const OFFSETS: &str = "OFFSETS";
    /// A [`Settings`](crate::settings::Settings).
    pub const SETTINGS: &str = "SETTINGS";
}
