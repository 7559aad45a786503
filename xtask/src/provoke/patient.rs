//! `xtask patient FAULT`: a service that works a little, and falls ill while a file is
//! there, for the measurement of what the agent finds unusual.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_core::clock::BootTime;

use super::{Writer, pause, slow_connects};

/// What a patient suffers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Never rests, on two CPUs
    Cpu,
    /// Takes memory and never gives it back
    Leak,
    /// Writes past the page cache without a rest
    Disk,
    /// Its network loses packets: who starts it sees to that
    Loss,
    /// Starts program after program
    Forks,
    /// Many threads sync files all the time
    Syncs,
    /// What it connects to answers after a second only
    Slow,
}

impl Fault {
    pub(crate) const ALL: [Self; 7] =
        [Self::Cpu, Self::Leak, Self::Disk, Self::Loss, Self::Forks, Self::Syncs, Self::Slow];

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Leak => "leak",
            Self::Disk => "disk",
            Self::Loss => "loss",
            Self::Forks => "forks",
            Self::Syncs => "syncs",
            Self::Slow => "slow",
        }
    }

    /// What signals of the right subsystem begin with.
    pub(crate) fn subsystems(self) -> &'static [&'static str] {
        match self {
            Self::Cpu => &["cpu."],
            Self::Leak => &["memory."],
            Self::Disk | Self::Syncs => &["disk."],
            Self::Loss | Self::Slow => &["tcp.", "network.", "socket."],
            // A program that starts is memory and CPU time, too.
            Self::Forks => &["process."],
        }
    }
}

/// What `xtask patient` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What it will suffer from
    fault: Fault,
    /// It is ill while this file is there
    #[arg(long)]
    ill: PathBuf,
    /// Folder on a real disk for what it writes
    #[arg(long)]
    scratch: PathBuf,
    /// Whom it talks to; itself when not given
    #[arg(long)]
    peer: Option<SocketAddr>,
    /// Talks to nobody and answers all who come, at this address
    #[arg(long, value_name = "ADDRESS", conflicts_with = "peer")]
    answer: Option<SocketAddr>,
}

/// Memory taken ten times a second by a leak, and all that it may take.
const LEAK_STEP: usize = 2 << 20;
const LEAK_LIMIT: usize = 1 << 30;
const SYNC_THREADS: usize = 8;
/// How soon it notices that it is to be ill.
const LOOK_EVERY: Duration = Duration::from_millis(200);

static ILL: AtomicBool = AtomicBool::new(false);

/// Lives until killed.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(address) = args.answer {
        return answer(&TcpListener::bind(address).context("cannot listen")?);
    }
    let peer = match args.peer {
        Some(peer) => peer,
        None => {
            let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
            let address = listener.local_addr()?;
            thread::spawn(move || answer(&listener));
            address
        }
    };
    let scratch = args.scratch.clone();
    thread::spawn(move || work(&scratch, peer));
    // Threads for what takes more than one: they sleep until it is time.
    let sufferers: Vec<_> = (0..SYNC_THREADS)
        .map(|_| {
            let (fault, scratch) = (args.fault, args.scratch.clone());
            thread::spawn(move || suffer(fault, &scratch))
        })
        .collect();
    loop {
        ILL.store(args.ill.exists(), Ordering::Relaxed);
        if ill() {
            sufferers.iter().for_each(|sufferer| sufferer.thread().unpark());
        }
        pause(LOOK_EVERY);
    }
}

fn ill() -> bool {
    ILL.load(Ordering::Relaxed)
}

/// What it does while it is well, and goes on with when it is not: a little of all.
fn work(scratch: &Path, peer: SocketAddr) {
    let mut turn = u64::from(std::process::id());
    loop {
        // Not the same each second, or anything would be unusual.
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chance = turn >> 33;
        let begun = BootTime::now();
        while BootTime::now().since(begun) < Duration::from_micros(500 + chance % 3_000) {
            black_box(begun);
        }
        // A refusal is an answer, too.
        let _ = talk(peer, 1 + chance as usize % 20);
        // Seldom, because many of them share a disk that has to stay well.
        if chance.is_multiple_of(20) {
            let _ = sync(scratch);
        }
        if chance.is_multiple_of(5) {
            let _ = start_program();
        }
        pause(Duration::from_millis(700 + chance % 600));
    }
}

fn start_program() -> Result<()> {
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().context("no `true`")?;
    child.wait().map(drop).context("it was lost")
}

/// Sends some kilobytes, and waits for as many.
fn talk(peer: SocketAddr, kilobytes: usize) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&peer, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut buffer = vec![0x5A; 1 << 10];
    for _ in 0..kilobytes {
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
    }
    Ok(())
}

/// Sends back what comes, to each caller.
fn answer(listener: &TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().context("cannot accept")?;
        thread::spawn(move || {
            let mut buffer = [0; 1 << 10];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                let Some(bytes) = buffer.get(..read) else { return };
                if stream.write_all(bytes).is_err() {
                    return;
                }
            }
        });
    }
}

/// One of the threads of the fault.
fn suffer(fault: Fault, scratch: &Path) {
    static FIRST: AtomicBool = AtomicBool::new(true);
    let is_first = FIRST.swap(false, Ordering::Relaxed);
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut file: Option<Writer> = None;
    loop {
        if !ill() {
            (held, file) = (Vec::new(), None);
            thread::park();
            continue;
        }
        match fault {
            Fault::Cpu => {
                let begun = BootTime::now();
                while BootTime::now().since(begun) < Duration::from_millis(50) {
                    black_box(begun);
                }
            }
            Fault::Leak if is_first && held.len() * LEAK_STEP < LEAK_LIMIT => {
                let mut memory = vec![0_u8; LEAK_STEP];
                memory.iter_mut().step_by(4 << 10).for_each(|byte| *byte = 1);
                held.push(black_box(memory));
                pause(Duration::from_millis(100));
            }
            Fault::Disk if is_first => {
                let writer = file.take().or_else(|| Writer::create(scratch).ok());
                file = writer.and_then(|mut writer| writer.write(64).ok().map(|()| writer));
            }
            Fault::Syncs => {
                let _ = sync(scratch);
            }
            Fault::Forks => {
                let _ = start_program();
            }
            Fault::Slow if is_first => {
                let _ = slow_connects(Duration::from_secs(1));
            }
            _ => pause(Duration::from_millis(100)),
        }
    }
}

/// Writes a little to a file and syncs it.
fn sync(scratch: &Path) -> Result<()> {
    let mut file = tempfile::tempfile_in(scratch).context("no file")?;
    file.write_all(b"some words").context("cannot write")?;
    file.sync_all().context("cannot sync")
}
