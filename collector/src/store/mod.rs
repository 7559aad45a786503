//! What outlives a restart: the hosts, their events, and how far each agent's
//! events were taken. One trait, so that a clustered store can stand in later.

use std::path::PathBuf;

use crate::model::{Event, FleetEvent, HostRecord, Name};

pub mod embedded;
mod record;

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("another collector is using {}", path.display())]
    InUse {
        /// Its file or folder.
        path: PathBuf,
    },
    /// Written by a later version.
    #[error(
        "the store {} has schema {found}, and this collector knows schemas up to {known}; \
         upgrade the collector, or start it with another state_dir", path.display()
    )]
    Newer {
        /// Its file.
        path: PathBuf,
        /// The schema in the file.
        found: u64,
        /// The newest schema known here.
        known: u64,
    },
    /// Not a store, or not whole.
    #[error(
        "the store {} is damaged ({what}); the collector does not start over it: restore it from \
         a backup, or move it away to start with an empty one", path.display()
    )]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The file system refused.
    #[error("cannot use the store {}", path.display())]
    File {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Reading or writing failed.
    #[error("the store failed")]
    Failed(#[from] redb::Error),
}

/// An event to be written.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Host it concerns.
    pub host: Name,
    /// What happened.
    pub event: Event,
    /// Wall time of the collector when it arrived.
    pub received_unix_ms: u64,
}

/// How far the events of a host's agents were taken: incarnation and sequence,
/// newest incarnation first.
pub type Progress = Vec<(u64, u64)>;

/// What is written at once.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Hosts, replacing what is held of them.
    pub hosts: Vec<HostRecord>,
    /// Events, to be numbered in this order.
    pub events: Vec<NewEvent>,
    /// Progress by host, replacing what is held.
    pub progress: Vec<(Name, Progress)>,
}

/// Which events are wanted. Empty texts match all.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Host.
    pub host: String,
    /// Unit.
    pub unit: String,
    /// Kind.
    pub kind: String,
    /// The newest so many.
    pub limit: usize,
    /// The newest that fit in so many bytes.
    pub bytes: usize,
    /// Only events received at or after this wall time.
    pub since_unix_ms: u64,
}

impl Query {
    /// Whether `event` is wanted.
    #[must_use]
    pub fn matches(&self, event: &FleetEvent) -> bool {
        let fits = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        fits(&self.host, &event.host)
            && fits(&self.unit, &event.event.unit)
            && fits(&self.kind, &event.event.kind)
            && event.received_unix_ms >= self.since_unix_ms
    }
}

/// How many events are kept, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Most events.
    pub events: u64,
    /// Events received before this wall time go.
    pub since_unix_ms: u64,
}

/// See the module's comment. All calls block.
pub trait Store: Send + Sync + 'static {
    /// All hosts.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    fn hosts(&self) -> Result<Vec<HostRecord>, Error>;

    /// How far each host's events were taken.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    fn progress(&self) -> Result<Vec<(Name, Progress)>, Error>;

    /// Writes all of `batch` or nothing; durable on return. Gives back its events
    /// with their numbers.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    fn write(&self, batch: Batch) -> Result<Vec<FleetEvent>, Error>;

    /// The newest events that match, oldest first.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    fn events(&self, query: &Query) -> Result<Vec<FleetEvent>, Error>;

    /// Removes events beyond `retention`, at most `at_most`; how many it were.
    ///
    /// # Errors
    ///
    /// The store cannot be written.
    fn prune(&self, retention: Retention, at_most: usize) -> Result<usize, Error>;
}
