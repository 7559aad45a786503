//! Builds the stages of the agent and joins their channels. The only file that
//! knows all of them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use holdfast_core::clock::BootTime;
use holdfast_proto::v1;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{AccessFlags, access};
use sd_notify::NotifyState;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::conditions::keep::Keeper;
use crate::config::{Config, DEFAULT_SOCKET};
use crate::governor;
use crate::healing::{self, Healing};
use crate::host::Root;
use crate::host::facts::Facts;
use crate::kernel::{self, Kernel};
use crate::local_api::{self, Api, Socket};
use crate::losses::Losses;
use crate::metrics::{self, Snapshot, Sources};
use crate::report::{LinkState, Report};
use crate::sampler::{self, Channels, Sampler};
use crate::scorer::{self, Scorer};
use crate::scorer_file;
use crate::teller::Teller;
use crate::uplink::{self, Uplink};

/// Reports that may wait for the uplink: it takes them at all times, so this is
/// only for bursts.
const REPORTS: usize = 1024;
/// Requests that may wait for the sampler, and for the healer.
const REQUESTS: usize = 8;
/// Facts that may wait for the healer.
const FACTS: usize = 256;

/// Why the agent cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be had.
    #[error("cannot use the state directory {} (name another with --state-dir)", path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent runs with the same state.
    #[error("another agent holds {}; stop it, or name another --state-dir", .0.display())]
    Running(PathBuf),
    /// The default socket's folder cannot be written, and there is no other.
    #[error(
        "the folder of {DEFAULT_SOCKET} may not be written and XDG_RUNTIME_DIR is not set; name a --socket"
    )]
    NoSocketDir,
    /// The local API cannot be served.
    #[error(transparent)]
    LocalApi(#[from] local_api::Error),
    /// The metrics page cannot be served.
    #[error("cannot listen on {address} for metrics (name another address with --metrics)")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The uplink cannot be built.
    #[error(transparent)]
    Uplink(#[from] uplink::Error),
}

/// Where a running agent can be reached; written to `addresses.json` in the state directory.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// Of the metrics page.
    pub metrics: SocketAddr,
    /// Of the local API.
    pub socket: PathBuf,
}

/// Runs the agent until `shutdown`; with each `reload` it reads the services again. Must be
/// called on a current-thread runtime;
/// `config` must have passed its check.
///
/// # Errors
///
/// See [`Error`]. What is merely missing on this host is no error: it is reported.
pub async fn run(
    config: Config,
    root: Root,
    reload: mpsc::Receiver<()>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    raise_open_files();
    let lock = lock_state(&config.state_dir)?;
    let host_facts = Facts::read(&root);
    let host = if config.host_name.is_empty() {
        host_facts.node_name.clone()
    } else {
        config.host_name.clone()
    };
    let losses = Losses::default();

    let socket_path = socket_path(&config, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))?;
    let socket = Socket::bind(&socket_path).await?;
    let address = config.metrics;
    let listener =
        TcpListener::bind(address).await.map_err(|source| Error::Metrics { address, source })?;
    let bound = listener.local_addr().map_err(|source| Error::Metrics { address, source })?;
    let addresses = Addresses { metrics: bound, socket: socket_path };

    let (reports, report_inbox) = mpsc::channel(REPORTS);
    let (requests, request_inbox) = mpsc::channel(REQUESTS);
    let (facts, fact_inbox) = mpsc::channel(FACTS);
    let (windows, window_view) = watch::channel(None);
    let teller = Teller::new(reports.clone(), losses.clone());
    let start = Snapshot { at: BootTime::now(), ..Snapshot::default() };
    let (snapshot, snapshot_view) = watch::channel(start);
    let (link, link_view) = watch::channel(LinkState::default());
    let keeper = Keeper::new(&config.state_dir, &host_facts.boot_id);
    let (stood, same_boot) = keeper.load();
    let kept = if same_boot { stood.clone() } else { Vec::new() };
    let (conditions, conditions_view) = watch::channel(kept);

    let scorer_keeper = scorer_file::Keeper::new(&config.state_dir);
    let (scorer, forgot) = load_scorer(&config, &scorer_keeper);
    let (learnt, learnt_view) = watch::channel(None);

    let hello = hello(&config, &host_facts, &host);
    let uplink = build_uplink(&config, hello, report_inbox, link, losses.clone())?;
    let kernel = start_kernel(&config, &root);
    let sampler = Sampler::new(
        sampler::Options {
            summary_interval: config.summary_interval,
            unit_slots: config.ebpf.unit_slots,
            map_limit_bytes: config.ebpf.map_limit.as_u64(),
            governor: governor::Options {
                budget_ns: config.ebpf.cpu_budget.fraction() * 1e9,
                measure_interval: config.ebpf.measure_interval,
                regain_after: config.ebpf.regain_after,
            },
            pressure_threshold: config.ebpf.pressure_threshold.fraction(),
            attest: config.ebpf.attest,
            state_dir: config.state_dir.clone(),
            forgot,
        },
        &root,
        kernel,
        losses,
        Channels {
            reports,
            teller: teller.clone(),
            facts,
            windows,
            requests: request_inbox,
            snapshot,
            conditions,
            learnt,
        },
    )
    .with_conditions(stood, same_boot);
    let sampler = match scorer {
        Some(scorer) => sampler.with_scorer(scorer),
        None => sampler,
    };

    write_addresses(&config.state_dir, &addresses)?;
    tracing::info!(
        host,
        metrics = %addresses.metrics,
        socket = %addresses.socket.display(),
        collector = config.collector,
        "listening"
    );
    let (healer, orders) = mpsc::channel(REQUESTS);
    let (tally, tally_view) = watch::channel(healing::Tally::default());
    let hears = healing::Channels {
        facts: fact_inbox,
        windows: window_view,
        requests: orders,
        reload,
        teller,
        tally,
    };
    let heals = config.healing.enabled;
    let healing = (healing_options(&config, &host_facts.boot_id), root.clone(), hears);
    let api = Api {
        healer: heals.then_some(healer),
        host,
        kernel_release: host_facts.kernel_release,
        root,
        map_limit_bytes: config.ebpf.map_limit.as_u64(),
        requests,
        link: link_view.clone(),
    };
    let sources = Sources {
        snapshot: snapshot_view.clone(),
        link: link_view.clone(),
        healing: heals.then_some(tally_view),
    };

    // The first stage that ends takes all others with it.
    let stop = shutdown.child_token();
    let guard = stop.clone().drop_guard();
    let metrics_page = {
        let stop = stop.clone();
        async move {
            let served = metrics::serve(listener, sources, stop.clone()).await;
            stop.cancel();
            served.map_err(|source| Error::Metrics { address: bound, source })
        }
    };
    let local = {
        let stop = stop.clone();
        async move {
            let served = socket.serve(api, stop.clone()).await;
            stop.cancel();
            served.map_err(Error::from)
        }
    };
    let ((), (), (), (), (), (), metrics_end, local_end) = tokio::join!(
        sampler.run(stop.clone()),
        heal(heals.then_some(healing), stop.clone()),
        keeper.run(conditions_view, stop.clone()),
        scorer_keeper.run(learnt_view, stop.clone()),
        uplink.run(stop.clone()),
        notify(snapshot_view, link_view, stop.clone()),
        metrics_page,
        local,
    );
    drop((guard, lock));
    metrics_end.and(local_end)
}

/// The scorer with what it learnt in earlier runs, or why that is lost; `None` when nothing
/// is to be scored.
fn load_scorer(config: &Config, keeper: &scorer_file::Keeper) -> (Option<Scorer>, Option<String>) {
    if !config.scoring.enabled {
        return (None, None);
    }
    let options = scorer::Options {
        window: config.summary_interval,
        promised_per_week: config.scoring.promised_false_alarms,
        learning: config.scoring.learning_time,
    };
    let restored = match keeper.load() {
        Ok(None) => return (Some(Scorer::new(options)), None),
        Ok(Some(file)) => Scorer::restore(options, &file).map_err(|refusal| refusal.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match restored {
        Ok(scorer) => (Some(scorer), None),
        Err(reason) => {
            tracing::warn!(reason, "what was learnt before cannot be used");
            (Some(Scorer::new(options)), Some(reason))
        }
    }
}

/// On a thread of its own: it waits for the disk before it acts, and a disk that stands still
/// must not hold up the other stages.
async fn heal(
    healing: Option<(healing::Options, Root, healing::Channels)>,
    shutdown: CancellationToken,
) {
    let Some((options, root, channels)) = healing else { return };
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Healing::new(options, root, channels).run(shutdown).await });
        Ok::<(), io::Error>(())
    });
    let error = match thread.await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::error!(error, "nothing is healed any more");
}

fn healing_options(config: &Config, boot_id: &str) -> healing::Options {
    let of = &config.healing;
    healing::Options {
        services: of.services.clone(),
        hooks: of.hooks.clone(),
        state_dir: config.state_dir.clone(),
        boot_id: boot_id.to_owned(),
        protected: of.protected.clone(),
        budget: holdfast_healer::Budget { per_10m: of.per_10m, per_24h: of.per_24h },
        grace: of.grace,
    }
}

/// Descriptors for the files of many units: as many as the system allows.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is; many units may not be read");
    }
}

/// Makes the state directory and holds it for this process alone.
fn lock_state(path: &Path) -> Result<Flock<fs::File>, Error> {
    let failed = |source| Error::StateDir { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(failed)?;
    let file = fs::File::create(path.join("lock")).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => Error::Running(path.to_owned()),
        other => failed(other.into()),
    })
}

/// The socket's path with its folder made. An agent without privileges that was
/// not told where falls back to the user's own runtime folder.
fn socket_path(config: &Config, user_runtime: Option<PathBuf>) -> Result<PathBuf, Error> {
    let made = |path: &Path| {
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).is_ok() && access(folder, AccessFlags::W_OK).is_ok()
    };
    if made(&config.socket) || config.socket != Path::new(DEFAULT_SOCKET) {
        return Ok(config.socket.clone());
    }
    let path = user_runtime.ok_or(Error::NoSocketDir)?.join("holdfast/agent.sock");
    tracing::info!(socket = %path.display(), "/run/holdfast may not be written; using the user's runtime folder");
    if made(&path) { Ok(path) } else { Err(Error::NoSocketDir) }
}

fn write_addresses(state_dir: &Path, addresses: &Addresses) -> Result<(), Error> {
    let path = state_dir.join("addresses.json");
    let failed = |source| Error::StateDir { path: path.clone(), source };
    let text = serde_json::to_string(addresses).map_err(|error| failed(io::Error::other(error)))?;
    // Readers see the old file or the new one, never half of it.
    let draft = path.with_extension("json.new");
    fs::write(&draft, text + "\n").and_then(|()| fs::rename(&draft, &path)).map_err(failed)
}

fn start_kernel(config: &Config, root: &Root) -> Result<Kernel, String> {
    if !config.ebpf.enabled {
        return Err(
            "eBPF is switched off by the configuration (`ebpf.enabled`, --no-ebpf)".to_owned()
        );
    }
    let options = kernel::Options {
        unit_slots: config.ebpf.unit_slots,
        map_limit_bytes: config.ebpf.map_limit.as_u64(),
        disabled: config.ebpf.disabled.clone(),
        ..kernel::Options::default()
    };
    Kernel::start(&options, root)
}

fn hello(config: &Config, facts: &Facts, host: &str) -> v1::Hello {
    v1::Hello {
        host: host.to_owned(),
        boot_id: facts.boot_id.clone(),
        incarnation: random(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: uplink::wire::text(&facts.kernel_release),
        os_name: uplink::wire::text(&facts.os_name),
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
        summary_window_ms: u32::try_from(config.summary_interval.as_millis()).unwrap_or(u32::MAX),
        ..v1::Hello::default()
    }
}

/// A number that differs between hosts and between starts.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds its hasher from the system's random source.
    std::hash::RandomState::new().build_hasher().finish()
}

enum Link {
    Collector(Box<Uplink>),
    /// Nobody to tell: what the sampler says is let go.
    Nobody(mpsc::Receiver<Report>),
}

impl Link {
    async fn run(self, shutdown: CancellationToken) {
        match self {
            Self::Collector(uplink) => uplink.run(shutdown).await,
            Self::Nobody(mut reports) => {
                let gone = async { while reports.recv().await.is_some() {} };
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = gone => {}
                }
            }
        }
    }
}

fn build_uplink(
    config: &Config,
    hello: v1::Hello,
    reports: mpsc::Receiver<Report>,
    link: watch::Sender<LinkState>,
    losses: Losses,
) -> Result<Link, Error> {
    if config.collector.is_empty() {
        return Ok(Link::Nobody(reports));
    }
    let uplink = Uplink::new(&config.collector, hello, reports, link, losses)?;
    Ok(Link::Collector(Box::new(uplink)))
}

/// Tells the service manager that the agent is ready, alive and how it is doing.
/// Alive means that the sampler ticks.
async fn notify(
    mut snapshot: watch::Receiver<Snapshot>,
    link: watch::Receiver<LinkState>,
    shutdown: CancellationToken,
) {
    let tell = |states: &[NotifyState<'_>]| {
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "the service manager cannot be told");
        }
    };
    let mut status = String::new();
    let mut ready = false;
    loop {
        tokio::select! {
            changed = snapshot.changed() => if changed.is_err() { break },
            () = shutdown.cancelled() => break,
        }
        let now = {
            let snapshot = snapshot.borrow_and_update();
            let off =
                snapshot.probes.iter().filter(|probe| probe.state == crate::report::State::Off);
            let link = if link.borrow().connected { "connected to" } else { "not connected to" };
            format!(
                "{} units, {} of {} probes off, {link} the collector",
                snapshot.slots_used,
                off.count(),
                snapshot.probes.len()
            )
        };
        let mut states = vec![NotifyState::Watchdog];
        if !ready {
            ready = true;
            states.push(NotifyState::Ready);
        }
        if now != status {
            status = now;
            states.push(NotifyState::Status(&status));
        }
        tell(&states);
    }
    tell(&[NotifyState::Stopping]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_for_each_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let lock = lock_state(&path).unwrap();
        assert!(matches!(lock_state(&path), Err(Error::Running(_))));
        drop(lock);
        assert!(lock_state(&path).is_ok());
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(lock_state(&dir.path().join("file/below")), Err(Error::StateDir { .. })));
    }

    #[test]
    fn a_named_socket_is_never_moved() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("new/agent.sock");
        let config = Config { socket: socket.clone(), ..Config::default() };
        assert_eq!(socket_path(&config, None).unwrap(), socket);
        assert!(dir.path().join("new").is_dir());
    }

    #[test]
    fn addresses_are_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = SocketAddr::from(([127, 0, 0, 1], 5));
        let addresses = Addresses { metrics, socket: "/s".into() };
        write_addresses(dir.path(), &addresses).unwrap();
        let text = fs::read_to_string(dir.path().join("addresses.json")).unwrap();
        assert_eq!(text, "{\"metrics\":\"127.0.0.1:5\",\"socket\":\"/s\"}\n");
    }
}
