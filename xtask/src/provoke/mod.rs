//! Real load of one kind each, for the demo and the measurements.
//!
//! A load is a process of its own (`xtask provoke LOAD`), so that it can live in
//! its own cgroup and so that its end leaves nothing behind. It runs until it is
//! killed. Each is bounded in rate, memory and disk space.

mod cpu;
mod disk;
mod exits;
mod memory;
pub(crate) mod neighbour;
mod network;
pub(crate) mod patient;
pub(crate) mod victim;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Result;

pub(crate) use cpu::{compete, ping_pong};
pub(crate) use disk::Writer;
pub(crate) use network::slow_connects_for as slow_connects;

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Load {
    /// More runnable threads than CPUs, and two that wake each other
    Cpu,
    /// Direct, synchronous reads and writes on a real file system
    Disk,
    /// Memory touched and given back, and a page cache larger than its limit
    Memory,
    /// Transfers, refused, slow and unanswered connects, resets
    Network,
    /// Processes that crash and processes that fail
    Exits,
    /// A process that outgrows its cgroup, again and again
    Oom,
    /// That process
    #[value(hide = true)]
    OomVictim,
    /// Next to nothing: wakes up ten times a second
    #[value(hide = true)]
    Wake,
}

impl Load {
    /// The name of its cgroup: a unit to the agent.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Cpu => "holdfast-demo-cpu.service",
            Self::Disk => "holdfast-demo-disk.service",
            Self::Memory => "holdfast-demo-memory.service",
            Self::Network => "holdfast-demo-network.service",
            Self::Exits => "holdfast-demo-exits.service",
            Self::Oom | Self::OomVictim => "holdfast-demo-oom.service",
            Self::Wake => "holdfast-demo-wake.service",
        }
    }

    /// How much memory its cgroup may have, where that is part of the load.
    pub(crate) fn memory_limit(self) -> Option<u64> {
        match self {
            Self::Memory => Some(memory::LIMIT),
            Self::Oom => Some(memory::OOM_LIMIT),
            _ => None,
        }
    }

    /// Whether the load would harm the host without its memory limit.
    pub(crate) fn needs_limit(self) -> bool {
        self == Self::Oom
    }
}

/// What `xtask provoke` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kind of load
    load: Load,
    /// Folder on a real disk for what the load writes
    #[arg(long)]
    scratch: PathBuf,
}

/// Loads the machine until killed.
pub(crate) fn run(args: &Args) -> Result<()> {
    match args.load {
        Load::Cpu => cpu::run(),
        Load::Disk => disk::run(&args.scratch),
        Load::Memory => memory::run(&args.scratch),
        Load::Network => network::run(),
        Load::Exits => exits::run(),
        Load::Oom => memory::run_oom(&args.scratch),
        Load::OomVictim => memory::be_killed(),
        Load::Wake => loop {
            pause(Duration::from_millis(100));
        },
    }
}

/// Paces a load. A spurious early end does no harm here.
fn pause(time: Duration) {
    thread::park_timeout(time);
}
