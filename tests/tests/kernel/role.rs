//! Processes in the unit under test: this program again, in a role.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_core::clock::BootTime;
use holdfast_tests::Unit;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{Backlog, setsockopt};
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
        ["overflow", count, report] => overflow(count.parse()?, report),
        ["listen", backlog, report] => listen(backlog.parse()?, report),
        ["chat", rounds, address] => chat(rounds.parse()?, address.parse()?),
        ["hoard", connections] => hoard(connections.parse()?),
        ["outgrow", bytes] => outgrow(bytes.parse()?),
        ["hold", bytes, threads] => hold(bytes.parse()?, threads.parse()?),
        ["sync", count, path] => sync(count.parse()?, path),
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

/// Sends `count` datagrams to a socket of its own with little room, reads what it
/// took, and writes how many those were.
fn overflow(count: u32, report: &str) -> Result<()> {
    let (receiver, sender) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    setsockopt(&receiver, RcvBuf, &8192)?;
    // The kernel may bring the last ones late when the machine is busy.
    receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
    let address = receiver.local_addr()?;
    for _ in 0..count {
        sender.send_to(&[7; 256], address)?;
    }
    let mut datagram = [0; 256];
    let mut taken = 0;
    while receiver.recv(&mut datagram).is_ok() {
        taken += 1;
    }
    Ok(fs::write(report, format!("{taken}"))?)
}

/// Listens without ever accepting, writes where, and stays.
fn listen(backlog: i32, report: &str) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // Once more, with a limit of our own.
    nix::sys::socket::listen(&listener, Backlog::new(backlog)?)?;
    fs::write(report, listener.local_addr()?.to_string())?;
    loop {
        std::thread::park();
    }
}

/// Exchanges bytes with an echoing server, and stays connected.
fn chat(rounds: u32, address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    for _ in 0..rounds {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
    }
    loop {
        std::thread::park();
    }
}

/// Fills the buffers of connections to itself that nobody reads from.
fn hoard(connections: u32) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut ends = Vec::new();
    for _ in 0..connections {
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        near.set_nonblocking(true)?;
        for _ in 0..64 {
            if near.write(&[7; 4096]).is_err() {
                break;
            }
        }
        ends.push((near, far));
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
