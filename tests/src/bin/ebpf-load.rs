//! Holds one program of the eBPF object loaded while somebody measures, for
//! `cargo xtask bench run-queue`.
//!
//! `ebpf-load NAME` loads only the program NAME, or several with commas in between
//! ("empty" is the one that does nothing; no name, none at all) and says `ready`. Then it reads words: `begin`
//! turns the kernel's accounting of programs on, for everybody on this host; `end`
//! turns it off and prints what the loaded programs cost, as JSON; `depth` and a number
//! sets how much detail they keep and says `set`. It ends with its standard input.

#![forbid(unsafe_code)]

use std::io::BufRead;

use anyhow::{Context, Result, anyhow, bail};
use holdfast_agent::host::Root;
use holdfast_agent::kernel::{Kernel, Measurement, Options};
use serde_json::json;

const EMPTY: &str = "empty";

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let kernel = load(&wanted)?;
    println!("ready");
    let mut measurement = None;
    for word in std::io::stdin().lock().lines() {
        match word?.as_str() {
            "begin" => {
                measurement = Some(kernel.measure().context("no accounting")?);
                println!("begun");
            }
            "end" => {
                let measurement = measurement.take().context("`end` without `begin`")?;
                println!("{}", costs(measurement, &kernel));
            }
            other => match other.strip_prefix("depth ").and_then(|depth| depth.parse().ok()) {
                Some(depth) => {
                    kernel.set_sched_depth(depth);
                    println!("set");
                }
                None => bail!("none of `begin`, `end` and `depth N`: {other}"),
            },
        }
    }
    Ok(())
}

/// Loads what is wanted and nothing else.
fn load(wanted: &str) -> Result<Kernel> {
    let start = |disabled| {
        let options = Options { disabled, ..Options::default() };
        Kernel::start(&options, &Root::default()).map_err(|error| anyhow!("{error}"))
    };
    // Loaded once with everything, to learn the names.
    let names = start(Vec::new())?.programs().iter().map(|p| p.name).collect::<Vec<_>>();
    let wanted: Vec<&str> = wanted.split(',').filter(|name| !name.is_empty()).collect();
    if let Some(name) = wanted.iter().find(|name| **name != EMPTY && !names.contains(*name)) {
        bail!("no program {name}; there are {}", names.join(", "));
    }
    let others = names.into_iter().filter(|name| !wanted.contains(name));
    let mut kernel = start(others.map(str::to_owned).collect())?;
    if wanted.contains(&EMPTY) {
        kernel.attach_empty()?;
    }
    Ok(kernel)
}

fn costs(measurement: Measurement, kernel: &Kernel) -> serde_json::Value {
    let costs = measurement.finish(kernel);
    let row = |cost: &holdfast_agent::kernel::ProgramCost| {
        json!({
            "name": cost.name,
            "events_per_second": cost.events_per_second,
            "ns_per_event": cost.ns_per_event,
        })
    };
    costs.iter().map(row).collect()
}
