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
    /// Of [`on_cpu_ns`](Self::on_cpu_ns), the last slices of tasks that ended: no
    /// cycle holds them.
    pub last_slices_ns: Word,
    /// Time from one arrival of a task of the unit on a CPU to the next: a slice, and
    /// what the task was off the CPU after it. Counted at the arrival that ends it.
    pub cycles_ns: Word,
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
    /// Nanoseconds from the request's birth to its issue to the device, by kind.
    pub queue: [Histogram; operation::SIZED],
    /// Nanoseconds from the issue to the completion, by kind.
    pub service: [Histogram; operation::SIZED],
}

/// Requests of one unit, on whichever device. All CPUs share it.
#[repr(C)]
pub struct UnitDiskCell {
    /// Requests that failed.
    pub errors: Word,
    /// Bytes of completed requests, by kind.
    pub bytes: [Word; operation::SIZED],
    /// Nanoseconds from a request's birth to its completion, by kind.
    pub latency: [Histogram; operation::SIZED],
}

/// What one unit's reads and writes did to one device. All CPUs share it.
#[repr(C)]
pub struct UnitBlockCell {
    /// Requests completed.
    pub requests: Word,
    /// Sum of the time from each request's birth to its completion, in nanoseconds.
    pub wait_ns: Word,
    /// Sum over requests of bytes times the time they were in flight: what the unit
    /// had in flight, added up over time. In bytes times 2 to the power of
    /// [`IN_FLIGHT_SHIFT`] nanoseconds, so that it does not wrap every few minutes.
    pub in_flight: Word,
}

/// See [`UnitBlockCell::in_flight`].
pub const IN_FLIGHT_SHIFT: u32 = 10;

/// A request between its issue and its completion.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RequestStamp {
    /// A number that stands for its address; 0 when the entry is free.
    pub request: u64,
    /// The time it was made: an address alone is used again.
    pub start: u64,
    /// When it was issued, on the monotonic clock.
    pub issued: u64,
    /// Slot of the unit it is charged to.
    pub slot: u64,
}

/// Requests that can be told apart at the same time, if none share a set.
pub const REQUEST_STAMPS: u32 = 4096;
/// Entries that a request may be in: a cache line of them.
pub const REQUEST_WAYS: usize = 2;

/// The entries that share a hash.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct RequestSet {
    /// The entries.
    pub entries: [RequestStamp; REQUEST_WAYS],
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
    /// Times one of its sockets, of whatever protocol, was refused memory.
    pub memory_refused: Word,
    /// Packets that found the receive queue of one of its sockets, of whatever
    /// protocol, full.
    pub receive_full: Word,
    /// Nanoseconds from the first SYN to the established connection.
    pub connect: Histogram,
}

/// TCP, by the kernel's own words. Shared by all CPUs.
#[repr(C)]
pub struct TcpReasons {
    /// Resets sent, by [`reset_row`](crate::reasons::reset_row).
    pub resets: [Word; crate::reasons::RESET_ROWS as usize],
    /// Connects that failed, by [`error_row`](crate::reasons::error_row).
    pub errors: [Word; crate::reasons::ERROR_ROWS as usize],
}

/// A connect this long lost its first SYN: that is when the kernel sends it again.
pub const SLOW_CONNECT_NS: u64 = 1_000_000_000;

/// Sums over the living tasks of one unit. Each pass over all tasks adds to them: a
/// pass's result is what it added.
#[repr(C)]
pub struct TaskCell {
    /// Threads.
    pub threads: Word,
    /// Processes.
    pub processes: Word,
    /// Threads in uninterruptible sleep.
    pub uninterruptible: Word,
    /// Pages of memory that processes have in RAM.
    pub rss_pages: Word,
    /// Major faults of the processes so far, ended threads included.
    pub major_faults: Word,
}

/// Begins and ends of processes, for one unit.
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
    /// Programs started.
    pub execs: Word,
    /// Processes started.
    pub forks: Word,
    /// Threads started in processes that were there.
    pub threads: Word,
    /// Tasks found that had waited in the kernel for too long.
    pub hung: Word,
    /// Major faults of processes that ended.
    pub major_faults: Word,
    /// Rate limits of the event kinds: a unit that floods hides no other.
    pub windows: [Window; crate::records::kind::WINDOWS],
}

/// What a CPU remembers between two events. Whole cache lines, so that CPUs do not
/// write to each other's.
#[repr(C, align(64))]
pub struct CpuCell {
    /// Clock of the run queue, or the monotonic clock in the task-storage form, at the
    /// last switch.
    pub since: Word,
    /// One more than the slot of the unit that runs, since then; 0 when idle or not known.
    pub running: Word,
    /// How much detail to keep, one of [`depth`](crate::depth); the agent writes it.
    pub depth: Word,
    /// Monotonic clock when the agent last wrote [`depth`](Self::depth): stamps of our
    /// own that are older may have missed their end.
    pub changed: Word,
    /// Switches to the idle task.
    pub idle: Word,
    /// At depth [`SAMPLED`](crate::depth::SAMPLED), clock at the last switch that was looked at.
    pub looked: Word,
    /// Switches to pass over before the next look.
    pub skip: Half,
    /// For how many switches that look counts; 0 before the first.
    pub weight: Half,
    /// Since when the CPU has been with [`running`](Self::running).
    pub turn_began: Word,
    /// How many turns have ended: the newest is at its remainder by
    /// [`TURNS`](crate::turns::TURNS).
    pub turns: Word,
    /// The last turns that ended, each as [`turns`](crate::turns) says.
    pub turn: [Word; crate::turns::TURNS],
}

/// Kinds of deferred interrupts; positions in [`IrqCell::soft`], which are the
/// kernel's numbers of them.
pub const SOFTIRQS: [&str; 10] =
    ["hi", "timer", "net_tx", "net_rx", "block", "irq_poll", "tasklet", "sched", "hrtimer", "rcu"];

/// How often a kind of interrupt was handled, and for how long.
#[repr(C)]
pub struct Handled {
    /// How often.
    pub count: Word,
    /// Nanoseconds.
    pub ns: Word,
}

/// Interrupts of one CPU. Whole cache lines, so that CPUs do not write to each other's.
#[repr(C, align(64))]
pub struct IrqCell {
    /// Deferred interrupts by kind, without the hard ones that interrupted them.
    pub soft: [Handled; SOFTIRQS.len()],
    /// Handlers of devices' interrupts.
    pub hard: Handled,
    /// When the deferred interrupt under way began; 0 when there is none.
    pub soft_since: Word,
    /// `hard.ns` at that time.
    pub hard_before: Word,
    /// When the handler under way began; 0 when there is none.
    pub hard_since: Word,
    /// How much detail to keep, one of [`depth`](crate::depth); the agent writes it.
    pub depth: Word,
    /// When the last deferred interrupt that was looked at began.
    pub looked: Word,
    /// As in [`CpuCell`], for deferred interrupts.
    pub skip: Half,
    /// As in [`CpuCell`], for deferred interrupts.
    pub weight: Half,
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
