//! Lies about the kernel, one at a time: each must be refused at load or found out by
//! attestation. What is let through here is let through on somebody's kernel, too.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use holdfast_agent::host::Root;
use holdfast_agent::kernel::attest::Verdict;
use holdfast_agent::kernel::{Kernel, Mutation, Options, State, readers};
use holdfast_agent::probes::{PROBES, Spec};
use holdfast_agent_ebpf::offsets::MEMBERS;
use holdfast_tests::need;

use crate::attest::prove;
use crate::rig::alone;

/// A busy host hides some lies now and then: the idle task never runs, nobody waits.
const TRIES: u32 = 5;

/// Lies that are as good as the truth.
const EQUIVALENT: &[(Mutation, &str)] = &[
    (
        Mutation::Offset("task_struct.pid", 4),
        "tgid: the idle task's is 0 as well, and nobody else's is",
    ),
    (
        Mutation::Offset("task_struct.tgid", -4),
        "pid: a process's first thread has the process's id, and no other is asked",
    ),
    (
        Mutation::Setting("previous_state", 1),
        "task_struct.__state holds what the tracepoint's argument was taken from",
    ),
    (
        Mutation::Setting("exit_says_dead", 0),
        "signal->live has been counted down when the tracepoint is told whether it is 0",
    ),
    (
        Mutation::Setting("retransmit_has_error", 0),
        "the argument is 0 unless sending again failed, which cannot be had at will",
    ),
];

/// What the kernel offers by two ways: the setting that makes the programs take the other.
const OTHER_WAY: &[(&str, Mutation)] = &[
    ("task_struct.__state", Mutation::Setting("previous_state", 1)),
    ("signal_struct.live.counter", Mutation::Setting("exit_says_dead", 0)),
];

/// Settings that can lie, with every other value they may have.
const SETTINGS: &[(&str, &[u32], &str)] = &[
    ("state_before_tasks", &[1], "sched"),
    ("previous_state", &[1, 2], "sched"),
    ("disk_in_request", &[1], "block"),
    ("victim_is_task", &[0], "oom"),
    ("exit_says_dead", &[0], "exit"),
    ("retransmit_has_error", &[0], "tcp"),
];

/// Forms of the scheduler's programs, each told by the one to leave out.
const SCHED_FORMS: [&str; 2] = ["sched_switch/task_storage", "sched_switch/sched_info"];

/// What became of a lie.
#[derive(Debug, PartialEq)]
enum Fate {
    Refused,
    FoundOut(String),
    /// Nothing here reads it.
    Unused,
    Believed,
}

#[tokio::test]
async fn every_lie_about_the_kernel_is_refused_or_found_out() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let _alone = alone()?;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (mut fates, mut bad) = (BTreeMap::new(), Vec::new());
    for (lie, probe, leave_out) in lies() {
        let spec = PROBES.iter().find(|spec| spec.name == probe).ok_or(anyhow!("no {probe}"))?;
        let fate = tell(&lie, spec, leave_out, folder.path()).await?;
        let excuse = EQUIVALENT.iter().find(|(known, _)| lie.last() == Some(known));
        let shown = match &fate {
            Fate::Refused => "refused",
            Fate::FoundOut(_) => "found out",
            Fate::Unused => "unused",
            Fate::Believed if excuse.is_some() => "as good as the truth",
            Fate::Believed => "believed",
        };
        eprintln!("{shown}: {probe} {lie:?} {leave_out}: {fate:?}");
        *fates.entry(shown).or_insert(0) += 1;
        if shown == "believed" {
            bad.push(format!("{probe}: {lie:?} {leave_out}"));
        }
        // An excuse that is not needed hides the next lie.
        if excuse.is_some() && fate != Fate::Believed {
            bad.push(format!("{probe}: {lie:?} is no equivalent: {fate:?}"));
        }
    }
    eprintln!("{fates:?}");
    ensure!(bad.is_empty(), "{}", bad.join("\n"));
    let caught: i32 = ["refused", "found out"].iter().filter_map(|name| fates.get(name)).sum();
    ensure!(caught > 2 * MEMBERS.len() as i32, "only {caught} lies were told and caught");
    Ok(())
}

/// Every lie, the probe it is told to, and the form that is left out.
fn lies() -> Vec<(Vec<Mutation>, &'static str, &'static str)> {
    let mut lies = Vec::new();
    for member in MEMBERS {
        let bytes = member.bytes.cast_signed();
        let mut shifts = vec![bytes, -bytes, 8];
        shifts.dedup();
        if bytes == 8 {
            shifts.pop();
        }
        let other_way = OTHER_WAY.iter().find(|(path, _)| *path == member.path);
        let mut programs = readers(member.path);
        if other_way.is_some_and(|(path, _)| path.starts_with("task_struct.__")) {
            programs = vec!["sched_switch"];
        }
        let probes = PROBES.iter().filter(|spec| spec.programs.iter().any(|p| programs.contains(p)));
        for spec in probes {
            for shift in &shifts {
                let mut lie: Vec<_> = other_way.iter().map(|(_, way)| *way).collect();
                lie.push(Mutation::Offset(member.path, *shift));
                let forms: &[&str] = if spec.name == "sched" { &SCHED_FORMS } else { &[""] };
                lies.extend(forms.iter().map(|form| (lie.clone(), spec.name, *form)));
            }
        }
    }
    for (name, values, probe) in SETTINGS {
        let forms: &[&str] = if *probe == "sched" { &SCHED_FORMS } else { &[""] };
        for value in *values {
            let lie = vec![Mutation::Setting(name, *value)];
            lies.extend(forms.iter().map(|form| (lie.clone(), *probe, *form)));
        }
    }
    lies
}

/// Loads the programs of a probe with a lie, and lets it prove itself.
async fn tell(lie: &[Mutation], spec: &Spec, leave_out: &str, folder: &Path) -> Result<Fate> {
    let others = PROBES.iter().filter(|other| other.name != spec.name);
    let mut disabled: Vec<_> =
        others.flat_map(|other| other.programs).map(ToString::to_string).collect();
    disabled.extend([leave_out.to_owned()].into_iter().filter(|form| !form.is_empty()));
    let read: Vec<_> = lie
        .iter()
        .flat_map(|lie| match lie {
            Mutation::Offset(path, _) => readers(path),
            Mutation::Setting(..) => spec.programs.to_vec(),
        })
        .collect();
    let reads = |name: &str| read.is_empty() || read.contains(&name);
    let effort = if lie.contains(&Mutation::Offset("request.start_time_ns", 8)) { 30 } else { 1 };
    for _ in 0..TRIES {
        let options = Options {
            disabled: disabled.clone(),
            mutate: lie.to_vec(),
            ..Options::default()
        };
        let started = Kernel::start(&options, &Root::default());
        let mut kernel = started.map_err(|reason| anyhow!(reason))?;
        let mut mine = kernel.programs().iter().filter(|p| spec.programs.contains(&p.name));
        let refused = |reason: &str| !reason.contains("configuration") || reason.contains("verifier");
        let off: Vec<_> =
            mine.clone().filter(|p| reads(p.name) && p.state == State::Off).collect();
        if off.iter().any(|p| refused(&p.reason)) && !mine.any(|p| p.state == State::Active && reads(p.name)) {
            return Ok(Fate::Refused);
        }
        if kernel.programs().iter().all(|p| !spec.programs.contains(&p.name) || p.state == State::Off) {
            return Ok(Fate::Unused);
        }
        let outcomes = prove(&mut kernel, &[spec.name], folder, true, effort).await?;
        for outcome in outcomes {
            match outcome.verdict {
                Verdict::Failed(reason) => return Ok(Fate::FoundOut(reason)),
                Verdict::Proven => {}
                Verdict::Unproven(reason) => anyhow::bail!("{}: {reason}", spec.name),
            }
        }
    }
    Ok(Fate::Believed)
}
