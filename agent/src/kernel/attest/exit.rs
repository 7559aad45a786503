//! The proof of the probe of exits: processes that end in every way there is, and
//! the event for each that does not end well.

use std::ffi::CStr;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::getpid;

use super::sys::{Cold, exit_process, exit_thread, ids_are_the_kernels, in_child, pause};
use super::{Check, Counts, End, Evidence, Facts, Place, Provoke, Spec, Watch};
use crate::kernel::KernelEvent;
use crate::kernel::cells::load;

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "exit",
    provokes: "processes that end well, with an error and by a signal",
    disruptive: "",
    prepare,
    count,
    judge,
};

const PROGRAM: &str = "sched_process_exit";

/// A process by its name, and what it does.
type Way = (&'static CStr, fn(&Cold) -> i32);

const WAYS: [Way; 6] = [
    (c"attest-well", |_| 0),
    (c"attest-code", |_| 7),
    // Without a word to its group: the status is the task's own.
    (c"attest-alone", |_| exit_thread(9)),
    (c"attest-killed", |_| killed()),
    (c"attest-leader", leaves_first),
    (c"attest-threads", outlives_a_thread),
];

fn prepare(place: &Place<'_>) -> Result<Provoke, String> {
    let failed = |error| format!("{} cannot be written: {error}", place.state_dir.display());
    let cold = Cold::make(place.state_dir).map_err(failed)?;
    Ok(Box::new(move || {
        let mut facts = Facts::default();
        cold.cool();
        let before = faults_of_children();
        for (name, way) in WAYS {
            let (pid, status) = in_child(name, || way(&cold))
                .map_err(|error| format!("no process can be started: {error}"))?;
            let (code, signal) = match status {
                WaitStatus::Exited(_, code) => (code as u8, 0),
                WaitStatus::Signaled(_, signal, _) => (0, signal as u8),
                other => return Err(format!("a process ended oddly: {other:?}")),
            };
            let command = name.to_string_lossy().into_owned();
            let pid = if ids_are_the_kernels() { pid.as_raw().unsigned_abs() } else { 0 };
            facts.ends.push(End { pid, command, code, signal });
        }
        facts.set("faults", faults_of_children().saturating_sub(before));
        facts.events = facts.ends.iter().filter(|end| end.code != 0 || end.signal != 0).count();
        Ok(facts)
    }))
}

fn killed() -> i32 {
    let _ = kill(getpid(), Signal::SIGKILL);
    // Never reached: the signal comes before the call returns.
    1
}

/// The first thread ends, well; the process ends later, with what another one says.
fn leaves_first(cold: &Cold) -> i32 {
    cold.touch(0..2);
    let rest = thread::Builder::new().name("attest-rest".to_owned()).spawn(|| {
        let stat = format!("/proc/{}/stat", getpid());
        for _ in 0..100 {
            if std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z ")) {
                break;
            }
            pause(Duration::from_millis(1));
        }
        exit_process(11)
    });
    match rest {
        Ok(_) => exit_thread(0),
        Err(_) => 1,
    }
}

/// The end of one of several threads is not that of the process.
fn outlives_a_thread(cold: &Cold) -> i32 {
    let ended = thread::scope(|scope| scope.spawn(|| cold.touch(4..9)).join());
    cold.touch(12..15);
    i32::from(ended.is_err())
}

/// Major faults of the processes that this one has reaped.
fn faults_of_children() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
    usage.map_or(0, |usage| usage.major_page_faults().unsigned_abs())
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let kernel = watch.kernel;
    let cell = kernel.process().get(kernel.attest_slot()).ok_or("no row to count in")?;
    Ok(Counts::from([
        ("exits", load(&cell.exits)),
        ("by_signal", load(&cell.by_signal)),
        ("by_error", load(&cell.by_error)),
        ("faults", load(&cell.major_faults)),
    ]))
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let ends = &evidence.facts.ends;
    let told = |like: &dyn Fn(&End) -> bool| ends.iter().filter(|end| like(end)).count() as u64;
    let bad = |end: &&End| end.signal != 0 || end.code != 0;
    let expected: Vec<String> = ends.iter().filter(bad).map(words).collect();
    // Where the worker does not know its ids as the kernel does, names have to do.
    let known = ends.iter().all(|end| end.pid != 0);
    let seen = evidence.events.iter().filter_map(end);
    let seen: Vec<String> =
        seen.map(|end| words(&End { pid: if known { end.pid } else { 0 }, ..end })).collect();
    vec![
        Check::exactly(PROGRAM, "ends", told(&|_| true), evidence.gained("exits")),
        Check::exactly(
            PROGRAM,
            "by a signal",
            told(&|end| end.signal != 0),
            evidence.gained("by_signal"),
        ),
        Check::exactly(
            PROGRAM,
            "with an error",
            told(&|end| end.signal == 0 && end.code != 0),
            evidence.gained("by_error"),
        ),
        Check::exactly(
            PROGRAM,
            "major faults",
            evidence.facts.get("faults"),
            evidence.gained("faults"),
        ),
        Check::same(PROGRAM, "events", expected.join(", "), seen.join(", ")),
    ]
}

fn end(event: &KernelEvent) -> Option<End> {
    match event {
        KernelEvent::Exit { pid, command, code, signal, core_dumped: false, .. } => {
            Some(End { pid: *pid, command: command.clone(), code: *code, signal: *signal })
        }
        _ => None,
    }
}

fn words(end: &End) -> String {
    format!("{} ({}) code {} signal {}", end.command, end.pid, end.code, end.signal)
}
