//! Lies about the kernel, one at a time: each must be refused at load or found out by
//! attestation. What is let through here is let through on somebody's kernel, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use holdfast_agent::host::Root;
use holdfast_agent::kernel::attest::Verdict;
use holdfast_agent::kernel::{Kernel, Mutation, Options, State, readers};
use holdfast_agent::probes::{PROBES, Spec};
use holdfast_agent_ebpf::offsets::{MEMBERS, Member};
use holdfast_tests::need;

use crate::attest::prove;
use crate::rig::alone;

/// A busy host hides some lies now and then.
const TRIES: u32 = 3;

/// Lies that are as good as the truth: to which probe, which, and why.
const EQUIVALENT: &[(&str, Mutation, &str)] = &[
    (
        "oom",
        Mutation::Offset("task_struct.tgid", -4),
        "pid: a process's first thread has the process's id, and no other is asked",
    ),
    ("exit", Mutation::Offset("task_struct.exit_code", 4), OLDER),
    ("exit", Mutation::Offset("task_struct.exit_code", -4), OLDER),
    ("exit", Mutation::Offset("task_struct.exit_code", 8), OLDER),
    ("exit", Mutation::Offset("signal_struct.live.counter", 8), QUICK),
    ("tasks", Mutation::Offset("signal_struct.live.counter", 8), QUICK),
    (
        "tasks",
        Mutation::Offset("task_struct.mm", 8),
        "active_mm: the same for every task but the kernel's own threads, which are in no unit",
    ),
    (
        "sched",
        Mutation::Setting("previous_state", 1),
        "task_struct.__state holds what the tracepoint's argument was taken from",
    ),
    (
        "exit",
        Mutation::Setting("exit_says_dead", 0),
        "signal->live has been counted down when the tracepoint is told whether it is 0",
    ),
    (
        "tcp",
        Mutation::Setting("retransmit_has_error", 0),
        "the argument is 0 unless sending again failed, which cannot be had at will",
    ),
];
const OLDER: &str = "since 5.18 a process that ends has the status of its group; the task's own is \
                     for older kernels";
const QUICK: &str = "quick_threads: counted down a moment earlier by the same thread";

/// Programs whose event cannot be provoked here, so that no proof asks them: why.
const UNPROVOKED: &[(&str, &str)] = &[
    ("sched_process_hang", "a task would have to hang for two minutes, and the log would tell"),
    ("compaction_begin", "to compact memory is to stop the whole host for a while"),
    ("compaction_end", "to compact memory is to stop the whole host for a while"),
];

/// Members that nobody can lie about here: why.
const UNREAD: &[(&str, &str)] = &[
    ("task_struct.state", "for kernels before 5.14"),
    ("task_struct.exit_code", OLDER),
    ("task_struct.flags", "read by the programs on compaction alone, which are not provoked"),
    ("mm_struct.rss_stat.count.0.counter", BEFORE_6_2),
    ("mm_struct.rss_stat.count.1.counter", BEFORE_6_2),
    ("mm_struct.rss_stat.count.3.counter", BEFORE_6_2),
    ("request.rq_disk", "for kernels before 5.17"),
    ("request.bio", IO_CONTROLLER),
    ("bio.bi_blkg", IO_CONTROLLER),
    ("blkcg_gq.blkcg", IO_CONTROLLER),
    ("blkcg.css.cgroup", IO_CONTROLLER),
    ("cgroup.root", IO_CONTROLLER),
    ("cgroup_root.hierarchy_id", IO_CONTROLLER),
];
const BEFORE_6_2: &str = "for kernels before 6.2";
const IO_CONTROLLER: &str = "read where the io controller is on the unified hierarchy only";

/// What the kernel offers by two ways: the setting that makes the programs take the other.
const OTHER_WAY: &[(&str, Mutation)] = &[
    ("task_struct.__state", Mutation::Setting("previous_state", 1)),
    ("signal_struct.live.counter", Mutation::Setting("exit_says_dead", 0)),
];

/// Settings that can lie, with every other value they may have, the probe and the
/// program that believe them.
const SETTINGS: &[(&str, &[u32], &str, &str)] = &[
    ("state_before_tasks", &[1], "sched", "sched_switch"),
    ("previous_state", &[1, 2], "sched", "sched_switch"),
    ("disk_in_request", &[1], "block", "block_rq_complete"),
    ("victim_is_task", &[0], "oom", "oom_mark_victim"),
    ("exit_says_dead", &[0], "exit", "sched_process_exit"),
    ("retransmit_has_error", &[0], "tcp", "tcp_retransmit_skb"),
    ("state_underscored", &[0], "tasks", "task_iterator"),
    ("task_rss", &[0, 2], "tasks", "task_iterator"),
];

/// Forms of the scheduler's programs, each with the one to leave out.
const SCHED_FORMS: &[(&str, &str)] = &[
    ("tp_btf sched_info", "sched_switch/task_storage"),
    ("tp_btf task_storage", "sched_switch/sched_info"),
];

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
    let mut caught_about = BTreeSet::new();
    // Probes that are told the same lie are told it at once.
    let lies = lies();
    for told in
        lies.chunk_by(|(one, _, form), (other, _, other_form)| one == other && form == other_form)
    {
        let Some((lie, _, leave_out)) = told.first() else { continue };
        let probes: Vec<&str> = told.iter().map(|(_, probe, _)| *probe).collect();
        let specs: Vec<&Spec> = PROBES.iter().filter(|s| probes.contains(&s.name)).collect();
        let excuse = |probe: &str| {
            EQUIVALENT.iter().any(|(of, known, _)| *of == probe && lie.last() == Some(known))
        };
        let tries = if specs.iter().all(|spec| excuse(spec.name)) { 1 } else { TRIES };
        let found = tell(lie, &specs, leave_out, tries, folder.path()).await?;
        for (spec, fate) in specs.iter().zip(found) {
            let (probe, excused) = (spec.name, excuse(spec.name));
            let shown = match &fate {
                Fate::Refused => "refused",
                Fate::FoundOut(_) => "found out",
                Fate::Unused => "unused",
                Fate::Believed if excused => "as good as the truth",
                Fate::Believed => "believed",
            };
            eprintln!("{shown}: {probe} {lie:?} {leave_out}: {fate:?}");
            *fates.entry(shown).or_insert(0) += 1;
            if let (Fate::Refused | Fate::FoundOut(_), Some(Mutation::Offset(path, _))) =
                (&fate, lie.last())
            {
                caught_about.insert(*path);
            }
            if shown == "believed" {
                bad.push(format!("{probe}: {lie:?} {leave_out}"));
            }
            // An excuse that is not needed hides the next lie.
            if excused && fate != Fate::Believed {
                bad.push(format!("{probe}: {lie:?} is no equivalent: {fate:?}"));
            }
        }
    }
    eprintln!("{fates:?}");
    for Member { path, .. } in MEMBERS {
        let excused = UNREAD.iter().any(|(member, _)| member == path);
        if !caught_about.contains(path) && !excused {
            bad.push(format!("no lie about {path} was caught"));
        }
    }
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
        let other_way = OTHER_WAY.iter().find(|(path, _)| *path == member.path);
        let mut readers = readers(member.path);
        if member.path == "task_struct.__state" {
            // Read by the setting, not by the form.
            readers.extend(SCHED_FORMS.iter().map(|(variant, _)| ("sched_switch", *variant)));
            readers.push(("task_iterator", ""));
        }
        readers.retain(|(name, _)| !UNPROVOKED.iter().any(|(silent, _)| silent == name));
        for spec in PROBES {
            let mine = readers.iter().filter(|(name, _)| spec.programs.contains(name));
            let variants: Vec<&str> = mine.map(|(_, variant)| *variant).collect();
            for leave_out in forms(spec.name, &variants) {
                for shift in [bytes, -bytes, 8].iter().take(if bytes == 8 { 2 } else { 3 }) {
                    let mut lie: Vec<_> = other_way.iter().map(|(_, way)| *way).collect();
                    lie.push(Mutation::Offset(member.path, *shift));
                    lies.push((lie, spec.name, leave_out));
                }
            }
        }
    }
    // Those of one lie and form next to each other, whichever the probe.
    lies.sort_by_key(|(lie, _, form)| (format!("{lie:?}"), *form));
    for (name, values, probe, _) in SETTINGS {
        let variants: Vec<&str> = SCHED_FORMS.iter().map(|(variant, _)| *variant).collect();
        for value in *values {
            for leave_out in forms(probe, &variants) {
                lies.push((vec![Mutation::Setting(name, *value)], *probe, leave_out));
            }
        }
    }
    lies
}

/// The form to leave out for each form of a probe's programs that is in `variants`.
fn forms(probe: &str, variants: &[&str]) -> Vec<&'static str> {
    if variants.is_empty() {
        return Vec::new();
    }
    if probe != "sched" {
        return vec![""];
    }
    let told = SCHED_FORMS.iter().filter(|(variant, _)| variants.contains(variant));
    told.map(|(_, leave_out)| *leave_out).collect()
}

/// Loads the programs of some probes with a lie, and lets them prove themselves.
async fn tell(
    lie: &[Mutation],
    specs: &[&Spec],
    leave_out: &str,
    tries: u32,
    folder: &Path,
) -> Result<Vec<Fate>> {
    let others = PROBES.iter().filter(|other| specs.iter().all(|spec| spec.name != other.name));
    let mut disabled: Vec<_> =
        others.flat_map(|other| other.programs).map(ToString::to_string).collect();
    // They would step in for a form that is refused, and read no member.
    disabled.push("tracepoint".to_owned());
    disabled.extend([leave_out.to_owned()].into_iter().filter(|form| !form.is_empty()));
    // Programs that believe the lie, and the forms that read the member.
    let told = match lie.last() {
        Some(Mutation::Offset("task_struct.__state", _)) => {
            vec![("sched_switch", ""), ("task_iterator", "")]
        }
        Some(Mutation::Offset(path, _)) => readers(path),
        Some(Mutation::Setting(name, _)) => {
            let of = SETTINGS.iter().filter(|(setting, ..)| setting == name);
            of.map(|(.., program)| (*program, "")).collect()
        }
        None => Vec::new(),
    };
    let mut fates: BTreeMap<&str, Fate> = BTreeMap::new();
    for _ in 0..tries {
        if fates.len() == specs.len() {
            break;
        }
        let options =
            Options { disabled: disabled.clone(), mutate: lie.to_vec(), ..Options::default() };
        let started = Kernel::start(&options, &Root::default());
        let mut kernel = started.map_err(|reason| anyhow!(reason))?;
        let mut asked = Vec::new();
        for spec in specs.iter().filter(|spec| !fates.contains_key(spec.name)).collect::<Vec<_>>() {
            match at_load(&kernel, spec, &told)? {
                Some(fate) => drop(fates.insert(spec.name, fate)),
                None => asked.push(spec.name),
            }
        }
        if asked.is_empty() {
            break;
        }
        for outcome in prove(&mut kernel, &asked, folder, true, 1).await? {
            match outcome.verdict {
                Verdict::Failed(reason) => {
                    fates.insert(outcome.probe, Fate::FoundOut(reason));
                }
                Verdict::Proven => {}
                // Tried again: others may be quieter then.
                Verdict::Unproven(reason) if reason.contains("too busy") => {}
                Verdict::Unproven(reason) => anyhow::bail!("{}: {reason}", outcome.probe),
            }
        }
    }
    Ok(specs.iter().map(|spec| fates.remove(spec.name).unwrap_or(Fate::Believed)).collect())
}

/// What became of a lie when a probe's programs were loaded; `None` when it has to be
/// found out.
fn at_load(kernel: &Kernel, spec: &Spec, told: &[(&str, &str)]) -> Result<Option<Fate>> {
    let told_to = |name: &str| {
        let silent = UNPROVOKED.iter().any(|(silent, _)| *silent == name);
        !silent && told.iter().any(|(told, _)| *told == name)
    };
    let mut mine = kernel
        .programs()
        .iter()
        .filter(|program| spec.programs.contains(&program.name) && told_to(program.name));
    let running: Vec<_> = mine.clone().filter(|p| p.state == State::Active).collect();
    if running.is_empty() {
        let refused = mine.all(|program| is_refusal(&program.reason));
        ensure!(refused, "{}: off for another reason", spec.name);
        return Ok(Some(Fate::Refused));
    }
    let reads = |name: &str, variant: &str| {
        told.iter().any(|(of, form)| *of == name && (form.is_empty() || *form == variant))
    };
    let unused = !running.iter().any(|p| reads(p.name, p.variant));
    Ok(unused.then_some(Fate::Unused))
}

/// By the kernel's verifier, or by ourselves, as the lie asks for what is not there.
fn is_refusal(reason: &str) -> bool {
    reason.contains("verifier") || reason.contains("is missing or of another size")
}
