//! The collector's own words for what agents report: hosts, signals, windows,
//! events, probes. Everything here was checked where it entered (`session`); no
//! wire type is used past that point.

use std::{cmp::Ordering, sync::Arc};

use crate::buckets::Buckets;

/// A name that many things share: a host, a unit, a device.
pub type Name = Arc<str>;

/// How a signal behaves over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; windows hold its rate per second.
    Counter,
    /// Goes up and down; windows hold it as read.
    Gauge,
    /// A distribution; windows hold its buckets.
    Histogram,
}

/// What a signal belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The host as a whole.
    Host,
    /// A systemd unit.
    Unit,
    /// A block device.
    Device,
    /// A network interface.
    Interface,
    /// A named class that is none of these: the reason of a drop, an error number.
    Label,
}

/// One row of an agent's catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Dotted name, unique together with the owner.
    pub name: Name,
    /// How it behaves.
    pub kind: Kind,
    /// What it belongs to.
    pub owner: Owner,
    /// Unit of measure.
    pub measure: String,
    /// What it means.
    pub help: String,
    /// The probe that yields it.
    pub probe: String,
}

impl Signal {
    /// What tells signals of one host apart.
    fn identity(&self) -> (&str, Owner) {
        (&self.name, self.owner)
    }
}

/// A catalogue, shared by all hosts that sent the same.
pub type Catalogue = Arc<[Arc<Signal>]>;

/// A series of one host: signal and instance. Ordered by signal name, owner, instance.
#[derive(Debug, Clone)]
pub struct SeriesKey {
    /// The signal.
    pub signal: Arc<Signal>,
    /// Unit, device, interface or label; empty for the host.
    pub instance: Name,
}

impl Ord for SeriesKey {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.signal.identity(), &self.instance).cmp(&(other.signal.identity(), &other.instance))
    }
}

impl PartialOrd for SeriesKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SeriesKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for SeriesKey {}

/// Statistics of a series over one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Wall time of the host at the end of the window; for display.
    pub end_unix_ms: u64,
    /// Length, in milliseconds.
    pub window_ms: u32,
    /// How many samples it held.
    pub count: u32,
    /// Least value.
    pub min: f64,
    /// Mean of the values.
    pub mean: f64,
    /// Greatest value.
    pub max: f64,
    /// Last value.
    pub last: f64,
    /// Only for histograms.
    pub histogram: Option<Buckets>,
}

/// How bad an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// For the record.
    Info,
    /// Somebody should look in time.
    Warning,
    /// Somebody should look now.
    Critical,
}

/// A fact worth telling at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The agent's number for it; 0 for the collector's own events.
    pub sequence: u64,
    /// Wall time where it was seen.
    pub unix_ms: u64,
    /// Stable kind, such as `process.exit`.
    pub kind: String,
    /// How bad.
    pub severity: Severity,
    /// Unit it concerns; empty for the host.
    pub unit: String,
    /// One plain sentence.
    pub message: String,
    /// Details, by field name.
    pub fields: Vec<(String, String)>,
}

/// An event of the fleet, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetEvent {
    /// The collector's own number: grows, never reused.
    pub id: u64,
    /// Host it concerns.
    pub host: Name,
    /// What happened.
    pub event: Event,
    /// Wall time of the collector when it arrived.
    pub received_unix_ms: u64,
}

/// What a host says about itself at the start of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The kernel's boot id.
    pub boot_id: String,
    /// Tells two starts of the agent apart.
    pub incarnation: u64,
    /// Version of the agent.
    pub agent_version: String,
    /// Release of the running kernel.
    pub kernel_release: String,
    /// Name of the operating system.
    pub os_name: String,
    /// CPUs.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

/// What is kept of a host over restarts of the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRecord {
    /// Its name in the fleet.
    pub host: Name,
    /// What it last said about itself.
    pub facts: HostFacts,
    /// Wall time of its first stream.
    pub first_seen_unix_ms: u64,
    /// Wall time of its newest message.
    pub last_seen_unix_ms: u64,
    /// Whether it was last thought to be up (or late).
    pub up: bool,
}

/// The agent's own cost and losses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vitals {
    /// CPU time used, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Memory of its eBPF maps.
    pub map_bytes: u64,
    /// What it had to drop since it started, by cause.
    pub losses: Vec<(String, u64)>,
}

/// How well a probe, or one of its programs, works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeState {
    /// In full.
    Active,
    /// In part, or with a fall-back.
    Degraded,
    /// Not at all.
    Off,
}

/// Whether a probe has seen exactly what was provoked for it to see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProbeProof {
    /// The agent does not say.
    #[default]
    Unknown,
    /// Not tried yet.
    Pending,
    /// It has.
    Proven,
    /// Nothing can be provoked there.
    Unproven,
    /// It saw something else: its signals are not to be trusted.
    Failed,
}

/// A probe of a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Its name.
    pub name: String,
    /// How well it works.
    pub state: ProbeState,
    /// Why it is not active.
    pub reason: String,
    /// What it needs of the kernel.
    pub level: u32,
    /// Its eBPF programs.
    pub programs: Vec<Program>,
    /// Whether it was proven.
    pub proof: ProbeProof,
    /// Why it is not proven.
    pub proof_reason: String,
    /// When it was proven; 0 when it is not.
    pub proven_unix_ms: u64,
}

/// An eBPF program of a probe.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// How it is attached.
    pub variant: String,
    /// How well it works.
    pub state: ProbeState,
    /// Why it is not active.
    pub reason: String,
    /// Measured; 0 when it was not.
    pub events_per_second: f64,
    /// Measured; 0 when it was not.
    pub ns_per_event: f64,
    /// Memory of its maps.
    pub map_bytes: u64,
}

impl Probe {
    /// Memory it takes here, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = |p: &Program| p.name.len() + p.variant.len() + p.reason.len();
        let own = self.reason.len() + self.proof_reason.len();
        let programs = self.programs.iter().map(|p| size_of::<Program>() + text(p));
        size_of::<Self>() + self.name.len() + own + programs.sum::<usize>()
    }
}
