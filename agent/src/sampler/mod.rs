//! The sampler: reads every probe once a second, follows the units, and tells what
//! it found.
//!
//! Ticks are aligned to whole seconds of the boot-time clock. Between ticks the
//! sampler waits for what cannot wait: cgroups that come and go, events from the
//! kernel, requests of the rims. It never waits for anybody who listens: a full
//! channel costs the report, which is counted.

mod answer;
mod attest;
mod blame;
mod events;
mod govern;
mod panel;
mod score;
mod stuck;
mod tell;

use std::future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::{self, BootTime};
use holdfast_proto::limits;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::blame::{Blame, Bounds};
use crate::catalogue::{AGENT_CPU, AGENT_MAPS, AGENT_RSS, Owner};
use crate::conditions::{Conditions, Saved};
use crate::frame::{Frame, Shape};
use crate::governor;
use crate::host::Root;
use crate::kernel::{self, Events, Kernel, KernelEvent};
use crate::losses::{Cause, Losses};
use crate::metrics::Snapshot;
use crate::probes::Context;
use crate::report::{ProbeStatus, Report, Request, Vitals, Window};
use crate::scorer::Scorer;
use crate::scorer_file;
use crate::summary::Summarizer;
use crate::teller::Teller;
use crate::units::{Moved, OTHER, Units};

use answer::Measuring;
use attest::Attestor;
use govern::Governing;
use panel::Panel;
use score::Scoring;
use stuck::Stuck;

/// Rows for network interfaces, and for devices where no eBPF map sets the number.
const INTERFACE_ROWS: usize = 64;
const DEVICE_ROWS: usize = 32;
/// A runtime timer may fire so much before the boot-time clock's second.
const EARLY: Duration = Duration::from_millis(2);

/// How to sample.
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of a summary window, in whole seconds.
    pub summary_interval: Duration,
    /// Unit slots to have, where no eBPF map sets the number.
    pub unit_slots: usize,
    /// The limit the eBPF maps were sized for.
    pub map_limit_bytes: u64,
    /// What the eBPF programs may cost.
    pub governor: governor::Options,
    /// From which share of stalled time on a unit is under pressure.
    pub pressure_threshold: f64,
    /// Whether to prove the probes at the start.
    pub attest: bool,
    /// Where proofs may write a file.
    pub state_dir: PathBuf,
    /// Whether what was learnt in an earlier run could not be used: why.
    pub forgot: Option<String>,
}

/// Where the sampler's words go and questions come from.
#[derive(Debug)]
pub struct Channels {
    /// To the uplink; never waited for.
    pub reports: mpsc::Sender<Report>,
    /// To the same, for events.
    pub teller: Teller,
    /// To the healer, what it has to know of units; never waited for.
    pub facts: mpsc::Sender<holdfast_healer::Fact>,
    /// To the healer, each window.
    pub windows: watch::Sender<Option<Arc<Window>>>,
    /// From the local API.
    pub requests: mpsc::Receiver<Request>,
    /// To the metrics page and the watchdog, once a tick.
    pub snapshot: watch::Sender<Snapshot>,
    /// To whoever keeps the conditions over a restart, when they change.
    pub conditions: watch::Sender<Vec<Saved>>,
    /// To whoever keeps what the scorer learnt, now and then and at the end.
    pub learnt: watch::Sender<scorer_file::Saved>,
}

/// What the sampler waits for.
enum Event {
    Tick,
    Cgroups,
    Kernel,
    Request(Option<Request>),
    Measured,
    Window,
    Attest,
    Shutdown,
}

/// Reads, follows and tells.
pub struct Sampler {
    options: Options,
    root: Root,
    channels: Channels,
    losses: Losses,
    /// `Err` with the reason where eBPF cannot be used.
    kernel: Result<Kernel, String>,
    kernel_events: Option<Events>,
    units: Option<Units>,
    cgroups_changed: Option<AsyncFd<OwnedFd>>,
    panel: Panel,
    current: Frame,
    previous: Frame,
    summarizer: Summarizer,
    blame: Blame,
    blamed: blame::Known,
    refused_series: u64,
    conditions: Conditions,
    refused_conditions: u64,
    /// `None` when nothing is scored.
    scoring: Option<Scoring>,
    moved: Vec<Moved>,
    stuck: Stuck,
    kernel_queue: Vec<KernelEvent>,
    measuring: Option<Measuring>,
    governing: Option<Governing>,
    attestor: Attestor,
    statuses: Arc<[ProbeStatus]>,
    window_began: BootTime,
    second: u64,
    ticks: u64,
}

impl Sampler {
    /// Opens everything; what cannot be opened is off and says why. Must be called
    /// within the runtime.
    #[must_use]
    pub fn new(
        options: Options,
        root: &Root,
        kernel: Result<Kernel, String>,
        losses: Losses,
        channels: Channels,
    ) -> Self {
        let mut kernel = kernel;
        let kernel_events = kernel.as_mut().ok().and_then(Kernel::take_events);
        let loaded = kernel.as_ref().ok();
        let shape = Shape {
            units: loaded.map_or(options.unit_slots, Kernel::unit_slots),
            devices: loaded.map_or(DEVICE_ROWS, Kernel::device_rows),
            interfaces: INTERFACE_ROWS,
        };
        let mut current = Frame::new(shape);
        for owner in [Owner::Unit, Owner::Device, Owner::Interface, Owner::Label] {
            current.assign(owner, 0, OTHER.into());
        }
        let units = Units::start(root, shape.units, &losses);
        let members = units.as_ref().map(Units::members).map_err(String::as_str);
        let context = Context {
            root,
            kernel: kernel.as_ref().map_err(String::as_str),
            members,
            losses: &losses,
        };
        let panel = Panel::open(&context);
        let units = units.ok();
        let watched = units.as_ref().map(|units| units.descriptor().and_then(kernel::readiness));
        let cgroups_changed = match watched {
            Some(Err(error)) => {
                tracing::warn!(%error, "births of units are seen at the next tick only");
                None
            }
            Some(Ok(ready)) => Some(ready),
            None => None,
        };
        let governing = kernel.as_ref().ok().map(|kernel| {
            let threshold = options.pressure_threshold;
            Governing::new(options.governor, threshold, shape.units, kernel)
        });
        let mut previous = Frame::new(shape);
        let now = BootTime::now();
        current.at = now;
        previous.copy_from(&current);
        let bounds = Bounds {
            units: shape.units,
            cpus: kernel.as_ref().map_or(0, |kernel| kernel.sched().cpus()),
            rows: kernel.as_ref().map_or(0, |kernel| kernel.preempt().rows()),
            devices: kernel.as_ref().map_or(0, Kernel::shared_devices),
        };
        Self {
            summarizer: Summarizer::new(&current),
            blame: Blame::new(bounds, now),
            blamed: blame::Known::default(),
            refused_series: 0,
            conditions: Conditions::default(),
            refused_conditions: 0,
            scoring: None,
            moved: Vec::new(),
            stuck: Stuck::default(),
            kernel_queue: Vec::new(),
            measuring: None,
            governing,
            attestor: Attestor::default(),
            statuses: Arc::new([]),
            window_began: now,
            second: now.since_boot().as_secs(),
            ticks: 0,
            options,
            root: root.clone(),
            channels,
            losses,
            kernel,
            kernel_events,
            units,
            cgroups_changed,
            panel,
            current,
            previous,
        }
    }

    /// Takes over the conditions that stood when the agent last ran.
    #[must_use]
    pub fn with_conditions(mut self, saved: Vec<Saved>, same_boot: bool) -> Self {
        self.conditions.restore(saved, same_boot, BootTime::now());
        self
    }

    /// Scores what it samples.
    #[must_use]
    pub fn with_scorer(mut self, scorer: Scorer) -> Self {
        self.scoring = Some(Scoring::new(scorer, &self.root, BootTime::now()));
        self
    }

    /// Samples until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.tick_units(BootTime::now());
        self.announce();
        loop {
            match self.wait(&shutdown).await {
                Event::Tick => self.tick(BootTime::now()),
                Event::Cgroups => self.follow_units(BootTime::now()),
                Event::Kernel => self.tell_kernel_events(BootTime::now()),
                Event::Request(Some(request)) => self.answer(request),
                Event::Measured => self.finish_measuring(),
                Event::Window => self.finish_window(),
                Event::Attest => self.advance_proofs(),
                // The rims are gone: so is everybody.
                Event::Request(None) | Event::Shutdown => break,
            }
        }
        self.keep_scorer();
    }

    async fn wait(&mut self, shutdown: &CancellationToken) -> Event {
        let now = BootTime::now().since_boot();
        // A timer made anew each time never fires while there is always something else
        // to do: a tick that is due comes first, however busy it is.
        if now.as_secs() > self.second {
            return Event::Tick;
        }
        let to_next = Duration::from_secs(self.second + 1).saturating_sub(now);
        let measured = self.measuring.as_ref().map(|measuring| measuring.until);
        let window = self.governing.as_ref().and_then(Governing::until);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Event::Shutdown,
            () = tokio::time::sleep(to_next) => Event::Tick,
            () = readable(self.cgroups_changed.as_ref()) => Event::Cgroups,
            alive = next_events(self.kernel_events.as_mut(), &mut self.kernel_queue) => {
                if !alive {
                    self.kernel_events = None;
                }
                Event::Kernel
            }
            () = reached(measured) => Event::Measured,
            () = reached(window) => Event::Window,
            () = self.attestor.ready() => Event::Attest,
            request = self.channels.requests.recv() => Event::Request(request),
        }
    }

    fn tick(&mut self, now: BootTime) {
        let second = (now.since_boot() + EARLY).as_secs();
        if second <= self.second {
            return;
        }
        let skipped = second - self.second - 1;
        self.losses.add(Cause::Ticks, skipped);
        self.tick_units(now);
        let loaded = self.kernel.as_ref().ok();
        self.losses.set_in_kernel(loaded.map(Kernel::losses).unwrap_or_default());
        self.current.begin(now);
        self.panel.read(loaded, &mut self.current);
        self.tick_blame(now);
        self.follow_conditions(now);
        for fact in self.stuck.over(&self.current) {
            self.tell_healer(fact);
        }
        self.put_scores();
        self.govern(now);
        self.summarizer.tick(&self.previous, &self.current);
        let refused = self.summarizer.refused();
        self.losses.add(Cause::Series, refused - self.refused_series);
        self.refused_series = refused;
        // Whatever happens until the next tick happens to `current` alone: a unit that
        // goes meanwhile is live in `previous` and gets a last sample.
        self.previous.copy_from(&self.current);

        let window = self.options.summary_interval.as_secs().max(1);
        let closes = second / window > self.second / window;
        self.second = second;
        self.ticks += 1;
        if closes {
            self.close_window(now);
        }
        // Devices have their rows from the first tick on.
        if self.ticks == 1 {
            self.attest_at_start();
        }
        if closes || self.panel.take_changed() {
            self.refresh_statuses();
        }
        self.publish(now);
    }

    fn close_window(&mut self, now: BootTime) {
        let length = now.since(self.window_began);
        self.window_began = now;
        let shortest = Duration::from_millis((*limits::WINDOW_MS.start()).into());
        let longest = Duration::from_millis((*limits::WINDOW_MS.end()).into());
        let length = Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
            .clamp(shortest, longest);
        let window = self.summarizer.close(&self.current, clock::unix_ms(), length);
        let window = Arc::new(window);
        self.score(&window, now);
        self.channels.windows.send_replace(Some(Arc::clone(&window)));
        self.report(Report::Window(window), Cause::Summaries);
    }

    fn publish(&mut self, now: BootTime) {
        let vitals = self.vitals();
        let snapshot = Snapshot {
            at: now,
            ticks: self.ticks,
            vitals: vitals.clone(),
            probes: Arc::clone(&self.statuses),
            costs: self.panel.costs().cloned().collect(),
            overhead: self.overhead(),
            tick_duration: BootTime::now().since(now),
            slots_used: self.units_live(),
            slots: self.slots(),
        };
        self.channels.snapshot.send_replace(snapshot);
        // A heartbeat that finds no room is made up for by the next one.
        let _ = self.channels.reports.try_send(Report::Vitals(vitals));
    }

    fn vitals(&self) -> Vitals {
        let value = |id| {
            let value = self.current.get(id, 0);
            if value.is_nan() { 0.0 } else { value }
        };
        Vitals {
            cpu_seconds: value(AGENT_CPU) / 1e9,
            rss_bytes: value(AGENT_RSS) as u64,
            map_bytes: value(AGENT_MAPS) as u64,
            losses: self.losses.counts(),
        }
    }

    fn tick_units(&mut self, now: BootTime) {
        if let Some(units) = &mut self.units {
            let loaded = self.kernel.as_ref().ok();
            units.tick(now, &mut self.current, loaded, &mut self.moved);
        }
        self.tell_moved(now);
    }

    fn follow_units(&mut self, now: BootTime) {
        if let Some(units) = &mut self.units {
            let loaded = self.kernel.as_ref().ok();
            units.follow(now, &mut self.current, loaded, &mut self.moved);
        }
        self.tell_moved(now);
    }

    fn units_live(&self) -> u32 {
        self.units.as_ref().map_or(0, |units| u32::try_from(units.live()).unwrap_or(u32::MAX))
    }

    fn slots(&self) -> u32 {
        u32::try_from(self.current.rows(Owner::Unit).len()).unwrap_or(u32::MAX)
    }
}

/// Waits until there is something to read, for ever where there is nothing to wait for.
async fn readable(watched: Option<&AsyncFd<OwnedFd>>) {
    match watched {
        Some(watched) => match watched.readable().await {
            // Everything is read right after this.
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => future::pending().await,
        },
        None => future::pending().await,
    }
}

/// Waits for kernel events; false when there will never be any more.
async fn next_events(events: Option<&mut Events>, out: &mut Vec<KernelEvent>) -> bool {
    let Some(events) = events else { return future::pending().await };
    match events.next(out).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "no more events from the kernel");
            false
        }
    }
}

async fn reached(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => future::pending().await,
    }
}
