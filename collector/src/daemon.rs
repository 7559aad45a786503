//! Builds the collector's parts and joins them; the only file that knows all of
//! them.

use std::{
    fs::{self, File, OpenOptions},
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_core::clock::{self, BootTime};
use holdfast_proto::{
    limits,
    v1::{agent_session_server::AgentSessionServer, operator_server::OperatorServer},
};
use nix::fcntl::{Flock, FlockArg};
use sd_notify::NotifyState;
use serde::Serialize;
use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
    time,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::task::TaskTracker;
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Server};
use tracing::{info, warn};

use crate::{
    api,
    config::Config,
    connection::{self, Acceptor, Admission},
    fleet::{self, Fleet},
    history::{self, History},
    ingest,
    metrics::{Listener, Metrics},
    session,
    state::Shared,
    store::{self, Retention, Store, embedded::Embedded},
};

/// Connections and streams beyond one for each host: operators, agents that come
/// back before their old connection is seen to be gone.
const SPARE: usize = 1024;
/// A gRPC connection must make a valid request within this time; a stream's is Hello.
const ADMIT_WITHIN: Duration = Duration::from_secs(10);
/// HTTP: connections at once, and how long one may last.
const HTTP: connection::Limits =
    connection::Limits { connections: 256, admit_within: Duration::from_secs(30) };
/// A dead peer is noticed within twice this time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const STREAMS_PER_CONNECTION: u32 = 32;
/// What a peer may send ahead of being read: memory times connections.
const STREAM_WINDOW: u32 = 128 * 1024;
const HEADER_BYTES: u32 = 16 * 1024;
/// Largest question of an operator.
const QUESTION_BYTES: usize = 64 * 1024;
/// How often silent hosts are looked for.
const TICK: Duration = Duration::from_millis(500);
/// How often memory and the store are tended.
const UPKEEP: Duration = Duration::from_secs(10);
/// How often what is known of all hosts is written down.
const FLUSH: Duration = Duration::from_secs(60);
/// Events removed at once.
const PRUNE: usize = 1000;
/// How long streams have to end, and then the last write.
const STOP_WITHIN: Duration = Duration::from_millis(800);

/// Why the collector could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state folder cannot be used.
    #[error("cannot use the state folder {}", path.display())]
    State {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another collector has the state folder.
    #[error(
        "another collector is running with the state folder {}; stop it, or give this one \
         another --state-dir", path.display()
    )]
    Running {
        /// The folder.
        path: PathBuf,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} ({side})")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Which side.
        side: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A server ended by itself.
    #[error("the {0} server ended")]
    Server(&'static str),
}

/// Where the collector listens.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Addresses {
    /// For agents and operators' tools.
    pub grpc: SocketAddr,
    /// For health and metrics.
    pub http: SocketAddr,
}

/// A collector that is bound and ready to run.
pub struct Daemon {
    addresses: Addresses,
    config: Config,
    shared: Arc<Shared>,
    grpc: Acceptor,
    http: Acceptor,
    writer: JoinHandle<()>,
    /// Held as long as the collector lives.
    _lock: Flock<File>,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Daemon {
    /// Opens the store and binds the addresses.
    ///
    /// # Errors
    ///
    /// Either cannot be had.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let folder = &config.state_dir;
        let state = |source| Error::State { path: folder.clone(), source };
        fs::create_dir_all(folder).map_err(state)?;
        let lock = lock(folder)?;

        let opened = folder.clone();
        let store = task::spawn_blocking(move || Embedded::open(&opened)).await;
        let store: Arc<dyn Store> = Arc::new(store.map_err(|e| state(e.into()))??);

        let metrics = Arc::new(Metrics::new());
        let grpc_limits = connection::Limits {
            connections: config.max_hosts + SPARE,
            admit_within: ADMIT_WITHIN,
        };
        let grpc = bind(config.grpc, Listener::Grpc, grpc_limits, &metrics).await?;
        let http = bind(config.http, Listener::Http, HTTP, &metrics).await?;
        let address = |acceptor: &Acceptor, addr, side| {
            acceptor.address().map_err(|source| Error::Listen { addr, side, source })
        };
        let addresses = Addresses {
            grpc: address(&grpc, config.grpc, "gRPC")?,
            http: address(&http, config.http, "HTTP")?,
        };
        write_addresses(folder, addresses).map_err(state)?;

        let limits =
            fleet::Limits { hosts: config.max_hosts, memory: config.host_memory.as_u64() as usize };
        let records = store.hosts()?;
        if records.len() > limits.hosts {
            let (known, max_hosts) = (records.len(), limits.hosts);
            warn!(known, max_hosts, "more hosts are known than may be; the last are not shown");
        }
        let fleet = Fleet::new(limits, records, BootTime::now());
        let memory = config.series_memory.as_u64() as usize;
        let history = History::new(history::Options { span: config.series_span, memory });
        let (ingest, writer) = ingest::start(store.clone(), metrics.clone())?;
        let shared = Arc::new(Shared::new(fleet, history, ingest, store, metrics));
        Ok(Self { addresses, config, shared, grpc, http, writer, _lock: lock })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Runs until `shutdown`, then stops in good order.
    ///
    /// # Errors
    ///
    /// A server ended by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { addresses, config, shared, grpc, http, writer, _lock } = self;
        info!(grpc = %addresses.grpc, http = %addresses.http, "listening");
        let servers = TaskTracker::new();
        let mut grpc = servers.spawn(serve_grpc(shared.clone(), grpc, config.max_hosts + SPARE));
        let mut http = servers.spawn(serve_http(shared.clone(), http));
        servers.close();
        let tending = tokio::spawn(tend(shared.clone(), config));
        notify(&[NotifyState::Ready]);

        let ended = tokio::select! {
            () = shutdown => Ok(()),
            _ = &mut grpc => Err(Error::Server("gRPC")),
            _ = &mut http => Err(Error::Server("HTTP")),
        };
        info!("stopping");
        notify(&[NotifyState::Stopping]);
        shared.stop.cancel();
        tending.abort();
        shared.tasks.close();
        let stopped = time::timeout(STOP_WITHIN, async {
            shared.tasks.wait().await;
            flush(&shared).await;
            servers.wait().await;
        });
        if stopped.await.is_err() {
            warn!("some connections did not end in time");
            grpc.abort();
            http.abort();
        }
        shared.ingest.close();
        if time::timeout(STOP_WITHIN, writer).await.is_err() {
            warn!("the store did not finish in time");
        }
        ended
    }
}

async fn bind(
    addr: SocketAddr,
    listener: Listener,
    limits: connection::Limits,
    metrics: &Arc<Metrics>,
) -> Result<Acceptor, Error> {
    let bound = Acceptor::bind(addr, listener, limits, metrics.clone()).await;
    bound.map_err(|source| Error::Listen { addr, side: listener.label(), source })
}

/// The folder is one collector's at a time.
fn lock(folder: &Path) -> Result<Flock<File>, Error> {
    let path = folder.join("lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|source| Error::State { path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => Error::Running { path: folder.to_owned() },
        errno => Error::State { path, source: errno.into() },
    })
}

/// Whole or not at all: tools wait for this file.
fn write_addresses(folder: &Path, addresses: Addresses) -> io::Result<()> {
    let text = serde_json::to_string(&addresses)?;
    let unfinished = folder.join("addresses.json.new");
    fs::write(&unfinished, text + "\n")?;
    fs::rename(unfinished, folder.join("addresses.json"))
}

async fn serve_grpc(shared: Arc<Shared>, mut acceptor: Acceptor, streams: usize) {
    let (accepted, incoming) = mpsc::channel(64);
    let stop = shared.stop.clone();
    let accepting = tokio::spawn(async move {
        loop {
            let connection = tokio::select! {
                (connection, _) = acceptor.next() => connection,
                () = stop.cancelled() => return,
            };
            if accepted.send(connection).await.is_err() {
                return;
            }
        }
    });
    let agents = AgentSessionServer::new(session::Service::new(shared.clone(), streams))
        .max_decoding_message_size(limits::MESSAGE_BYTES)
        .max_encoding_message_size(limits::MESSAGE_BYTES);
    let operators = OperatorServer::new(api::grpc::Service::new(shared.clone()))
        .max_decoding_message_size(QUESTION_BYTES)
        .max_encoding_message_size(limits::ANSWER_BYTES);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .http2_max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .add_service(agents)
        .add_service(InterceptedService::new(operators, admit))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(incoming).map(Ok::<_, io::Error>),
            shared.stop.clone().cancelled_owned(),
        )
        .await;
    if let Err(e) = served {
        warn!(error = %e, "the gRPC server failed");
    }
    accepting.abort();
}

/// An operator's question proves its connection.
#[expect(clippy::unnecessary_wraps, reason = "the shape of an interceptor")]
fn admit(request: Request<()>) -> Result<Request<()>, Status> {
    if let Some(admission) = request.extensions().get::<Admission>() {
        admission.admit();
    }
    Ok(request)
}

async fn serve_http(shared: Arc<Shared>, acceptor: Acceptor) {
    let stop = shared.stop.clone().cancelled_owned();
    let served = axum::serve(acceptor, api::http::router(shared)).with_graceful_shutdown(stop);
    if let Err(e) = served.await {
        warn!(error = %e, "the HTTP server failed");
    }
}

/// Finds silent hosts, tends memory and store, and feeds the watchdog.
async fn tend(shared: Arc<Shared>, config: Config) {
    let mut tick = time::interval(TICK);
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let (mut tended, mut flushed) = (BootTime::now(), BootTime::now());
    notify(&[NotifyState::Status("waiting for agents")]);
    loop {
        tick.tick().await;
        let now = BootTime::now();
        let changes = shared.fleet().tick(now);
        shared.tell(&changes);
        if now.since(tended) >= UPKEEP {
            tended = now;
            shared.history().upkeep(now);
            prune(&shared, &config).await;
            shared.measure();
            let hosts = shared.fleet().count(fleet::State::Up);
            notify(&[NotifyState::Status(&format!("{hosts} hosts up"))]);
        }
        if now.since(flushed) >= FLUSH {
            flushed = now;
            flush(&shared).await;
        }
        // Reached only while the locks can be had and the runtime turns.
        notify(&[NotifyState::Watchdog]);
    }
}

/// Writes down when each host was last seen.
async fn flush(shared: &Shared) {
    let records: Vec<_> = shared.fleet().hosts().map(|host| host.record.clone()).collect();
    for record in records {
        if shared.ingest.host_patiently(record).await.is_err() {
            return;
        }
    }
}

async fn prune(shared: &Shared, config: &Config) {
    let kept_for = config.events_kept_for.as_millis() as u64;
    let retention = Retention {
        events: config.events_kept,
        since_unix_ms: clock::unix_ms().saturating_sub(kept_for),
    };
    // In small steps: the writer waits for one step at most.
    for _ in 0..10 {
        let store = shared.store.clone();
        match task::spawn_blocking(move || store.prune(retention, PRUNE)).await {
            Ok(Ok(removed)) => {
                shared.metrics.events_pruned.inc_by(removed as u64);
                if removed < PRUNE {
                    return;
                }
            }
            Ok(Err(e)) => return warn!(error = %e, "old events cannot be removed"),
            Err(e) => return warn!(error = %e, "old events cannot be removed"),
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Outside of systemd there is nobody to tell.
    let _nobody = sd_notify::notify(states);
}
