//! `cargo xtask ci`: everything that has to hold before a change is taken.
//!
//! All steps run even when one fails, so that one run shows everything that is
//! wrong. Each can be run by itself as it is printed.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_core::clock::BootTime;
use serde_json::Value;

use crate::{docs, shell, test, tidy, tools};

/// Which steps.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these steps, by name
    #[arg(value_name = "STEP")]
    only: Vec<String>,
}

/// A step: its name and what it does.
type Step = (&'static str, fn() -> Result<()>);

/// In this order: what fails quickly comes first.
const STEPS: &[Step] = &[
    ("format", format),
    ("tidy", || tidy::run(&tidy::Args {})),
    ("deny", deny),
    ("clippy", clippy),
    ("rustdoc", rustdoc),
    ("ebpf", ebpf),
    ("test", || test::run(&test::Args::default())),
    ("docs", || docs::run(&docs::Args { check: true })),
    ("demo", demo),
    ("hosts", hosts),
    ("healing", healing),
];

/// Runs the steps, prints how long each took, and fails if any failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    for name in &args.only {
        let names = || STEPS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        ensure!(STEPS.iter().any(|(n, _)| n == name), "no step {name}; there are {}", names());
    }
    let mut done = Vec::new();
    for (name, step) in STEPS {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        println!("\n=== {name}");
        let start = BootTime::now();
        let result = step();
        if let Err(error) = &result {
            println!("{name} failed: {error:#}");
        }
        done.push((name, BootTime::now().since(start), result.is_ok()));
    }

    println!();
    for (name, time, ok) in &done {
        let word = if *ok { "ok" } else { "FAILED" };
        println!("{name:<10}{:>8.1} s  {word}", time.as_secs_f64());
    }
    let all: Duration = done.iter().map(|(_, time, _)| *time).sum();
    println!("{:<10}{:>8.1} s", "all", all.as_secs_f64());
    let failed = done.iter().filter(|(_, _, ok)| !ok).count();
    if failed > 0 {
        bail!("{failed} of {} steps failed", done.len());
    }
    Ok(())
}

fn format() -> Result<()> {
    shell::run(&mut shell::cargo(["fmt", "--all", "--check"])?)
}

fn clippy() -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    shell::run(&mut shell::cargo(arguments)?)
}

/// Bans, licences and sources need no network; advisories would.
fn deny() -> Result<()> {
    let mut deny = Command::new(tools::CARGO_DENY.get()?);
    deny.current_dir(shell::root()?).args(["check", "bans", "licenses", "sources"]);
    shell::run(&mut deny)
}

/// What is built from the eBPF sources now passes the tests that use it. That the
/// shipped object is that of the sources is for `tidy` to say.
fn ebpf() -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let object = folder.path().join("holdfast.bpf.o");
    let mut build = Command::new(shell::OURSELVES);
    shell::run(build.args(["ebpf", "--out"]).arg(&object))?;
    test::run(&test::Args { object: Some(object), ..Default::default() })
}

fn rustdoc() -> Result<()> {
    let mut doc = shell::cargo(["doc", "--workspace", "--no-deps"])?;
    shell::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// A short demo in a process of its own, as a user runs it.
fn demo() -> Result<()> {
    let mut demo = Command::new(shell::OURSELVES);
    demo.args(["demo", "--seconds", "12", "--provoke", "all", "--json"]);
    let output = demo
        .stderr(Stdio::inherit())
        .stdin(Stdio::null())
        .output()
        .context("the demo cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the demo ended with {}; it printed {text}", output.status);
    check_report(&serde_json::from_str(&text).context("the demo printed no JSON")?)
}

/// Real units on such a host fall ill and are healed.
fn healing() -> Result<()> {
    shell::run(Command::new(shell::OURSELVES).arg("healing-test"))
}

/// The packages on a host with real systemd.
fn hosts() -> Result<()> {
    shell::run(Command::new(shell::OURSELVES).arg("hosts-test"))
}

/// Whom signals belong to.
const OWNERS: [&str; 5] = ["host", "unit", "device", "interface", "label"];

/// The report has the promised shape and says that every probe works, and why if
/// one works in part only.
fn check_report(report: &Value) -> Result<()> {
    let rows = |name: &str| {
        let rows = report.get(name).and_then(Value::as_array).filter(|rows| !rows.is_empty());
        rows.with_context(|| format!("the demo's report has no `{name}`"))
    };
    for probe in rows("probes")? {
        let partly = probe["state"] == "degraded" && probe["reason"].is_string();
        ensure!(probe["state"] == "active" || partly, "a probe does not work: {probe}");
    }
    for signal in rows("signals")? {
        let known = OWNERS.iter().any(|o| signal["owner"] == **o);
        let shaped = signal["name"].is_string() && known && signal["samples"].is_u64();
        ensure!(shaped, "a signal of the wrong shape: {signal}");
    }
    for field in ["cpu_seconds", "wall_seconds", "peak_rss_bytes", "map_bytes"] {
        ensure!(report["agent"][field].is_number(), "the demo's report has no agent.{field}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_checked() {
        let mut report = json!({
            "probes": [{ "name": "sched", "state": "active", "reason": null }],
            "signals": [{ "name": "a", "owner": "host", "unit": null, "samples": 3, "last": 1.0 }],
            "agent": { "cpu_seconds": 1, "wall_seconds": 1, "peak_rss_bytes": 1, "map_bytes": 1 },
        });
        check_report(&report).unwrap();
        report["probes"][0]["state"] = json!("off");
        assert!(check_report(&report).is_err());
    }
}
