//! What watching the scheduler costs whoever switches tasks.
//!
//! Two views of the same load, two threads that wake each other on one CPU: the
//! kernel's own accounting of eBPF programs, minus what it says of an empty one;
//! and the CPU time that the load itself needs, with and without the programs, in
//! runs next to each other. Other tools for the same purpose go through the same.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_core::clock;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::accounting::{self, Cost, EMPTY, Loaded};
use super::peers::Tracer;
use super::{Options, Row, median};
use crate::provoke::ping_pong;
use crate::stop::Stop;

/// There and back; some tenths of a second.
const ROUNDS: u64 = 100_000;
/// Both threads share a CPU, so that each turn is exactly one switch.
const SWITCHES: f64 = 2.0 * ROUNDS as f64;
/// Pairs of runs for programs that load in no time, and for tools that compile first.
const PAIRS: u64 = 16;
const PEER_PAIRS: u64 = 6;

/// Limits that we hold ourselves to.
const ADDED_PERCENT: f64 = 5.0;
const ADDED_BY_ALL_PERCENT: f64 = 8.0;

/// The program of the object that watches switches, by the name that its loader knows.
const OURS: &str = "sched_switch";
/// Depths of detail, in the order of their numbers.
const DEPTHS: [&str; 5] = ["full", "gated", "host", "sampled", "counters"];

pub(super) fn run(_: &Options, stop: &Stop) -> Result<Vec<Row>> {
    let loader = accounting::build_loader()?;
    one_cpu()?;
    ping_pong(ROUNDS)?;

    eprintln!("accounting");
    let cost_of = |program| Loaded::start(&loader, &[program])?.cost(|| ping_pong(ROUNDS));
    let empty = cost_of(EMPTY)?;
    let ours = cost_of(OURS)?.net(&empty, SWITCHES);
    let depths = at_depths(&loader, &empty)?;
    eprintln!("pairs of runs");
    let added_by = |program: &str| {
        added(PAIRS, stop, || Loaded::start(&loader, &[program]))
            .with_context(|| format!("the pairs of {program}"))
    };
    let (added_ours, added_all, added_empty) =
        (added_by(OURS)?, added_by("all")?, added_by(EMPTY)?);
    let added_row =
        |name: &str, value| Row::new(format!("{name}, CPU time added to a ping-pong"), value, "%");
    let mut rows = vec![
        Row::new("accounting of an empty program", empty.ns_per_run(), "ns/run"),
        Row::new("ours, net", ours, "ns/switch"),
        added_row("ours", added_ours).at_most(ADDED_PERCENT),
        added_row("all our programs", added_all).at_most(ADDED_BY_ALL_PERCENT),
        added_row("empty", added_empty),
    ];
    rows.extend(depths);
    for tool in Tracer::SCHEDULER {
        eprintln!("{}", tool.name);
        if !tool.works(stop) {
            continue;
        }
        let cost = {
            let _running = tool.start(stop)?;
            accounting::tool_cost(&loader, tool.part, || ping_pong(ROUNDS))?
        };
        let net = cost.map(|cost| cost.net(&empty, SWITCHES));
        rows.extend(tool.compared(ours, net, "ns/switch"));
        rows.push(added_row(tool.name, added(PEER_PAIRS, stop, || tool.start(stop))?));
    }
    Ok(rows)
}

/// What our program costs at each depth of detail.
fn at_depths(loader: &Path, empty: &Cost) -> Result<Vec<Row>> {
    let mut loaded = Loaded::start(loader, &[OURS])?;
    let mut rows = Vec::new();
    for (depth, name) in DEPTHS.iter().enumerate() {
        loaded.set_depth(depth)?;
        let net = loaded.cost(|| ping_pong(ROUNDS))?.net(empty, SWITCHES);
        rows.push(Row::new(format!("ours at depth {name}, net"), net, "ns/switch"));
    }
    Ok(rows)
}

/// Stays on one CPU, and so do all threads started from now on.
fn one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0).context("no CPU 0")?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")
}

/// How many percent more CPU time the load needs while something runs: the median
/// over pairs, each the mean of a run before and one after it.
fn added<T>(pairs: u64, stop: &Stop, start: impl Fn() -> Result<T>) -> Result<f64> {
    let mut ratios = Vec::new();
    for _ in 0..pairs {
        let before = load_cpu()?;
        let running = start()?;
        let during = load_cpu()?;
        drop(running);
        let after = load_cpu()?;
        let without = f64::midpoint(before.as_secs_f64(), after.as_secs_f64());
        ratios.push(100.0 * (during.as_secs_f64() / without - 1.0));
        if stop.wait(Duration::ZERO) {
            bail!("stopped");
        }
    }
    Ok(median(ratios))
}

/// CPU time of one load.
fn load_cpu() -> Result<Duration> {
    let before = clock::process_cpu();
    ping_pong(ROUNDS)?;
    Ok(clock::process_cpu().saturating_sub(before))
}
