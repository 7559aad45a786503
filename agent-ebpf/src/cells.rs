//! Layouts of the counters the programs keep and the agent reads in place,
//! through mapped memory.
//!
//! A hot cell belongs to one CPU and is written without atomics; a rare one is
//! shared by all CPUs and added to atomically. Counters only grow and wrap.

/// A counter of 64 bits: plain for the programs, atomic for the agent, which
/// reads it while it is being written.
#[cfg(target_arch = "bpf")]
pub type Word = u64;
/// A counter of 64 bits: plain for the programs, atomic for the agent, which
/// reads it while it is being written.
#[cfg(not(target_arch = "bpf"))]
pub type Word = core::sync::atomic::AtomicU64;

/// A counter of 32 bits; see [`Word`].
#[cfg(target_arch = "bpf")]
pub type Half = u32;
/// A counter of 32 bits; see [`Word`].
#[cfg(not(target_arch = "bpf"))]
pub type Half = core::sync::atomic::AtomicU32;

/// A distribution. The agent adds up the differences of the 32-bit counts, so
/// they may wrap between two readings, but not twice.
#[repr(C)]
pub struct Histogram {
    /// Sum of all values.
    pub sum: Word,
    /// How many values fell in each bucket.
    pub counts: [Half; crate::histogram::BUCKETS],
}

/// The scheduler's view of one unit on one CPU.
#[repr(C)]
pub struct SchedCell {
    /// Switches to a task of the unit.
    pub switches: Word,
    /// Switches away from a task of the unit that could have gone on.
    pub involuntary: Word,
    /// Time tasks of the unit ran, up to the last switch away.
    pub on_cpu_ns: Word,
    /// Time tasks of the unit waited for this CPU.
    pub wait: Histogram,
    /// In the row of attestation only: the ids of the tasks switched to, added up.
    pub ids: Word,
}

/// Kinds of block I/O; positions in [`BlockCell::latency`].
pub mod operation {
    /// Reads.
    pub const READ: usize = 0;
    /// Writes.
    pub const WRITE: usize = 1;
    /// Flushes of the device's cache.
    pub const FLUSH: usize = 2;
    /// Discards and everything else.
    pub const OTHER: usize = 3;
    /// How many kinds there are.
    pub const COUNT: usize = 4;
    /// Kinds whose size is kept: [`READ`] and [`WRITE`].
    pub const SIZED: usize = 2;
}

/// Requests of one device completed on one CPU.
#[repr(C)]
pub struct BlockCell {
    /// Requests that failed.
    pub errors: Word,
    /// Nanoseconds from the request's birth to its completion, by kind.
    pub latency: [Histogram; operation::COUNT],
    /// Bytes, by kind.
    pub size: [Histogram; operation::SIZED],
}

/// TCP, for one unit.
#[repr(C)]
pub struct TcpCell {
    /// Segments sent again.
    pub retransmits: Word,
    /// Resets sent.
    pub resets_sent: Word,
    /// Resets received.
    pub resets_received: Word,
    /// Connects that took [`SLOW_CONNECT_NS`] or longer.
    pub connects_slow: Word,
    /// Connects that failed, for whatever reason.
    pub connects_failed: Word,
    /// Connects that were refused.
    pub connects_refused: Word,
    /// Connects that nobody answered.
    pub connects_timed_out: Word,
    /// Nanoseconds from the first SYN to the established connection.
    pub connect: Histogram,
}

/// A connect this long lost its first SYN: that is when the kernel sends it again.
pub const SLOW_CONNECT_NS: u64 = 1_000_000_000;

/// Ends of processes, for one unit.
#[repr(C)]
pub struct ProcessCell {
    /// Processes that ended.
    pub exits: Word,
    /// Those that a signal ended.
    pub by_signal: Word,
    /// Those that ended with a non-zero code.
    pub by_error: Word,
    /// Processes killed because memory ran out.
    pub oom_kills: Word,
    /// Rate limits of the event kinds: a unit that floods hides no other.
    pub windows: [Window; crate::records::kind::COUNT],
}

/// What a CPU remembers between two events. A cache line, so that CPUs do not
/// write to each other's.
#[repr(C, align(64))]
pub struct CpuCell {
    /// Clock of the run queue, or the boot clock in the task-storage form, at the last switch.
    pub since: Word,
    /// One more than the slot of the unit that runs; 0 when idle or not yet known.
    pub running: Word,
    /// How much detail to keep, one of [`depth`](crate::depth); the agent writes it.
    pub depth: Word,
}

/// A rate limit: how many events there were since the window began. All CPUs
/// write it without atomics: a few events more or less do not matter.
#[repr(C)]
pub struct Window {
    /// Start of the window, in seconds of the boot clock.
    pub second: Word,
    /// Events in the window.
    pub events: Word,
}
