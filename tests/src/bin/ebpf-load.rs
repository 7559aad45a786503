//! Holds programs of the eBPF object loaded while somebody measures, for
//! `cargo xtask bench`.
//!
//! `ebpf-load NAME...` loads only the programs named ("empty" is the one that does
//! nothing; "all" stands for all others; no name, none at all) and says `ready`.
//! Then it reads words: `begin` turns the kernel's accounting of programs on, for
//! everybody on this host; `end` turns it off and prints what the loaded programs
//! cost; `counts` prints what they have counted so far, all as one line of JSON;
//! `depth` and a number sets how much detail the scheduler's program keeps and says
//! `set`. It ends with its standard input.

#![forbid(unsafe_code)]

use std::io::BufRead;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, anyhow, bail};
use holdfast_agent::host::Root;
use holdfast_agent::kernel::cells::load as value;
use holdfast_agent::kernel::{Kernel, Measurement, Options};
use holdfast_agent_ebpf::cells::{BlockCell, Histogram, operation};
use holdfast_core::clock::BootTime;
use holdfast_proto::histogram::{BUCKETS, lower_bound};
use serde_json::json;

const EMPTY: &str = "empty";
const ALL: &str = "all";

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let kernel = load(&wanted)?;
    println!("ready");
    let mut measurement = None;
    for word in std::io::stdin().lock().lines() {
        match word?.as_str() {
            "begin" => {
                let accounting = kernel.measure().context("no accounting")?;
                measurement = Some((BootTime::now(), accounting));
                println!("begun");
            }
            "end" => {
                let (since, accounting) = measurement.take().context("`end` without `begin`")?;
                println!("{}", costs(since, accounting, &kernel));
            }
            "counts" => println!("{}", counts(&kernel)),
            other => match other.strip_prefix("depth ").and_then(|depth| depth.parse().ok()) {
                Some(depth) => {
                    kernel.set_sched_depth(depth);
                    println!("set");
                }
                None => bail!("none of `begin`, `end`, `counts` and `depth N`: {other}"),
            },
        }
    }
    Ok(())
}

/// Loads what is wanted and nothing else.
fn load(wanted: &[String]) -> Result<Kernel> {
    let start = |disabled| {
        let options = Options { disabled, ..Options::default() };
        Kernel::start(&options, &Root::default()).map_err(|error| anyhow!("{error}"))
    };
    if wanted == [ALL] {
        return start(Vec::new());
    }
    // Loaded once with everything, to learn the names.
    let names = start(Vec::new())?.programs().iter().map(|p| p.name).collect::<Vec<_>>();
    for name in wanted.iter().filter(|name| *name != EMPTY) {
        if !names.contains(&name.as_str()) {
            bail!("no program {name}; there are {}", names.join(", "));
        }
    }
    let others = names.into_iter().filter(|name| !wanted.iter().any(|wanted| wanted == name));
    let mut kernel = start(others.map(str::to_owned).collect())?;
    if wanted.iter().any(|name| name == EMPTY) {
        kernel.attach_empty()?;
    }
    Ok(kernel)
}

fn costs(since: BootTime, accounting: Measurement, kernel: &Kernel) -> serde_json::Value {
    let costs = accounting.finish(kernel);
    let seconds = BootTime::now().since(since).as_secs_f64();
    let row = |cost: &holdfast_agent::kernel::ProgramCost| {
        let runs = cost.events_per_second * seconds;
        json!({ "name": cost.name, "runs": runs, "time_ns": runs * cost.ns_per_event })
    };
    costs.iter().map(row).collect()
}

/// Distributions as pairs of a bucket's lower bound in nanoseconds and its count.
fn counts(kernel: &Kernel) -> serde_json::Value {
    let (sched, block) = (kernel.sched(), kernel.block());
    let sched = || (0..sched.rows()).flat_map(|row| sched.of_row(row));
    let block = (0..block.rows()).flat_map(|row| block.of_row(row));
    let tcp = (0..kernel.tcp().len()).filter_map(|row| kernel.tcp().get(row));
    let process = (0..kernel.process().len()).filter_map(|row| kernel.process().get(row));
    json!({
        "switches": sched().map(|cell| value(&cell.switches)).sum::<u64>(),
        "run_queue": distribution(sched().map(|cell| &cell.wait)),
        "block": distribution(block.flat_map(all_but_flushes)),
        "retransmits": tcp.map(|cell| value(&cell.retransmits)).sum::<u64>(),
        "oom_kills": process.map(|cell| value(&cell.oom_kills)).sum::<u64>(),
    })
}

fn all_but_flushes(cell: &BlockCell) -> impl Iterator<Item = &Histogram> {
    let kinds = cell.latency.iter().enumerate();
    kinds.filter(|(kind, _)| *kind != operation::FLUSH).map(|(_, histogram)| histogram)
}

fn distribution<'a>(cells: impl Iterator<Item = &'a Histogram>) -> Vec<(u64, u64)> {
    let mut counts: Vec<(u64, u64)> = (0..BUCKETS).map(|index| (lower_bound(index), 0)).collect();
    for cell in cells {
        for ((_, sum), count) in counts.iter_mut().zip(&cell.counts) {
            *sum += u64::from(count.load(Ordering::Relaxed));
        }
    }
    counts
}
