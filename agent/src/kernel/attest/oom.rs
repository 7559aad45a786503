//! The proof of the probe of kills for want of memory: a process that outgrows a
//! small limit. The kernel writes such a kill to its log, so it is made on demand only.

use std::fs;
use std::path::Path;

use nix::sys::wait::WaitStatus;

use super::reclaim::Beside;
use super::sys::{ids_are_the_kernels, in_child};
use super::{Check, Counts, End, Evidence, Facts, Place, Provoke, Spec, Watch};
use crate::kernel::KernelEvent;
use crate::kernel::cells::load;

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "oom",
    provokes: "a process that outgrows the limit of its cgroup",
    disruptive: "a kill is written to the kernel's log; `holdfast local attest --disruptive` makes one",
    prepare,
    count,
    judge,
};

const PROGRAM: &str = "oom_mark_victim";
/// More than the worker itself takes.
const LIMIT: usize = 32 << 20;
const NAME: &std::ffi::CStr = c"attest-outgrows";

fn prepare(place: &Place<'_>) -> Result<Provoke, String> {
    let own = place.cgroup.join("memory.max");
    if own.exists() {
        set_limit(&own)?;
        let _ = fs::write(place.cgroup.join("memory.swap.max"), "0");
        return Ok(Box::new(move || {
            let facts = outgrow();
            let _ = fs::write(&own, "max");
            facts
        }));
    }
    let beside = Beside::join(&format!("holdfast-attest-{}", std::process::id()))?;
    set_limit(&beside.folder.join("memory.limit_in_bytes"))?;
    Ok(Box::new(move || {
        // Joined for as long as this closure lives.
        debug_assert!(beside.folder.is_absolute());
        outgrow()
    }))
}

fn set_limit(file: &Path) -> Result<(), String> {
    fs::write(file, LIMIT.to_string())
        .map_err(|error| format!("{} cannot be written: {error}", file.display()))
}

fn outgrow() -> Result<Facts, String> {
    let ended = in_child(NAME, || {
        // It, and nobody else in this cgroup, is to be chosen.
        if fs::write("/proc/self/oom_score_adj", "1000").is_err() {
            return 1;
        }
        let mut memory = vec![0u8; 4 * LIMIT];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        std::hint::black_box(memory);
        0
    });
    let (pid, status) = ended.map_err(|error| format!("no process can be started: {error}"))?;
    let WaitStatus::Signaled(_, signal, _) = status else {
        return Err("the limit on memory does not hold".to_owned());
    };
    let command = NAME.to_string_lossy().into_owned();
    let pid = if ids_are_the_kernels() { pid.as_raw().unsigned_abs() } else { 0 };
    let end = End { pid, command, code: 0, signal: signal as u8 };
    // The choice and the end of the process.
    Ok(Facts { ends: vec![end], events: 2, ..Facts::default() })
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let kernel = watch.kernel;
    let cell = kernel.process().get(kernel.attest_slot()).ok_or("no row to count in")?;
    Ok(Counts::from([("kills", load(&cell.oom_kills))]))
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let words = |pid: u32, command: &str| format!("{command} ({pid})");
    // Where the worker does not know its ids as the kernel does, names have to do.
    let known = evidence.facts.ends.iter().all(|end| end.pid != 0);
    let expected: Vec<_> =
        evidence.facts.ends.iter().map(|end| words(end.pid, &end.command)).collect();
    let seen: Vec<_> = evidence
        .events
        .iter()
        .filter_map(|event| match event {
            KernelEvent::OomKill { pid, command, .. } => {
                Some(words(if known { *pid } else { 0 }, command))
            }
            KernelEvent::Exit { .. } | KernelEvent::Hung { .. } => None,
        })
        .collect();
    vec![
        Check::exactly(PROGRAM, "kills", 1, evidence.gained("kills")),
        Check::same(PROGRAM, "victims", expected.join(", "), seen.join(", ")),
    ]
}
