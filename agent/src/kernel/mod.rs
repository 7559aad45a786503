//! Everything that touches BPF. The rest of the agent runs, degraded and saying
//! so, without it.
//!
//! [`Kernel`] loads the object's programs, each by itself, and lends out their
//! counters; the probes turn those into signals. It knows neither units nor
//! signals by name.

pub mod attest;
mod btf;
pub mod cells;
mod choices;
mod cost;
mod counted;
mod depths;
mod events;
mod fdinfo;
#[cfg(test)]
mod fixtures;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod layout;
mod names;
mod object;
mod pass;
mod preempt;
mod programs;
mod reason;
mod size;
mod tables;
mod tracefs;
mod trial;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::RingBuf;
use holdfast_agent_ebpf::cells::{
    BlockCell, CpuCell, Histogram, IrqCell, ProcessCell, SchedCell, TaskCell, TcpCell, TcpReasons,
    UnitBlockCell, UnitDiskCell, Word,
};
use holdfast_agent_ebpf::reasons::DROP_ROWS;
use holdfast_agent_ebpf::slots::{
    DEVICE_SETS, RESERVED_ROWS, UNIT_SETS, attest_row, device_key, device_set, unit_set,
};
use holdfast_agent_ebpf::{loss, maps};
use tokio::io::unix::AsyncFd;

use crate::host::Root;
use cells::{Cell, Cells, PerCpu, load};
use object::Object;
use size::Size;
use tables::Table;

pub use cost::{Measurement, ProgramCost};
pub use events::{Events, KernelEvent};
pub use names::Names;
pub use preempt::Preempt;
pub use programs::readers;

/// Whether a program of this variant runs on kernels that do not describe their types.
#[must_use]
pub fn needs_no_types(variant: &str) -> bool {
    variant == programs::CLASSIC
}

/// What to load, and how large.
#[derive(Debug, Clone)]
pub struct Options {
    /// Unit slots asked for, slot 0 included.
    pub unit_slots: usize,
    /// Most memory that all maps together may take.
    pub map_limit_bytes: u64,
    /// Programs not to load, by name ("sched_process_exit"), one form of a program
    /// ("sched_switch/sched_info"), or all forms of a kind ("tp_btf", "tracepoint").
    pub disabled: Vec<String>,
    /// For tests only: what the programs are told wrongly.
    pub mutate: Vec<Mutation>,
}

/// A lie about the kernel, which a test tells to see that it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The member of this path is so many bytes further on.
    Offset(&'static str, i32),
    /// The setting of this name has another value.
    Setting(&'static str, u32),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            unit_slots: 256,
            map_limit_bytes: 16 << 20,
            disabled: Vec::new(),
            mutate: Vec::new(),
        }
    }
}

/// Why something asked of the loaded programs could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No free entry for a key.
    #[error("no room in the {table} table: {ways} entries with this hash are in use")]
    TableFull {
        /// Which table.
        table: &'static str,
        /// How many entries share a hash.
        ways: usize,
    },
    /// A row that the table does not have.
    #[error("row {row} is beyond the {rows} that fit the map memory limit")]
    NoSuchRow {
        /// The row asked for.
        row: usize,
        /// How many there are.
        rows: usize,
    },
    /// The kernel does not account.
    #[error(
        "the kernel accounts for programs only at the wish of CAP_SYS_ADMIN; \
         `sysctl kernel.bpf_stats_enabled=1` as root turns it on until it is set back to 0"
    )]
    Accounting(#[source] io::Error),
    /// The program for benchmarks could not be loaded.
    #[error("{0}")]
    Empty(String),
}

/// Whether a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Loaded and attached.
    Active,
    /// Not loaded; the reason says why.
    Off,
}

/// One eBPF program, as it could be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramStatus {
    /// Its name.
    pub name: &'static str,
    /// How it is attached, and in which form.
    pub variant: &'static str,
    /// Whether it runs.
    pub state: State,
    /// Why it is off, or why it is not in the best form; empty when nothing is wrong.
    pub reason: String,
    /// Memory of the maps that it is the first to use.
    pub map_bytes: u64,
}

/// The loaded programs and their maps. Dropping it unloads everything.
#[derive(Debug)]
pub struct Kernel {
    object: Object,
    root: Root,
    size: Size,
    sched: PerCpu<SchedCell>,
    cpus: Cells<CpuCell>,
    irqs: Cells<IrqCell>,
    preempt: Preempt,
    block: PerCpu<BlockCell>,
    unit_disk: Cells<UnitDiskCell>,
    unit_block: Cells<UnitBlockCell>,
    tcp: Cells<TcpCell>,
    tcp_reasons: Cells<TcpReasons>,
    drops: PerCpu<Word>,
    reclaim: Cells<Histogram>,
    compaction: Cells<Histogram>,
    sync: Cells<Histogram>,
    task_sums: Cells<TaskCell>,
    process: Cells<ProcessCell>,
    losses: Cells<Word>,
    units: Table,
    devices: Table,
}

impl Kernel {
    /// Loads each program by itself and maps their counters.
    ///
    /// # Errors
    ///
    /// One sentence why eBPF cannot be used here at all.
    pub fn start(options: &Options, root: &Root) -> Result<Self, String> {
        if let Some(missing) = reason::missing_privilege(root) {
            return Err(missing);
        }
        let cpus = possible_cpus(root)?;
        let size = Size::fit(cpus, options.unit_slots, options.map_limit_bytes)?;
        let object = Object::load(options, size, root)?;
        trim_heap();

        let (unit_rows, device_rows) = (size.unit_rows as usize, size.device_rows as usize);
        let units = map(&object, maps::UNITS, UNIT_SETS as usize, true)?;
        let devices = map(&object, maps::DEVICES, DEVICE_SETS as usize, true)?;
        Ok(Self {
            sched: PerCpu::new(map(&object, maps::SCHED, cpus * unit_rows, false)?, unit_rows),
            cpus: map(&object, maps::CPUS, cpus, true)?,
            irqs: map(&object, maps::IRQS, cpus, true)?,
            preempt: Preempt::new(
                map(&object, maps::PREEMPT, size.blame_cells() as usize, false)?,
                size.blame_rows,
            ),
            block: PerCpu::new(map(&object, maps::BLOCK, cpus * device_rows, false)?, device_rows),
            unit_disk: map(&object, maps::UNIT_DISK, unit_rows, false)?,
            unit_block: map(
                &object,
                maps::UNIT_BLOCK,
                size.shared_devices as usize * unit_rows,
                false,
            )?,
            tcp: map(&object, maps::TCP, unit_rows, false)?,
            tcp_reasons: map(&object, maps::TCP_REASONS, 1, false)?,
            drops: PerCpu::new(
                map(&object, maps::DROPS, cpus * DROP_ROWS as usize, false)?,
                DROP_ROWS as usize,
            ),
            reclaim: map(&object, maps::RECLAIM, unit_rows, false)?,
            compaction: map(&object, maps::COMPACTION, unit_rows, false)?,
            sync: map(&object, maps::SYNC, unit_rows, false)?,
            task_sums: map(&object, maps::TASK_SUMS, unit_rows, false)?,
            process: map(&object, maps::PROCESS, unit_rows, false)?,
            losses: map(&object, maps::LOSSES, loss::NAMES.len(), false)?,
            units: Table::new("unit", units, unit_set),
            devices: Table::new("device", devices, device_set),
            object,
            root: root.clone(),
            size,
        })
    }

    /// Unit slots there are, slot 0 included; perhaps fewer than asked for. The rows
    /// of the maps that are not for units come after them.
    #[must_use]
    pub fn unit_slots(&self) -> usize {
        (self.size.unit_rows - RESERVED_ROWS) as usize
    }

    /// The row for what the agent itself provokes, which no unit gets.
    #[must_use]
    pub fn attest_slot(&self) -> usize {
        attest_row(self.size.unit_rows) as usize
    }

    /// Device rows there are, row 0 included.
    #[must_use]
    pub fn device_rows(&self) -> usize {
        self.size.device_rows as usize
    }

    /// Counts what happens in a cgroup for `slot` from now on. Several cgroups may
    /// share a slot.
    ///
    /// # Errors
    ///
    /// There is no such slot, or no room in the table.
    pub fn assign_unit(&self, cgroup_id: u64, slot: usize) -> Result<(), Error> {
        check_row(slot, self.unit_slots())?;
        self.units.assign(cgroup_id, slot)
    }

    /// Counts what happens in a cgroup for [`attest_slot`](Self::attest_slot) from now on.
    ///
    /// # Errors
    ///
    /// There is no room in the table.
    pub fn assign_attest(&self, cgroup_id: u64) -> Result<(), Error> {
        self.units.assign(cgroup_id, self.attest_slot())
    }

    /// Counts what happens in a cgroup for slot 0 from now on.
    pub fn release_unit(&self, cgroup_id: u64) {
        self.units.release(cgroup_id);
    }

    /// Counts what a block device does for `row` from now on.
    ///
    /// # Errors
    ///
    /// There is no such row, or no room in the table.
    pub fn assign_device(&self, major: u32, minor: u32, row: usize) -> Result<(), Error> {
        check_row(row, self.device_rows())?;
        self.devices.assign(device_key(major, minor), row)
    }

    /// The row of a block device; `None` for one that has none of its own.
    #[must_use]
    pub fn device_row(&self, major: u32, minor: u32) -> Option<usize> {
        self.devices.row_of(device_key(major, minor))
    }

    /// Every program and how it could be loaded.
    #[must_use]
    pub fn programs(&self) -> &[ProgramStatus] {
        &self.object.statuses
    }

    /// Memory of all maps, as the kernel counts it.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        self.object.map_bytes
    }

    /// Everything the programs had to drop, by cause.
    #[must_use]
    pub fn losses(&self) -> Vec<(&'static str, u64)> {
        let counted = loss::NAMES
            .iter()
            .enumerate()
            .map(|(n, name)| (*name, self.losses.get(n).map(load).unwrap_or_default()));
        let skipped = self
            .object
            .running
            .iter()
            .filter_map(|(_, function)| self.object.program(function)?.fd().ok())
            .filter_map(|fd| fdinfo::number(fd.as_fd(), "recursion_misses"))
            .sum();
        counted.chain([("ebpf.program_skipped", skipped)]).collect()
    }

    /// What the programs had to drop for one cause; 0 for one that is not known.
    #[must_use]
    pub fn losses_of(&self, cause: &str) -> u64 {
        let place = loss::NAMES.iter().position(|name| *name == cause);
        place.and_then(|n| self.losses.get(n)).map(load).unwrap_or_default()
    }

    /// Turns the kernel's accounting of programs on until the measurement ends.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn measure(&self) -> Result<Measurement, Error> {
        Measurement::start(&self.object)
    }

    /// Adds the program "empty" to what is measured: it does nothing at each
    /// context switch, so its cost is that of being called and accounted for.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn attach_empty(&mut self) -> Result<(), Error> {
        self.object.attach_empty(&self.root).map_err(Error::Empty)
    }

    /// Whether program `name` runs in the best of its forms.
    #[must_use]
    pub fn at_its_best(&self, name: &str) -> bool {
        let best = programs::CHOICES.iter().filter_map(|forms| forms.first());
        self.programs().iter().any(|status| {
            status.name == name
                && status.state == State::Active
                && best.clone().any(|form| {
                    form.variant == status.variant && form.programs.iter().any(|p| p.name == name)
                })
        })
    }

    /// Takes the program "empty" away again.
    pub fn detach_empty(&mut self) {
        self.object.detach_empty();
    }

    /// The stream of events; `None` the second time.
    pub fn take_events(&mut self) -> Option<Events> {
        let ring = self.object.take_map(maps::EVENTS)?;
        RingBuf::try_from(ring).ok().map(Events::new)
    }

    /// Why programs of `names` that are off are off, and what is worse about those
    /// that run in a lesser form: `Err` when none of them runs, `Ok(None)` when all
    /// run at their best.
    ///
    /// # Errors
    ///
    /// None of the programs runs: why.
    pub fn health(&self, names: &[&str]) -> Result<Option<String>, String> {
        let of = |state| {
            self.programs().iter().filter(move |p| names.contains(&p.name) && p.state == state)
        };
        let mut reasons: Vec<String> = Vec::new();
        let off = of(State::Off).map(|p| format!("{} is off: {}", p.name, p.reason));
        let lesser = of(State::Active).map(|p| p.reason.clone()).filter(|r| !r.is_empty());
        for reason in off.chain(lesser) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let joined = reasons.join("; ");
        if of(State::Active).next().is_none() {
            return Err(joined);
        }
        Ok((!joined.is_empty()).then_some(joined))
    }
}

/// What the tasks of a unit add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskSums {
    /// Threads.
    pub threads: u64,
    /// Processes.
    pub processes: u64,
    /// Threads in uninterruptible sleep.
    pub uninterruptible: u64,
    /// Pages of memory that processes have in RAM.
    pub rss_pages: u64,
    /// Major faults of the processes so far.
    pub major_faults: u64,
}

impl TaskSums {
    fn of(cell: &TaskCell) -> Self {
        Self {
            threads: load(&cell.threads),
            processes: load(&cell.processes),
            uninterruptible: load(&cell.uninterruptible),
            rss_pages: load(&cell.rss_pages),
            major_faults: load(&cell.major_faults),
        }
    }

    fn since(self, before: &Self) -> Self {
        Self {
            threads: self.threads.wrapping_sub(before.threads),
            processes: self.processes.wrapping_sub(before.processes),
            uninterruptible: self.uninterruptible.wrapping_sub(before.uninterruptible),
            rss_pages: self.rss_pages.wrapping_sub(before.rss_pages),
            major_faults: self.major_faults.wrapping_sub(before.major_faults),
        }
    }
}

fn check_row(row: usize, rows: usize) -> Result<(), Error> {
    if row < rows { Ok(()) } else { Err(Error::NoSuchRow { row, rows }) }
}

fn map<T: Cell>(
    object: &Object,
    name: &str,
    count: usize,
    writable: bool,
) -> Result<Cells<T>, String> {
    let fd = object.map(name).ok_or_else(|| format!("the eBPF object has no map {name}"))?;
    Cells::map(fd, count, writable)
        .map_err(|error| format!("the counters of {name} cannot be mapped into memory: {error}"))
}

/// How many CPUs the host may ever have.
fn possible_cpus(root: &Root) -> Result<usize, String> {
    let path = root.path("sys/devices/system/cpu/possible");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    last_cpu(&text)
        .map(|last| last + 1)
        .ok_or_else(|| format!("{} is not a list of CPUs", path.display()))
}

fn last_cpu(list: &str) -> Option<usize> {
    list.trim().rsplit([',', '-']).next()?.parse().ok().filter(|cpu| *cpu < 1 << 16)
}

/// Gives back what reading the kernel's types took, which is never needed again.
#[expect(unsafe_code, reason = "the C library's only interface to it")]
fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches only memory that is not in use.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Registers `t` with the runtime, to wait until it is readable.
///
/// # Errors
///
/// The runtime's poller refuses the descriptor.
#[expect(unsafe_code, reason = "the one registration of a descriptor")]
pub fn readiness<T: AsFd + AsRawFd>(t: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `t` owns its descriptor and gives the same one for as long as it lives.
    unsafe { AsyncFd::register(t) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_wire() {
        use holdfast_agent_ebpf::histogram as kernel;
        use holdfast_proto::histogram as wire;
        assert_eq!(kernel::BUCKETS, wire::BUCKETS);
        let edges = (0..wire::BUCKETS).flat_map(|index| {
            let low = wire::lower_bound(index);
            [low.saturating_sub(1), low, low + 1, wire::upper_bound(index) - 1]
        });
        let powers = (0..64).map(|bit| 1u64 << bit);
        for value in edges.chain(powers).chain([u64::MAX]).chain((0..1 << 16).step_by(7)) {
            assert_eq!(kernel::bucket_of(value) as usize, wire::bucket_of(value), "{value}");
        }
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(last_cpu("0\n"), Some(0));
        assert_eq!(last_cpu("0-7\n"), Some(7));
        assert_eq!(last_cpu("0-3,8-11"), Some(11));
        assert_eq!(last_cpu(""), None);
        assert_eq!(last_cpu("0-99999999"), None);
    }
}
