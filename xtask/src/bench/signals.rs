//! Whether our numbers are those of tools that others trust: both watch the same load
//! at the same time.
//!
//! Counts shall be within two percent, and medians and 99 % quantiles at most one
//! bucket of the tool's apart. Tools that count in powers of two of a microsecond set
//! that grid for both.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_core::clock::BootTime;
use serde_json::Value;
use tempfile::TempDir;

use super::accounting::{self, Loaded};
use super::{Options, Row, peers};
use crate::cgroup::Cgroup;
use crate::leash::Leashed;
use crate::provoke::{self, Load, Writer};
use crate::shell;
use crate::stop::Stop;

/// How long a tool records. The load has to be over by then.
const SECONDS: u64 = 12;
/// How long the load lasts, where it goes by time.
const LOAD: Duration = Duration::from_secs(6);
const WRITES: u64 = 3_000;
const OOM_KILLS: u32 = 3;

/// Limits that we hold ourselves to.
const COUNT_PERCENT: f64 = 2.0;
const BUCKETS_APART: f64 = 1.0;

/// A signal that a tool has, too.
struct Comparison {
    /// What the rows call it, and its name among the loader's counts.
    name: &'static str,
    signal: &'static str,
    tool: &'static str,
    package: &'static str,
    /// What the tool is asked; `SECONDS` stands for the number.
    arguments: &'static [&'static str],
    load: fn(&Path) -> Result<()>,
}

const COMPARISONS: &[Comparison] = &[
    Comparison {
        name: "run-queue latency",
        signal: "run_queue",
        tool: "runqlat",
        package: "libbpf-tools",
        arguments: &["SECONDS", "1"],
        load: |_| provoke::compete(LOAD),
    },
    Comparison {
        name: "block latency",
        signal: "block",
        tool: "biolatency",
        package: "libbpf-tools",
        // By flags, because it sees flushes only where there is no I/O scheduler.
        arguments: &["-Q", "-F", "SECONDS", "1"],
        load: |scratch| Writer::create(scratch)?.write(WRITES),
    },
    Comparison {
        name: "retransmits",
        signal: "retransmits",
        tool: "bpftrace",
        package: "bpftrace",
        arguments: &[
            "-e",
            "BEGIN { printf(\"Tracing\\n\"); } tracepoint:tcp:tcp_retransmit_skb { @ = count(); } interval:s:SECONDS { exit(); }",
        ],
        load: |_| provoke::slow_connects(LOAD),
    },
    Comparison {
        name: "OOM kills",
        signal: "oom_kills",
        tool: "bpftrace",
        package: "bpftrace",
        arguments: &[
            "-e",
            "BEGIN { printf(\"Tracing\\n\"); } tracepoint:oom:mark_victim { @ = count(); } interval:s:SECONDS { exit(); }",
        ],
        load: oom_kills,
    },
];

pub(super) fn run(_: &Options, stop: &Stop) -> Result<Vec<Row>> {
    let loader = accounting::build_loader()?;
    let scratch = TempDir::with_prefix_in("holdfast-bench-", shell::target_dir()?)
        .context("no temporary folder")?;
    let mut ours = Loaded::start(&loader, &["all"])?;
    let mut rows = Vec::new();
    for comparison in COMPARISONS {
        eprintln!("{} beside {}", comparison.name, comparison.tool);
        if shell::find(comparison.tool).is_none() {
            peers::missing(comparison.tool, comparison.package);
            continue;
        }
        let compared = comparison.run(&mut ours, scratch.path(), stop);
        rows.extend(compared.with_context(|| format!("{} cannot be compared", comparison.name))?);
    }
    Ok(rows)
}

impl Comparison {
    fn run(&self, ours: &mut Loaded, scratch: &Path, stop: &Stop) -> Result<Vec<Row>> {
        let program = shell::find(self.tool).context("the tool is gone")?;
        let log = scratch.join("log");
        let env = shell::find("env").context("no program env")?;
        let mut arguments: Vec<OsString> = ["stdbuf", "-oL"].map(OsString::from).to_vec();
        arguments.push(program.into_os_string());
        let seconds = SECONDS.to_string();
        arguments.extend(self.arguments.iter().map(|a| a.replace("SECONDS", &seconds).into()));
        let mut tool = Leashed::start(&env, arguments, &[], Some(&log))?;
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let start = BootTime::now();
        while !said().contains("Tracing") {
            tool.check().with_context(said)?;
            ensure!(!stop.wait(Duration::from_millis(50)), "stopped");
            ensure!(BootTime::now().since(start) < Duration::from_secs(60), "it does not trace");
        }
        // It says so just before the last program is attached.
        ensure!(!stop.wait(Duration::from_secs(1)), "stopped");
        let before = ours.counts()?[self.signal].clone();
        (self.load)(scratch)?;
        // Ended or not: what it printed counts, and it prints at its end only.
        while tool.check().is_ok() {
            ensure!(!stop.wait(Duration::from_millis(50)), "stopped");
        }
        let after = ours.counts()?[self.signal].clone();
        self.rows(&before, &after, &said())
    }

    fn rows(&self, before: &Value, after: &Value, said: &str) -> Result<Vec<Row>> {
        let percent = |ours: f64, theirs: f64| 100.0 * (ours / theirs - 1.0).abs();
        let count_rows = |ours: f64, theirs: f64| {
            let name = |what: &str| format!("{}, {what}", self.name);
            vec![
                Row::new(name("counted by us"), ours, "events"),
                Row::new(name(&format!("counted by {}", self.tool)), theirs, "events"),
                Row::new(name("counts apart"), percent(ours, theirs), "%").at_most(COUNT_PERCENT),
            ]
        };
        if let (Some(before), Some(after)) = (before.as_f64(), after.as_f64()) {
            let theirs = said.lines().find_map(|line| line.strip_prefix("@: ")?.parse().ok());
            return Ok(count_rows(after - before, theirs.context("the tool counted nothing")?));
        }
        let ours = gained(before, after);
        let theirs = parse(said);
        let total = |rows: &[(u64, f64)]| rows.iter().map(|row| row.1).sum::<f64>();
        ensure!(total(&theirs) > 500.0, "{} saw next to nothing: {said}", self.tool);
        let mut rows = count_rows(total(&ours), total(&theirs));
        for (name, q) in [("median", 0.5), ("p99", 0.99)] {
            let (ours, theirs) = (octave(&ours, q), octave(&theirs, q));
            let apart = (ours - theirs).abs();
            let value = |who: &str, octave: f64| {
                Row::new(format!("{}, {name} by {who}, from", self.name), octave.exp2(), "µs")
            };
            rows.push(value("us", ours));
            rows.push(value(self.tool, theirs));
            let name = format!("{}, {name}, buckets apart", self.name);
            rows.push(Row::new(name, apart, "buckets").at_most(BUCKETS_APART));
        }
        Ok(rows)
    }
}

/// What was counted between two readings: lowest value of a bucket in microseconds, count.
fn gained(before: &Value, after: &Value) -> Vec<(u64, f64)> {
    let pairs = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let number = |pair: &Value, n: usize| pair[n].as_f64().unwrap_or(0.0);
    let both = pairs(before).into_iter().zip(pairs(after));
    both.map(|(before, after)| {
        ((number(&after, 0) / 1e3) as u64, number(&after, 1) - number(&before, 1))
    })
    .collect()
}

/// Rows of a tool's tables, added up: lowest value in microseconds, count. Flushes are
/// left out, as they are in our count.
fn parse(tables: &str) -> Vec<(u64, f64)> {
    let row = |line: &str| -> Option<(u64, f64)> {
        let (range, rest) = line.split_once(':')?;
        let (low, _) = range.split_once("->")?;
        Some((low.trim().parse().ok()?, rest.split('|').next()?.trim().parse().ok()?))
    };
    let (mut rows, mut flush) = (BTreeMap::new(), false);
    for line in tables.lines() {
        if let Some(flags) = line.strip_prefix("flags = ") {
            flush = flags.ends_with("Flush");
        } else if let Some((low, count)) = row(line).filter(|_| !flush) {
            *rows.entry(low).or_default() += count;
        }
    }
    rows.into_iter().collect()
}

/// The power of two, in microseconds, in which quantile `q` lies.
fn octave(rows: &[(u64, f64)], q: f64) -> f64 {
    let wanted = q * rows.iter().map(|row| row.1).sum::<f64>();
    let mut seen = 0.0;
    let holds = rows.iter().find(|row| {
        seen += row.1;
        seen >= wanted
    });
    // The tools' first row is 0 to 1.
    holds.map_or(f64::NAN, |row| f64::from(row.0.max(1).ilog2()))
}

/// Processes that outgrow their memory limit, one after the other.
fn oom_kills(scratch: &Path) -> Result<()> {
    let mut cgroup = Cgroup::create(Load::Oom.unit())?;
    let limit = Load::Oom.memory_limit().context("a load without a limit")?;
    cgroup.limit_memory(limit)?;
    for _ in 0..OOM_KILLS {
        let arguments = ["provoke", "oom-victim", "--scratch"].map(OsString::from);
        let arguments = arguments.into_iter().chain([scratch.into()]);
        let program = Path::new(shell::OURSELVES);
        let mut victim = Leashed::start(program, arguments, &cgroup.folders(), None)?;
        while victim.check().is_ok() {
            thread::park_timeout(Duration::from_millis(20));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_quantiles() {
        let table = "     usecs               : count    distribution\n         0 -> 1          : 7        |**  |\n         8 -> 15         : 3        |*|\n";
        let rows = parse(table);
        assert_eq!(rows, [(0, 7.0), (8, 3.0)]);
        let by_flags = format!("flags = Sync-Write\n{table}flags = Flush\n{table}");
        assert_eq!(parse(&format!("{by_flags}flags = Read\n{table}")), [(0, 14.0), (8, 6.0)]);
        assert_eq!((octave(&rows, 0.5), octave(&rows, 0.99)), (0.0, 3.0));
        assert!(octave(&[], 0.5).is_nan());
    }

    #[test]
    fn counts_that_differ_are_shown() {
        let rows = COMPARISONS.iter().find(|c| c.signal == "retransmits").unwrap();
        let rows = rows.rows(&5.into(), &105.into(), "Tracing\n@: 90\n").unwrap();
        assert!(rows.last().is_some_and(|row| row.ok == Some(false)), "{rows:?}");
    }
}
