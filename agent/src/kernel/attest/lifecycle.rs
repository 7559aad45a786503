//! The proof of the probe of starts: processes, threads and programs of a known number.

use std::thread;

use nix::unistd::{close, execv};

use super::sys::in_child;
use super::{Check, Counts, Evidence, Facts, Place, Provoke, Spec, Watch};
use crate::kernel::cells::load;

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "lifecycle",
    provokes: "processes, threads and programs that start",
    disruptive: "",
    prepare,
    count,
    judge,
};

const FORK: &str = "sched_process_fork";
const EXEC: &str = "sched_process_exec";

const FORKS: u64 = 3;
const THREADS: u64 = 2;
const EXECS: u64 = 2;

fn prepare(_: &Place<'_>) -> Result<Provoke, String> {
    Ok(Box::new(|| {
        let failed = |error: std::io::Error| format!("no process can be started: {error}");
        for _ in 0..FORKS {
            in_child(c"attest-fork", || 0).map_err(failed)?;
        }
        for _ in 0..EXECS {
            in_child(c"attest-exec", execute).map_err(failed)?;
        }
        for _ in 0..THREADS {
            let started = thread::Builder::new().stack_size(64 * 1024).spawn(|| {});
            let _ = started.map_err(failed)?.join();
        }
        Ok(Facts::default())
    }))
}

/// Becomes a program that ends at once and says nothing to anybody.
fn execute() -> i32 {
    for stream in 0..3 {
        let _ = close(stream);
    }
    let _ = execv(c"/bin/true", &[c"true"]);
    // Where there is no such program, this one ends as soon.
    let _ = execv(c"/proc/self/exe", &[c"holdfast-agent", c"--version"]);
    1
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let kernel = watch.kernel;
    let cell = kernel.process().get(kernel.attest_slot()).ok_or("no row to count in")?;
    Ok(Counts::from([
        ("forks", load(&cell.forks)),
        ("threads", load(&cell.threads)),
        ("execs", load(&cell.execs)),
    ]))
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let gained = |name| evidence.gained(name);
    vec![
        Check::exactly(FORK, "processes started", FORKS + EXECS, gained("forks")),
        Check::exactly(FORK, "threads started", THREADS, gained("threads")),
        Check::exactly(EXEC, "programs executed", EXECS, gained("execs")),
    ]
}
