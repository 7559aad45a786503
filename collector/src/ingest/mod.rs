//! The one writer of the store. Sessions hand it events and hosts; it drops
//! events that were taken before, writes the rest in groups, and then tells each
//! session how far its events are durable, which is what may be acknowledged.
//!
//! A group is closed after [`GROUP_TIME`] or [`GROUP_ITEMS`], so that many agents
//! share the cost of one durable write and none waits long for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use holdfast_core::clock::{self, BootTime};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::{self, JoinHandle},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    metrics::Metrics,
    model::{Event, FleetEvent, HostRecord, Name},
    store::{self, Batch, NewEvent, Store},
};

use self::seen::Seen;

mod seen;

/// Longest time an item waits for others to share its write.
pub const GROUP_TIME: Duration = Duration::from_millis(20);
/// Most items of one write.
pub const GROUP_ITEMS: usize = 256;
/// Items waiting for the writer.
const QUEUE: usize = 1024;
/// Events held for watchers that are behind.
const WATCH: usize = 1024;
/// How long a session waits for a place in the queue.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far the events of one stream are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// Up to this sequence.
    UpTo(u64),
    /// A write failed: the stream must end, so that its agent sends again.
    Failed,
}

/// An event of an agent, with the way to tell its session.
#[derive(Debug)]
pub struct AgentEvent {
    /// The host.
    pub host: Name,
    /// The life of the agent that sent it.
    pub incarnation: u64,
    /// What happened.
    pub event: Event,
    /// Told once the event is durable.
    pub durable: Arc<watch::Sender<Durable>>,
}

#[derive(Debug)]
enum Item {
    Agent(AgentEvent),
    /// An event of the collector's own.
    Own(Name, Event),
    Host(HostRecord),
}

/// The store cannot take anything now.
#[derive(Debug, thiserror::Error)]
#[error("the collector's store does not keep up")]
pub struct Busy;

/// The way to the writer.
#[derive(Debug, Clone)]
pub struct Handle {
    queue: mpsc::Sender<Item>,
    written: broadcast::Sender<Arc<FleetEvent>>,
    writable: Arc<AtomicBool>,
    closing: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Handle {
    /// Hands over an event of an agent.
    ///
    /// # Errors
    ///
    /// The queue stayed full for long.
    pub async fn event(&self, event: AgentEvent) -> Result<(), Busy> {
        self.queue.send_timeout(Item::Agent(event), PATIENCE).await.map_err(|_| Busy)
    }

    /// Hands over an event of the collector's own; counted when there is no place.
    pub fn own_event(&self, host: &Name, event: Event) {
        if self.queue.try_send(Item::Own(host.clone(), event)).is_err() {
            self.metrics.events_lost.inc();
        }
    }

    /// Hands over what is to be kept of a host. It is not lost for good when there
    /// is no place: every host is handed over again from time to time.
    pub fn host(&self, record: HostRecord) {
        // What a queue without place drops here comes again with the next flush.
        let _later = self.queue.try_send(Item::Host(record));
    }

    /// As [`Handle::host`], waiting for a place.
    ///
    /// # Errors
    ///
    /// The queue stayed full for long.
    pub async fn host_patiently(&self, record: HostRecord) -> Result<(), Busy> {
        self.queue.send_timeout(Item::Host(record), PATIENCE).await.map_err(|_| Busy)
    }

    /// Lets the writer end once it has written what it was handed.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Every event from now on, once it is durable.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<FleetEvent>> {
        self.written.subscribe()
    }

    /// Whether the last write succeeded.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }
}

/// Starts the writer. It ends on [`Handle::close`], or when every handle is gone.
///
/// # Errors
///
/// The store cannot be read.
pub fn start(
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
) -> Result<(Handle, JoinHandle<()>), store::Error> {
    let (queue, items) = mpsc::channel(QUEUE);
    let (written, _) = broadcast::channel(WATCH);
    let writable = Arc::new(AtomicBool::new(true));
    let seen = Seen::new(store.progress()?);
    let closing = CancellationToken::new();
    let handle = Handle { queue, written, writable, closing, metrics };
    let writer = Writer {
        store,
        metrics: handle.metrics.clone(),
        seen,
        written: handle.written.clone(),
        writable: handle.writable.clone(),
        closing: handle.closing.clone(),
    };
    Ok((handle, tokio::spawn(writer.run(items))))
}

struct Writer {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    seen: Seen,
    written: broadcast::Sender<Arc<FleetEvent>>,
    writable: Arc<AtomicBool>,
    closing: CancellationToken,
}

impl Writer {
    async fn run(mut self, mut items: mpsc::Receiver<Item>) {
        let mut retry = time::interval(Duration::from_secs(1));
        retry.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let mut group = Vec::new();
            tokio::select! {
                taken = items.recv_many(&mut group, GROUP_ITEMS) => if taken == 0 { return },
                () = self.closing.cancelled(), if !items.is_closed() => items.close(),
                // Readiness must come back by itself, agents or not.
                _ = retry.tick(), if !self.writable.load(Ordering::Relaxed) => {}
            }
            let full = time::sleep(GROUP_TIME);
            tokio::pin!(full);
            while !group.is_empty() && group.len() < GROUP_ITEMS {
                let room = GROUP_ITEMS - group.len();
                tokio::select! {
                    taken = items.recv_many(&mut group, room) => if taken == 0 { break },
                    () = &mut full => break,
                }
            }
            self.write(group).await;
        }
    }

    async fn write(&mut self, group: Vec<Item>) {
        let received_unix_ms = clock::unix_ms();
        let mut batch = Batch::default();
        let mut seen = self.seen.begin();
        let mut waiting = Vec::new();
        for item in group {
            match item {
                Item::Host(record) => batch.hosts.push(record),
                Item::Own(host, event) => {
                    batch.events.push(NewEvent { host, event, received_unix_ms });
                }
                Item::Agent(AgentEvent { host, incarnation, event, durable }) => {
                    waiting.push((durable, event.sequence));
                    if seen.take(&host, incarnation, event.sequence) {
                        batch.events.push(NewEvent { host, event, received_unix_ms });
                    } else {
                        self.metrics.events_repeated.inc();
                    }
                }
            }
        }
        batch.progress = seen.changed();

        let (store, start) = (self.store.clone(), BootTime::now());
        let result = task::spawn_blocking(move || store.write(batch)).await;
        self.metrics.commits.observe(BootTime::now().since(start).as_secs_f64());
        match result {
            Ok(Ok(stored)) => {
                let progress = seen.finish();
                self.seen.commit(progress);
                self.metrics.events.inc_by(stored.len() as u64);
                if !self.writable.swap(true, Ordering::Relaxed) {
                    info!("the store can be written again");
                }
                for (durable, sequence) in waiting {
                    durable.send_if_modified(|held| held.advance(sequence));
                }
                for event in stored {
                    // Nobody watching is no fault.
                    let _watched = self.written.send(Arc::new(event));
                }
            }
            failed => {
                self.metrics.commit_errors.inc();
                if self.writable.swap(false, Ordering::Relaxed) {
                    let reason = match failed {
                        Ok(Err(e)) => describe(&e),
                        Err(e) => e.to_string(),
                        Ok(Ok(_)) => String::new(),
                    };
                    error!(reason, "the store cannot be written");
                }
                for (durable, _) in waiting {
                    durable.send_replace(Durable::Failed);
                }
            }
        }
    }
}

impl Durable {
    /// Moves up to `sequence`; whether that was a move.
    fn advance(&mut self, sequence: u64) -> bool {
        match self {
            Self::UpTo(held) if *held < sequence => {
                *held = sequence;
                true
            }
            Self::UpTo(_) | Self::Failed => false,
        }
    }
}

/// An error with all its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Severity,
        store::{Error, Progress, Query, Retention, embedded::Embedded},
    };

    /// A disk that can be full.
    struct Full(AtomicBool);

    impl Store for Full {
        fn hosts(&self) -> Result<Vec<HostRecord>, Error> {
            Ok(Vec::new())
        }

        fn progress(&self) -> Result<Vec<(Name, Progress)>, Error> {
            Ok(Vec::new())
        }

        fn write(&self, _: Batch) -> Result<Vec<FleetEvent>, Error> {
            let full = redb::Error::Io(std::io::ErrorKind::StorageFull.into());
            if self.0.load(Ordering::Relaxed) { Err(full.into()) } else { Ok(Vec::new()) }
        }

        fn events(&self, _: &Query) -> Result<Vec<FleetEvent>, Error> {
            Ok(Vec::new())
        }

        fn prune(&self, _: Retention, _: usize) -> Result<usize, Error> {
            Ok(0)
        }
    }

    fn event(sequence: u64) -> Event {
        Event {
            sequence,
            unix_ms: 1,
            kind: "process.exit".to_owned(),
            severity: Severity::Info,
            unit: String::new(),
            message: String::new(),
            fields: Vec::new(),
        }
    }

    #[tokio::test]
    async fn events_are_durable_before_they_are_told_and_stored_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path()).unwrap());
        let (handle, writer) = start(store.clone(), Arc::new(Metrics::new())).unwrap();
        let (durable, mut told) = watch::channel(Durable::UpTo(0));
        let durable = Arc::new(durable);
        let mut watching = handle.watch();
        for sequence in [1, 2, 2, 1, 3] {
            let (host, event, durable) = ("a".into(), event(sequence), durable.clone());
            handle.event(AgentEvent { host, incarnation: 9, event, durable }).await.unwrap();
        }
        told.wait_for(|held| *held == Durable::UpTo(3)).await.unwrap();
        let stored =
            store.events(&Query { limit: 10, bytes: 1 << 20, ..Query::default() }).unwrap();
        let sequences: Vec<_> = stored.iter().map(|event| event.event.sequence).collect();
        assert_eq!(sequences, [1, 2, 3]);
        assert_eq!(*watching.recv().await.unwrap(), stored[0]);
        drop(handle);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_acknowledges_nothing() {
        let store = Arc::new(Full(AtomicBool::new(true)));
        let (handle, _writer) = start(store.clone(), Arc::new(Metrics::new())).unwrap();
        let send = async |sequence| {
            let (durable, mut told) = watch::channel(Durable::UpTo(0));
            let (host, durable) = ("a".into(), Arc::new(durable));
            let event = AgentEvent { host, incarnation: 9, event: event(sequence), durable };
            handle.event(event).await.unwrap();
            told.changed().await.unwrap();
            let held = *told.borrow();
            (held, handle.is_writable())
        };
        assert_eq!(send(1).await, (Durable::Failed, false));
        store.0.store(false, Ordering::Relaxed);
        // Sent again, it is new: what failed does not count as seen.
        assert_eq!(send(1).await, (Durable::UpTo(1), true));
    }
}
