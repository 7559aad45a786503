//! Attestation on the kernel that runs: what is true is proven, time after time, and
//! nothing stays behind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use holdfast_agent::host::Root;
use holdfast_agent::host::cgroup::mount_point;
use holdfast_agent::kernel::attest::{Attestation, Options, Outcome, Verdict, proven_probes};
use holdfast_agent::kernel::{self, Kernel, KernelEvent};
use holdfast_tests::{need, programs};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::{major, minor};
use nix::sys::time::TimeValLike;

use crate::rig::{Rig, alone, disk_of};

/// How often the truth is told.
const ROUNDS: usize = 10;

/// Proves `probes` of `kernel`, whose events are taken for that.
pub(crate) async fn prove(
    kernel: &mut Kernel,
    probes: &[&'static str],
    state_dir: &Path,
    disruptive: bool,
    effort: u32,
) -> Result<Vec<Outcome>> {
    let mut events = kernel.take_events().context("no events")?;
    let device = fs::metadata(state_dir)?.dev();
    let (major, minor) = disk_of(&format!("{}:{}", major(device), minor(device)))?;
    kernel.assign_device(major, minor, 1)?;
    let options = Options {
        probes: probes.to_vec(),
        program: programs::path("holdfast-agent")?,
        state_dir: state_dir.to_owned(),
        disruptive,
        effort,
        limit: Duration::from_secs(10),
    };
    let started = Attestation::start(kernel, &Root::default(), options);
    let mut attestation = started.map_err(|reason| anyhow!(reason))?;
    let ours = attestation.cgroup_id();
    let mut queue = Vec::new();
    loop {
        tokio::select! {
            () = attestation.ready() => {
                if let Some(outcomes) = attestation.advance(kernel) {
                    return Ok(outcomes);
                }
            }
            taken = events.next(&mut queue) => {
                taken?;
                for event in queue.drain(..) {
                    let (KernelEvent::Exit { cgroup_id, .. }
                    | KernelEvent::OomKill { cgroup_id, .. }
                    | KernelEvent::Hung { cgroup_id, .. }) = &event;
                    if *cgroup_id == ours {
                        attestation.take(event);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn the_truth_is_proven_every_time() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let _alone = alone()?;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let all: Vec<_> = proven_probes().collect();
    let mut proven = 0;
    // Found, and perhaps built, before anything is measured: a build is a child, too.
    programs::path("holdfast-agent")?;
    for round in 0..ROUNDS {
        // Every other time with the scheduler's programs in their second form.
        let disabled = vec!["sched_switch/sched_info".to_owned(); round % 2];
        let options = kernel::Options { disabled, ..kernel::Options::default() };
        let started = Kernel::start(&options, &Root::default());
        let mut kernel = started.map_err(|reason| anyhow!(reason))?;
        let before = cpu_of_workers()?;
        let outcomes = prove(&mut kernel, &all, folder.path(), false, 1).await?;
        let took = cpu_of_workers()?.saturating_sub(before);
        for Outcome { probe, verdict, checks, attempts, .. } in &outcomes {
            if *attempts > 1 {
                eprintln!("round {round}: {probe} took {attempts} attempts");
            }
            if round == 0 {
                let checks: Vec<_> = checks.iter().map(ToString::to_string).collect();
                eprintln!("{probe}: {verdict:?}: {}", checks.join("; "));
            }
            match verdict {
                Verdict::Proven => {
                    ensure!(!checks.is_empty(), "{probe} is proven by nothing");
                    proven += 1;
                }
                // Others run here, too, and the proof says so rather than guess.
                Verdict::Unproven(reason) if reason.contains("too busy") => {
                    eprintln!("round {round}: {probe}: {reason}");
                }
                // Its kill is not made unless asked for.
                Verdict::Unproven(reason) if *probe == "oom" => {
                    ensure!(reason.contains("--disruptive"), "{reason}");
                }
                Verdict::Unproven(reason) if *probe == "sync" => {
                    ensure!(reason.contains("not on ext4"), "{reason}");
                }
                other => anyhow::bail!("round {round}: {probe}: {other:?}"),
            }
        }
        ensure!(outcomes.len() == all.len(), "{} of {} proofs", outcomes.len(), all.len());
        ensure!(took < Duration::from_millis(100), "the worker took {took:?} of CPU time");
        eprintln!("round {round} took {took:?} of CPU time");
    }
    let most = ROUNDS * (all.len() - 1);
    ensure!(proven > most * 4 / 5, "only {proven} of {most} proofs could be made");
    nothing_is_left(folder.path())
}

#[tokio::test]
async fn a_kill_for_want_of_memory_is_proven_when_asked_for() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let outcomes = prove(&mut rig.kernel, &["oom"], folder.path(), true, 1).await?;
    let [Outcome { verdict, .. }] = outcomes.as_slice() else {
        anyhow::bail!("{} outcomes", outcomes.len())
    };
    match verdict {
        Verdict::Proven => {}
        Verdict::Unproven(reason) if reason.contains("memory controller") => {
            need::skip("needs the memory controller of cgroups");
        }
        other => anyhow::bail!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn a_worker_that_does_not_come_up_leaves_the_probes_unproven() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let options = |program: &str| Options {
        probes: vec!["sched", "exit"],
        program: program.into(),
        state_dir: std::env::temp_dir(),
        disruptive: false,
        effort: 1,
        limit: Duration::from_millis(500),
    };
    let missing = Attestation::start(&rig.kernel, &Root::default(), options("/nonexistent"));
    ensure!(missing.err().unwrap_or_default().contains("/nonexistent"), "it came up");
    // Each ends at once, or says nothing that can be understood.
    for program in ["/bin/true", "/bin/echo"] {
        let started = Attestation::start(&rig.kernel, &Root::default(), options(program));
        let mut attestation = started.map_err(|reason| anyhow!(reason))?;
        let outcomes = loop {
            attestation.ready().await;
            if let Some(outcomes) = attestation.advance(&rig.kernel) {
                break outcomes;
            }
        };
        let unproven = |o: &Outcome| matches!(&o.verdict, Verdict::Unproven(r) if !r.is_empty());
        ensure!(outcomes.len() == 2 && outcomes.iter().all(unproven), "{outcomes:?}");
    }
    nothing_is_left(Path::new("/nonexistent"))
}

/// CPU time of all workers that have ended.
fn cpu_of_workers() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let us = [usage.user_time(), usage.system_time()].map(|time| time.num_microseconds());
    Ok(Duration::from_micros(us.iter().sum::<i64>().unsigned_abs()))
}

/// No cgroup and no file of this process's attestations.
fn nothing_is_left(state_dir: &Path) -> Result<()> {
    let name = format!("holdfast-attest-{}", std::process::id());
    let mount = mount_point(&Root::default())?;
    ensure!(!mount.join(&name).exists(), "the cgroup {name} is still there");
    if state_dir.exists() {
        let left = fs::read_dir(state_dir)?.count();
        ensure!(left == 0, "{left} files are left in {}", state_dir.display());
    }
    Ok(())
}
