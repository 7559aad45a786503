//! Every signal the agent knows, in one table.
//!
//! A signal is a named series with a kind, a unit of measure and an owner. The
//! same name may have two owners: `cpu.run_queue.latency` of the host is the sum
//! over its units. [`Frame`](crate::frame::Frame) is laid out by this table,
//! `docs/generated/signals.md` is printed from it, and it is sent to the
//! collector at the start of each stream.

use serde::Serialize;

/// How a signal behaves over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only grows (until its source restarts); summaries hold its rate per second.
    Counter,
    /// Goes up and down; summaries hold it as read.
    Gauge,
    /// A distribution in the buckets of [`holdfast_proto::histogram`].
    Histogram,
}

/// What a signal belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The host as a whole.
    Host,
    /// A systemd unit, seen as its cgroup.
    Unit,
    /// A block device.
    Device,
    /// A network interface.
    Interface,
    /// A named class that is none of these: the reason of a drop, an error number.
    Label,
}

impl Owner {
    /// All owners, in the order of the frame's tables.
    pub const ALL: [Self; 5] = [Self::Host, Self::Unit, Self::Device, Self::Interface, Self::Label];
}

/// Unit of measure of a signal's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
    /// A share; 1 is the whole.
    Ratio,
}

impl Measure {
    /// Its short name on the wire and on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Ratio => "ratio",
        }
    }
}

/// What the scorer makes of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scoring {
    /// It is compared with its own past.
    Scored,
    /// It is shown, and never judged: totals, parts of other signals, and what those tell
    /// sooner.
    Context,
    /// One of them is a fact of its own, told as an event or a condition; its past says
    /// nothing about it.
    Rule,
}

/// Position of a signal in [`SIGNALS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalId(u16);

impl SignalId {
    /// Position in [`SIGNALS`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its row of the catalogue.
    #[must_use]
    pub const fn signal(self) -> &'static Signal {
        &SIGNALS[self.0 as usize]
    }

    /// Its column in the frame: among the scalars, or among the histograms, of its owner.
    #[must_use]
    pub const fn column(self) -> usize {
        COLUMNS[self.0 as usize] as usize
    }

    /// Every signal, in catalogue order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SIGNALS.len() as u16).map(Self)
    }
}

/// One row of the catalogue.
#[derive(Debug, Serialize)]
pub struct Signal {
    /// Dotted name, unique together with the owner.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What its values measure.
    pub measure: Measure,
    /// What it belongs to.
    pub owner: Owner,
    /// The probe that yields it, by the name of its row in `probes::PROBES`.
    pub probe: &'static str,
    /// What it means, in one sentence.
    pub help: &'static str,
    /// What the scorer makes of it.
    pub scoring: Scoring,
}

impl Signal {
    /// Whether it is about time on CPUs, which is what everything costs.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.name.starts_with("cpu.")
    }
}

impl Signal {
    const fn is_histogram(&self) -> bool {
        matches!(self.kind, Kind::Histogram)
    }
}

macro_rules! scoring {
    () => {
        Scoring::Scored
    };
    ($scoring:ident) => {
        Scoring::$scoring
    };
}

macro_rules! catalogue {
    ($($id:ident = $name:literal, $kind:ident, $measure:ident, $owner:ident, $probe:literal, $help:literal $(, $scoring:ident)?;)+) => {
        /// The catalogue. Adding a signal is adding one row; one whose row does not say what
        /// the scorer makes of it is scored.
        pub const SIGNALS: &[Signal] = &[$(Signal {
            name: $name, kind: Kind::$kind, measure: Measure::$measure, owner: Owner::$owner,
            probe: $probe, help: $help, scoring: scoring!($($scoring)?),
        },)+];
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "counts the rows at compile time")]
        #[repr(u16)]
        enum Position { $($id,)+ }
        $(#[doc = concat!("`", $name, "`: ", $help)] pub const $id: SignalId = SignalId(Position::$id as u16);)+
    };
}

catalogue! {
    // CPU, from the scheduler.
    HOST_RUN_QUEUE = "cpu.run_queue.latency", Histogram, Nanoseconds, Host, "sched", "Time runnable tasks waited for a CPU";
    UNIT_RUN_QUEUE = "cpu.run_queue.latency", Histogram, Nanoseconds, Unit, "sched", "Time the unit's runnable tasks waited for a CPU";
    HOST_ON_CPU = "cpu.on_cpu.time", Counter, Nanoseconds, Host, "sched", "CPU time of all tasks, idle task excluded, measured at context switches";
    UNIT_ON_CPU = "cpu.on_cpu.time", Counter, Nanoseconds, Unit, "sched", "CPU time of the unit's tasks, measured at context switches";
    HOST_OFF_CPU = "cpu.off_cpu.time", Counter, Nanoseconds, Host, "sched", "Time all tasks were off the CPU, asleep or waiting for one, charged when they get a CPU again", Context;
    UNIT_OFF_CPU = "cpu.off_cpu.time", Counter, Nanoseconds, Unit, "sched", "Time the unit's tasks were off the CPU, asleep or waiting for one, charged when they get a CPU again", Context;
    HOST_SWITCHES = "cpu.switches", Counter, Count, Host, "sched", "Context switches to a task other than the idle task";
    UNIT_SWITCHES = "cpu.switches", Counter, Count, Unit, "sched", "Context switches to a task of the unit", Context;
    HOST_INVOLUNTARY = "cpu.switches.involuntary", Counter, Count, Host, "sched", "Context switches away from a task that could have gone on";
    UNIT_INVOLUNTARY = "cpu.switches.involuntary", Counter, Count, Unit, "sched", "Context switches away from a task of the unit that could have gone on";

    // Interrupts.
    SOFTIRQ_TIME = "cpu.softirq.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts, hard ones that interrupt them taken off";
    SOFTIRQ_COUNT = "cpu.softirq.count", Counter, Count, Host, "irq", "Deferred interrupts handled", Context;
    SOFTIRQ_HI = "cpu.softirq.hi.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for tasklets of high priority", Context;
    SOFTIRQ_TIMER = "cpu.softirq.timer.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for timers", Context;
    SOFTIRQ_NET_TX = "cpu.softirq.net_tx.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for the network's sending side", Context;
    SOFTIRQ_NET_RX = "cpu.softirq.net_rx.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for the network's receiving side";
    SOFTIRQ_BLOCK = "cpu.softirq.block.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for completed block I/O";
    SOFTIRQ_IRQ_POLL = "cpu.softirq.irq_poll.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for polled block I/O", Context;
    SOFTIRQ_TASKLET = "cpu.softirq.tasklet.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for tasklets", Context;
    SOFTIRQ_SCHED = "cpu.softirq.sched.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for balancing load between CPUs", Context;
    SOFTIRQ_HRTIMER = "cpu.softirq.hrtimer.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for high-resolution timers", Context;
    SOFTIRQ_RCU = "cpu.softirq.rcu.time", Counter, Nanoseconds, Host, "irq", "CPU time in deferred interrupts for freeing what readers no longer use (RCU)", Context;
    HARDIRQ_TIME = "cpu.hardirq.time", Counter, Nanoseconds, Host, "irq", "CPU time in the handlers of devices' interrupts; the timer's and those between CPUs have none";
    HARDIRQ_COUNT = "cpu.hardirq.count", Counter, Count, Host, "irq", "Handlers of devices' interrupts that ran", Context;

    // CPU, from /proc.
    CPU_USER = "cpu.user.time", Counter, Nanoseconds, Host, "procfs", "CPU time in user mode, all CPUs (nice included)";
    CPU_SYSTEM = "cpu.system.time", Counter, Nanoseconds, Host, "procfs", "CPU time in the kernel, all CPUs";
    CPU_IRQ = "cpu.irq.time", Counter, Nanoseconds, Host, "procfs", "CPU time in hard and soft interrupts, all CPUs", Context;
    CPU_IOWAIT = "cpu.iowait.time", Counter, Nanoseconds, Host, "procfs", "Idle CPU time while a task waited for disk";
    CPU_STEAL = "cpu.steal.time", Counter, Nanoseconds, Host, "procfs", "CPU time the hypervisor gave to others";
    CPU_IDLE = "cpu.idle.time", Counter, Nanoseconds, Host, "procfs", "Idle CPU time, all CPUs", Context;
    CPU_LOAD = "cpu.load1", Gauge, Count, Host, "procfs", "Load average over one minute", Context;
    CPU_RUNNABLE = "cpu.tasks.runnable", Gauge, Count, Host, "procfs", "Tasks running or waiting for a CPU";
    CPU_BLOCKED = "cpu.tasks.blocked", Gauge, Count, Host, "procfs", "Tasks in uninterruptible sleep, waiting for I/O";
    PROC_SWITCHES = "cpu.context_switches", Counter, Count, Host, "procfs", "Context switches as the kernel counts them (idle task included)", Context;
    PROC_FORKS = "process.forks", Counter, Count, Host, "procfs", "Processes and threads started";

    // Memory, from the kernel's reclaim and OOM hooks.
    HOST_RECLAIM = "memory.reclaim.latency", Histogram, Nanoseconds, Host, "reclaim", "Time tasks stalled to reclaim memory themselves (direct reclaim)";
    UNIT_RECLAIM = "memory.reclaim.latency", Histogram, Nanoseconds, Unit, "reclaim", "Time the unit's tasks stalled in direct reclaim";
    HOST_OOM_KILLS = "memory.oom_kills", Counter, Count, Host, "oom", "Processes killed because memory ran out", Rule;
    UNIT_OOM_KILLS = "memory.oom_kills", Counter, Count, Unit, "oom", "The unit's processes killed because memory ran out", Rule;
    HOST_COMPACTION = "memory.compaction.latency", Histogram, Nanoseconds, Host, "compaction", "Time tasks stalled to move pages together themselves (direct compaction)";
    UNIT_COMPACTION = "memory.compaction.latency", Histogram, Nanoseconds, Unit, "compaction", "Time the unit's tasks stalled in direct compaction";

    // Tasks, from the pass over all of them.
    HOST_RSS = "memory.rss", Gauge, Bytes, Host, "tasks", "Memory that processes have in RAM; what they share is counted for each", Context;
    UNIT_RSS = "memory.rss", Gauge, Bytes, Unit, "tasks", "Memory that the unit's processes have in RAM; what they share is counted for each";
    HOST_MEMORY_GROWTH = "memory.growth", Gauge, Bytes, Host, "tasks", "Growth of the processes' memory in RAM, in bytes per second";
    UNIT_MEMORY_GROWTH = "memory.growth", Gauge, Bytes, Unit, "tasks", "Growth of the unit's memory, in bytes per second: of what is charged to it, or where that is not known of its processes' memory in RAM";
    UNIT_TASK_MAJOR_FAULTS = "process.faults.major", Counter, Count, Unit, "tasks", "Page faults of the unit's processes that had to read from disk";
    HOST_THREADS = "process.threads", Gauge, Count, Host, "tasks", "Threads, those of the kernel included";
    UNIT_THREADS = "process.threads", Gauge, Count, Unit, "tasks", "Threads of the unit";
    HOST_UNINTERRUPTIBLE = "process.uninterruptible", Gauge, Count, Host, "tasks", "Threads in uninterruptible sleep";
    UNIT_UNINTERRUPTIBLE = "process.uninterruptible", Gauge, Count, Unit, "tasks", "The unit's threads in uninterruptible sleep";

    // Memory, from /proc.
    MEMORY_TOTAL = "memory.total", Gauge, Bytes, Host, "procfs", "Usable memory of the host", Context;
    MEMORY_AVAILABLE = "memory.available", Gauge, Bytes, Host, "procfs", "Memory that can be had without swapping, as the kernel estimates it";
    MEMORY_FREE = "memory.free", Gauge, Bytes, Host, "procfs", "Memory used for nothing", Context;
    MEMORY_CACHED = "memory.cached", Gauge, Bytes, Host, "procfs", "Page cache", Context;
    MEMORY_DIRTY = "memory.dirty", Gauge, Bytes, Host, "procfs", "Page cache waiting to be written back";
    MEMORY_ANON = "memory.anonymous", Gauge, Bytes, Host, "procfs", "Anonymous memory of processes", Context;
    MEMORY_SWAP_USED = "memory.swap.used", Gauge, Bytes, Host, "procfs", "Swap space in use";
    MEMORY_SWAP_IN = "memory.swap.in", Counter, Bytes, Host, "procfs", "Read back from swap";
    MEMORY_SWAP_OUT = "memory.swap.out", Counter, Bytes, Host, "procfs", "Written to swap";
    MEMORY_FAULTS = "memory.faults", Counter, Count, Host, "procfs", "Page faults, minor and major";
    MEMORY_MAJOR_FAULTS = "memory.faults.major", Counter, Count, Host, "procfs", "Page faults that had to read from disk";

    // Pressure stall information (PSI).
    HOST_CPU_SOME = "cpu.pressure.some.time", Counter, Nanoseconds, Host, "pressure", "Time at least one task waited for a CPU";
    HOST_MEMORY_SOME = "memory.pressure.some.time", Counter, Nanoseconds, Host, "pressure", "Time at least one task stalled for memory";
    HOST_MEMORY_FULL = "memory.pressure.full.time", Counter, Nanoseconds, Host, "pressure", "Time all tasks stalled for memory";
    HOST_IO_SOME = "disk.pressure.some.time", Counter, Nanoseconds, Host, "pressure", "Time at least one task stalled for I/O";
    HOST_IO_FULL = "disk.pressure.full.time", Counter, Nanoseconds, Host, "pressure", "Time all tasks stalled for I/O";
    UNIT_CPU_SOME = "cpu.pressure.some.time", Counter, Nanoseconds, Unit, "cgroup", "Time at least one task of the unit waited for a CPU";
    UNIT_MEMORY_SOME = "memory.pressure.some.time", Counter, Nanoseconds, Unit, "cgroup", "Time at least one task of the unit stalled for memory";
    UNIT_MEMORY_FULL = "memory.pressure.full.time", Counter, Nanoseconds, Unit, "cgroup", "Time all tasks of the unit stalled for memory";
    UNIT_IO_SOME = "disk.pressure.some.time", Counter, Nanoseconds, Unit, "cgroup", "Time at least one task of the unit stalled for I/O";
    UNIT_IO_FULL = "disk.pressure.full.time", Counter, Nanoseconds, Unit, "cgroup", "Time all tasks of the unit stalled for I/O";

    // Units, from their cgroup's files.
    UNIT_CPU_USAGE = "cpu.usage.time", Counter, Nanoseconds, Unit, "cgroup", "CPU time of the unit as its cgroup counts it", Context;
    UNIT_CPU_THROTTLED = "cpu.throttled.time", Counter, Nanoseconds, Unit, "cgroup", "Time the unit was held back by its CPU quota";
    UNIT_CPU_PERIODS = "cpu.quota.periods", Counter, Count, Unit, "cgroup", "Periods of its CPU quota in which the unit ran", Context;
    UNIT_CPU_THROTTLED_PERIODS = "cpu.throttled.periods", Counter, Count, Unit, "cgroup", "Periods of its CPU quota in which the unit was held back", Context;
    UNIT_CPU_FULL = "cpu.pressure.full.time", Counter, Nanoseconds, Unit, "cgroup", "Time all tasks of the unit waited for a CPU, as under a CPU quota", Context;
    UNIT_MAJOR_FAULTS = "memory.faults.major", Counter, Count, Unit, "cgroup", "The unit's page faults that had to read from disk (read each second under memory pressure, else every 8 s)", Context;
    UNIT_MEMORY_HIGH = "memory.limit.high", Counter, Count, Unit, "cgroup", "Times the unit was throttled for being above its memory.high (read as the faults are)";
    UNIT_MEMORY_MAX = "memory.limit.max", Counter, Count, Unit, "cgroup", "Times the unit ran into its memory.max (read as the faults are)";
    UNIT_MEMORY_OOM = "memory.limit.oom", Counter, Count, Unit, "cgroup", "Times the unit could not get memory within its limit (read as the faults are)", Rule;
    UNIT_MEMORY_OOM_KILLS = "memory.limit.oom_kills", Counter, Count, Unit, "cgroup", "The unit's processes killed because memory ran out, as its cgroup counts them (read as the faults are)", Rule;
    UNIT_MEMORY = "memory.current", Gauge, Bytes, Unit, "cgroup", "Memory charged to the unit, page cache included", Context;
    UNIT_IO_READ = "disk.read.bytes", Counter, Bytes, Unit, "cgroup", "Read from disk by the unit", Context;
    UNIT_IO_WRITE = "disk.write.bytes", Counter, Bytes, Unit, "cgroup", "Written to disk by the unit", Context;
    UNIT_TASKS = "process.tasks", Gauge, Count, Unit, "cgroup", "Processes and threads of the unit", Context;

    // Block I/O, from request completions.
    DISK_READ_LATENCY = "disk.read.latency", Histogram, Nanoseconds, Device, "block", "Time reads took, queue and device together";
    DISK_WRITE_LATENCY = "disk.write.latency", Histogram, Nanoseconds, Device, "block", "Time writes took, queue and device together";
    DISK_FLUSH_LATENCY = "disk.flush.latency", Histogram, Nanoseconds, Device, "block", "Time cache flushes took";
    DISK_OTHER_LATENCY = "disk.other.latency", Histogram, Nanoseconds, Device, "block", "Time discards and other requests took", Context;
    DISK_READ_SIZE = "disk.read.size", Histogram, Bytes, Device, "block", "Size of reads", Context;
    DISK_WRITE_SIZE = "disk.write.size", Histogram, Bytes, Device, "block", "Size of writes", Context;
    DISK_ERRORS = "disk.errors", Counter, Count, Device, "block", "Requests that failed", Rule;
    DISK_READ_QUEUE = "disk.read.queue.latency", Histogram, Nanoseconds, Device, "block", "Time reads waited before they went to the device", Context;
    DISK_WRITE_QUEUE = "disk.write.queue.latency", Histogram, Nanoseconds, Device, "block", "Time writes waited before they went to the device", Context;
    DISK_READ_SERVICE = "disk.read.service.latency", Histogram, Nanoseconds, Device, "block", "Time the device took for reads", Context;
    DISK_WRITE_SERVICE = "disk.write.service.latency", Histogram, Nanoseconds, Device, "block", "Time the device took for writes", Context;
    UNIT_READ_LATENCY = "disk.read.latency", Histogram, Nanoseconds, Unit, "block", "Time the unit's reads took, queue and device together";
    UNIT_WRITE_LATENCY = "disk.write.latency", Histogram, Nanoseconds, Unit, "block", "Time the unit's writes took, queue and device together";
    UNIT_DISK_ERRORS = "disk.errors", Counter, Count, Unit, "block", "The unit's requests that failed", Rule;
    UNIT_READ_REQUESTED = "disk.read.requested.bytes", Counter, Bytes, Unit, "block", "Read by the unit's requests, whatever controllers its cgroup has";
    UNIT_WRITE_REQUESTED = "disk.write.requested.bytes", Counter, Bytes, Unit, "block", "Written by the unit's requests, whatever controllers its cgroup has";
    UNIT_IN_FLIGHT = "disk.in_flight.byte_seconds", Counter, Bytes, Unit, "block", "Bytes of the unit's reads and writes times the seconds the device had them; its rate is what the unit had in flight on average", Context;

    // Syncs of files.
    HOST_SYNC = "disk.sync.latency", Histogram, Nanoseconds, Host, "sync", "Time tasks waited for a file to be synced";
    UNIT_SYNC = "disk.sync.latency", Histogram, Nanoseconds, Unit, "sync", "Time the unit's tasks waited for a file to be synced";

    // Block devices, from /proc.
    DISK_READS = "disk.read.operations", Counter, Count, Device, "procfs", "Reads completed";
    DISK_WRITES = "disk.write.operations", Counter, Count, Device, "procfs", "Writes completed";
    DISK_READ_BYTES = "disk.read.bytes", Counter, Bytes, Device, "procfs", "Read from the device";
    DISK_WRITE_BYTES = "disk.write.bytes", Counter, Bytes, Device, "procfs", "Written to the device";
    DISK_IN_FLIGHT = "disk.in_flight", Gauge, Count, Device, "procfs", "Requests under way";
    DISK_BUSY = "disk.busy.time", Counter, Nanoseconds, Device, "procfs", "Time with at least one request under way";

    // What is wrong with the host, from the kernel's log and the mount table.
    HOST_CONDITIONS = "host.conditions", Gauge, Count, Host, "kmsg", "Conditions that stand, such as disk.io_error or filesystem.read_only, whichever probe found them", Rule;
    LOG_CRITICAL = "kernel.log.critical", Counter, Count, Host, "kmsg", "Lines of the kernel's log at level critical, alert or emergency", Rule;
    LOG_ERRORS = "kernel.log.errors", Counter, Count, Host, "kmsg", "Lines of the kernel's log at level error", Rule;
    LOG_WARNINGS = "kernel.log.warnings", Counter, Count, Host, "kmsg", "Lines of the kernel's log at level warning", Rule;
    LOG_DISK = "kernel.log.disk_errors", Counter, Count, Host, "kmsg", "Lines of the kernel's log about failed disk I/O and disk controllers", Rule;
    LOG_FILESYSTEM = "kernel.log.filesystem_errors", Counter, Count, Host, "kmsg", "Lines of the kernel's log about damaged file systems", Rule;
    LOG_LOCKUPS = "kernel.log.lockups", Counter, Count, Host, "kmsg", "Lines of the kernel's log about lockups, RCU stalls and hung tasks", Rule;
    LOG_HARDWARE = "kernel.log.hardware_errors", Counter, Count, Host, "kmsg", "Lines of the kernel's log about machine checks and memory errors", Rule;
    FILESYSTEMS_READ_ONLY = "disk.filesystems.read_only", Gauge, Count, Host, "mounts", "File systems on block devices that are read-only though their type can be written", Rule;

    // TCP, from the kernel's tracepoints.
    HOST_RETRANSMITS = "tcp.retransmits", Counter, Count, Host, "tcp", "Segments sent again";
    UNIT_RETRANSMITS = "tcp.retransmits", Counter, Count, Unit, "tcp", "Segments the unit's sockets sent again";
    HOST_RESETS_SENT = "tcp.resets.sent", Counter, Count, Host, "tcp", "Resets sent";
    UNIT_RESETS_SENT = "tcp.resets.sent", Counter, Count, Unit, "tcp", "Resets the unit's sockets sent";
    HOST_RESETS_RECEIVED = "tcp.resets.received", Counter, Count, Host, "tcp", "Resets received";
    UNIT_RESETS_RECEIVED = "tcp.resets.received", Counter, Count, Unit, "tcp", "Resets the unit's sockets received";
    HOST_CONNECT = "tcp.connect.latency", Histogram, Nanoseconds, Host, "tcp", "Time from connect to established";
    UNIT_CONNECT = "tcp.connect.latency", Histogram, Nanoseconds, Unit, "tcp", "Time from connect to established, of the unit's sockets";
    HOST_CONNECT_SLOW = "tcp.connect.slow", Counter, Count, Host, "tcp", "Connects that took a second or longer: the first SYN was lost";
    UNIT_CONNECT_SLOW = "tcp.connect.slow", Counter, Count, Unit, "tcp", "The unit's connects that took a second or longer";
    HOST_CONNECT_FAILED = "tcp.connect.failed", Counter, Count, Host, "tcp", "Connects that failed, for whatever reason";
    UNIT_CONNECT_FAILED = "tcp.connect.failed", Counter, Count, Unit, "tcp", "The unit's connects that failed";
    HOST_CONNECT_REFUSED = "tcp.connect.refused", Counter, Count, Host, "tcp", "Connects that were refused", Context;
    UNIT_CONNECT_REFUSED = "tcp.connect.refused", Counter, Count, Unit, "tcp", "The unit's connects that were refused", Context;
    HOST_CONNECT_TIMED_OUT = "tcp.connect.timed_out", Counter, Count, Host, "tcp", "Connects that nobody answered", Context;
    UNIT_CONNECT_TIMED_OUT = "tcp.connect.timed_out", Counter, Count, Unit, "tcp", "The unit's connects that nobody answered", Context;
    LABEL_RESETS_SENT = "tcp.resets.sent", Counter, Count, Label, "tcp", "Resets sent, by the kernel's reason", Context;
    LABEL_CONNECT_FAILED = "tcp.connect.failed", Counter, Count, Label, "tcp", "Connects that failed, by error number", Context;
    HOST_MEMORY_REFUSED = "socket.memory.refused", Counter, Count, Host, "tcp", "Times a socket of any protocol was refused memory";
    UNIT_MEMORY_REFUSED = "socket.memory.refused", Counter, Count, Unit, "tcp", "Times one of the unit's sockets was refused memory";
    HOST_RECEIVE_FULL = "socket.receive_queue.full", Counter, Count, Host, "tcp", "Packets, TCP excepted, that found a socket's receive queue full";
    UNIT_RECEIVE_FULL = "socket.receive_queue.full", Counter, Count, Unit, "tcp", "Packets, TCP excepted, that found the receive queue of one of the unit's sockets full";

    // TCP sockets, from the kernel's socket diagnostics, every ten seconds or less often.
    HOST_RTT = "tcp.rtt", Histogram, Nanoseconds, Host, "sockets", "Smoothed round-trip time of established connections, each once a poll (ten seconds; up to sixty where there are very many)";
    UNIT_RTT = "tcp.rtt", Histogram, Nanoseconds, Unit, "sockets", "Smoothed round-trip time of the unit's established connections, each once a poll";
    UNIT_SOCKETS_ESTABLISHED = "tcp.sockets.established", Gauge, Count, Unit, "sockets", "The unit's established connections";
    HOST_ACCEPT_FILL = "tcp.accept_queue.fill", Gauge, Ratio, Host, "sockets", "How full the fullest accept queue is";
    UNIT_ACCEPT_FILL = "tcp.accept_queue.fill", Gauge, Ratio, Unit, "sockets", "How full the unit's fullest accept queue is";
    UNIT_ACCEPT_USED = "tcp.accept_queue.used", Gauge, Count, Unit, "sockets", "Connections that wait in the unit's fullest accept queue", Context;
    UNIT_ACCEPT_LIMIT = "tcp.accept_queue.limit", Gauge, Count, Unit, "sockets", "Connections that may wait in the unit's fullest accept queue", Context;

    // Packets dropped, from the hook where the kernel frees them.
    HOST_DROPS = "network.drops", Counter, Count, Host, "drops", "Packets the network stack dropped, of all network namespaces";
    LABEL_DROPS = "network.drops", Counter, Count, Label, "drops", "Packets the network stack dropped, by the kernel's reason", Context;

    // Network, from /proc.
    TCP_SEGMENTS_OUT = "tcp.segments.out", Counter, Count, Host, "procfs", "TCP segments sent, retransmits excluded";
    TCP_SEGMENTS_IN = "tcp.segments.in", Counter, Count, Host, "procfs", "TCP segments received";
    TCP_SEGMENTS_RETRANSMITTED = "tcp.segments.retransmitted", Counter, Count, Host, "procfs", "TCP segments sent again, as the network stack counts them", Context;
    TCP_ESTABLISHED = "tcp.established", Gauge, Count, Host, "procfs", "TCP connections established";
    TCP_LISTEN_OVERFLOWS = "tcp.listen.overflows", Counter, Count, Host, "procfs", "Connections that found an accept queue full";
    TCP_LISTEN_DROPS = "tcp.listen.drops", Counter, Count, Host, "procfs", "Connections that a listening socket dropped, for whatever reason";
    TCP_MEMORY_PRESSURES = "tcp.memory.pressures", Counter, Count, Host, "procfs", "Times TCP as a whole came under memory pressure";
    TCP_PRUNES = "tcp.receive.prunes", Counter, Count, Host, "procfs", "Times a receive queue was squeezed because its memory ran out";
    TCP_PRUNE_DROPS = "tcp.receive.pruned", Counter, Count, Host, "procfs", "Segments thrown away because squeezing the receive queue did not help";
    TCP_BACKLOG_DROPS = "tcp.backlog.drops", Counter, Count, Host, "procfs", "Segments dropped because the socket was busy and its backlog full";
    TCP_TIMEOUTS = "tcp.timeouts", Counter, Count, Host, "procfs", "Retransmission timeouts";
    TCP_MEMORY_ABORTS = "tcp.memory.aborts", Counter, Count, Host, "procfs", "Connections given up for want of memory";
    TCP_MEMORY = "tcp.memory.bytes", Gauge, Bytes, Host, "procfs", "Memory of all TCP sockets' buffers";
    TCP_ORPHANS = "tcp.orphans", Gauge, Count, Host, "procfs", "TCP connections that no process holds any more";
    TCP_TIME_WAIT = "tcp.time_wait", Gauge, Count, Host, "procfs", "TCP connections that wait out their time";
    NETWORK_CARRIER = "network.carrier", Gauge, Count, Interface, "procfs", "1 while the interface has a link, 0 while it has none", Rule;
    NETWORK_CARRIER_CHANGES = "network.carrier.changes", Counter, Count, Interface, "procfs", "Times the link went down or came up", Rule;
    NETWORK_RX_BYTES = "network.receive.bytes", Counter, Bytes, Interface, "procfs", "Received";
    NETWORK_TX_BYTES = "network.transmit.bytes", Counter, Bytes, Interface, "procfs", "Sent";
    NETWORK_RX_PACKETS = "network.receive.packets", Counter, Count, Interface, "procfs", "Packets received", Context;
    NETWORK_TX_PACKETS = "network.transmit.packets", Counter, Count, Interface, "procfs", "Packets sent", Context;
    NETWORK_RX_ERRORS = "network.receive.errors", Counter, Count, Interface, "procfs", "Packets received with an error";
    NETWORK_TX_ERRORS = "network.transmit.errors", Counter, Count, Interface, "procfs", "Packets that could not be sent";
    NETWORK_RX_DROPS = "network.receive.drops", Counter, Count, Interface, "procfs", "Packets dropped on the way in";
    NETWORK_TX_DROPS = "network.transmit.drops", Counter, Count, Interface, "procfs", "Packets dropped on the way out";

    // Processes, from the exit hook.
    HOST_EXITS = "process.exits", Counter, Count, Host, "exit", "Processes that ended", Context;
    UNIT_EXITS = "process.exits", Counter, Count, Unit, "exit", "Processes of the unit that ended", Context;
    HOST_EXITS_SIGNAL = "process.exits.signal", Counter, Count, Host, "exit", "Processes ended by a signal", Rule;
    UNIT_EXITS_SIGNAL = "process.exits.signal", Counter, Count, Unit, "exit", "Processes of the unit ended by a signal", Rule;
    HOST_EXITS_ERROR = "process.exits.error", Counter, Count, Host, "exit", "Processes that ended with a non-zero code";
    UNIT_EXITS_ERROR = "process.exits.error", Counter, Count, Unit, "exit", "Processes of the unit that ended with a non-zero code";

    // Processes, from the hooks on their start.
    HOST_EXECS = "process.execs", Counter, Count, Host, "lifecycle", "Programs started";
    UNIT_EXECS = "process.execs", Counter, Count, Unit, "lifecycle", "Programs the unit started";
    UNIT_FORKS = "process.forks", Counter, Count, Unit, "lifecycle", "Processes the unit started, without threads";
    UNIT_THREADS_STARTED = "process.threads.started", Counter, Count, Unit, "lifecycle", "Threads the unit's processes started", Context;
    HOST_HUNG = "process.hung", Counter, Count, Host, "lifecycle", "Tasks the kernel found hanging: waiting in it for longer than it tolerates", Rule;
    UNIT_HUNG = "process.hung", Counter, Count, Unit, "lifecycle", "The unit's tasks the kernel found hanging", Rule;

    // How usual what the host does is, from the scorer.
    HOST_ANOMALY_SCORE = "anomaly.score", Gauge, Ratio, Host, "self", "How unusual the host is, from 0 to 1; alarming depends on how often it is so", Context;
    HOST_ANOMALY_RATE = "anomaly.rate", Gauge, Ratio, Host, "self", "Share of the scored signals of host, devices, interfaces and units that are far from usual", Context;
    UNIT_ANOMALY_SCORE = "anomaly.score", Gauge, Ratio, Unit, "self", "How unusual the unit is, from 0 to 1", Context;

    // The agent itself.
    AGENT_CPU = "agent.cpu.time", Counter, Nanoseconds, Host, "self", "CPU time of the agent", Context;
    AGENT_RSS = "agent.memory.rss", Gauge, Bytes, Host, "self", "Resident memory of the agent", Context;
    AGENT_MAPS = "agent.memory.maps", Gauge, Bytes, Host, "self", "Kernel memory of the agent's eBPF maps", Context;
    AGENT_EBPF_COST = "agent.ebpf.cost", Gauge, Ratio, Host, "self", "What all eBPF programs cost, as a share of one core", Context;
    AGENT_LOSSES = "agent.losses", Counter, Count, Host, "self", "Everything the agent had to drop: events, samples, map updates", Context;
}

const COLUMNS: [u16; SIGNALS.len()] = {
    let mut columns = [0; SIGNALS.len()];
    let mut i = 0;
    while i < SIGNALS.len() {
        columns[i] = width_before(i, SIGNALS[i].owner, SIGNALS[i].is_histogram());
        i += 1;
    }
    columns
};

const fn width_before(end: usize, owner: Owner, histogram: bool) -> u16 {
    let (mut i, mut n) = (0, 0);
    while i < end {
        if SIGNALS[i].owner as u8 == owner as u8 && SIGNALS[i].is_histogram() == histogram {
            n += 1;
        }
        i += 1;
    }
    n
}

/// How many scalar signals `owner` has.
#[must_use]
pub const fn scalars(owner: Owner) -> usize {
    width_before(SIGNALS.len(), owner, false) as usize
}

/// How many histogram signals `owner` has.
#[must_use]
pub const fn histograms(owner: Owner) -> usize {
    width_before(SIGNALS.len(), owner, true) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_valid_and_unique_by_owner() {
        let mut seen = BTreeSet::new();
        for signal in SIGNALS {
            assert!(holdfast_proto::limits::is_signal_name(signal.name), "{}", signal.name);
            assert!(seen.insert((signal.name, signal.owner)), "{} twice", signal.name);
            assert!(!signal.help.is_empty() && !signal.help.ends_with('.'), "{}", signal.name);
        }
    }

    #[test]
    fn columns_are_dense() {
        for owner in Owner::ALL {
            for (histogram, width) in [(false, scalars(owner)), (true, histograms(owner))] {
                let mut columns: Vec<usize> = SignalId::all()
                    .filter(|id| {
                        id.signal().owner == owner && id.signal().is_histogram() == histogram
                    })
                    .map(SignalId::column)
                    .collect();
                columns.sort_unstable();
                assert_eq!(columns, (0..width).collect::<Vec<_>>());
            }
        }
    }
}
