//! Processes in the unit under test: this program again, in a role.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use holdfast_tests::Unit;
use nix::sched::{CpuSet, sched_setaffinity};
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
    for folder in folders.split(':') {
        let procs = format!("{folder}/cgroup.procs");
        fs::write(&procs, "0").with_context(|| format!("cannot join {procs}"))?;
    }
    let words: Vec<&str> = role.split(' ').collect();
    match words.as_slice() {
        ["ping-pong", rounds] => ping_pong(rounds.parse()?),
        ["connect", count, address] => connect(count.parse()?, address.parse()?),
        ["outgrow", bytes] => outgrow(bytes.parse()?),
        ["hold", bytes, threads] => hold(bytes.parse()?, threads.parse()?),
        ["sync", count, path] => sync(count.parse()?, path),
        _ => bail!("no role {role}"),
    }
}

/// Two processes on one CPU hand a byte back and forth: two switches a round.
fn ping_pong(rounds: u32) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
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

fn connect(count: u32, address: SocketAddr) -> Result<()> {
    for _ in 0..count {
        // Refusal is what some tests are after.
        drop(TcpStream::connect(address));
    }
    Ok(())
}

/// Keeps memory and threads until it is killed.
fn hold(bytes: usize, threads: usize) -> Result<()> {
    let mut memory = vec![0u8; bytes];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    for _ in 0..threads {
        std::thread::Builder::new().stack_size(PAGE * 16).spawn(std::thread::park)?;
    }
    loop {
        std::thread::park();
        black_box(&memory);
    }
}

/// Writes to a file and syncs it, several times.
fn sync(count: usize, path: &str) -> Result<()> {
    let mut file = fs::File::create(path)?;
    for _ in 0..count {
        file.write_all(&[1; PAGE])?;
        file.sync_all()?;
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
