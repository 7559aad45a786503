//! What the agent costs a host with many units: two hundred cgroups, each with a
//! process that wakes up ten times a second, read once a second.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use holdfast_core::clock::BootTime;

use super::{Options, Row, process};
use crate::cgroup::Cgroup;
use crate::leash::Leashed;
use crate::shell;
use crate::stack::{Ports, Programs, Stack};
use crate::stop::Stop;

const UNITS: usize = 200;
const DEFAULT_SECONDS: u64 = 30;
/// After this long, files are open, buffers have grown, and the units are scored.
const SETTLE: Duration = Duration::from_secs(150);
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Limits that we hold ourselves to.
const CPU_PERCENT: f64 = 1.0;
const PSS_MIB: f64 = 20.0;
const MAPS_MIB: f64 = 4.0;

pub(super) fn run(options: &Options, stop: &Stop) -> Result<Vec<Row>> {
    let programs = Programs::build("release")?;
    let _units: Vec<_> = (0..UNITS).map(unit).collect::<Result<_>>()?;
    let mut stack = Stack::start(&programs, Ports::Any, &[], stop)?;
    let seconds = options.seconds.unwrap_or(DEFAULT_SECONDS);
    eprintln!("settling, then measuring for {seconds} s");
    wait(SETTLE, &mut stack, stop)?;
    let (start, before) = (BootTime::now(), process::cpu_time(stack.agent.pid())?);
    wait(Duration::from_secs(seconds), &mut stack, stop)?;
    let wall = BootTime::now().since(start);
    let used = process::cpu_time(stack.agent.pid())?.saturating_sub(before);

    let probes = stack.ask(&["local", "probes"])?;
    let number = |name: &str| probes[name].as_f64().unwrap_or(f64::NAN);
    let share = 100.0 * used.as_secs_f64() / wall.as_secs_f64();
    let pss = process::pss(stack.agent.pid())? as f64 / MEBIBYTE;
    Ok(vec![
        Row::new("units with a slot", number("slots_used"), "units"),
        Row::new("agent, CPU of one core", share, "%").at_most(CPU_PERCENT),
        Row::new("agent, memory (PSS)", pss, "MiB").at_most(PSS_MIB),
        Row::new("agent, eBPF maps", number("map_bytes") / MEBIBYTE, "MiB").at_most(MAPS_MIB),
    ])
}

/// A unit and the process in it; the process goes first.
pub(super) fn unit(number: usize) -> Result<(Leashed, Cgroup)> {
    let cgroup = Cgroup::create(&format!("holdfast-bench-{number}.service"))?;
    let arguments = ["provoke", "wake", "--scratch", "/nonexistent"].map(OsString::from);
    let process = Leashed::start(Path::new(shell::OURSELVES), arguments, &cgroup.folders(), None)?;
    Ok((process, cgroup))
}

fn wait(time: Duration, stack: &mut Stack, stop: &Stop) -> Result<()> {
    if stop.wait(time) {
        bail!("stopped");
    }
    stack.check()
}
