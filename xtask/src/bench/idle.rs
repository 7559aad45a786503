//! What the agent costs a host that does nothing else for it: CPU time, memory,
//! and the time its eBPF programs take from others. node_exporter, scraped once a
//! second, and sadc at one second run at the same time, so that all three see the
//! same host.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_core::clock::BootTime;
use serde_json::Value;
use tempfile::TempDir;

use super::peers::{self, NodeExporter};
use super::{Options, Row, process};
use crate::leash::Leashed;
use crate::stack::{Ports, Programs, Stack};
use crate::stop::Stop;

const DEFAULT_SECONDS: u64 = 60;
/// After this long, start-up is over: files are open, buffers have grown.
const SETTLE: Duration = Duration::from_secs(150);
const TICK: Duration = Duration::from_secs(1);
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Limits that we hold ourselves to.
const CPU_PERCENT: f64 = 0.5;
const PSS_MIB: f64 = 20.0;
const MAPS_MIB: f64 = 4.0;

pub(super) fn run(options: &Options, stop: &Stop) -> Result<Vec<Row>> {
    let programs = Programs::build("release")?;
    let mut stack = Stack::start(&programs, Ports::Any, &[], stop)?;
    let folder = TempDir::with_prefix("holdfast-bench-").context("no temporary folder")?;
    let exporter = NodeExporter::start()?;
    let sadc = peers::start_sadc(&folder.path().join("sadc"))?;
    eprintln!("settling for {} s", SETTLE.as_secs());
    tick_for(SETTLE, &mut stack, None, stop)?;

    let seconds = options.seconds.unwrap_or(DEFAULT_SECONDS);
    eprintln!("measuring for {seconds} s");
    let start = BootTime::now();
    let agent = Meter::start(&stack.agent)?;
    let collector = Meter::start(&stack.collector)?;
    let exporter_meter = exporter.as_ref().map(|e| Meter::start(&e.process)).transpose()?;
    let sadc_meter = sadc.as_ref().map(Meter::start).transpose()?;
    tick_for(Duration::from_secs(seconds), &mut stack, exporter.as_ref(), stop)?;
    let wall = BootTime::now().since(start);

    let agent_share = agent.share(wall)?;
    let maps = stack.ask(&["local", "probes"])?["map_bytes"].as_f64().unwrap_or(f64::NAN);
    let mut rows = vec![
        Row::new("agent, CPU of one core", agent_share, "%").at_most(CPU_PERCENT),
        Row::new("agent, memory (PSS)", agent.pss()?, "MiB").at_most(PSS_MIB),
        Row::new("agent, eBPF maps", maps / MEBIBYTE, "MiB").at_most(MAPS_MIB),
    ];
    rows.extend(ebpf_rows(&stack)?);
    rows.push(Row::new("collector, CPU of one core", collector.share(wall)?, "%"));
    rows.push(Row::new("collector, memory (PSS)", collector.pss()?, "MiB"));
    for (name, meter) in [("node_exporter", exporter_meter), ("sadc", sadc_meter)] {
        let Some(meter) = meter else { continue };
        let share = meter.share(wall)?;
        rows.push(Row::new(format!("{name}, CPU of one core"), share, "%"));
        rows.push(Row::new(format!("{name}, memory (PSS)"), meter.pss()?, "MiB"));
        rows.push(Row::new(format!("CPU, agent / {name}"), agent_share / share, "ratio"));
    }
    Ok(rows)
}

/// Lets time pass; scrapes once a second, as a server would.
fn tick_for(
    time: Duration,
    stack: &mut Stack,
    exporter: Option<&NodeExporter>,
    stop: &Stop,
) -> Result<()> {
    let start = BootTime::now();
    while let Some(rest) = time.checked_sub(BootTime::now().since(start)) {
        if let Some(exporter) = exporter {
            exporter.scrape()?;
        }
        stack.check()?;
        if rest.is_zero() {
            break;
        }
        if stop.wait(rest.min(TICK)) {
            bail!("stopped");
        }
    }
    Ok(())
}

/// What the eBPF programs take from the tasks that they run in. The measuring
/// itself is in these numbers: some 50 ns an event.
fn ebpf_rows(stack: &Stack) -> Result<Vec<Row>> {
    let answer = stack.ask(&["local", "probes", "--measure", "5s"])?;
    let probes = answer["probes"].as_array().into_iter().flatten();
    let programs = probes.filter_map(|probe| probe["programs"].as_array()).flatten();
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let mut total = 0.0;
    let mut events = 0.0;
    for program in programs {
        let rate = number(&program["events_per_second"]);
        events += rate;
        total += rate * number(&program["ns_per_event"]);
    }
    Ok(vec![
        Row::new("eBPF programs, CPU of one core (accounted)", total / 1e7, "%"),
        Row::new("eBPF programs, events", events, "1/s"),
    ])
}

/// A process over the time of the measurement.
struct Meter {
    pid: u32,
    before: Duration,
}

impl Meter {
    fn start(process: &Leashed) -> Result<Self> {
        let pid = process.pid();
        Ok(Self { pid, before: process::cpu_time(pid)? })
    }

    /// Percent of one core since the start.
    fn share(&self, wall: Duration) -> Result<f64> {
        let used = process::cpu_time(self.pid)?.saturating_sub(self.before);
        Ok(100.0 * used.as_secs_f64() / wall.as_secs_f64())
    }

    fn pss(&self) -> Result<f64> {
        Ok(process::pss(self.pid)? as f64 / MEBIBYTE)
    }
}
