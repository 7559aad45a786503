//! The proof of the scheduler's probe: two threads on one CPU hand a byte back and
//! forth, sleep and yield. The kernel keeps its own account with each of them, so
//! every number has one that it must equal.

use std::fs;
use std::io::{Read, Write, pipe};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use holdfast_agent_ebpf::depth;
use holdfast_core::clock::BootTime;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::sys::{ids_are_the_kernels, pause};
use super::{Check, Counts, Evidence, Facts, Place, Provoke, Spec, Watch};
use crate::kernel::cells::{load, total};

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "sched",
    provokes: "a ping-pong of two threads, sleeps and yields",
    disruptive: "",
    prepare,
    count,
    judge,
};

const PROGRAM: &str = "sched_switch";
/// Bytes that go to and fro; two switches each.
const ROUNDS: u32 = 200;
/// Sleeps after each of which the CPU has nothing to do, if nobody else is there.
const SLEEPS: u32 = 30;
const SLEEP: Duration = Duration::from_micros(150);
const YIELDS: u32 = 100;
/// No task of the worker is there for longer, nor are all of them together.
const LONGEST_NS: u64 = 30_000_000_000;
const BURN: Duration = Duration::from_millis(2);

/// The loss that a switch to the idle task is counted as when it is taken for a task.
/// How often both accounts are read until nothing happens meanwhile.
const READINGS: u32 = 16;
const UNSTAMPED: &str = "ebpf.switch_unstamped";

fn prepare(place: &Place<'_>) -> Result<Provoke, String> {
    stay_on_one_cpu()?;
    let effort = place.effort;
    let failed = |error: std::io::Error| format!("no pipes or threads: {error}");
    let (mut ping_out, mut ping_in) = pipe().map_err(failed)?;
    let (mut pong_out, mut pong_in) = pipe().map_err(failed)?;
    let (start_one, one_starts) = mpsc::channel::<()>();
    let (start_two, two_starts) = mpsc::channel::<()>();
    let (done, all_done) = mpsc::channel::<bool>();
    let rounds = ROUNDS * effort;

    let one_done = done.clone();
    let spawn = |name: &str| thread::Builder::new().name(name.to_owned()).stack_size(64 * 1024);
    spawn("attest-ping")
        .spawn(move || {
            while one_starts.recv().is_ok() {
                let mut byte = [0];
                let good = (0..rounds).all(|_| {
                    ping_in.write_all(&byte).is_ok() && pong_out.read_exact(&mut byte).is_ok()
                });
                (0..SLEEPS).for_each(|_| pause(SLEEP));
                burn();
                (0..YIELDS).for_each(|_| thread::yield_now());
                let _ = one_done.send(good);
            }
        })
        .map_err(failed)?;
    spawn("attest-pong")
        .spawn(move || {
            while two_starts.recv().is_ok() {
                let mut byte = [0];
                let good = (0..rounds).all(|_| {
                    ping_out.read_exact(&mut byte).is_ok() && pong_in.write_all(&byte).is_ok()
                });
                burn();
                (0..YIELDS).for_each(|_| thread::yield_now());
                let _ = done.send(good);
            }
        })
        .map_err(failed)?;

    Ok(Box::new(move || {
        let lost = "the threads of the ping-pong are lost";
        start_one.send(()).map_err(|_| lost)?;
        start_two.send(()).map_err(|_| lost)?;
        let patience = Duration::from_secs(5);
        for _ in 0..2 {
            let good = all_done.recv_timeout(patience).map_err(|_| lost)?;
            if !good {
                return Err("the ping-pong broke".to_owned());
            }
        }
        Ok(Facts::default())
    }))
}

/// Runs for a while.
fn burn() {
    let start = BootTime::now();
    while BootTime::now().since(start) < BURN {}
}

/// Pins this process, and with it the threads to come, to the last CPU it may use:
/// only there is every switch one from or to somebody else.
fn stay_on_one_cpu() -> Result<(), String> {
    let failed = |error: nix::Error| format!("no CPU can be chosen: {error}");
    let me = Pid::from_raw(0);
    let allowed = sched_getaffinity(me).map_err(failed)?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.unwrap_or(0)).map_err(failed)?;
    sched_setaffinity(me, &one).map_err(failed)
}

/// Both accounts at one moment: a worker that has said it is done may still be on its way
/// to sleep, so a reading during which it was switched to is made again.
fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    for _ in 0..READINGS {
        let counts = count_once(watch)?;
        let cells = watch.kernel.sched().of_row(watch.kernel.attest_slot());
        let now = cells.fold(0u64, |sum, cell| sum.wrapping_add(load(&cell.switches)));
        if counts.get("switches") == Some(&now) {
            return Ok(counts);
        }
    }
    Err("the host is too busy: the worker does not come to rest".to_owned())
}

fn count_once(watch: &Watch<'_>) -> Result<Counts, String> {
    let kernel = watch.kernel;
    let depth = kernel.cpus().get(0).map_or(depth::FULL, |cpu| load(&cpu.depth));
    if depth != depth::FULL {
        return Err("not every switch is looked at in full at present, to save CPU time".to_owned());
    }
    let mut counts = Counts::new();
    let mut add = |name, n: u64| {
        let sum = counts.entry(name).or_insert(0u64);
        *sum = sum.wrapping_add(n);
    };
    for cell in kernel.sched().of_row(kernel.attest_slot()) {
        add("switches", load(&cell.switches));
        add("involuntary", load(&cell.involuntary));
        add("on_cpu", load(&cell.on_cpu_ns));
        add("ids", load(&cell.ids));
        add("cycles", load(&cell.cycles_ns));
        add("waits", total(&cell.wait));
        add("wait", load(&cell.wait.sum));
    }
    add("unstamped", kernel.losses_of(UNSTAMPED));
    let tasks = PathBuf::from(format!("/proc/{}/task", watch.worker));
    let unread = |error| format!("{} cannot be read: {error}", tasks.display());
    for task in fs::read_dir(&tasks).map_err(unread)?.flatten() {
        let account = Account::of(&task.path())
            .ok_or("this kernel keeps no account of waits (CONFIG_SCHED_INFO)")?;
        add("kernel.switches", account.arrivals);
        add("kernel.wait", account.waited_ns);
        add("kernel.on_cpu", account.ran_ns);
        add("kernel.involuntary", account.involuntary);
        let id = task.file_name().to_string_lossy().parse().unwrap_or(0u64);
        add("kernel.ids", account.arrivals.wrapping_mul(id));
    }
    Ok(counts)
}

/// What the kernel itself says of a task.
pub(super) struct Account {
    pub(super) ran_ns: u64,
    pub(super) waited_ns: u64,
    arrivals: u64,
    involuntary: u64,
}

impl Account {
    /// Of the task of a folder in /proc; `None` when it is gone or not accounted for.
    pub(super) fn of(task: &Path) -> Option<Self> {
        let schedstat = fs::read_to_string(task.join("schedstat")).ok()?;
        let mut numbers = schedstat.split_whitespace().map(|n| n.parse().ok());
        let (ran_ns, waited_ns) = (numbers.next()??, numbers.next()??);
        let arrivals = numbers.next()??;
        let status = fs::read_to_string(task.join("status")).ok()?;
        let involuntary =
            status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
        Some(Self { ran_ns, waited_ns, arrivals, involuntary: involuntary.trim().parse().ok()? })
    }
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let gained = |name| evidence.gained(name);
    // The stamps of the other form are its own: close to the kernel's, not the same.
    let exact = (evidence.variant)(PROGRAM).ends_with("sched_info");
    let (switches, wait, ran) =
        (gained("kernel.switches"), gained("kernel.wait"), gained("kernel.on_cpu"));
    let (near, far) = if exact { (10_000, 50) } else { (1_000_000 + 2_000 * switches, 5) };
    let waits = wait.saturating_sub(wait / far + near)..=wait + wait / far + near;
    // The account of time on CPUs leaves out what the hypervisor or interrupts took.
    let between = if exact { 0 } else { 2_000 * switches };
    let on_cpu = ran.saturating_sub(ran / 50 + 100_000 + between)..=ran + ran / 2 + 5_000_000;
    let mut checks = vec![
        Check::exactly(PROGRAM, "switches", switches, gained("switches")),
        Check::exactly(
            PROGRAM,
            "forced switches",
            gained("kernel.involuntary"),
            gained("involuntary"),
        ),
        Check::time(PROGRAM, "wait by the kernel's own account", wait, &waits, gained("wait")),
        Check::time(PROGRAM, "time on CPU", ran, &on_cpu, gained("on_cpu")),
        // Others may come unstamped now and then; the idle task always does.
        Check::at_most(
            PROGRAM,
            "switches without a stamp, as the idle task's are",
            3,
            gained("unstamped"),
        ),
    ];
    if ids_are_the_kernels() {
        let told = gained("kernel.ids");
        checks.push(Check::exactly(PROGRAM, "sum of task ids", told, gained("ids")));
    }
    if exact {
        checks.push(Check::exactly(PROGRAM, "waits", switches, gained("waits")));
        // Each cycle is a slice, what the task was off the CPU, and its wait for it; all
        // cycles of a task together are no longer than it was there.
        let slept = u64::from(SLEEPS) * SLEEP.as_nanos() as u64;
        let cycles = wait.saturating_sub(wait / far + near) + slept..=LONGEST_NS;
        checks.push(Check::between(PROGRAM, "time on and off CPUs", &cycles, gained("cycles")));
    } else {
        let least = switches.saturating_sub(5);
        checks.push(Check::at_least(PROGRAM, "waits", least, gained("waits")));
    }
    checks
}
