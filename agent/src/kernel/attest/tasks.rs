//! The proof of the pass over all tasks: processes and threads of a known number, of
//! which one is held up in the kernel and one waits to be reaped, memory, and pages
//! that have to be read from the disk.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::unistd::Pid;

use super::sys::{Cold, Idler, idler, pause, wait_for_a_sleeper};
use super::{Check, Counts, Evidence, Facts, Place, Provoke, Spec, Watch};

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "tasks",
    provokes: "processes, threads, memory and major faults",
    disruptive: "",
    prepare,
    count,
    judge,
};

const PROGRAM: &str = "task_iterator";
const THREADS: u64 = 3;
/// One that waits for the other.
const PROCESSES: u64 = 2;
const MEMORY: usize = 8 << 20;
/// Pages that a single CPU may have counted and not yet added, of all processes.
const ROOM: u64 = 700;
const PAGE: usize = 4096;

/// What is there for as long as it is counted.
type Held = (Vec<mpsc::Sender<()>>, Vec<u8>, Idler, Idler);

fn prepare(place: &Place<'_>) -> Result<Provoke, String> {
    // Without a file on a disk there are no major faults: none are expected then.
    let cold = Cold::make(place.state_dir).ok();
    let mut held: Option<Held> = None;
    Ok(Box::new(move || {
        let failed = |error: std::io::Error| format!("no process can be started: {error}");
        let waiting = idler(wait_for_a_sleeper).map_err(failed)?;
        let reaped_late = idler(|| super::sys::exit_process(0)).map_err(failed)?;
        let mut facts = Facts::default();
        facts.set("rss", wait_for_both(waiting.0, reaped_late.0)?);

        if let Some(cold) = &cold {
            cold.cool();
            thread::scope(|scope| {
                // Those of a thread that has ended are the process'.
                scope.spawn(|| cold.touch(0..5));
            });
            cold.touch(8..11);
        }
        let mut memory = vec![0u8; MEMORY];
        memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            let (keep, kept) = mpsc::channel::<()>();
            let thread = thread::Builder::new().stack_size(64 * 1024);
            thread.spawn(move || kept.recv().is_err()).map_err(failed)?;
            threads.push(keep);
        }
        held.replace((threads, memory, waiting, reaped_late));
        Ok(facts)
    }))
}

/// Waits until one process is held up by its child and the other one has ended;
/// pages that the first one and its child have in memory.
fn wait_for_both(waiting: Pid, ended: Pid) -> Result<u64, String> {
    let of = |pid: &str, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let is = |pid: &str, state: &str| of(pid, "stat").is_ok_and(|stat| stat.contains(state));
    let children = format!("task/{waiting}/children");
    for _ in 0..500 {
        let child = of(&waiting.to_string(), &children).unwrap_or_default();
        let child = child.trim();
        let held_up = is(&waiting.to_string(), ") D ") && !child.is_empty() && is(child, ") S ");
        if held_up && is(&ended.to_string(), ") Z ") {
            return Ok(resident(&waiting.to_string())? + resident(child)?);
        }
        pause(Duration::from_micros(200));
    }
    Err("the processes do not come to rest".to_owned())
}

/// Pages of a process in memory, by the kernel's own account.
fn resident(process: &str) -> Result<u64, String> {
    let statm = fs::read_to_string(format!("/proc/{process}/statm"));
    let pages = statm.ok().and_then(|statm| statm.split(' ').nth(1)?.parse().ok());
    pages.ok_or_else(|| format!("/proc/{process}/statm cannot be read"))
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let kernel = watch.kernel;
    let mut found = Vec::new();
    kernel.count_tasks(&mut found).map_err(|error| format!("the pass failed: {error}"))?;
    let sums = found.get(kernel.attest_slot()).ok_or("no row to count in")?;
    let process = watch.worker.to_string();
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let faults = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(9)?.parse().ok());
    Ok(Counts::from([
        ("threads", sums.threads),
        ("processes", sums.processes),
        ("held_up", sums.uninterruptible),
        ("rss", sums.rss_pages),
        ("faults", sums.major_faults),
        ("kernel.rss", resident(&process)?),
        ("kernel.faults", faults.ok_or("the worker's faults are not told")?),
    ]))
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let gained = |name| evidence.gained(name);
    let mut checks = vec![
        Check::exactly(PROGRAM, "processes", PROCESSES, gained("processes")),
        Check::exactly(PROGRAM, "threads", PROCESSES + THREADS, gained("threads")),
        Check::exactly(PROGRAM, "held up in the kernel", 1, gained("held_up")),
        Check::exactly(PROGRAM, "major faults", gained("kernel.faults"), gained("faults")),
    ];
    if !(evidence.variant)(PROGRAM).ends_with("no_rss") {
        let told = gained("kernel.rss").wrapping_add(evidence.facts.get("rss"));
        let (least, seen) = (told.saturating_sub(ROOM), gained("rss"));
        checks.push(Check::at_least(PROGRAM, "pages in memory", least, seen));
        checks.push(Check::at_most(PROGRAM, "pages in memory, no more", told + ROOM, seen));
    }
    checks
}
