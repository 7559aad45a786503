//! Neighbours on one CPU: who keeps whom waiting.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};
use holdfast_agent::blame::{Blame, Bounds, CpuSource, LONGEST, Resource};
use holdfast_agent::frame::Row;
use holdfast_core::clock::BootTime;
use holdfast_tests::{Agent, Unit, process, wait};
use serde_json::Value;

use crate::rig::Rig;
use crate::role;

const VICTIM: usize = 1;
const AGGRESSOR: usize = 2;
/// On another CPU: it wants as much, and harms nobody here.
const BYSTANDER: usize = 3;
const UNITS: usize = 4;
const RUNS: usize = 3;

#[test]
fn who_spins_on_the_victims_cpu_is_blamed() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let kernel = &rig.kernel;
    let cpus = available_parallelism()?.get();
    for run in 0..RUNS {
        let units = ["victim", "aggressor", "bystander"].map(Unit::create);
        let units: Vec<Unit> = units.into_iter().collect::<Result<_>>()?;
        for (place, unit) in units.iter().enumerate() {
            kernel.assign_unit(fs::metadata(unit.folder())?.ino(), place + 1)?;
        }
        let waited = || (0..cpus).map(|cpu| kernel.used(cpu, VICTIM).waited_ns).sum::<u64>();
        let charged = || (0..UNITS).map(|culprit| kernel.charged_ns(VICTIM, culprit));
        let (waited_before, idle_before) = (waited(), kernel.idle_ns(VICTIM));
        let charged_before: Vec<u64> = charged().collect();
        let bounds =
            Bounds { units: UNITS, cpus, rows: kernel.preempt().rows().min(UNITS), devices: 1 };
        let mut blame = Blame::new(bounds, BootTime::now());
        // What was there before this run is not divided.
        blame.cpu(&kernel);
        blame.begin(BootTime::now(), &vec![Row { generation: 1, ..Row::default() }; UNITS]);

        let (cpu, elsewhere) = (run % cpus, (run + 1) % cpus);
        let loads =
            [format!("doze {cpu} 2"), format!("spin {cpu} 2"), format!("spin {elsewhere} 2")];
        let loads = loads.iter().take(if cpus > 1 { 3 } else { 2 });
        let players = units.iter().zip(loads).map(|(unit, load)| role::start(unit, None, load));
        for mut player in players.collect::<Result<Vec<_>>>()? {
            ensure!(player.wait()?.success(), "a load has failed");
        }

        blame.cpu(&kernel);
        let sum = blame.culprits(Resource::Cpu, VICTIM, LONGEST);
        let first = sum.culprits.iter().find(|(slot, _)| ![0, VICTIM].contains(slot));
        ensure!(first.is_some_and(|(slot, _)| *slot == AGGRESSOR), "{sum:?}");

        // Not an estimate: the kernel side has charged the very waits, and nobody who
        // was on another CPU.
        let waited = (waited() - waited_before) as f64;
        let idle = (kernel.idle_ns(VICTIM) - idle_before) as f64;
        let gained: Vec<f64> =
            charged().zip(charged_before).map(|(now, before)| (now - before) as f64).collect();
        let all = gained.iter().sum::<f64>() + idle;
        ensure!(waited > 1e8, "the victim waited only {waited} ns");
        ensure!(all > 0.9 * waited && all <= 1.01 * waited, "{all} of {waited} ns are charged");
        ensure!(gained[AGGRESSOR] > gained[VICTIM], "{gained:?}");
        if cpus > 1 {
            ensure!(gained[BYSTANDER] < 0.01 * waited, "{gained:?}");
        }
        let divided: f64 = sum.culprits.iter().map(|(_, ns)| ns).sum();
        ensure!((divided + idle - waited).abs() < 0.05 * waited, "{divided} + {idle} of {waited}");
    }
    Ok(())
}

#[tokio::test]
async fn a_person_asks_for_the_culprits() -> Result<()> {
    let Some(_alone) = Rig::start()? else { return Ok(()) };
    let agent = Agent::start("blamed", "").await?;
    let (unit, other) = (Unit::create("asked-about")?, Unit::create("spins")?);
    let loads = [role::start(&unit, None, "doze 0 4"), role::start(&other, None, "spin 0 4")];
    let ask = |unit: &str| {
        let socket = agent.socket().to_string_lossy().into_owned();
        process::answer("holdfast", &["--json", "--socket", &socket, "blame", unit])
    };
    // Known without its ending, too.
    let short = unit.name.strip_suffix(".service").context("an odd name")?;
    wait::until("the neighbour is blamed", async || {
        let answer: Value = serde_json::from_str(&ask(short)?.stdout).unwrap_or_default();
        let culprits = answer.pointer("/resources/0/culprits").and_then(Value::as_array);
        let mut culprits = culprits.into_iter().flatten();
        Ok(culprits.any(|c| c["unit"] == *other.name && c["itself"] == false).then_some(()))
    })
    .await?;
    for load in loads {
        ensure!(load?.wait()?.success(), "a load has failed");
    }

    let wrong = ask(&unit.name.replace("asked", "akse"))?;
    ensure!(wrong.code == Some(1), "{:?}", wrong.code);
    let nearest = format!("the nearest is `{}`", unit.name);
    ensure!(wrong.stderr.contains(&nearest), "{}", wrong.stderr);
    Ok(())
}
