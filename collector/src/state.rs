//! What sessions and operators' calls share, each behind its own lock. No lock is
//! held across an await, and no two at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::clock;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    fleet::{Change, Fleet, State},
    history::History,
    ingest,
    metrics::Metrics,
    model::{Event, Severity},
    store::Store,
};

/// See the module's comment.
pub struct Shared {
    fleet: Mutex<Fleet>,
    history: Mutex<History>,
    /// The way to the writer.
    pub ingest: ingest::Handle,
    /// For reading; only the writer writes.
    pub store: Arc<dyn Store>,
    /// What the collector counts.
    pub metrics: Arc<Metrics>,
    /// Cancelled when the collector stops.
    pub stop: CancellationToken,
    /// Everything that must end before the collector does.
    pub tasks: TaskTracker,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// Joins the parts.
    #[must_use]
    pub fn new(
        fleet: Fleet,
        history: History,
        ingest: ingest::Handle,
        store: Arc<dyn Store>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            fleet: Mutex::new(fleet),
            history: Mutex::new(history),
            ingest,
            store,
            metrics,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// The live view. A task that panicked while it held the lock left it whole:
    /// every change of it is a sequence of steps that cannot fail.
    pub fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Recent series. On panics see [`Shared::fleet`].
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes changes of state known: as events, and on disk.
    pub fn tell(&self, changes: &[Change]) {
        for change in changes {
            self.ingest.own_event(&change.host, change_event(change));
            let record = self.fleet().host(&change.host).map(|host| host.record.clone());
            if let Some(record) = record {
                self.ingest.host(record);
            }
        }
    }

    /// Brings the gauges up to date.
    pub fn measure(&self) {
        let (up, late, lost, bytes) = {
            let fleet = self.fleet();
            let count = |state| fleet.count(state);
            (count(State::Up), count(State::Late), count(State::Lost), fleet.bytes())
        };
        self.metrics.set_hosts(up, late, lost);
        self.metrics.host_bytes.set(bytes as i64);
        let usage = self.history().usage();
        self.metrics.set_history(usage);
    }
}

fn own_event(kind: &str, severity: Severity, message: String) -> Event {
    Event {
        sequence: 0,
        unix_ms: clock::unix_ms(),
        kind: kind.to_owned(),
        severity,
        unit: String::new(),
        message,
        fields: Vec::new(),
    }
}

fn change_event(change: &Change) -> Event {
    let (kind, severity, state) = match change.state {
        State::Lost if change.wanted => ("host.stopped", Severity::Info, "gone"),
        State::Up => ("host.up", Severity::Info, "up"),
        State::Late => ("host.late", Severity::Warning, "late"),
        State::Lost => ("host.lost", Severity::Critical, "lost"),
    };
    own_event(kind, severity, format!("host is {state}: {}", change.reason))
}

/// A second agent calls itself by the name of a connected one.
#[must_use]
pub fn duplicate_event() -> Event {
    let message = "two agents use this host's name; the one that started first is refused until \
                   the other leaves: give each its own host name";
    own_event("host.duplicate", Severity::Warning, message.to_owned())
}
