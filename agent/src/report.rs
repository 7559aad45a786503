//! What the agent has to say: the types between the sampler and the rims
//! (`uplink`, `local_api`, `metrics`). None of them is a wire type
//! but the sparse histogram, whose arithmetic belongs to the bucket geometry.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::v1;
use tokio::sync::oneshot;

use crate::blame::Resource;
use crate::catalogue::SignalId;
use crate::governor::{Depth, Overhead};
use crate::kernel::attest::Outcome;
use crate::scorer::{Calibration, Change, Episode, Feedback, JudgeError};

/// Statistics of one series over a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stats {
    /// How many 1 s samples the window held.
    pub count: u32,
    /// Smallest sample.
    pub min: f64,
    /// Mean of the samples; of a histogram, of all values counted.
    pub mean: f64,
    /// Largest sample.
    pub max: f64,
    /// Newest sample.
    pub last: f64,
}

/// One signal of one owner, for as long as the owner lives.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Series {
    /// Number within this agent process; never given twice.
    pub number: u32,
    /// Its signal.
    pub signal: SignalId,
    /// Unit, device, interface or label; empty for the host.
    pub instance: Arc<str>,
}

/// A series' share of a window.
#[derive(Debug, Clone)]
pub struct Point {
    /// Which series.
    pub series: Arc<Series>,
    /// Its statistics. For histograms `min` and `max` are bounds of the outermost
    /// buckets and `last` is the 99 % quantile of the newest second with values.
    pub stats: Stats,
    /// For histograms, what the window counted.
    pub histogram: Option<v1::Histogram>,
}

/// Everything that was summed up over one window.
#[derive(Debug, Clone)]
pub struct Window {
    /// Grows by one for each window of this agent process.
    pub sequence: u64,
    /// Wall time at its end.
    pub end_unix_ms: u64,
    /// Its length.
    pub window_ms: u32,
    /// One entry for each series with at least one sample.
    pub points: Vec<Point>,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a line in the history.
    Info,
    /// Somebody should look at it some time.
    Warning,
    /// Something broke.
    Critical,
}

/// A fact worth telling at once.
#[derive(Debug, Clone)]
pub struct Event {
    /// Grows by one for each event of this agent process.
    pub sequence: u64,
    /// Wall time.
    pub unix_ms: u64,
    /// Stable kind, such as `process.signal`.
    pub kind: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The unit it concerns; empty for the host.
    pub unit: Arc<str>,
    /// One plain sentence.
    pub message: String,
    /// Details by name.
    pub fields: Vec<(&'static str, String)>,
}

/// Whether a probe or program yields what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of it.
    Active,
    /// A part, or by a fall-back.
    Degraded,
    /// Nothing.
    Off,
}

impl State {
    /// Its name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Off => "off",
        }
    }
}

/// Whether a probe has seen exactly what was provoked for it to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Not tried yet.
    Pending,
    /// It has.
    Proven {
        /// When, in wall time.
        unix_ms: u64,
    },
    /// Nothing can be provoked here.
    Unproven {
        /// Why.
        reason: String,
    },
    /// It saw something else: its signals are not to be trusted.
    Failed {
        /// What was expected, and what was seen.
        reason: String,
    },
}

impl Proof {
    /// Why it is not proven; empty when it is.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Pending => "it has not been tried yet",
            Self::Proven { .. } => "",
            Self::Unproven { reason } | Self::Failed { reason } => reason,
        }
    }
}

/// How a probe is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeStatus {
    /// Name, as in `probes::PROBES`.
    pub name: &'static str,
    /// How it is doing.
    pub state: State,
    /// Why it is not wholly active; empty when it is.
    pub reason: String,
    /// What it needs: 0 files only, 1 eBPF, 2 eBPF with kernel BTF.
    pub level: u8,
    /// How deep it looks; `None` for one that is not governed.
    pub depth: Option<Depth>,
    /// Its eBPF programs.
    pub programs: Vec<ProgramStatus>,
    /// Whether it was proven.
    pub proof: Proof,
}

/// How an eBPF program is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramStatus {
    /// Name.
    pub name: &'static str,
    /// How it is attached and which form it has.
    pub variant: &'static str,
    /// Whether it runs.
    pub state: State,
    /// Why not; empty when it does.
    pub reason: String,
    /// Memory of the maps it is the first to use.
    pub map_bytes: u64,
    /// Runs per second; `None` when not measured.
    pub events_per_second: Option<f64>,
    /// Time of one run; `None` when not measured or when it did not run.
    pub ns_per_event: Option<f64>,
}

/// What reading a probe cost so far, in time of the sampler's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeCost {
    /// Name of the probe.
    pub name: &'static str,
    /// How often it was read.
    pub reads: u64,
    /// Time of all reads together.
    pub total: Duration,
    /// Time of the slowest.
    pub slowest: Duration,
}

impl ProbeCost {
    /// No cost yet.
    #[must_use]
    pub const fn of(name: &'static str) -> Self {
        Self { name, reads: 0, total: Duration::ZERO, slowest: Duration::ZERO }
    }

    /// Takes in a read.
    pub fn add(&mut self, time: Duration) {
        self.reads += 1;
        self.total = self.total.saturating_add(time);
        self.slowest = self.slowest.max(time);
    }
}

/// The agent's own cost and losses.
#[derive(Debug, Clone, Default)]
pub struct Vitals {
    /// CPU time since it started.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Kernel memory of its maps.
    pub map_bytes: u64,
    /// What it had to drop since it started, by cause.
    pub losses: Vec<(&'static str, u64)>,
}

/// What the sampler gives the uplink.
#[derive(Debug, Clone)]
pub enum Report {
    /// A window is full.
    Window(Arc<Window>),
    /// Something happened.
    Event(Arc<Event>),
    /// The state of a probe changed (or the sampler just started).
    Probes(Arc<[ProbeStatus]>),
    /// The sampler is alive, each tick.
    Vitals(Vitals),
}

/// The newest value of a series, for people on the host.
#[derive(Debug, Clone)]
pub struct Newest {
    /// Its signal.
    pub signal: SignalId,
    /// Unit, device, interface or label; empty for the host.
    pub instance: Arc<str>,
    /// How many 1 s samples it had since the agent started.
    pub samples: u64,
    /// Newest sample; of a histogram the 99 % quantile of the newest second with values.
    pub last: f64,
}

/// How the sampler is doing as a whole.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Time since the host booted, in seconds.
    pub uptime_seconds: f64,
    /// The agent's own cost and losses.
    pub vitals: Vitals,
    /// Units that live now.
    pub units: u32,
    /// Newest values of all series.
    pub newest: Vec<Newest>,
}

/// All probes, and the memory their programs share.
#[derive(Debug, Clone, Default)]
pub struct ProbesReport {
    /// One entry for each probe.
    pub probes: Vec<ProbeStatus>,
    /// Memory of all maps.
    pub map_bytes: u64,
    /// The limit they were sized for.
    pub map_limit_bytes: u64,
    /// Unit slots in use.
    pub slots_used: u32,
    /// Unit slots there are.
    pub slots: u32,
    /// Why the programs could not be measured; empty when they were, or need not be.
    pub measure_error: String,
    /// What the programs cost by themselves, and may; `None` without eBPF.
    pub overhead: Option<Overhead>,
    /// Why that is not measured; empty when it is.
    pub overhead_note: String,
}

/// A unit that kept another one waiting, or itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Culprit {
    /// Its name; "other" is everything that is told apart no further.
    pub unit: Arc<str>,
    /// Whether it is the victim.
    pub itself: bool,
    /// Nanoseconds that the victim waited because of it.
    pub ns: f64,
}

/// Who kept a unit waiting for one resource.
#[derive(Debug, Clone)]
pub struct ResourceBlame {
    /// The resource.
    pub resource: Resource,
    /// The time it is about.
    pub covered: Duration,
    /// Why this cannot be told here; empty when it can.
    pub reason: String,
    /// The largest first.
    pub culprits: Vec<Culprit>,
}

/// Who kept a unit waiting.
#[derive(Debug, Clone)]
pub struct BlameReport {
    /// Its full name.
    pub unit: Arc<str>,
    /// One entry for each resource.
    pub resources: Vec<ResourceBlame>,
}

/// What came out of proving the probes.
#[derive(Debug, Clone, Default)]
pub struct AttestReport {
    /// One entry for each probe that there is a proof for and that is not off.
    pub outcomes: Vec<Outcome>,
    /// How long it took.
    pub took: Duration,
    /// Why nothing could be provoked at all; empty when something could.
    pub error: String,
}

/// What the rims ask of the sampler. It answers at its next convenience; an asker
/// that went away is ignored.
#[derive(Debug)]
pub enum Request {
    /// All probes.
    Probes {
        /// For how long each program is measured; zero for not at all.
        measure: Duration,
        /// Where the answer goes.
        answer: oneshot::Sender<ProbesReport>,
    },
    /// Who keeps a unit waiting.
    Blame {
        /// Its name, perhaps without `.service`.
        unit: String,
        /// How far back.
        last: Duration,
        /// Where the answer goes; the error says that there is no such unit.
        answer: oneshot::Sender<Result<BlameReport, String>>,
    },
    /// Proves the probes.
    Attest {
        /// Whether to provoke what leaves traces, too.
        disruptive: bool,
        /// Where the answer goes.
        answer: oneshot::Sender<AttestReport>,
    },
    /// What is and was unusual; `None` when scoring is off.
    Episodes {
        /// Where the answer goes.
        answer: oneshot::Sender<Option<Vec<Episode>>>,
    },
    /// Takes in what somebody says of an episode.
    Judge {
        /// Which.
        id: u64,
        /// What.
        feedback: Feedback,
        /// Where the answer goes; the error says why that cannot be.
        answer: oneshot::Sender<Result<(), JudgeError>>,
    },
    /// Something changes on the host.
    Change {
        /// What.
        change: Change,
        /// Where the answer goes: whether anything is scored.
        answer: oneshot::Sender<bool>,
    },
    /// What is promised of alarms, and what was observed; `None` when scoring is off.
    Calibration {
        /// Where the answer goes.
        answer: oneshot::Sender<Option<Calibration>>,
    },
    /// How the sampler is doing.
    Status {
        /// Where the answer goes.
        answer: oneshot::Sender<Status>,
    },
}

/// How the uplink is doing; published on a watch channel.
#[derive(Debug, Clone, Default)]
pub struct LinkState {
    /// Address of the collector; empty when none is configured.
    pub collector: String,
    /// Whether the collector said welcome and the stream stands.
    pub connected: bool,
    /// Why the last attempt failed; empty when connected.
    pub last_error: String,
    /// Streams that were welcomed since the agent started.
    pub connects: u64,
    /// Windows and events dropped because the queue towards the collector was full.
    pub dropped: u64,
    /// Events not yet acknowledged.
    pub pending_events: usize,
}
