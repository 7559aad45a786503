//! Processes in the unit under test: this program again, in a role.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_core::clock::BootTime;
use holdfast_tests::Unit;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

const ROLE: &str = "HOLDFAST_TEST_ROLE";
const CGROUPS: &str = "HOLDFAST_TEST_CGROUPS";
const PAGE: usize = 4096;

/// Starts this program in `unit`, and in the folder of another hierarchy if one is
/// given, to play `role`: a name and its arguments.
pub(crate) fn start(unit: &Unit, beside: Option<&str>, role: &str) -> Result<Child> {
    let folders = [Some(unit.folder().to_string_lossy().into_owned()), beside.map(str::to_owned)];
    Command::new(env::current_exe()?)
        .args(["role::play", "--exact", "--nocapture"])
        .env(ROLE, role)
        .env(CGROUPS, folders.into_iter().flatten().collect::<Vec<_>>().join(":"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start a role")
}

/// The same, but the process is in `unit` before it is this program: so are all its threads.
pub(crate) fn start_within(unit: &Unit, role: &str) -> Result<Child> {
    Command::new("sh")
        .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
        .arg(unit.folder())
        .arg(env::current_exe()?)
        .args(["role::play", "--exact", "--nocapture"])
        .env(ROLE, role)
        .env(CGROUPS, "")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start a role")
}

/// Plays `role` in `unit` to its end, which must be a good one.
pub(crate) fn run(unit: &Unit, role: &str) -> Result<()> {
    let status = start(unit, None, role)?.wait()?;
    ensure!(status.success(), "the role {role} ended with {status}");
    Ok(())
}

/// Not a test: what a process started by [`start`] does.
#[test]
fn play() -> Result<()> {
    let (Ok(role), Ok(folders)) = (env::var(ROLE), env::var(CGROUPS)) else { return Ok(()) };
    for folder in folders.split(':').filter(|folder| !folder.is_empty()) {
        let procs = format!("{folder}/cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("cannot join {procs}"))?;
    }
    let words: Vec<&str> = role.split(' ').collect();
    match words.as_slice() {
        ["ping-pong", rounds] => ping_pong(rounds.parse()?),
        ["nap", rounds, work, rest] => nap(rounds.parse()?, work.parse()?, rest.parse()?),
        ["connect", count, address] => connect(count.parse()?, address.parse()?),
        ["spin", cpu, seconds] => spin(cpu.parse()?, seconds.parse()?),
        ["doze", cpu, seconds] => doze(cpu.parse()?, seconds.parse()?),
        ["outgrow", bytes] => outgrow(bytes.parse()?),
        _ => bail!("no role {role}"),
    }
}

/// Two processes on one CPU hand a byte back and forth: two switches a round.
fn ping_pong(rounds: u32) -> Result<()> {
    stay_on(0)?;
    let mut echo =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cat")?;
    let mut to = echo.stdin.take().context("no pipe")?;
    let mut from = echo.stdout.take().context("no pipe")?;
    let mut byte = [0];
    for _ in 0..rounds {
        to.write_all(&byte)?;
        from.read_exact(&mut byte)?;
    }
    drop(to);
    echo.wait()?;
    Ok(())
}

/// Works and sleeps in turns, each for so many milliseconds.
fn nap(rounds: u32, work: u64, rest: u64) -> Result<()> {
    for round in 1..=u64::from(rounds) {
        let until = Duration::from_millis(round * work);
        while thread_cpu()? < until {
            black_box(0);
        }
        pause(rest);
    }
    Ok(())
}

fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// Wants all of a CPU.
fn spin(cpu: usize, seconds: u64) -> Result<()> {
    stay_on(cpu)?;
    let begun = BootTime::now();
    while BootTime::now().since(begun).as_secs() < seconds {
        black_box(begun);
    }
    Ok(())
}

/// Sleeps.
#[expect(clippy::disallowed_methods, reason = "that somebody sleeps is what is tested")]
pub(crate) fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn thread_cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Wants a CPU for a millisecond, again and again.
fn doze(cpu: usize, seconds: u64) -> Result<()> {
    stay_on(cpu)?;
    let begun = BootTime::now();
    while BootTime::now().since(begun).as_secs() < seconds {
        let woken = BootTime::now();
        while BootTime::now().since(woken) < Duration::from_millis(1) {
            black_box(woken);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}

fn connect(count: u32, address: SocketAddr) -> Result<()> {
    for _ in 0..count {
        // Refusal is what some tests are after.
        drop(TcpStream::connect(address));
    }
    Ok(())
}

/// Takes memory page by page; meant to be stopped by a limit.
fn outgrow(bytes: usize) -> Result<()> {
    fs::write("/proc/self/oom_score_adj", "1000")?;
    let mut memory = vec![0u8; bytes];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    black_box(memory);
    Ok(())
}
