//! What the demo says at its end, and whether it is content.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::Uid;
use serde::Serialize;

use super::board::{Board, Probe};
use super::loads::Running;
use crate::provoke::Load;
use crate::stack::Stack;

/// The JSON object of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    probes: Vec<ProbeRow>,
    signals: Vec<SignalRow>,
    agent: Agent,
    /// How many events of each kind the collector holds.
    events: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct ProbeRow {
    name: String,
    state: String,
    reason: Option<String>,
}

/// One series.
#[derive(Debug, Serialize)]
struct SignalRow {
    name: String,
    /// `host`, `unit`, `device`, `interface` or `label`.
    owner: String,
    /// Name of the systemd unit; null for other owners.
    unit: Option<String>,
    /// Name of the unit, device, interface or label; null for the host.
    instance: Option<String>,
    kind: Option<String>,
    measure: Option<String>,
    probe: Option<String>,
    samples: u64,
    /// Newest value of one second: a counter's rate, a histogram's 99th percentile.
    last: Option<f64>,
    /// Lowest and highest of the values seen, one a second.
    min: Option<f64>,
    max: Option<f64>,
}

/// The agent's own cost.
#[derive(Debug, Serialize)]
struct Agent {
    cpu_seconds: f64,
    wall_seconds: f64,
    peak_rss_bytes: u64,
    map_bytes: u64,
}

impl Report {
    /// Takes the last readings; the agent must still run.
    pub(crate) fn new(board: &Board, stack: &Stack) -> Result<Self> {
        let probes = board.probes.iter().map(|probe| ProbeRow {
            name: probe.name.clone(),
            state: probe.state.clone(),
            reason: probe.reason.clone(),
        });
        let signals = board.series.iter().map(|(key, series)| {
            let signal = board.signal(key);
            SignalRow {
                name: key.name.clone(),
                owner: key.owner.clone(),
                unit: key.instance.clone().filter(|_| key.owner == "unit"),
                instance: key.instance.clone(),
                kind: signal.map(|s| s.kind.clone()),
                measure: signal.map(|s| s.measure.clone()),
                probe: signal.map(|s| s.probe.clone()),
                samples: series.samples,
                last: series.last,
                min: series.lowest,
                max: series.highest,
            }
        });
        let pid = stack.agent.pid();
        let agent = Agent {
            cpu_seconds: cpu_seconds(pid)?,
            wall_seconds: stack.agent_age().as_secs_f64(),
            peak_rss_bytes: peak_rss(pid)?,
            map_bytes: board.map_bytes,
        };
        let events = board.events.clone();
        Ok(Self { probes: probes.collect(), signals: signals.collect(), agent, events })
    }

    /// A few lines for a person.
    pub(crate) fn print_summary(&self) {
        println!("\nprobes:");
        for probe in &self.probes {
            let reason = probe.reason.as_deref().unwrap_or_default();
            println!("{}", format!("  {:<12}{:<10}{reason}", probe.name, probe.state).trim_end());
        }
        let live = self.signals.iter().filter(|signal| signal.samples > 0).count();
        println!("\n{live} series with samples");
        for (kind, count) in &self.events {
            println!("event {kind}: {count}");
        }
        let share = 100.0 * self.agent.cpu_seconds / self.agent.wall_seconds.max(1e-9);
        println!(
            "agent: {share:.2} % of one core, {:.1} MiB resident at most, {:.1} MiB of eBPF maps",
            mebibytes(self.agent.peak_rss_bytes),
            mebibytes(self.agent.map_bytes)
        );
    }
}

/// Everything that should work here and does not, each in one line.
pub(crate) fn judge(board: &Board, loads: impl Iterator<Item = Running>) -> Vec<String> {
    let mut failures = Vec::new();
    let ebpf = ebpf_is_possible();
    for probe in &board.probes {
        if (probe.level == 0 || ebpf) && (probe.state == "off" || !board.yields(&probe.name)) {
            failures.push(format!("probe {}: {}", probe.name, reason(probe)));
        }
    }
    if board.probes.is_empty() {
        failures.push("the agent reports no probe".into());
    }
    if !board.collector_has_host {
        failures.push("the collector does not show this host as up".into());
    }
    for running in loads.filter(|_| ebpf) {
        for (signal, owner) in expected(running) {
            if !board.moved(signal, owner) {
                let load = running.load.unit();
                failures.push(format!("{signal} of a {owner} never moved under {load}"));
            }
        }
    }
    failures
}

/// What a load must move: signal and owner.
fn expected(running: Running) -> &'static [(&'static str, &'static str)] {
    match running.load {
        Load::Cpu => &[
            ("cpu.run_queue.latency", "host"),
            ("cpu.run_queue.latency", "unit"),
            ("cpu.on_cpu.time", "unit"),
            ("cpu.switches", "host"),
        ],
        Load::Disk => &[("disk.write.latency", "device"), ("disk.read.latency", "device")],
        // Nobody has to reclaim memory that is not scarce.
        Load::Memory if !running.limited => &[("memory.faults", "host")],
        Load::Memory => &[("memory.faults", "host"), ("memory.reclaim.latency", "host")],
        Load::Network => &[
            ("tcp.retransmits", "host"),
            ("tcp.resets.sent", "host"),
            ("tcp.connect.refused", "host"),
            ("tcp.connect.slow", "host"),
        ],
        Load::Exits => &[("process.exits.signal", "unit"), ("process.exits.error", "unit")],
        Load::Oom | Load::OomVictim => &[("memory.oom_kills", "host")],
        Load::Wake => &[("cpu.switches", "host")],
    }
}

fn reason(probe: &Probe) -> &str {
    probe.reason.as_deref().unwrap_or("yields nothing, and says no reason")
}

/// Root, with the kernel's type information at hand.
fn ebpf_is_possible() -> bool {
    Uid::effective().is_root() && Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// User and system time of a process.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    parse_cpu_ticks(&stat).context("its stat file is unreadable").map(|ticks| {
        // USER_HZ is 100 on every architecture that we build for.
        ticks as f64 / 100.0
    })
}

/// Fields 14 and 15; the second field, the name, may hold anything.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn peak_rss(pid: u32) -> Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kibibytes.context("no peak memory in its status file")? * 1024)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 1 0";
        assert_eq!(parse_cpu_ticks(stat), Some(200));
        assert_eq!(parse_cpu_ticks("7 (a"), None);
    }

    #[test]
    fn silence_is_a_failure() {
        let failures = judge(&Board::default(), std::iter::empty());
        assert!(failures.iter().any(|f| f.contains("no probe")), "{failures:?}");
    }
}
