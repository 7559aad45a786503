//! The agent about itself, for Prometheus: `/metrics` and `/healthz` over HTTP.
//!
//! These are the agent's own cost, losses and state. The signals of the host go to
//! the collector, not here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use holdfast_core::clock::BootTime;
use holdfast_healer::Trigger;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{self, DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::governor::Overhead;
use crate::healing::{Tally, VERDICTS};
use crate::report::{LinkState, ProbeCost, ProbeStatus, Proof, State, Vitals};

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
    /// What reading each probe cost.
    pub costs: Vec<ProbeCost>,
    /// What the eBPF programs cost; `None` without eBPF.
    pub overhead: Option<Overhead>,
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
    /// From the healer; `None` when nothing is healed.
    pub healing: Option<watch::Receiver<Tally>>,
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

async fn health(extract::State(sources): extract::State<Sources>) -> (StatusCode, String) {
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

async fn metrics(
    extract::State(sources): extract::State<Sources>,
) -> Result<impl IntoResponse, StatusCode> {
    let snapshot = sources.snapshot.borrow().clone();
    let healing = sources.healing.as_ref().map(|tally| tally.borrow().clone());
    let text = render(snapshot, sources.link.borrow().clone(), healing)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
        text,
    ))
}

/// The page in OpenMetrics text form
/// (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
fn render(
    snapshot: Snapshot,
    link: LinkState,
    healing: Option<Tally>,
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("holdfast_agent");
    registry.register_collector(Box::new(Page { snapshot, link, healing }));
    let mut text = String::new();
    encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// The sampler's and the uplink's newest state, as metrics.
#[derive(Debug)]
struct Page {
    snapshot: Snapshot,
    link: LinkState,
    healing: Option<Tally>,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Self { snapshot, link, healing } = self;
        let vitals = &snapshot.vitals;
        let (counter, gauge) = (MetricType::Counter, MetricType::Gauge);
        let mut one = |kind, name, help, value| {
            write(kind, encoder.encode_descriptor(name, help, None, kind)?, value)
        };
        one(counter, "cpu_seconds", "CPU time the agent used", vitals.cpu_seconds)?;
        one(gauge, "resident_bytes", "Resident memory of the agent", vitals.rss_bytes as f64)?;
        one(gauge, "map_bytes", "Kernel memory of the agent's eBPF maps", vitals.map_bytes as f64)?;
        one(counter, "ticks", "Ticks of the sampler", snapshot.ticks as f64)?;
        one(
            gauge,
            "tick_seconds",
            "Time the newest tick took",
            snapshot.tick_duration.as_secs_f64(),
        )?;
        one(gauge, "unit_slots", "Unit slots there are", snapshot.slots.into())?;
        one(gauge, "unit_slots_used", "Unit slots in use", snapshot.slots_used.into())?;
        let connected = f64::from(u8::from(link.connected));
        one(gauge, "uplink_connected", "Whether the stream to the collector stands", connected)?;
        one(counter, "uplink_connects", "Streams the collector welcomed", link.connects as f64)?;
        let help = "Windows and events dropped on the way to the collector";
        one(counter, "uplink_dropped", help, link.dropped as f64)?;
        let pending = link.pending_events as f64;
        one(gauge, "uplink_pending_events", "Events not yet acknowledged", pending)?;

        let help = "What the agent had to drop, by cause";
        let mut losses = encoder.encode_descriptor("losses", help, None, counter)?;
        for &(cause, count) in &vitals.losses {
            write(counter, losses.encode_family(&[("cause", cause)])?, count as f64)?;
        }
        let help = "State of each probe: 1 for the one it is in";
        let mut states = encoder.encode_descriptor("probe_state", help, None, gauge)?;
        for probe in snapshot.probes.iter() {
            for state in [State::Active, State::Degraded, State::Off] {
                let labels = [("probe", probe.name), ("state", state.name())];
                let value = f64::from(u8::from(probe.state == state));
                write(gauge, states.encode_family(&labels)?, value)?;
            }
        }
        if let Some(overhead) = &snapshot.overhead {
            let help = "What all eBPF programs may cost, as a share of one core";
            let budget = encoder.encode_descriptor("ebpf_budget_ratio", help, None, gauge)?;
            write(gauge, budget, overhead.budget)?;
            let help = "What the eBPF programs of each probe cost, as a share of one core";
            let mut costs = encoder.encode_descriptor("ebpf_cost_ratio", help, None, gauge)?;
            for probe in &overhead.probes {
                let labels = [("probe", probe.probe), ("basis", overhead.basis.name())];
                write(gauge, costs.encode_family(&labels)?, probe.cost)?;
            }
            let help =
                "How deep each probe looks: 0 full, 1 gated, 2 host, 3 sampled, 4 counters, 5 off";
            let mut depths = encoder.encode_descriptor("probe_depth", help, None, gauge)?;
            for probe in &overhead.probes {
                let labels = [("probe", probe.probe)];
                write(gauge, depths.encode_family(&labels)?, f64::from(probe.depth as u8))?;
            }
        }
        let help = "Whether each probe has seen exactly what was provoked for it to see";
        let mut proven = encoder.encode_descriptor("probe_proven", help, None, gauge)?;
        for probe in snapshot.probes.iter() {
            let value = f64::from(u8::from(matches!(probe.proof, Proof::Proven { .. })));
            write(gauge, proven.encode_family(&[("probe", probe.name)])?, value)?;
        }
        let help = "Time the sampler took to read each probe";
        let mut times = encoder.encode_descriptor("probe_read_seconds", help, None, counter)?;
        for cost in &snapshot.costs {
            let labels = [("probe", cost.name)];
            write(counter, times.encode_family(&labels)?, cost.total.as_secs_f64())?;
        }
        let help = "Time of the slowest read of each probe";
        let mut slowest =
            encoder.encode_descriptor("probe_slowest_read_seconds", help, None, gauge)?;
        for cost in &snapshot.costs {
            let labels = [("probe", cost.name)];
            write(gauge, slowest.encode_family(&labels)?, cost.slowest.as_secs_f64())?;
        }
        healing.as_ref().map_or(Ok(()), |tally| healed(tally, &mut encoder))
    }
}

fn healed(tally: &Tally, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let (counter, gauge) = (MetricType::Counter, MetricType::Gauge);
    let mut one = |name, help, value| {
        write(gauge, encoder.encode_descriptor(name, help, None, gauge)?, value)
    };
    one("healing_services", "Services that are healed", tally.services as f64)?;
    let help = "Whether what is decided can be written down: nothing is done otherwise";
    one("healing_journal_writable", help, f64::from(u8::from(tally.journal)))?;
    let help = "Services with which something is wrong, by what";
    let mut ill = encoder.encode_descriptor("healing_services_ill", help, None, gauge)?;
    for trigger in Trigger::ALL.map(Trigger::name) {
        let count = tally.ill.get(trigger).copied().unwrap_or_default();
        write(gauge, ill.encode_family(&[("trigger", trigger)])?, count as f64)?;
    }
    let help = "Actions that were begun";
    let mut begun = encoder.encode_descriptor("healing_actions", help, None, counter)?;
    for (action, count) in &tally.begun {
        write(counter, begun.encode_family(&[("action", *action)])?, *count as f64)?;
    }
    let help = "What came of actions";
    let mut verdicts = encoder.encode_descriptor("healing_verdicts", help, None, counter)?;
    for verdict in VERDICTS {
        let count = tally.verdicts.get(verdict).copied().unwrap_or_default();
        write(counter, verdicts.encode_family(&[("verdict", verdict)])?, count as f64)?;
    }
    let help = "Actions that were held back, by what stood against them";
    let mut held = encoder.encode_descriptor("healing_held", help, None, counter)?;
    for (guard, count) in &tally.held {
        write(counter, held.encode_family(&[("guard", guard.as_str())])?, *count as f64)?;
    }
    Ok(())
}

fn write(kind: MetricType, encoder: MetricEncoder<'_>, value: f64) -> Result<(), std::fmt::Error> {
    match kind {
        MetricType::Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(value).encode(encoder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::{Basis, Depth, ProbeOverhead};

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
                state: State::Off,
                reason: String::new(),
                level: 2,
                depth: Some(Depth::Off),
                programs: Vec::new(),
                proof: Proof::Proven { unix_ms: 1 },
            }]),
            overhead: Some(Overhead {
                budget: 0.01,
                basis: Basis::Measured,
                probes: vec![ProbeOverhead { probe: "sched", depth: Depth::Off, cost: 0.25 }],
                ..Overhead::default()
            }),
            ..Snapshot::default()
        };
        let link = LinkState { connected: true, ..LinkState::default() };
        let tally = Tally {
            services: 2,
            begun: [("restart", 3)].into(),
            ill: [("crashed", 1)].into(),
            ..Tally::default()
        };
        let page = render(snapshot, link, Some(tally)).expect("a page");
        for line in [
            "holdfast_agent_cpu_seconds_total 1.5",
            "holdfast_agent_losses_total{cause=\"ring_full\"} 3.0",
            "holdfast_agent_probe_state{probe=\"sched\",state=\"off\"} 1.0",
            "holdfast_agent_probe_state{probe=\"sched\",state=\"active\"} 0.0",
            "holdfast_agent_probe_proven{probe=\"sched\"} 1.0",
            "holdfast_agent_uplink_connected 1.0",
            "holdfast_agent_ebpf_budget_ratio 0.01",
            "holdfast_agent_ebpf_cost_ratio{probe=\"sched\",basis=\"measured\"} 0.25",
            "holdfast_agent_probe_depth{probe=\"sched\"} 5.0",
            "holdfast_agent_healing_services 2.0",
            "holdfast_agent_healing_journal_writable 0.0",
            "holdfast_agent_healing_services_ill{trigger=\"crashed\"} 1.0",
            "holdfast_agent_healing_services_ill{trigger=\"degraded\"} 0.0",
            "holdfast_agent_healing_actions_total{action=\"restart\"} 3.0",
            "holdfast_agent_healing_verdicts_total{verdict=\"helped\"} 0.0",
            "# EOF",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }
}
