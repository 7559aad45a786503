//! What scoring costs the agent: two agents watch the same host at the same time, one of
//! which scores.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_core::clock::BootTime;

use super::{Options, Row, process, units};
use crate::stack::{Ports, Programs, Stack};
use crate::stop::Stop;

/// Units besides those that the host has: some five hundred series.
const UNITS: usize = 42;
const DEFAULT_SECONDS: u64 = 120;
/// After this long, units are scored.
const SETTLE: Duration = Duration::from_secs(150);
const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// The most that it may cost.
const CPU_PERCENT: f64 = 0.05;
const PSS_MIB: f64 = 5.0;

pub(super) fn run(options: &Options, stop: &Stop) -> Result<Vec<Row>> {
    let programs = Programs::build("release")?;
    let _units: Vec<_> = (0..UNITS).map(units::unit).collect::<Result<_>>()?;
    let seconds = options.seconds.unwrap_or(DEFAULT_SECONDS);
    // Each second, which is the most that can be asked for.
    let scores = "summary_interval = \"1s\"\n";
    let scores_not = format!("{scores}[scoring]\nenabled = false\n");
    // The same work for both: no programs of eBPF, which would count each other's events.
    let options = ["--no-ebpf"];
    let mut with = Stack::start_with(&programs, Ports::Any, &options, scores, stop)?;
    let mut without = Stack::start_with(&programs, Ports::Any, &options, &scores_not, stop)?;
    eprintln!("settling, then measuring for {seconds} s");
    wait(SETTLE, [&mut with, &mut without], stop)?;
    let used = |stack: &Stack| process::cpu_time(stack.agent.pid());
    let (start, before) = (BootTime::now(), [used(&with)?, used(&without)?]);
    wait(Duration::from_secs(seconds), [&mut with, &mut without], stop)?;
    let wall = BootTime::now().since(start).as_secs_f64();
    let after = [used(&with)?, used(&without)?];
    let share = |n: usize| -> Option<f64> {
        let used = after.get(n)?.saturating_sub(*before.get(n)?);
        Some(100.0 * used.as_secs_f64() / wall)
    };
    let cpu = [share(0), share(1)].map(|share| share.unwrap_or(f64::NAN));
    let memory =
        |stack: &Stack| Ok::<_, anyhow::Error>(process::pss(stack.agent.pid())? as f64 / MEBIBYTE);
    let memory = [memory(&with)?, memory(&without)?];
    let answer = with.ask(&["local", "status"])?;
    let series = answer["values"].as_array().map(Vec::len).context("no values in the status")?;
    Ok(vec![
        Row::new("series of the host", series as f64, "series"),
        Row::new("agent without scoring, CPU of one core", cpu[1], "%"),
        Row::new("scoring, CPU of one core", cpu[0] - cpu[1], "%").at_most(CPU_PERCENT),
        Row::new("agent without scoring, memory (PSS)", memory[1], "MiB"),
        Row::new("scoring, memory (PSS)", memory[0] - memory[1], "MiB").at_most(PSS_MIB),
    ])
}

fn wait(time: Duration, stacks: [&mut Stack; 2], stop: &Stop) -> Result<()> {
    if stop.wait(time) {
        bail!("stopped");
    }
    stacks.into_iter().try_for_each(Stack::check)
}
