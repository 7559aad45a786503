//! The records of the ring buffer: facts rare enough to be told one by one.

/// Kinds of [`Event`].
pub mod kind {
    /// A process ended by a signal or with a non-zero code.
    pub const EXIT: u32 = 0;
    /// A process was chosen to be killed because memory ran out.
    pub const OOM: u32 = 1;
    /// A task was found that had waited in the kernel for too long.
    pub const HUNG: u32 = 2;
    /// How many kinds there are.
    pub const COUNT: usize = 3;
    /// As many, or more: a power of two, so that a kind can be masked.
    pub const WINDOWS: usize = COUNT.next_power_of_two();
}

/// Length of a task's name, final zero included (`TASK_COMM_LEN`).
pub const COMMAND_BYTES: usize = 16;
/// Events of one kind that are let through for one unit in a second.
pub const EVENTS_PER_SECOND: u64 = 64;
/// Size of the ring buffer, in bytes.
pub const RING_BYTES: usize = 64 * 1024;

/// One event.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Event {
    /// One of [`kind`].
    pub kind: u32,
    /// Process id in the initial namespace.
    pub pid: u32,
    /// Id of the process's cgroup; 0 when not known.
    pub cgroup_id: u64,
    /// When, on the boot-time clock.
    pub at_ns: u64,
    /// The exit status as `wait` gives it; 0 for other kinds than [`kind::EXIT`].
    pub status: u32,
    /// Makes the record's end visible; always 0.
    pub reserved: u32,
    /// Name of the process's first thread, ended by a zero.
    pub command: [u64; COMMAND_BYTES / 8],
}
