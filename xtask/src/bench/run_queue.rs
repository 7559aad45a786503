//! What measuring the run queue costs whoever switches tasks.
//!
//! Two views of the same load, two threads that wake each other on one CPU: the
//! kernel's own accounting of eBPF programs, minus what it says of an empty one;
//! and the CPU time that the load itself needs, with and without the programs, in
//! runs next to each other. Other tools for the same purpose go through the same.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_core::clock;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Deserialize;

use super::peers::{self, Tracer};
use super::{Options, Row, median};
use crate::provoke::ping_pong;
use crate::shell;
use crate::stop::Stop;

/// Switches there and back; some tenths of a second.
const ROUNDS: u64 = 100_000;
/// Pairs of runs for programs that load in no time, and for tools that compile first.
const PAIRS: u64 = 16;
const PEER_PAIRS: u64 = 6;

/// Limits that we hold ourselves to.
const ADDED_PERCENT: f64 = 5.0;
const SHARE_OF_PEER: f64 = 0.25;

/// Programs of the object, by the names that its loader knows.
const OURS: &str = "sched_switch";
/// Depths of detail, in the order of their numbers.
const DEPTHS: [&str; 5] = ["full", "gated", "host", "sampled", "counters"];
const EMPTY: &str = "empty";

pub(super) fn run(_: &Options, stop: &Stop) -> Result<Vec<Row>> {
    let loader = build_loader()?;
    one_cpu()?;
    ping_pong(ROUNDS)?;

    eprintln!("accounting");
    let empty = Loaded::start(&loader, EMPTY)?.cost()?;
    let ours = Loaded::start(&loader, OURS)?.cost()?.net(&empty);
    let depths = at_depths(&loader, &empty)?;
    eprintln!("pairs of runs");
    let added_by = |program: &str| {
        added(PAIRS, stop, || Loaded::start(&loader, program))
            .with_context(|| format!("the pairs of {program}"))
    };
    let (added_ours, added_empty) = (added_by(OURS)?, added_by(EMPTY)?);
    let mut rows = vec![
        Row::new("accounting of an empty program", empty.ns_per_run(), "ns/run"),
        Row::new("ours, net", ours, "ns/switch"),
        Row::new("ours, CPU time added to a ping-pong", added_ours, "%").at_most(ADDED_PERCENT),
        Row::new("empty, CPU time added to a ping-pong", added_empty, "%"),
    ];
    rows.extend(depths);
    for (i, tool) in Tracer::ALL.iter().enumerate() {
        eprintln!("{}", tool.name);
        if !tool.works(stop) {
            continue;
        }
        let net = {
            let _running = tool.start(stop)?;
            tool_cost(&loader)?.map(|cost| cost.net(&empty))
        };
        if let Some(net) = net {
            let mut ratio = Row::new(format!("net, ours / {}", tool.name), ours / net, "ratio");
            if i == 0 {
                ratio = ratio.at_most(SHARE_OF_PEER);
            }
            rows.push(Row::new(format!("{}, net", tool.name), net, "ns/switch"));
            rows.push(ratio);
        }
        let added = added(PEER_PAIRS, stop, || tool.start(stop))?;
        let name = format!("{}, CPU time added to a ping-pong", tool.name);
        rows.push(Row::new(name, added, "%"));
    }
    Ok(rows)
}

/// What our program costs at each depth of detail.
fn at_depths(loader: &PathBuf, empty: &Cost) -> Result<Vec<Row>> {
    let mut loaded = Loaded::start(loader, OURS)?;
    let mut rows = Vec::new();
    for (depth, name) in DEPTHS.iter().enumerate() {
        loaded.say(&format!("depth {depth}"))?;
        ensure!(loaded.line()? == "set", "the depth cannot be set");
        let net = loaded.cost()?.net(empty);
        rows.push(Row::new(format!("ours at depth {name}, net"), net, "ns/switch"));
    }
    Ok(rows)
}

/// Both threads share a CPU, so that each turn is exactly one switch.
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

/// What the kernel accounted to one or more programs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Cost {
    time_ns: f64,
    runs: f64,
    /// Runs of the program at the switch itself.
    switches: f64,
}

impl Cost {
    fn ns_per_run(&self) -> f64 {
        self.time_ns / self.runs
    }

    /// Time per switch, without what the accounting adds to each run.
    fn net(&self, empty: &Self) -> f64 {
        (self.time_ns - self.runs * empty.ns_per_run()) / self.switches
    }

    fn minus(self, before: Self) -> Self {
        Self {
            time_ns: self.time_ns - before.time_ns,
            runs: self.runs - before.runs,
            switches: self.switches - before.switches,
        }
    }
}

/// What the loader tells of a program.
#[derive(Deserialize)]
struct Told {
    name: String,
    events_per_second: f64,
    ns_per_event: f64,
}

/// A process that holds programs of ours loaded. Its end unloads them.
struct Loaded {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Loaded {
    /// Loads only `program`; nothing when it is empty, for the accounting alone.
    fn start(loader: &PathBuf, program: &str) -> Result<Self> {
        let mut child = Command::new(loader)
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the loader")?;
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut loaded = Self { child, to, from };
        let line = loaded.line()?;
        ensure!(line == "ready", "{program} cannot be loaded: {line}");
        Ok(loaded)
    }

    /// The cost of the loaded programs under one load.
    fn cost(&mut self) -> Result<Cost> {
        let told = self.account(|| ping_pong(ROUNDS))?;
        let mut cost = Cost::default();
        for told in told {
            cost.time_ns += told.events_per_second * told.ns_per_event;
            cost.runs += told.events_per_second;
            if told.name.starts_with(OURS) || told.name == EMPTY {
                cost.switches += told.events_per_second;
            }
        }
        ensure!(cost.switches > 0.0, "the programs did not run");
        Ok(cost)
    }

    /// Does `work` while the kernel accounts all programs on this host.
    fn account(&mut self, work: impl FnOnce() -> Result<()>) -> Result<Vec<Told>> {
        self.say("begin")?;
        ensure!(self.line()? == "begun", "the kernel's accounting cannot be turned on");
        work()?;
        self.say("end")?;
        serde_json::from_str(&self.line()?).context("the loader told something else")
    }

    fn say(&mut self, word: &str) -> Result<()> {
        let to = self.to.as_mut().context("no pipe")?;
        writeln!(to, "{word}").context("the loader is gone")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line).context("the loader is gone")?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // It ends when there is no more to read.
        self.to = None;
        let _already_gone = self.child.wait();
    }
}

/// Cost under one load of the sched programs of another tool, which must be
/// running; `None` without bpftool.
fn tool_cost(loader: &PathBuf) -> Result<Option<Cost>> {
    let Some(bpftool) = shell::find("bpftool") else {
        peers::missing("bpftool", "bpftool");
        return Ok(None);
    };
    let mut accounting = Loaded::start(loader, "")?;
    let mut cost = Cost::default();
    accounting.account(|| {
        let before = read_costs(&bpftool)?;
        ping_pong(ROUNDS)?;
        cost = read_costs(&bpftool)?.minus(before);
        Ok(())
    })?;
    Ok(Some(cost).filter(|cost| cost.switches > 0.0))
}

/// A program, as `bpftool -j prog show` tells it.
#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    name: String,
    #[serde(default)]
    run_time_ns: u64,
    #[serde(default)]
    run_cnt: u64,
}

/// Sum over the loaded programs whose names say that they watch the scheduler.
fn read_costs(bpftool: &PathBuf) -> Result<Cost> {
    let json = shell::output(Command::new(bpftool).args(["-j", "prog", "show"]))?;
    sum_costs(&json)
}

fn sum_costs(json: &str) -> Result<Cost> {
    let shown: Vec<Shown> = serde_json::from_str(json).context("bpftool printed no JSON")?;
    let mut cost = Cost::default();
    for program in shown.iter().filter(|program| program.name.contains("sched_")) {
        cost.time_ns += program.run_time_ns as f64;
        cost.runs += program.run_cnt as f64;
        // The kernel cuts names after 15 characters.
        if program.name.contains("sched_s") {
            cost.switches += program.run_cnt as f64;
        }
    }
    Ok(cost)
}

/// The small program beside the tests that loads what it is told to.
fn build_loader() -> Result<PathBuf> {
    let name = "ebpf-load";
    shell::run(&mut shell::cargo([
        "build",
        "--profile",
        "release",
        "-p",
        "holdfast-tests",
        "--bin",
        name,
    ])?)?;
    Ok(shell::target_dir()?.join("release").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounting_itself_is_taken_off() {
        let empty = Cost { time_ns: 500.0, runs: 10.0, switches: 10.0 };
        // Two programs, both run at each switch.
        let tool = Cost { time_ns: 3000.0, runs: 20.0, switches: 10.0 };
        assert_eq!(tool.net(&empty), 200.0);
    }

    #[test]
    fn only_programs_at_the_scheduler_count() {
        let json = r#"[{"name":"raw_tp__sched_s","run_time_ns":100,"run_cnt":2},
                       {"name":"sched_wakeup","run_time_ns":50,"run_cnt":1},
                       {"name":"other","run_time_ns":7,"run_cnt":7},{"type":"x"}]"#;
        let cost = sum_costs(json).unwrap();
        assert_eq!(cost, Cost { time_ns: 150.0, runs: 3.0, switches: 2.0 });
    }
}
