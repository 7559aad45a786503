//! How good scores are: `holdfast score` over labelled data, judged by programs that are
//! not ours, and beside other detectors on the same files.
//!
//! The data is public (Numenta Anomaly Benchmark, Server Machine Dataset, Application
//! Server Dataset) and not part of the repository; neither are the judges. Nothing is
//! fitted here: the threshold is the shipped one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{Labelled, Options, Row};
use crate::shell;
use crate::stop::Stop;

/// A corpus of hosts with many metrics.
struct Corpus {
    name: &'static str,
    interval_seconds: &'static str,
    /// What the judge is told beside.
    judge: &'static [&'static str],
    /// VUS-PR, and recall of events at one and at a fifth of a false alarm a day.
    targets: [f64; 3],
}

const CORPORA: &[Corpus] = &[
    Corpus { name: "smd", interval_seconds: "60", judge: &[], targets: [0.52, 0.90, 0.68] },
    Corpus {
        name: "asd",
        interval_seconds: "300",
        judge: &["--rows-per-day", "288", "--vus-window", "20"],
        targets: [0.33, f64::NAN, 0.55],
    },
];

/// Targets on the Numenta benchmark: at the shipped threshold, and at the best in hindsight.
const NAB_SHIPPED: f64 = 60.0;
const NAB_HINDSIGHT: f64 = 65.0;
/// Twice the one that is promised.
const FALSE_PER_WEEK: f64 = 2.0;
const METRIC_NS: f64 = 100.0;
const METRIC_BYTES: f64 = 512.0;

pub(super) fn run(options: &Options, stop: &Stop) -> Result<Vec<Row>> {
    let mut rows = cost()?;
    rows.extend(promise()?);
    let Some(labelled) = &options.labelled else {
        eprintln!("accuracy is left out: it takes --data and --tools");
        return Ok(rows);
    };
    shell::run(&mut shell::cargo(["build", "--release", "-p", "holdfast-cli"])?)?;
    let bench = Bench {
        holdfast: shell::target_dir()?.join("release/holdfast"),
        labelled,
        scratch: TempDir::with_prefix("holdfast-bench-").context("no temporary folder")?,
    };
    rows.extend(bench.nab(None)?);
    for corpus in CORPORA {
        rows.extend(bench.hosts(corpus, None)?);
    }
    for corpus in CORPORA {
        rows.extend(bench.quiet(corpus)?);
    }
    for other in &labelled.beside {
        if stop.wait(std::time::Duration::ZERO) {
            bail!("stopped");
        }
        eprintln!("{other}");
        rows.extend(bench.nab(Some(other))?);
        for corpus in CORPORA {
            rows.extend(bench.hosts(corpus, Some(other))?);
        }
    }
    Ok(rows)
}

struct Bench<'a> {
    holdfast: PathBuf,
    labelled: &'a Labelled,
    scratch: TempDir,
}

impl Bench<'_> {
    fn nab(&self, other: Option<&str>) -> Result<Vec<Row>> {
        let (data, scores) = (self.labelled.data.join("nab"), self.scores("nab", other)?);
        match other {
            Some(method) => self.detect("nab", &scores, method, &data, &[])?,
            None => {
                for category in folders(&data)? {
                    let name = category.file_name().context("a folder without a name")?;
                    let out = scores.join(name);
                    fs::create_dir_all(&out)?;
                    let plain = self.unpack(&category)?;
                    let mut score = Command::new(&self.holdfast);
                    score.arg("score").arg("--out").arg(&out).args(files(plain.path())?);
                    // What is odd about the times of some files is known.
                    quietly(&mut score)?;
                }
            }
        }
        let threshold = self.threshold()?;
        let arguments = ["--threshold", &threshold, "--json", "--data"];
        let said = self.judge("nab_score.py", &scores, &arguments, Some(&data))?;
        let who = other.unwrap_or("ours");
        let mut rows = Vec::new();
        for profile in ["standard", "reward_low_FP_rate", "reward_low_FN_rate"] {
            let number = |kind: &str| said[format!("{kind} {profile}")]["nab"].as_f64();
            let row = |what: &str, value: Option<f64>| {
                let name = format!("nab, {who}, {profile}, {what}");
                Row::new(name, value.unwrap_or(f64::NAN), "points")
            };
            let (shipped, best) =
                (row("shipped", number("fixed")), row("in hindsight", number("optimised")));
            match (other, profile) {
                // The others have no threshold of their own.
                (Some(_), _) => rows.push(best),
                (None, "standard") => {
                    rows.extend([shipped.at_least(NAB_SHIPPED), best.at_least(NAB_HINDSIGHT)]);
                }
                (None, _) => rows.extend([shipped, best]),
            }
        }
        Ok(rows)
    }

    fn hosts(&self, corpus: &Corpus, other: Option<&str>) -> Result<Vec<Row>> {
        let data = self.labelled.data.join(corpus.name);
        let scores = self.scores(corpus.name, other)?;
        match other {
            Some(method) => {
                let rows_per_day: Vec<_> =
                    corpus.judge.iter().take(2).map(|argument| (*argument).to_owned()).collect();
                self.detect("smd", &scores, method, &data, &rows_per_day)?;
            }
            None => {
                for host in folders(&data)? {
                    let name = host.file_name().context("a folder without a name")?;
                    let plain = self.unpack(&host)?;
                    let mut score = Command::new(&self.holdfast);
                    let interval = format!("{}s", corpus.interval_seconds);
                    score.args(["score", "--interval", &interval, "--train"]);
                    score.arg(plain.path().join("train.csv")).arg("--out");
                    score.arg(scores.join(name).with_extension("csv"));
                    quietly(score.arg(plain.path().join("test.csv")))?;
                }
            }
        }
        let arguments: Vec<&str> =
            corpus.judge.iter().copied().chain(["--json", "--data"]).collect();
        let said = self.judge("smd_score.py", &scores, &arguments, Some(&data))?;
        let who = other.unwrap_or("ours");
        let row = |what: &str, value: &Value, unit| {
            let name = format!("{}, {who}, {what}", corpus.name);
            Row::new(name, value.as_f64().unwrap_or(f64::NAN), unit)
        };
        let target = |row: Row, target: f64| {
            if other.is_some() || target.is_nan() { row } else { row.at_least(target) }
        };
        let [vus, at_one, at_fifth] = corpus.targets;
        let mut rows = vec![
            target(row("VUS-PR", &said["vus_pr"], ""), vus),
            row("AUC-PR", &said["auc_pr"], ""),
            target(row("recall at 1 a day", &said["event_recall_at_1_false_per_day"], ""), at_one),
            target(
                row("recall at 0.2 a day", &said["event_recall_at_0.2_false_per_day"], ""),
                at_fifth,
            ),
        ];
        if other.is_none() {
            let own = &said["own"];
            rows.extend([
                row("recall as shipped", &own["event_recall"], ""),
                row("false alarms as shipped", &own["false_alarms_per_machine_day"], "1/day"),
                row("delay as shipped", &own["median_delay_rows"], "rows"),
            ]);
        }
        Ok(rows)
    }

    /// False alarms of hosts while nothing is known to happen to them.
    fn quiet(&self, corpus: &Corpus) -> Result<Vec<Row>> {
        let (mut weeks, mut told) = (0.0, 0.0);
        for host in folders(&self.labelled.data.join(corpus.name))? {
            let plain = self.unpack(&host)?;
            let table = |name: &str| plain.path().join(name).display().to_string();
            let label = host.join("label.csv").display().to_string();
            let said = example(
                "quiet",
                &[corpus.interval_seconds, &table("train.csv"), &table("test.csv"), &label],
            )?;
            let number =
                |key: &str| said[key].as_f64().with_context(|| format!("`quiet` tells no {key}"));
            weeks += number("weeks")?;
            told += number("told")?;
        }
        let row =
            |what: &str, value, unit| Row::new(format!("{}, {what}", corpus.name), value, unit);
        Ok(vec![
            row("time without a labelled event", weeks, "host-weeks"),
            row("episodes then, one a week promised", told / weeks, "1/week")
                .at_most(FALSE_PER_WEEK),
        ])
    }

    fn scores(&self, corpus: &str, other: Option<&str>) -> Result<PathBuf> {
        let folder = self.scratch.path().join(format!("{}-{corpus}", other.unwrap_or("ours")));
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn threshold(&self) -> Result<String> {
        let said = Command::new(&self.holdfast).args(["score", "--show-threshold"]).output()?;
        Ok(String::from_utf8(said.stdout)?.trim().to_owned())
    }

    /// Plain copies of a folder's packed tables.
    fn unpack(&self, folder: &Path) -> Result<TempDir> {
        let plain = TempDir::with_prefix_in("plain-", self.scratch.path())?;
        for packed in files(folder)? {
            let (Some(name), true) =
                (packed.file_stem(), packed.extension() == Some("gz".as_ref()))
            else {
                continue;
            };
            let file = File::create(plain.path().join(name))?;
            let mut unpack = Command::new("gzip");
            let status = unpack.arg("-dc").arg(&packed).stdout(file).status()?;
            ensure!(status.success(), "{} cannot be unpacked", packed.display());
        }
        Ok(plain)
    }

    /// Runs another detector.
    fn detect(
        &self,
        form: &str,
        scores: &Path,
        method: &str,
        data: &Path,
        arguments: &[String],
    ) -> Result<()> {
        let mut detect = self.python("baselines.py");
        detect.arg(form).arg(scores).args(["--method", method, "--data"]).arg(data);
        quietly(detect.args(arguments))
    }

    fn judge(
        &self,
        program: &str,
        scores: &Path,
        arguments: &[&str],
        data: Option<&Path>,
    ) -> Result<Value> {
        let mut judge = self.python(program);
        let output =
            judge.arg(scores).args(arguments).args(data).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{program} fails");
        serde_json::from_slice(&output.stdout).with_context(|| format!("{program} prints no JSON"))
    }

    fn python(&self, program: &str) -> Command {
        let mut command = Command::new(&self.labelled.python);
        // Nothing is written beside the programs, which may be read-only.
        let cache = self.scratch.path().join("cache");
        command.env("NUMBA_CACHE_DIR", cache).arg("-B").arg(self.labelled.tools.join(program));
        command
    }
}

/// What a sample costs, and what is remembered of a metric.
fn cost() -> Result<Vec<Row>> {
    let said = example("cost", &[])?;
    let row =
        |what: &str, key: &str, unit| Row::new(what, said[key].as_f64().unwrap_or(f64::NAN), unit);
    Ok(vec![
        row("a metric of a group, cost", "group_ns", "ns/sample").at_most(METRIC_NS),
        row("a metric of a group, cost with a forest", "group_with_forest_ns", "ns/sample")
            .at_most(METRIC_NS),
        row("a metric of a group, memory", "metric_bytes", "bytes").at_most(METRIC_BYTES),
        row("a metric of a group, memory with all", "group_bytes", "bytes"),
        row("a forest of 38 metrics, time to grow", "forest_ms", "ms"),
        row("a metric by itself, cost", "series_ns", "ns/sample"),
        row("a metric by itself, memory", "series_bytes", "bytes"),
    ])
}

/// False alarms where nothing ever happens.
fn promise() -> Result<Vec<Row>> {
    let said = example("promise", &[])?;
    let shapes = said.as_array().context("no list of shapes")?;
    let rows = shapes.iter().flat_map(|shape| {
        let row = |kind: &str, key: &str| {
            let name = shape["shape"].as_str().unwrap_or_default();
            let name = format!("nothing happens, {name}, {kind}");
            Row::new(name, shape[key].as_f64().unwrap_or(f64::NAN), "alarms/week")
        };
        [
            row("episodes, one a week promised", "episodes_per_week").at_most(FALSE_PER_WEEK),
            row("20 metrics, by the shipped threshold", "group_per_week"),
            row("a metric by itself", "series_per_week"),
        ]
    });
    Ok(rows.collect())
}

/// What an example of the scorer prints.
fn example(name: &str, arguments: &[&str]) -> Result<Value> {
    let run = ["run", "--release", "--quiet", "-p", "holdfast-scorer", "--example", name, "--"];
    let output = shell::cargo(run)?.args(arguments).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the example {name} of the scorer fails");
    serde_json::from_slice(&output.stdout).with_context(|| format!("{name} prints no JSON"))
}

fn quietly(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} fails: {said}");
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = read.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_file()).collect())
}
