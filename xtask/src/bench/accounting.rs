//! What the kernel itself accounts to eBPF programs, ours and those of others,
//! under a load that the measurement chooses.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::peers;
use crate::shell;

/// The program that does nothing.
pub(crate) const EMPTY: &str = "empty";

/// Time and runs of one or more programs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    pub(crate) time_ns: f64,
    pub(crate) runs: f64,
}

impl Cost {
    /// Mean time of a run, the accounting included.
    pub(crate) fn ns_per_run(&self) -> f64 {
        self.time_ns / self.runs
    }

    /// Time for each of `events` (context switches, requests), without what the
    /// accounting adds to each run.
    pub(crate) fn net(&self, empty: &Self, events: f64) -> f64 {
        (self.time_ns - self.runs * empty.ns_per_run()) / events
    }

    fn minus(self, before: Self) -> Self {
        Self { time_ns: self.time_ns - before.time_ns, runs: self.runs - before.runs }
    }
}

/// What the loader tells of a program.
#[derive(Deserialize)]
struct Told {
    runs: f64,
    time_ns: f64,
}

/// A process that holds programs of ours loaded. Its end unloads them.
pub(crate) struct Loaded {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Loaded {
    /// Loads only `programs`; none, for the accounting alone; `all` for all.
    pub(crate) fn start(loader: &Path, programs: &[&str]) -> Result<Self> {
        let mut child = Command::new(loader)
            .args(programs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the loader")?;
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut loaded = Self { child, to, from };
        let line = loaded.line()?;
        ensure!(line == "ready", "{} cannot be loaded: {line}", programs.join(", "));
        Ok(loaded)
    }

    /// What the loaded programs cost while `work` is done.
    pub(crate) fn cost(&mut self, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
        let told = self.account(work)?;
        let cost = told.iter().fold(Cost::default(), |sum, told| Cost {
            time_ns: sum.time_ns + told.time_ns,
            runs: sum.runs + told.runs,
        });
        ensure!(cost.runs > 0.0, "the programs did not run");
        Ok(cost)
    }

    /// What the loaded programs have counted so far.
    pub(crate) fn counts(&mut self) -> Result<Value> {
        self.say("counts")?;
        serde_json::from_str(&self.line()?).context("the loader told something else")
    }

    /// Sets how much detail the scheduler's program keeps, by number.
    pub(crate) fn set_depth(&mut self, depth: usize) -> Result<()> {
        self.say(&format!("depth {depth}"))?;
        ensure!(self.line()? == "set", "the depth cannot be set");
        Ok(())
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

/// What programs of another tool, which must be running, cost while `work` is done:
/// those whose names hold `part`. `None` without bpftool, or when none ran.
pub(crate) fn tool_cost(
    loader: &Path,
    part: &str,
    work: impl FnOnce() -> Result<()>,
) -> Result<Option<Cost>> {
    let Some(bpftool) = shell::find("bpftool") else {
        peers::missing("bpftool", "bpftool");
        return Ok(None);
    };
    let mut accounting = Loaded::start(loader, &[])?;
    let mut cost = Cost::default();
    accounting.account(|| {
        let before = read_costs(&bpftool, part)?;
        work()?;
        cost = read_costs(&bpftool, part)?.minus(before);
        Ok(())
    })?;
    Ok(Some(cost).filter(|cost| cost.runs > 0.0))
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

/// Sum over the loaded programs whose names hold `part`.
fn read_costs(bpftool: &PathBuf, part: &str) -> Result<Cost> {
    let json = shell::output(Command::new(bpftool).args(["-j", "prog", "show"]))?;
    sum_costs(&json, part)
}

fn sum_costs(json: &str, part: &str) -> Result<Cost> {
    let shown: Vec<Shown> = serde_json::from_str(json).context("bpftool printed no JSON")?;
    let ours = shown.iter().filter(|program| program.name.contains(part));
    Ok(ours.fold(Cost::default(), |sum, program| Cost {
        time_ns: sum.time_ns + program.run_time_ns as f64,
        runs: sum.runs + program.run_cnt as f64,
    }))
}

/// The small program beside the tests that loads what it is told to.
pub(crate) fn build_loader() -> Result<PathBuf> {
    let name = "ebpf-load";
    let profile = ["build", "--profile", "release"];
    let package = ["-p", "holdfast-tests", "--bin", name];
    shell::run(&mut shell::cargo(profile.iter().chain(&package))?)?;
    Ok(shell::target_dir()?.join("release").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounting_itself_is_taken_off() {
        let empty = Cost { time_ns: 500.0, runs: 10.0 };
        // Two programs, both run at each of ten switches.
        let tool = Cost { time_ns: 3000.0, runs: 20.0 };
        assert_eq!(tool.net(&empty, 10.0), 200.0);
    }

    #[test]
    fn only_programs_of_the_wanted_kind_count() {
        let json = r#"[{"name":"raw_tp__sched_s","run_time_ns":100,"run_cnt":2},
                       {"name":"sched_wakeup","run_time_ns":50,"run_cnt":1},
                       {"name":"other","run_time_ns":7,"run_cnt":7},{"type":"x"}]"#;
        let cost = sum_costs(json, "sched_").unwrap();
        assert_eq!(cost, Cost { time_ns: 150.0, runs: 3.0 });
    }
}
