//! Attestation: each probe provokes an event that it knows and must see exactly that.
//!
//! A worker process in a cgroup of its own does the provoking ([`worker`]); whatever
//! it does is counted in a row that no unit gets, so that the host's own events do
//! not mix with it. What the programs counted is then held against what the worker
//! did and against the kernel's own account of it. `run` drives this step by step
//! and never blocks. A proof is one file and one row of `PROOFS`.

mod block;
mod drops;
mod exit;
mod ground;
mod irq;
mod lifecycle;
mod oom;
mod reclaim;
mod run;
mod sched;
mod spent;
mod sync;
mod sys;
mod tasks;
mod tcp;
mod verdict;
pub mod worker;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Kernel, KernelEvent};
use ground::Disk;

pub use ground::is_attest_cgroup;
pub use run::{Attestation, Options};
pub use verdict::{Check, Outcome, Verdict};

/// One row of the table of proofs.
struct Spec {
    /// The probe it proves, as in the table of probes.
    probe: &'static str,
    /// What it provokes, in a few words.
    provokes: &'static str,
    /// Why it is left out unless somebody asks for it; empty when it never is.
    disruptive: &'static str,
    /// In the worker: makes everything ready.
    ///
    /// The error is one sentence why nothing can be provoked here.
    prepare: fn(&Place<'_>) -> Result<Provoke, String>,
    /// In the agent: everything that is compared, as it stands now.
    ///
    /// The error is one sentence why it cannot be counted here.
    count: fn(&Watch<'_>) -> Result<Counts, String>,
    /// Holds what was gained against what was done. Pure.
    judge: fn(&Evidence<'_>) -> Vec<Check>,
}

/// Every proof, in the order they are made.
const PROOFS: &[Spec] = &[
    sched::PROOF,
    irq::PROOF,
    block::PROOF,
    reclaim::PROOF,
    oom::PROOF,
    sync::PROOF,
    tasks::PROOF,
    tcp::PROOF,
    drops::PROOF,
    exit::PROOF,
    lifecycle::PROOF,
];

/// The form of the program `name`; empty when there is no such program.
fn variant(kernel: &Kernel, name: &str) -> &'static str {
    kernel.programs().iter().find(|program| program.name == name).map_or("", |p| p.variant)
}

/// What the worker has made ready: provokes the events, once, and keeps what it needs
/// for that until it is dropped.
type Provoke = Box<dyn FnMut() -> Result<Facts, String>>;

/// Numbers by name.
type Counts = BTreeMap<&'static str, u64>;

/// Where the worker is.
#[derive(Debug)]
struct Place<'a> {
    /// Its own cgroup's directory.
    cgroup: &'a Path,
    /// A directory that it may write to.
    state_dir: &'a Path,
    /// How much to provoke; 1 at the agent's start.
    effort: u32,
}

/// What the agent looks at while it counts.
struct Watch<'a> {
    /// The loaded programs.
    kernel: &'a Kernel,
    /// The worker's process id.
    worker: u32,
    /// The directory that the worker may write to.
    state_dir: &'a Path,
    /// The disk that the worker writes to, or why there is none.
    disk: Result<&'a Disk, &'a str>,
}

/// What the worker says it did, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    /// Numbers by name.
    #[serde(default)]
    numbers: BTreeMap<String, u64>,
    /// Processes that ended, each of which must come as an event if it ended badly.
    #[serde(default)]
    ends: Vec<End>,
    /// How many events the kernel must tell.
    #[serde(default)]
    events: usize,
}

/// The end of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    /// Its id, as the worker sees it.
    pid: u32,
    /// Its name.
    command: String,
    /// Its exit code; 0 when a signal ended it.
    code: u8,
    /// Its signal; 0 when it ended by itself.
    signal: u8,
}

impl Facts {
    /// A number the worker told; 0 when it did not.
    fn get(&self, name: &str) -> u64 {
        self.numbers.get(name).copied().unwrap_or_default()
    }

    fn set(&mut self, name: &str, n: u64) {
        self.numbers.insert(name.to_owned(), n);
    }
}

/// Everything a proof is judged by.
struct Evidence<'a> {
    /// What each of the counted numbers has gained.
    gained: Counts,
    /// What the worker did.
    facts: Facts,
    /// What the kernel told about processes of the worker's cgroup.
    events: Vec<KernelEvent>,
    /// The loaded programs' forms, by name.
    variant: &'a dyn Fn(&str) -> &'static str,
}

impl Evidence<'_> {
    fn gained(&self, name: &str) -> u64 {
        self.gained.get(name).copied().unwrap_or_default()
    }
}

/// The probes that a proof exists for.
pub fn proven_probes() -> impl Iterator<Item = &'static str> {
    PROOFS.iter().map(|proof| proof.probe)
}
