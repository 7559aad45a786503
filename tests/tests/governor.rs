//! A whole agent in a storm of context switches that costs more than it may: depth is
//! given up, everybody is told, and it comes back.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_proto::v1::Event;
use holdfast_tests::{Agent, Collector, need, wait};
use serde_json::Value;

/// A few thousand switches a second are well within it, a storm is not.
const CONFIG: &str = "[ebpf]
cpu_budget = \"0.5%\"
measure_interval = \"1s\"
regain_after = \"1s\"
";
/// A step a second, and two seconds to be sure.
const SHEDDING: Duration = Duration::from_secs(20);
/// Five steps up of a second each, if other work on the machine lets them be.
const REGAINING: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_storm_costs_depth_and_no_more_than_the_budget() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let agent = Agent::start_with("storm", &collector.url(), CONFIG).await?;
    collector.host_up("storm").await?;
    wait::until("costs are measured", async || {
        let report = agent.local(&["probes"])?;
        Ok((report["cost"]["basis"] == "measured").then_some(()))
    })
    .await?;

    let storm = Storm::start()?;
    wait::within(SHEDDING, "depth is given up until the budget is kept", async || {
        let report = agent.local(&["probes"])?;
        let (cost, budget) = (&report["cost"]["ratio"], &report["cost"]["budget"]);
        let kept = cost.as_f64().context("no cost")? < budget.as_f64().context("no budget")?;
        let sched = probe(&report, "sched")?;
        Ok((kept && sched["depth"] != "full").then_some(()))
    })
    .await
    .with_context(|| agent.log())?;
    let report = agent.local(&["probes"])?;
    let sched = probe(&report, "sched")?;
    let reason = sched["reason"].as_str().unwrap_or_default();
    ensure!(sched["state"] != "active" && reason.contains("governor"), "{sched}");
    ensure!(reason.contains("budget 0.5 %"), "{reason}");
    let first = first_told(&collector, "agent.depth_lowered").await?;
    let field = |name: &str| {
        let field = first.field.iter().find(|field| field.name == name);
        field.map(|field| field.value.clone()).unwrap_or_default()
    };
    let step = [field("probe"), field("from"), field("to")];
    ensure!(step == ["sched", "full", "gated"], "{first:?}");
    ensure!(field("cost").ends_with('%') && field("budget") == "0.5 %", "{first:?}");
    // What is shed is a decision; a loss would be an accident. A switch now and then to a
    // task that the kernel has not stamped is counted, and no loss of ours.
    let status = agent.local(&["status"])?;
    for cause in ["ebpf.row_out_of_range", "ebpf.program_skipped", "ebpf.interval_negative"] {
        let losses = status["agent"]["losses"].as_array().context("no losses")?;
        let counted = losses.iter().find(|loss| loss["cause"] == cause);
        ensure!(counted.is_some_and(|loss| loss["count"] == 0), "{cause}: {counted:?}");
    }

    storm.stop()?;
    wait::within(REGAINING, "full depth is back", async || {
        let report = agent.local(&["probes"])?;
        Ok((probe(&report, "sched")?["depth"] == "full").then_some(()))
    })
    .await
    .with_context(|| agent.log())?;
    first_told(&collector, "agent.depth_raised").await?;
    let series = collector.series("storm", "agent.ebpf.cost", "").await?;
    let points = series.iter().flat_map(|series| &series.point);
    let most = points.filter_map(|point| point.summary.as_ref()).map(|summary| summary.max);
    ensure!(most.fold(0.0, f64::max) > 0.005, "the storm is not in the series of the cost");
    Ok(())
}

#[tokio::test]
async fn without_the_right_to_measure_events_are_counted_instead() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let agent = Agent::start_as_service("estimate", &collector.url(), CONFIG).await?;
    collector.host_up("estimate").await?;
    let storm = Storm::start()?;
    let report = wait::within(SHEDDING, "depth is given up", async || {
        let report = agent.local(&["probes"])?;
        Ok((probe(&report, "sched")?["depth"] != "full").then_some(report))
    })
    .await
    .with_context(|| agent.log())?;
    storm.stop()?;
    let cost = &report["cost"];
    let note = cost["note"].as_str().unwrap_or_default();
    ensure!(cost["basis"] == "estimated" && cost["age_seconds"].is_null(), "{cost}");
    ensure!(note.contains("CAP_SYS_ADMIN"), "nothing says why: {cost}");
    let told = first_told(&collector, "agent.depth_lowered").await?;
    ensure!(told.message.contains("estimated"), "{told:?}");
    Ok(())
}

fn probe<'a>(report: &'a Value, name: &str) -> Result<&'a Value> {
    let probes = report["probes"].as_array().context("no probes")?;
    probes.iter().find(|probe| probe["name"] == name).context("no such probe")
}

/// The first event of this kind. It is on its way to the collector while the agent's own
/// report says already what it tells of.
async fn first_told(collector: &Collector, kind: &str) -> Result<Event> {
    wait::until(&format!("{kind} is told"), async || {
        let events = collector.events("").await?;
        let mut events = events.into_iter().filter_map(|event| event.event);
        Ok(events.find(|event| event.kind == kind))
    })
    .await
}

/// Two threads for each CPU, and as many again, that hand bytes back and forth.
struct Storm {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Storm {
    fn start() -> Result<Self> {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        let mut storm = Self { stop: Arc::default(), threads: Vec::new() };
        for _ in 0..2 * cpus {
            let (from_a, to_b) = std::io::pipe()?;
            let (from_b, to_a) = std::io::pipe()?;
            let stop = Arc::clone(&storm.stop);
            storm.threads.push(thread::spawn(move || serve(&stop, from_b, to_b)));
            storm.threads.push(thread::spawn(move || echo(from_a, to_a)));
        }
        Ok(storm)
    }

    fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn serve(stop: &AtomicBool, mut receive: PipeReader, mut send: PipeWriter) -> std::io::Result<()> {
    let mut ball = [0];
    while !stop.load(Ordering::Relaxed) {
        send.write_all(&ball)?;
        receive.read_exact(&mut ball)?;
    }
    Ok(())
}

/// Sends back what comes, until the other side closes.
fn echo(mut receive: PipeReader, mut send: PipeWriter) -> std::io::Result<()> {
    let mut ball = [0];
    while receive.read(&mut ball)? == 1 {
        send.write_all(&ball)?;
    }
    Ok(())
}
