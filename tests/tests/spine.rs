//! The whole way of a signal: agent, collector, and the command line tool, as the
//! real programs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_proto::v1::{Event, FleetEvent};
use holdfast_tests::{Agent, Collector, Unit, need, process, wait};
use serde_json::Value;

/// The promise for a fact worth telling at once.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_host_is_up_and_its_series_grow() -> Result<()> {
    let collector = Collector::start().await?;
    let mut agent = Agent::start("spine-a", &collector.url()).await?;
    let info = collector.host_up("spine-a").await?;
    ensure!(info.cpus > 0 && info.memory_bytes > 0, "{info:?}");

    wait::until("three windows of a gauge and a counter", async || {
        for signal in ["cpu.load1", "cpu.context_switches"] {
            // Until the first summary the series is unknown.
            let series = collector.series("spine-a", signal, "").await.unwrap_or_default();
            if series.first().is_none_or(|series| series.point.len() < 3) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await?;

    let hosts = collector.holdfast(&["hosts"])?;
    ensure!(hosts.code == Some(0) && hosts.stdout.contains("UP"), "{}", hosts.stdout);
    let hosts = collector.holdfast(&["hosts", "--json"])?;
    let hosts: Value = serde_json::from_str(&hosts.stdout)?;
    ensure!(hosts[0]["host"] == "spine-a" && hosts[0]["state"] == "up", "{hosts}");

    agent.stop().await?;
    wait::until("the host is lost", async || {
        let hosts = collector.holdfast(&["hosts"])?;
        Ok(hosts.stdout.contains("LOST").then_some(()))
    })
    .await?;
    // It said Goodbye: nothing is wrong.
    let told =
        |kind| anyhow::Ok(collector.holdfast(&["events", "--kind", kind])?.stdout.contains(kind));
    wait::until("the host's stop is told", async || Ok(told("host.stopped")?.then_some(())))
        .await?;
    ensure!(!told("host.lost")?, "the host counts as lost, although its agent said Goodbye");
    Ok(())
}

#[tokio::test]
async fn a_crash_is_told_at_once_and_names_its_unit() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let _agent = Agent::start("spine-b", &collector.url()).await?;
    collector.host_up("spine-b").await?;

    // The cgroup is as young as can be, and gone before anyone asks.
    let unit = Unit::create("crash")?;
    unit.crash()?;
    unit.run("exit 7")?;
    unit.remove()?;
    let events = wait::within(AT_ONCE, "both events have arrived", async || {
        let events: Vec<Event> = ends(&collector.events("").await?, &unit.name);
        Ok((events.len() >= 2).then_some(events))
    })
    .await?;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    ensure!(kinds == ["process.signal", "process.exit"], "{events:?}");
    ensure!(events.iter().all(|event| event.message.contains("sh")), "{events:?}");
    let signal = &events.first().context("no event")?.message;
    ensure!(signal.contains("SIGSEGV"), "{signal}");
    Ok(())
}

#[tokio::test]
async fn a_unit_is_named_within_two_seconds_and_after_its_end() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let agent = Agent::start("spine-c", &collector.url()).await?;
    collector.host_up("spine-c").await?;

    let unit = Unit::create("busy")?;
    let mut busy = unit.start("while :; do :; done")?;
    wait::within(AT_ONCE, "CPU time under the unit's name", async || {
        let status = agent.local(&["status"])?;
        let values = status["values"].as_array().context("no values")?;
        let ours = |value: &&Value| {
            value["unit"] == unit.name.as_str() && value["signal"] == "cpu.on_cpu.time"
        };
        let used = values.iter().find(ours).and_then(|value| value["last"].as_f64());
        Ok(used.filter(|ns| *ns > 0.0))
    })
    .await?;
    busy.kill()?;
    busy.wait()?;
    unit.remove()?;
    wait::until("the unit is told to be gone", async || {
        let units = collector.holdfast(&["units", "--json"])?;
        let units: Value = serde_json::from_str(&units.stdout)?;
        let ours = |u: &&Value| u["unit"] == unit.name.as_str() && u["live"] == false;
        Ok(units.as_array().context("no list")?.iter().find(ours).map(|_| ()))
    })
    .await?;
    let series = collector.series("spine-c", "cpu.on_cpu.time", &unit.name).await?;
    ensure!(!series.is_empty(), "its series are forgotten");
    Ok(())
}

#[tokio::test]
async fn a_restarted_collector_misses_and_doubles_nothing() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let mut collector = Collector::start().await?;
    let agent = Agent::start("spine-d", &collector.url()).await?;
    collector.host_up("spine-d").await?;
    let unit = Unit::create("restart")?;
    let crash = |times: usize| (0..times).try_for_each(|_| unit.crash().map(drop));

    crash(3)?;
    wait::until("the first events", async || {
        Ok((ends(&collector.events("").await?, &unit.name).len() >= 3).then_some(()))
    })
    .await?;
    collector.stop().await?;
    crash(3)?;
    collector.start_again().await?;
    collector.host_up("spine-d").await?;
    crash(3)?;
    let what = "all events";
    wait::until(what, async || {
        Ok((ends(&collector.events("").await?, &unit.name).len() >= 9).then_some(()))
    })
    .await
    .with_context(|| agent.log())?;
    // A tenth would be a double: it would have come before a later event.
    let last = Unit::create("last")?;
    last.crash()?;
    wait::until("the last event", async || {
        Ok((!ends(&collector.events("").await?, &last.name).is_empty()).then_some(()))
    })
    .await?;
    let events = collector.events("").await?;
    let ours = ends(&events, &unit.name);
    ensure!(ours.len() == 9, "{} events of nine: {ours:?}", ours.len());
    let mut sequence: Vec<u64> = ours.iter().map(|event| event.sequence).collect();
    sequence.sort_unstable();
    sequence.dedup();
    ensure!(sequence.len() == 9, "an event was told twice: {ours:?}");
    Ok(())
}

#[tokio::test]
async fn without_rights_the_agent_works_and_says_what_is_missing() -> Result<()> {
    if !need::root() {
        return Ok(());
    }
    let collector = Collector::start().await?;
    let agent = Agent::start_unprivileged("spine-e", &collector.url()).await?;
    collector.host_up("spine-e").await?;
    wait::until("a series from files", async || {
        let series = collector.series("spine-e", "cpu.load1", "").await.unwrap_or_default();
        Ok(series.first().filter(|series| !series.point.is_empty()).map(|_| ()))
    })
    .await?;

    let report = agent.local(&["probes"])?;
    for probe in report["probes"].as_array().context("no probes")? {
        let (state, level) = (probe["state"].as_str(), probe["level"].as_u64());
        match level {
            // The kernel's log may be closed to those without rights.
            Some(0) if probe["name"] == "kmsg" && state == Some("off") => {
                let reason = probe["reason"].as_str().unwrap_or_default();
                ensure!(reason.contains("CAP_SYSLOG"), "{probe}");
            }
            Some(0) => ensure!(state == Some("active") || state == Some("degraded"), "{probe}"),
            _ => {
                let reason = probe["reason"].as_str().unwrap_or_default();
                ensure!(state == Some("off") && reason.len() > 10, "{probe}");
            }
        }
    }
    let text = report.to_string();
    ensure!(text.contains("CAP_BPF"), "nothing says which right is missing: {text}");
    Ok(())
}

#[test]
fn a_misspelt_key_is_refused_with_its_place_and_the_right_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bad.toml");
    for (program, text, key) in [
        ("holdfast-agent", "# a comment\nsummary_intervall = \"5s\"\n", "summary_interval"),
        ("holdfast-collector", "# a comment\nstate_dirr = \"/var/lib/x\"\n", "state_dir"),
    ] {
        fs::write(&file, text)?;
        let path = file.to_string_lossy();
        let answer = process::answer(program, &["run", "--config", &path])?;
        ensure!(answer.code == Some(2), "{program}: {:?} {}", answer.code, answer.stderr);
        for wanted in [&format!("{path}:2"), &format!("`{key}`")] {
            ensure!(answer.stderr.contains(wanted), "{program}, {wanted}: {}", answer.stderr);
        }
    }
    Ok(())
}

#[test]
fn listening_beyond_this_host_needs_a_flag_that_names_the_danger() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("empty.toml");
    fs::write(&file, "")?;
    let (config, state) = (file.to_string_lossy(), folder.path().to_string_lossy());
    for side in ["--grpc", "--http"] {
        let arguments = ["run", "--config", &config, "--state-dir", &state, side, "0.0.0.0:0"];
        let answer = process::answer("holdfast-collector", &arguments)?;
        ensure!(answer.code == Some(2), "{side}: {:?} {}", answer.code, answer.stderr);
        ensure!(answer.stderr.contains("insecure"), "{side}: {}", answer.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn the_tool_says_whom_it_cannot_reach() -> Result<()> {
    let mut collector = Collector::start().await?;
    collector.stop().await?;
    let answer = collector.holdfast(&["hosts"])?;
    ensure!(answer.code == Some(3) && answer.stderr.contains(&collector.grpc), "{}", answer.stderr);
    let answer = process::answer("holdfast", &["--socket", "/nonexistent", "local", "status"])?;
    ensure!(answer.code == Some(3) && answer.stderr.contains("/nonexistent"), "{}", answer.stderr);
    Ok(())
}

/// The events that tell of a process's end in `unit`.
fn ends(events: &[FleetEvent], unit: &str) -> Vec<Event> {
    let events = events.iter().filter_map(|event| event.event.as_ref());
    let ours = |event: &&Event| event.unit == unit && event.kind.starts_with("process.");
    events.filter(ours).cloned().collect()
}

#[tokio::test]
async fn probes_are_proven_at_the_start_and_when_asked_for() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let mut agent = Agent::start("proofs", "").await?;
    let proof_of = |probe: &str| -> Result<Option<String>> {
        let report = agent.local(&["probes"])?;
        let probes = report["probes"].as_array().cloned().unwrap_or_default();
        let found = probes.iter().find(|found| found["name"] == probe);
        Ok(found.and_then(|found| Some(found["proof"].as_str()?.to_owned())))
    };
    for probe in ["sched", "tcp", "exit"] {
        wait::until("it is proven", async || Ok(proof_of(probe)?.filter(|p| p == "proven")))
            .await?;
    }
    ensure!(proof_of("procfs")?.as_deref() == Some("unproven"), "nothing is provoked for files");
    // Exit code 0: nothing failed.
    let report = agent.local(&["attest"])?;
    let proofs = report["proofs"].as_array().cloned().unwrap_or_default();
    let proven = proofs.iter().filter(|proof| proof["proof"] == "proven").count();
    ensure!(proven >= 3, "{report}");
    ensure!(proofs.iter().all(|proof| proof["proof"] != "failed"), "{report}");
    // What was provoked belongs to no unit, and is told to nobody.
    let status = agent.local(&["status"])?;
    ensure!(!status.to_string().contains("holdfast-attest"), "{status}");
    agent.stop().await
}
