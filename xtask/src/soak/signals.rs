//! The agent under churn: ten thousand short-lived processes and two thousand units.
//!
//! Flat must be its memory, its maps and how full they are; every unit must have had a
//! name; no stamp may be left behind.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_core::clock::BootTime;
use serde_json::Value;

use super::churn;
use crate::bench::{median, pss};
use crate::shell;
use crate::stack::{Ports, Programs, Stack};
use crate::stop::Stop;

/// For how long, and how much.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How long
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Units that come and go meanwhile
    #[arg(long, default_value_t = 2_000)]
    units: u64,
    /// Short-lived processes in them
    #[arg(long, default_value_t = 10_000)]
    processes: u64,
}

/// The agent's memory may grow by this between the second quarter and the last.
const GROWTH_BYTES: f64 = 1_048_576.0;
/// Hash maps whose entries go with what they stamp.
const STAMPS: &[&str] = &["RECLAIMING"];
/// After the last unit is gone, its slot is given back within this.
const SETTLE: Duration = Duration::from_secs(15);

/// What is looked at again and again.
struct Sample {
    pss: f64,
    maps: f64,
    slots: f64,
}

pub(super) fn run(args: &Args, stop: &Stop) -> Result<()> {
    ensure!(args.units > 0 && args.minutes > 0, "nothing to do");
    let programs = Programs::build("release")?;
    let mut stack = Stack::start(&programs, Ports::Any, &[], stop)?;
    let time = Duration::from_secs(60 * args.minutes);
    let processes = (args.processes / args.units).max(1);
    eprintln!("{} units with {processes} processes each, over {time:?}", args.units);

    let start = BootTime::now();
    let mut samples = vec![sample(&stack)?];
    for number in 0..args.units {
        let due = time.mul_f64(number as f64 / args.units as f64);
        let early = due.saturating_sub(BootTime::now().since(start));
        if stop.wait(early) {
            bail!("stopped after {number} units");
        }
        churn::live(number, processes)?;
        if number % (args.units / 60).max(1) == 0 {
            stack.check()?;
            samples.push(sample(&stack)?);
            eprintln!(
                "{number} units, {:.1} MiB, {} slots",
                last(&samples).pss / 1_048_576.0,
                last(&samples).slots
            );
        }
    }
    if stop.wait(SETTLE) {
        bail!("stopped");
    }
    samples.push(sample(&stack)?);
    judge(&stack, &samples, args)
}

fn last(samples: &[Sample]) -> &Sample {
    // There is one from before the first unit.
    &samples[samples.len() - 1]
}

fn sample(stack: &Stack) -> Result<Sample> {
    let probes = stack.ask(&["local", "probes"])?;
    let number = |name: &str| probes[name].as_f64().with_context(|| format!("no {name}"));
    Ok(Sample {
        pss: pss(stack.agent.pid())? as f64,
        maps: number("map_bytes")?,
        slots: number("slots_used")?,
    })
}

fn judge(stack: &Stack, samples: &[Sample], args: &Args) -> Result<()> {
    let mut failed = Vec::new();
    let mut check = |what: String, good: bool| {
        println!("{:<4}{what}", if good { "ok" } else { "NO" });
        if !good {
            failed.push(what);
        }
    };
    let quarter = |n: usize| {
        let part = &samples[samples.len() * n / 4..samples.len() * (n + 1) / 4];
        median(part.iter().map(|sample| sample.pss).collect())
    };
    let growth = quarter(3) - quarter(1);
    check(format!("memory (PSS) grew by {:.0} KiB", growth / 1024.0), growth <= GROWTH_BYTES);
    let (first, end) = (&samples[0], last(samples));
    check(format!("maps take {} bytes, {} at first", end.maps, first.maps), end.maps == first.maps);
    // Other things may be started on this host meanwhile.
    check(
        format!("{} unit slots in use, {} at first", end.slots, first.slots),
        end.slots <= first.slots + 3.0,
    );

    let told = stack.ask(&["events", "--kind", "process.exit", "--limit", "100000"])?;
    let failures = rows(&told, "events")
        .filter(|event| event["message"].as_str().is_some_and(|m| m.contains("code 77")));
    let (mut named, mut unnamed) = (0, 0);
    for event in failures {
        match event["unit"].as_str() {
            Some(unit) if unit.starts_with(churn::PREFIX) => named += 1,
            Some(_) => {}
            None => unnamed += 1,
        }
    }
    let expected = args.units.div_ceil(4);
    check(
        format!("{named} of {expected} failures told with their unit, {unnamed} without one"),
        unnamed == 0 && named > 0,
    );

    let status = stack.ask(&["local", "status"])?;
    let losses: Vec<String> = rows(&status, "losses")
        .filter(|loss| loss["count"].as_u64().is_some_and(|count| count > 0))
        .map(|loss| format!("{} {}", loss["cause"].as_str().unwrap_or("?"), loss["count"]))
        .collect();
    let bad = losses
        .iter()
        .any(|loss| loss.contains("full") || loss.contains("refused") || loss.contains("slots"));
    check(
        format!("losses: {}", if losses.is_empty() { "none".into() } else { losses.join(", ") }),
        !bad,
    );

    for map in STAMPS {
        match entries(map)? {
            Some(left) => check(format!("{left} stamps left in {map}"), left == 0),
            None => println!("    {map} cannot be looked into: bpftool is not installed"),
        }
    }
    ensure!(failed.is_empty(), "{} of the checks failed", failed.len());
    Ok(())
}

fn rows<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer[name].as_array().or(answer.as_array()).into_iter().flatten()
}

/// Entries of the hash maps of this name, those of other agents on this host included;
/// `None` without bpftool.
fn entries(map: &str) -> Result<Option<usize>> {
    let Some(bpftool) = shell::find("bpftool") else { return Ok(None) };
    let json = shell::output(Command::new(bpftool).args(["-j", "map", "dump", "name", map]))?;
    let dumped: Value = serde_json::from_str(&json).context("bpftool printed no JSON")?;
    Ok(Some(dumped.as_array().map_or(0, Vec::len)))
}
