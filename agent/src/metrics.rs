//! The agent about itself, for Prometheus: `/metrics` and `/healthz` over HTTP.
//!
//! These are the agent's own cost, losses and state. The signals of the host go to
//! the collector, not here.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use holdfast_core::clock::BootTime;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::report::{LinkState, ProbeStatus, Vitals};

/// A sampler that has not ticked for so long is not healthy.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// What the sampler publishes each tick.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// When, on the boot-time clock.
    pub at: BootTime,
    /// Ticks since the agent started.
    pub ticks: u64,
    /// Own cost and losses.
    pub vitals: Vitals,
    /// State of every probe.
    pub probes: Arc<[ProbeStatus]>,
    /// Time the last tick took.
    pub tick_duration: Duration,
    /// Unit slots in use.
    pub slots_used: u32,
    /// Unit slots there are.
    pub slots: u32,
}

/// What the pages are made of.
#[derive(Debug, Clone)]
pub struct Sources {
    /// From the sampler.
    pub snapshot: watch::Receiver<Snapshot>,
    /// From the uplink.
    pub link: watch::Receiver<LinkState>,
}

/// Serves the pages on `listener` until `shutdown`.
///
/// # Errors
///
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    sources: Sources,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is /metrics and /healthz\n") })
        .with_state(sources);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Binds `address` for [`serve`].
///
/// # Errors
///
/// When the address is taken or may not be used.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn health(State(sources): State<Sources>) -> (StatusCode, String) {
    let age = BootTime::now().since(sources.snapshot.borrow().at);
    if age > STALLED_AFTER {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the sampler has not ticked for {} s\n", age.as_secs()),
        )
    } else {
        (StatusCode::OK, "ok\n".to_owned())
    }
}

async fn metrics(State(sources): State<Sources>) -> impl IntoResponse {
    let text = render(&sources.snapshot.borrow(), &sources.link.borrow());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// The page in OpenMetrics text form
/// (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
fn render(snapshot: &Snapshot, link: &LinkState) -> String {
    let mut page = Page::default();
    let vitals = &snapshot.vitals;
    page.family("holdfast_agent_cpu_seconds", "counter", "CPU time the agent used");
    page.line("holdfast_agent_cpu_seconds_total", &[], vitals.cpu_seconds);
    page.family("holdfast_agent_resident_bytes", "gauge", "Resident memory of the agent");
    page.line("holdfast_agent_resident_bytes", &[], vitals.rss_bytes as f64);
    page.family("holdfast_agent_map_bytes", "gauge", "Kernel memory of the agent's eBPF maps");
    page.line("holdfast_agent_map_bytes", &[], vitals.map_bytes as f64);
    page.family("holdfast_agent_ticks", "counter", "Ticks of the sampler");
    page.line("holdfast_agent_ticks_total", &[], snapshot.ticks as f64);
    page.family("holdfast_agent_tick_seconds", "gauge", "Time the newest tick took");
    page.line("holdfast_agent_tick_seconds", &[], snapshot.tick_duration.as_secs_f64());
    page.family("holdfast_agent_unit_slots", "gauge", "Unit slots, used and in all");
    page.line("holdfast_agent_unit_slots", &[("state", "used")], f64::from(snapshot.slots_used));
    page.line("holdfast_agent_unit_slots", &[("state", "all")], f64::from(snapshot.slots));
    page.family("holdfast_agent_losses", "counter", "What the agent had to drop, by cause");
    for &(cause, count) in &vitals.losses {
        page.line("holdfast_agent_losses_total", &[("cause", cause)], count as f64);
    }
    page.family("holdfast_agent_probe_state", "stateset", "State of each probe");
    for probe in snapshot.probes.iter() {
        for state in ["active", "degraded", "off"] {
            let labels = [("probe", probe.name), ("holdfast_agent_probe_state", state)];
            page.line(
                "holdfast_agent_probe_state",
                &labels,
                f64::from(u8::from(probe.state.name() == state)),
            );
        }
    }
    page.family(
        "holdfast_agent_uplink_connected",
        "gauge",
        "Whether the stream to the collector stands",
    );
    page.line("holdfast_agent_uplink_connected", &[], f64::from(u8::from(link.connected)));
    page.family("holdfast_agent_uplink_connects", "counter", "Streams the collector welcomed");
    page.line("holdfast_agent_uplink_connects_total", &[], link.connects as f64);
    page.family(
        "holdfast_agent_uplink_dropped",
        "counter",
        "Windows and events dropped on the way to the uplink",
    );
    page.line("holdfast_agent_uplink_dropped_total", &[], link.dropped as f64);
    page.family("holdfast_agent_uplink_pending_events", "gauge", "Events not yet acknowledged");
    page.line("holdfast_agent_uplink_pending_events", &[], link.pending_events as f64);
    page.finish()
}

/// Text under construction. Label values are names of the agent's own tables: they
/// hold nothing that would need escaping.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}.\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn finish(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report;

    #[test]
    fn the_page_names_every_probe_and_loss() {
        let snapshot = Snapshot {
            vitals: Vitals {
                cpu_seconds: 1.5,
                losses: vec![("ring_full", 3)],
                ..Vitals::default()
            },
            probes: Arc::new([ProbeStatus {
                name: "sched",
                state: report::State::Off,
                reason: String::new(),
                level: 2,
                programs: Vec::new(),
            }]),
            ..Snapshot::default()
        };
        let page = render(&snapshot, &LinkState { connected: true, ..LinkState::default() });
        for line in [
            "holdfast_agent_cpu_seconds_total 1.5",
            "holdfast_agent_losses_total{cause=\"ring_full\"} 3",
            "holdfast_agent_probe_state{probe=\"sched\",holdfast_agent_probe_state=\"off\"} 1",
            "holdfast_agent_probe_state{probe=\"sched\",holdfast_agent_probe_state=\"active\"} 0",
            "holdfast_agent_uplink_connected 1",
            "# EOF",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }
}
