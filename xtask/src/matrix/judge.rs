//! What the agent said in a virtual machine, and whether that is what it should say.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kernels::Kernel;

/// The run with nothing but the forms that need no types.
pub(super) const CLASSIC: &str = "classic";
/// Words in the reason of every eBPF probe in that run.
const SWITCHED_OFF: &str = "is disabled in the configuration";
/// Probes that have such forms, and so must go on, degraded. The others may be off.
const GO_ON: &[&str] = &["block", "reclaim", "oom", "tcp", "exit"];

/// One run of the agent on one kernel.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    kernel: String,
    release: String,
    /// "root", "unit" for the capabilities of the packaged unit, or [`CLASSIC`].
    who: &'static str,
    probes: Vec<Probe>,
    /// What the agent said of its attestation; null where it has none.
    attestation: Option<Value>,
    /// Whether the machine had a disk to write to.
    disk: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Report {
    probes: Vec<Probe>,
    measured: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct Probe {
    name: String,
    state: String,
    reason: Option<String>,
    programs: Vec<Program>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct Program {
    name: String,
    variant: String,
    state: String,
    reason: Option<String>,
    /// Null where it was not measured.
    events_per_second: Option<f64>,
}

/// What may be less than wholly active, and the words that must then stand in each part
/// of the reason: kernel (its series), probe, words.
const EXCUSED: &[Excuse] = &[
    ("6.1", "tcp", "gives no reason for the resets it sends"),
    // There ext4 is a module, whose types are not those of the kernel: the raw form runs.
    ("6.1", "sync", "has put vfs_fsync_range into its callers"),
    ("6.1", "sync", "has no tracepoint ext4_sync_file_enter"),
    ("6.1", "sync", "so syncs are seen on ext4 only"),
];
type Excuse = (&'static str, &'static str, &'static str);

/// Programs that the load makes run, and so must have run while they were measured. Not
/// `tcp_send_reset`: before 6.10 or so it fires only for resets of a socket that exists.
const PROVOKED: &[&str] = &[
    "sched_switch",
    "cgroup_reclaim_begin",
    "cgroup_reclaim_end",
    "oom_mark_victim",
    "tcp_receive_reset",
    "inet_sock_set_state",
    "sched_process_exit",
];
/// The same, where there is a disk.
const PROVOKED_BY_DISK: &[&str] = &["block_rq_complete"];

/// States of a probe that need no excuse.
const GOOD: [&str; 2] = ["active", "proven"];

impl Run {
    /// From the files in `results`.
    pub(super) fn read(kernel: &Kernel, who: &'static str, results: &Path) -> Result<Self> {
        let text = |name: &str| fs::read_to_string(results.join(name));
        let whole = |name: &str| text(&format!("{who}.{name}")).unwrap_or_default();
        let report: Report = serde_json::from_str(&whole("probes.json")).with_context(|| {
            format!(
                "{} as {who}: no probes: {}\nthe agent: {}",
                kernel.name,
                whole("probes.err").trim(),
                whole("log").trim()
            )
        })?;
        let attestation = text(&format!("{who}.attest.json")).ok();
        Ok(Self {
            kernel: kernel.name.clone(),
            release: kernel.release.clone(),
            who,
            probes: report.probes,
            attestation: attestation.and_then(|text| serde_json::from_str(&text).ok()),
            disk: text("notes").is_ok_and(|notes| notes.contains("disk: yes")),
        })
    }

    /// What is not as it should be, one sentence each.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let here = format!("{} as {}", self.kernel, self.who);
        if self.probes.is_empty() {
            complaints.push(format!("{here}: no probes"));
        }
        for probe in &self.probes {
            let reason = probe.reason.as_deref().unwrap_or_default();
            if !GOOD.contains(&probe.state.as_str()) && !self.is_excused(probe, EXCUSED) {
                complaints.push(format!("{here}: {} is {}: {reason}", probe.name, probe.state));
            }
            for program in &probe.programs {
                let is_silent = program.state != "off" && program.events_per_second == Some(0.0);
                if is_silent && self.is_provoked(&program.name) {
                    complaints.push(format!("{here}: {} saw nothing", program.name));
                }
            }
        }
        complaints
    }

    fn is_excused(&self, probe: &Probe, excuses: &[Excuse]) -> bool {
        let reason = probe.reason.as_deref().unwrap_or_default();
        if self.who == CLASSIC && reason.contains(SWITCHED_OFF) {
            return probe.state == "degraded" || !GO_ON.contains(&probe.name.as_str());
        }
        let series = self.kernel.split('-').next().unwrap_or_default();
        let is_known = |part: &str| {
            excuses.iter().any(|(kernel, name, words)| {
                *kernel == series && *name == probe.name && part.contains(words)
            })
        };
        // An excuse for one thing is none for another.
        reason.split("; ").all(is_known)
    }

    fn is_provoked(&self, program: &str) -> bool {
        PROVOKED.contains(&program) || (self.disk && PROVOKED_BY_DISK.contains(&program))
    }

    fn cell(&self, probe: &str) -> &str {
        self.probes.iter().find(|p| p.name == probe).map_or("missing", |p| &p.state)
    }
}

/// A table of kernel and probe, then the form of each program, then the reasons.
pub(super) fn table(runs: &[Run]) -> String {
    let mut text = String::new();
    let mut names: Vec<&str> = Vec::new();
    for probe in runs.iter().flat_map(|run| &run.probes) {
        if !names.contains(&probe.name.as_str()) {
            names.push(&probe.name);
        }
    }
    let width = |column: &str| column.len().max("degraded".len()) + 2;
    let _ = write!(text, "{:30}{:8}", "kernel", "as");
    for name in &names {
        let _ = write!(text, "{name:0$}", width(name));
    }
    text += "\n";
    for run in runs {
        let _ = write!(text, "{:30}{:8}", run.release, run.who);
        for name in &names {
            let _ = write!(text, "{:1$}", run.cell(name), width(name));
        }
        text += "\n";
    }
    for run in runs {
        let _ = write!(text, "\n{} as {}\n", run.release, run.who);
        for program in run.probes.iter().flat_map(|probe| &probe.programs) {
            let rate = program.events_per_second.map(|n| format!("{n:.1}/s")).unwrap_or_default();
            let reason = program.reason.as_deref().unwrap_or_default();
            let line = format!(
                "  {:32}{:24}{:10}{rate:>12}  {reason}",
                program.name, program.variant, program.state
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kernel: &str, state: &str, reason: &str, rate: f64) -> Run {
        let program = Program {
            name: "block_rq_complete".into(),
            variant: "tp_btf".into(),
            state: "active".into(),
            reason: None,
            events_per_second: Some(rate),
        };
        let probe = Probe {
            name: "oom".into(),
            state: state.into(),
            reason: Some(reason.into()),
            programs: vec![program],
        };
        Run {
            kernel: kernel.into(),
            release: format!("{kernel}.0"),
            who: "root",
            probes: vec![probe],
            attestation: None,
            disk: true,
        }
    }

    #[test]
    fn only_a_known_drawback_is_excused() {
        let excuses: &[Excuse] = &[("6.1", "oom", "process id only")];
        let excused = |kernel, reason| {
            let run = run(kernel, "degraded", reason, 1.0);
            run.is_excused(&run.probes[0], excuses)
        };
        assert!(excused("6.1-rt", "gives the process id only"));
        assert!(!excused("6.1", "gives the process id only; refused"));
        assert!(!excused("6.12", "gives the process id only"));
        assert!(!excused("6.1", "refused"));
        assert_eq!(run("6.12", "degraded", "refused", 1.0).complaints().len(), 1);
        assert!(run("6.12", "proven", "", 1.0).complaints().is_empty());
    }

    #[test]
    fn without_types_probes_are_degraded_and_no_worse() {
        let of = |state: &str, reason: &str| {
            let mut run = run("6.12", state, reason, 1.0);
            run.who = CLASSIC;
            run.complaints().len()
        };
        assert_eq!(of("degraded", SWITCHED_OFF), 0);
        assert_eq!(of("off", SWITCHED_OFF), 1);
        assert_eq!(of("degraded", "refused"), 1);
    }

    #[test]
    fn a_program_that_saw_nothing_is_told() {
        let complaints = run("6.12", "active", "", 0.0).complaints();
        assert!(complaints[0].contains("saw nothing"), "{complaints:?}");
        let mut no_disk = run("6.12", "active", "", 0.0);
        no_disk.disk = false;
        assert!(no_disk.complaints().is_empty());
    }

    #[test]
    fn the_table_names_everything() {
        let text = table(&[run("6.12", "degraded", "why", 2.5)]);
        for word in ["6.12.0", "oom", "degraded", "tp_btf", "2.5/s"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
