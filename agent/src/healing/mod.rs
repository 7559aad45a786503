//! Healing: tells the healer what is known, writes down what it decides, carries that out
//! and tells what came of it. What is decided, and why not, is all in the crate
//! `holdfast_healer`; here are its edges.
//!
//! An action goes through three steps. It is reserved: decided, and on the disk. It is
//! prepared: evidence is taken, and systemd asked again. Then the healer is asked whether it
//! is still due, and only then it is carried out.

mod act;
mod answer;
mod carry;
mod checks;
mod evidence;
mod explain;
mod history;
mod journal;
mod known;
mod observe;
pub mod packages;
pub mod program;
mod resources;
mod tally;
mod units;
mod watch;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::{self, BootTime};
use holdfast_healer::config::{self, Found, SERVICES, Service};
use holdfast_healer::journal::{recover, seed};
use holdfast_healer::{
    Budget, Decision, Fact, Healer, Kept, Look, Operation, OperationId, Order, Outcome, Settings,
};
use tokio::sync::{mpsc, oneshot, watch as latest};
use tokio_util::sync::CancellationToken;

use crate::host::Root;
use crate::host::systemd::{Changed, Changes, Error, Properties, Systemd};
use crate::report::{Severity, Window};
use crate::teller::{Fact as Told, Teller};
use history::History;
use journal::Journal;
use known::Known;
use resources::Resources;
use watch::Watched;

pub use act::trusted;
pub use explain::Explanation;
pub use history::Course;
pub use tally::Tally;
pub(crate) use tally::VERDICTS;

/// Results and answers that may wait.
const INBOX: usize = 256;
/// How long to wait before the journal is tried again.
const RETRY_JOURNAL: Duration = Duration::from_secs(10);

/// How to heal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Folder of the services' files.
    pub services: PathBuf,
    /// Folder of the hooks.
    pub hooks: PathBuf,
    /// Folder of the journal and the evidence.
    pub state_dir: PathBuf,
    /// Which boot of the host this is.
    pub boot_id: String,
    /// Units that are never touched, beside those that never are.
    pub protected: BTreeSet<String>,
    /// How many disruptive actions this host may see.
    pub budget: Budget,
    /// For so long after the start nothing is done.
    pub grace: Duration,
}

/// Whom it hears and tells.
#[derive(Debug)]
pub struct Channels {
    /// From the sampler.
    pub facts: mpsc::Receiver<Fact>,
    /// From the sampler, each window.
    pub windows: latest::Receiver<Option<Arc<Window>>>,
    /// From the local API.
    pub requests: mpsc::Receiver<Request>,
    /// The configuration changed.
    pub reload: mpsc::Receiver<()>,
    /// To whoever takes events.
    pub teller: Teller,
    /// To the metrics page, once a second when it changed.
    pub tally: latest::Sender<Tally>,
}

/// What somebody wants to know, or to be done.
#[derive(Debug)]
pub enum Request {
    /// How the services are.
    Look {
        /// Takes the answer.
        answer: oneshot::Sender<View>,
    },
    /// Do this.
    Order {
        /// What.
        order: Order,
        /// Takes what came of it, or why not, in plain words.
        answer: oneshot::Sender<Result<String, String>>,
    },
    /// Why was this done?
    Explain {
        /// Which operation.
        operation: OperationId,
        /// Takes the answer; `None` when it is not known.
        answer: oneshot::Sender<Option<Explanation>>,
    },
}

/// How the services are.
#[derive(Debug, Clone)]
pub struct View {
    /// Each of them.
    pub services: Vec<Look>,
    /// What their checks said last, where that is not well: unit, check, reason.
    pub reasons: Vec<(Arc<str>, String, String)>,
    /// What cannot be used of the configuration, or cannot be done at all.
    pub problems: Vec<String>,
}

/// What comes back from tasks of our own.
enum Inner {
    Connected(Systemd, Box<Changes>),
    Changed(Changed),
    Disconnected,
    Read { unit: Arc<str>, found: Result<Properties, Error> },
    Ready { unit: Arc<str>, operation: Box<Operation>, found: Result<Properties, Error> },
    Finished { unit: Arc<str>, id: OperationId, outcome: Outcome, found: Option<Properties> },
}

enum Event {
    Fact(Fact),
    Checked(checks::Checked),
    Inner(Inner),
    Request(Request),
    Window,
    Reload,
    Tick,
    Shutdown,
}

/// Heals the services of this host.
pub struct Healing {
    options: Options,
    root: Root,
    channels: Channels,
    services: Vec<Service>,
    problems: Vec<String>,
    healer: Healer,
    /// `Err` with the reason when what was done before is not known.
    journal: Result<Journal, String>,
    retry: BootTime,
    known: Known,
    watched: Watched,
    resources: Resources,
    history: History,
    tally: Tally,
    systemd: Option<Systemd>,
    /// Units that are read now, and whether they changed meanwhile.
    reading: BTreeMap<Arc<str>, bool>,
    /// Units that could not be read, and are tried again with the next tick.
    unread: BTreeSet<Arc<str>>,
    to_self: mpsc::Sender<Inner>,
    inbox: mpsc::Receiver<Inner>,
}

impl Healing {
    /// Reads the services and the journal. Must be called within the runtime.
    #[must_use]
    pub fn new(options: Options, root: Root, channels: Channels) -> Self {
        let Found { services, problems } = read_services(&options.services);
        let settings = settings(&options, &services);
        let now = BootTime::now();
        let (healer, journal) = begin(&options, settings, now);
        let (to_self, inbox) = mpsc::channel(INBOX);
        let healing = Self {
            watched: Watched::of(&services, now),
            resources: Resources::of(&services, &root, now),
            options,
            root,
            channels,
            services,
            problems,
            healer,
            journal,
            retry: now,
            known: Known::default(),
            history: History::default(),
            tally: Tally::default(),
            systemd: None,
            reading: BTreeMap::new(),
            unread: BTreeSet::new(),
            to_self,
            inbox,
        };
        healing.tell_problems();
        if let Err(reason) = &healing.journal {
            tracing::error!(reason, "nothing is healed");
            let fact = Told::new("healing.stopped", Severity::Critical, reason.clone());
            healing.channels.teller.tell(fact);
        }
        healing
    }

    /// Heals until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if !self.services.is_empty() {
            self.connect(Duration::ZERO);
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => Event::Shutdown,
                _ = ticks.tick() => Event::Tick,
                Some(inner) = self.inbox.recv() => Event::Inner(inner),
                Some(fact) = self.channels.facts.recv() => Event::Fact(fact),
                Some(checked) = self.watched.next() => Event::Checked(checked),
                Some(request) = self.channels.requests.recv() => Event::Request(request),
                Some(()) = self.channels.reload.recv() => Event::Reload,
                Ok(()) = self.channels.windows.changed() => Event::Window,
            };
            match event {
                Event::Tick => self.tick(),
                Event::Fact(fact) => self.take(fact),
                Event::Checked(checked) => {
                    if let Some(fact) = self.watched.take(checked, BootTime::now()) {
                        self.take(fact);
                    }
                }
                Event::Inner(inner) => self.go_on(inner),
                Event::Request(request) => self.answer(request),
                Event::Window => {
                    if let Some(window) = &*self.channels.windows.borrow_and_update() {
                        self.history.take(window, |unit| self.healer.heals(unit));
                    }
                }
                Event::Reload => self.reload(),
                Event::Shutdown => break,
            }
        }
        if let Ok(journal) = &mut self.journal {
            journal.sync();
        }
    }

    fn tick(&mut self) {
        let now = BootTime::now();
        for fact in self.watched.tick(now).into_iter().chain(self.resources.look(now)) {
            self.take(fact);
        }
        for unit in std::mem::take(&mut self.unread) {
            self.read(&unit);
        }
        let retry = now.since(self.retry) >= RETRY_JOURNAL;
        let again = self
            .journal
            .as_ref()
            .is_ok_and(|journal| journal.is_full() || (journal.has_failed() && retry));
        if again {
            self.retry = now;
            self.start_over();
        }
        drop(self.decide(now));
        let writable = self.is_writable();
        self.tally.look(&self.healer.look(now), writable);
        let news = |last: &mut Tally| {
            let changed = *last != self.tally;
            last.clone_from(&self.tally);
            changed
        };
        self.channels.tally.send_if_modified(news);
    }

    /// Whether what is decided can be written down.
    fn is_writable(&self) -> bool {
        self.journal.as_ref().is_ok_and(|journal| !journal.has_failed())
    }

    fn look_at_packages(&mut self) {
        self.learn(Fact::Packages { busy: packages::are_changed(&self.root) });
    }

    /// Takes in a fact, and does what follows from it.
    fn take(&mut self, fact: Fact) {
        if self.learn(fact) {
            drop(self.decide(BootTime::now()));
        }
    }

    /// Takes in a fact; whether it is news.
    fn learn(&mut self, fact: Fact) -> bool {
        // The sampler tells of all units; what is not healed is not worth a line.
        let is_ours = fact.unit().is_none_or(|unit| self.healer.heals(unit));
        if !is_ours || !self.known.note(&fact) {
            return false;
        }
        let now = BootTime::now();
        if let Ok(journal) = &mut self.journal {
            journal.fact(now, &fact);
        }
        let decisions = self.healer.learn(fact, now);
        if let Ok(journal) = &mut self.journal {
            journal.decided(now, clock::unix_ms(), &decisions);
        }
        self.tell(&decisions);
        true
    }

    /// Does what is to be done now; what was decided.
    fn decide(&mut self, now: BootTime) -> Vec<Decision> {
        if self.healer.is_anything_wrong(now) {
            self.look_at_packages();
        }
        self.healer.set_journal(self.is_writable());
        let before = self.healer.revision();
        let decisions = self.healer.decide(now);
        if self.healer.revision() == before {
            return decisions;
        }
        if let Ok(journal) = &mut self.journal {
            journal.asked(now, clock::unix_ms(), &decisions);
            if decisions.iter().any(|decision| matches!(decision, Decision::Begin { .. })) {
                journal.sync();
            }
        }
        self.tell(&decisions);
        for decision in &decisions {
            if let Decision::Begin { unit, operation } = decision {
                self.prepare(Arc::clone(unit), operation.clone());
            }
        }
        decisions
    }

    fn tell(&mut self, decisions: &[Decision]) {
        for decision in decisions {
            self.tally.count(decision);
            let fact = words::event(decision);
            tracing::info!(unit = &**decision.unit(), "{}", fact.message);
            self.channels.teller.tell(fact);
        }
    }

    fn go_on(&mut self, inner: Inner) {
        match inner {
            Inner::Connected(systemd, changes) => {
                tokio::spawn(units::follow(*changes, self.to_self.clone()));
                self.systemd = Some(systemd);
                self.follow_systemd(true);
                self.thaw();
                self.read_all();
            }
            Inner::Disconnected => {
                tracing::warn!("the connection to systemd ended");
                self.systemd = None;
                self.follow_systemd(false);
                self.reading.clear();
                self.connect(units::RECONNECT);
            }
            Inner::Changed(Changed::All) => self.read_all(),
            Inner::Changed(Changed::Unit(unit)) => self.read(&unit),
            Inner::Read { unit, found } => {
                let again = self.reading.remove(&unit).unwrap_or_default();
                match found {
                    Ok(found) => {
                        if self.see(&unit, &found) {
                            drop(self.decide(BootTime::now()));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(unit = &*unit, %error, "a unit cannot be read");
                        self.unread.insert(Arc::clone(&unit));
                    }
                }
                if again {
                    self.read(&unit);
                }
            }
            Inner::Ready { unit, operation, found } => self.act(unit, operation, found),
            Inner::Finished { unit, id, outcome, found } => {
                if let Some(found) = found {
                    self.see(&unit, &found);
                }
                self.finish(&unit, id, outcome);
                self.read(&unit);
            }
        }
    }

    /// Goes on with what the files say now.
    fn reload(&mut self) {
        let Found { services, problems } = read_services(&self.options.services);
        tracing::info!(services = services.len(), problems = problems.len(), "services read again");
        let first = self.services.is_empty() && !services.is_empty();
        self.watched = Watched::again(&services, &self.watched, BootTime::now());
        self.resources = Resources::of(&services, &self.root, BootTime::now());
        (self.services, self.problems) = (services, problems);
        self.tell_problems();
        let wanted: BTreeMap<&str, &Service> =
            self.services.iter().map(|service| (&*service.unit, service)).collect();
        self.known.retain(|unit, check| {
            wanted.get(unit).is_some_and(|service| {
                check.is_none_or(|name| service.checks.iter().any(|check| check.name == name))
            })
        });
        self.start_over();
        if first && self.systemd.is_none() {
            self.connect(Duration::ZERO);
        }
        self.read_all();
        drop(self.decide(BootTime::now()));
    }

    /// Goes on with a healer of the present settings, and with a new start in the journal.
    fn start_over(&mut self) {
        let kept = self.healer.kept();
        let settings = settings(&self.options, &self.services);
        self.healer = Healer::resume(settings, kept);
        let now = BootTime::now();
        if let Ok(journal) = &mut self.journal {
            let kept = self.healer.kept();
            if let Err(error) = journal.start(now, &self.options.boot_id, true, kept) {
                tracing::warn!(%error, "the journal of repairs cannot be written; nothing is healed");
            }
        }
        for fact in self.known.all() {
            if let Ok(journal) = &mut self.journal {
                journal.fact(now, fact);
            }
            self.healer.learn(fact.clone(), now);
        }
    }

    fn tell_problems(&self) {
        for problem in &self.problems {
            tracing::error!(problem, "a service is not healed");
            let fact = Told::new("healing.misconfigured", Severity::Warning, problem.clone());
            self.channels.teller.tell(fact);
        }
    }
}

/// The services in `dir`, and what cannot be used.
#[must_use]
pub fn read_services(dir: &Path) -> Found {
    config::read(holdfast_core::config::folder(dir, SERVICES))
}

/// A healer that goes on where the one before it ended, and its journal.
fn begin(
    options: &Options,
    settings: Settings,
    now: BootTime,
) -> (Healer, Result<Journal, String>) {
    let new = |settings, kept, same_boot| Healer::new(settings, kept, same_boot, now);
    let (mut journal, entries) = match Journal::open(&options.state_dir) {
        Ok(opened) => opened,
        Err(error) => {
            let healer = new(settings, Kept::default(), true);
            return (healer, Err(error.to_string()));
        }
    };
    let (kept, same_boot) = match recover(&entries, &settings) {
        Some((before, boot)) => (before.kept(), boot == options.boot_id),
        None => (Kept::default(), true),
    };
    let healer = new(settings, kept, same_boot);
    if let Err(error) = journal.start(now, &options.boot_id, false, healer.kept()) {
        tracing::warn!(%error, "the journal of repairs cannot be written; nothing is healed");
    }
    (healer, Ok(journal))
}

fn settings(options: &Options, services: &[Service]) -> Settings {
    let mut settings = Settings {
        services: services
            .iter()
            .map(|service| (Arc::clone(&service.unit), service.policy.clone()))
            .collect(),
        budget: options.budget,
        grace: options.grace,
        seed: seed(&options.boot_id),
        ..Settings::default()
    };
    settings.protected.extend(options.protected.iter().cloned());
    settings
}
