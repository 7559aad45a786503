//! Everything that touches BPF. The rest of the agent runs, degraded and saying so, without it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

use crate::host::Root;

/// What to load, and how large.
#[derive(Debug, Clone)]
pub struct Options {
    /// Unit slots asked for.
    pub unit_slots: usize,
    /// Most memory of all maps.
    pub map_limit_bytes: u64,
    /// Programs not to load, by name.
    pub disabled: Vec<String>,
}

/// Why the kernel refused an update.
#[derive(Debug, thiserror::Error)]
#[error("cannot update the table {0}")]
pub struct Error(&'static str);

/// Whether a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Loaded and attached.
    Active,
    /// Not loaded; the reason says why.
    Off,
}

/// One eBPF program as it was loaded.
#[derive(Debug, Clone)]
pub struct ProgramStatus {
    /// Name.
    pub name: &'static str,
    /// How it is attached.
    pub variant: &'static str,
    /// Whether it runs.
    pub state: State,
    /// Why not, or what is lost.
    pub reason: String,
    /// Memory of the maps it is the first to use.
    pub map_bytes: u64,
}

/// What a program cost while it was measured.
#[derive(Debug, Clone)]
pub struct ProgramCost {
    /// Name.
    pub name: &'static str,
    /// Runs per second.
    pub events_per_second: f64,
    /// Time of one run.
    pub ns_per_event: f64,
}

/// A running measurement of the programs' cost.
#[derive(Debug)]
pub struct Measurement {}

impl Measurement {
    /// Ends the measurement.
    #[must_use]
    pub fn finish(self, _kernel: &Kernel) -> Vec<ProgramCost> {
        Vec::new()
    }
}

/// A rare fact the kernel told.
#[derive(Debug, Clone)]
pub enum KernelEvent {
    /// A process ended by a signal or with a non-zero code.
    Exit {
        /// Its cgroup.
        cgroup_id: u64,
        /// Its id in the initial namespace.
        pid: u32,
        /// Its command name.
        command: String,
        /// Exit code.
        code: u8,
        /// Signal, 0 for none.
        signal: u8,
        /// Whether it dumped core.
        core_dumped: bool,
        /// When, on the boot-time clock.
        at_ns: u64,
    },
    /// A process was killed because memory ran out.
    OomKill {
        /// Its cgroup.
        cgroup_id: u64,
        /// Its id in the initial namespace.
        pid: u32,
        /// Its command name.
        command: String,
        /// When, on the boot-time clock.
        at_ns: u64,
    },
}

/// The stream of kernel events.
#[derive(Debug)]
pub struct Events {}

impl Events {
    /// Waits for events and appends at most 256.
    ///
    /// # Errors
    ///
    /// The ring buffer cannot be waited for.
    pub async fn next(&mut self, _out: &mut Vec<KernelEvent>) -> io::Result<()> {
        std::future::pending().await
    }
}

/// The loaded eBPF programs and their maps.
#[derive(Debug)]
pub struct Kernel {}

impl Kernel {
    /// Loads each program by itself.
    ///
    /// # Errors
    ///
    /// One sentence why eBPF cannot be used at all.
    pub fn start(_options: &Options, _root: &Root) -> Result<Self, String> {
        Err("this build has no eBPF programs".to_owned())
    }

    /// Unit slots there are, slot 0 included.
    #[must_use]
    pub fn unit_slots(&self) -> usize {
        0
    }

    /// Device rows there are, row 0 included.
    #[must_use]
    pub fn device_rows(&self) -> usize {
        0
    }

    /// Counts cgroup `cgroup_id` in `slot` from now on.
    ///
    /// # Errors
    ///
    /// The table is full.
    pub fn assign_unit(&self, _cgroup_id: u64, _slot: usize) -> Result<(), Error> {
        Ok(())
    }

    /// Counts cgroup `cgroup_id` in slot 0 from now on.
    pub fn release_unit(&self, _cgroup_id: u64) {}

    /// Counts device `major:minor` in `row` from now on.
    ///
    /// # Errors
    ///
    /// The table is full.
    pub fn assign_device(&self, _major: u32, _minor: u32, _row: usize) -> Result<(), Error> {
        Ok(())
    }

    /// Every program and its state.
    #[must_use]
    pub fn programs(&self) -> &[ProgramStatus] {
        &[]
    }

    /// Memory of all maps.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        0
    }

    /// Everything the programs had to drop, by cause.
    #[must_use]
    pub fn losses(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Turns the kernel's accounting of programs on.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub fn measure(&self) -> Result<Measurement, Error> {
        Ok(Measurement {})
    }

    /// The stream of events, once.
    pub fn take_events(&mut self) -> Option<Events> {
        None
    }
}

/// Registers `t` with the runtime for readiness.
///
/// # Errors
///
/// The runtime's poller refuses the descriptor.
#[expect(unsafe_code, reason = "the one registration of a descriptor")]
pub fn readiness<T: AsFd + AsRawFd>(t: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `t` owns its descriptor and gives the same one for as long as it lives.
    unsafe { AsyncFd::register(t) }.map_err(io::Error::from)
}
