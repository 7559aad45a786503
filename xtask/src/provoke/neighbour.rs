//! `xtask neighbour ROLE`: one of several units that share a host, for the
//! measurement of who is blamed for what. Each lives until it is killed.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_core::clock::BootTime;
use nix::fcntl::OFlag;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::pause;

/// Of the files that are read and written past the page cache. They are filled in a
/// few large pieces, so that who only prepares itself is no aggressor.
const FILE_BYTES: u64 = 4 << 20;
/// What direct I/O wants of addresses, offsets and sizes, everywhere.
const ALIGNMENT: usize = 4 << 10;
/// Memory is taken so much at a time, with a rest after each.
const STEP_BYTES: usize = 4 << 20;
const PAGE: usize = 4 << 10;

/// What `xtask neighbour` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(clap::Subcommand)]
enum Role {
    /// Runs for a part of each period, on one CPU
    Work { cpu: usize, run_us: u64, period_us: u64 },
    /// Never rests, on one CPU
    Spin { cpu: usize },
    /// Reads past the page cache, with a rest after each
    Read { file: PathBuf, bytes: usize, rest_us: u64 },
    /// Writes past the page cache, with a rest after each
    Write { file: PathBuf, bytes: usize, rest_us: u64 },
    /// Reads a file through the page cache again and again
    Reread { file: PathBuf, bytes: usize },
    /// Takes memory and gives it back, again and again
    Grow { bytes: usize },
}

/// Plays a role until killed.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.role {
        Role::Work { cpu, run_us, period_us } => {
            stay_on(*cpu)?;
            work(Duration::from_micros(*run_us), Duration::from_micros(*period_us))
        }
        Role::Spin { cpu } => {
            stay_on(*cpu)?;
            loop {
                black_box(BootTime::now());
            }
        }
        Role::Read { file, bytes, rest_us } => {
            direct(file, *bytes, *rest_us, |file, buffer, at| file.read_exact_at(buffer, at))
        }
        Role::Write { file, bytes, rest_us } => {
            direct(file, *bytes, *rest_us, |file, buffer, at| file.write_all_at(buffer, at))
        }
        Role::Reread { file, bytes } => reread(file, *bytes),
        Role::Grow { bytes } => grow(*bytes),
    }
}

fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).with_context(|| format!("no CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("cannot stay on CPU {cpu}"))
}

fn work(run: Duration, period: Duration) -> ! {
    loop {
        let begun = BootTime::now();
        while BootTime::now().since(begun) < run {
            black_box(begun);
        }
        pause(period.saturating_sub(run));
    }
}

/// Does the same to one place of a file after the other.
fn direct(
    path: &Path,
    bytes: usize,
    rest_us: u64,
    touch: impl Fn(&File, &mut [u8], u64) -> std::io::Result<()>,
) -> Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // An open file without a name goes away with the process.
    std::fs::remove_file(path).with_context(|| format!("cannot unlink {}", path.display()))?;
    let all = usize::try_from(FILE_BYTES).unwrap_or(bytes).max(bytes);
    let mut memory = vec![0x5A; all + ALIGNMENT];
    let skip = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let buffer = memory.get_mut(skip..skip + all).context("no aligned buffer")?;
    file.write_all_at(buffer, 0).context("cannot fill the file")?;
    let buffer = buffer.get_mut(..bytes).context("no aligned buffer")?;
    loop {
        // Only whole pieces, so that nothing beyond the end is read.
        for at in (0..=FILE_BYTES.saturating_sub(bytes as u64)).step_by(bytes) {
            touch(&file, buffer, at).context("the disk refuses")?;
            if rest_us > 0 {
                pause(Duration::from_micros(rest_us));
            }
        }
    }
}

fn reread(path: &Path, bytes: usize) -> Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    std::fs::remove_file(path).with_context(|| format!("cannot unlink {}", path.display()))?;
    let mut chunk = vec![0x5A; 256 << 10];
    for _ in 0..bytes / chunk.len() {
        file.write_all(&chunk).context("cannot fill the file")?;
    }
    // Clean pages are given up without a write each time.
    file.sync_data().context("cannot fill the file")?;
    loop {
        file.rewind().context("cannot read")?;
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(_) => pause(Duration::from_millis(1)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read"),
            }
        }
    }
}

fn grow(bytes: usize) -> Result<()> {
    loop {
        let mut held: Vec<Vec<u8>> = Vec::new();
        while held.len() * STEP_BYTES < bytes {
            let mut memory = vec![0; STEP_BYTES];
            memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
            held.push(black_box(memory));
            pause(Duration::from_millis(20));
        }
    }
}
