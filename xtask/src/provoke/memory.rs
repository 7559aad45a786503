//! Memory load, within bounds that no host notices.
//!
//! In a cgroup with a limit, a page cache larger than the limit makes the process
//! reclaim memory by itself (direct reclaim). Without a limit there is none of
//! that, only page faults.

use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::pause;
use crate::shell;

/// The memory limit of this load's cgroup.
pub(super) const LIMIT: u64 = 96 << 20;
/// The memory limit of the cgroup in which a process is killed.
pub(super) const OOM_LIMIT: u64 = 48 << 20;
/// More than [`LIMIT`], so that the page cache has to give way.
const FILE_BYTES: usize = 160 << 20;
/// Large enough to be a mapping of its own, given back at once.
const TOUCH_BYTES: usize = 40 << 20;
const PAGE: usize = 4 << 10;

pub(super) fn run(scratch: &Path) -> Result<()> {
    let path = scratch.join("holdfast-demo-memory");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // An open file without a name goes away with the process.
    fs::remove_file(&path).with_context(|| format!("cannot unlink {}", path.display()))?;
    let mut chunk = vec![0x5A; 1 << 20];
    for _ in 0..FILE_BYTES / chunk.len() {
        file.write_all(&chunk).context("cannot fill the file")?;
    }
    // Clean pages are given up without a write each time.
    file.sync_data().context("cannot fill the file")?;
    loop {
        file.rewind().context("cannot read")?;
        while file.read(&mut chunk).context("cannot read")? > 0 {
            pause(Duration::from_millis(4));
        }
        touch(TOUCH_BYTES);
    }
}

/// Lets a child process outgrow the cgroup that both are in, every few seconds.
pub(super) fn run_oom(scratch: &Path) -> Result<()> {
    loop {
        Command::new(shell::OURSELVES)
            .args(["provoke", "oom-victim", "--scratch"])
            .arg(scratch)
            .stdin(Stdio::null())
            .status()
            .context("cannot start a child")?;
        pause(Duration::from_secs(4));
    }
}

/// Grows past the limit. Where the limit does not hold after all, ends by itself
/// long before anyone else misses the memory.
pub(super) fn be_killed() -> Result<()> {
    fs::write("/proc/self/oom_score_adj", "1000").context("cannot volunteer for the OOM killer")?;
    let mut held = Vec::new();
    for _ in 0..4 * OOM_LIMIT / TOUCH_BYTES as u64 + 1 {
        held.push(touch(TOUCH_BYTES));
    }
    black_box(held);
    Ok(())
}

/// Memory of `bytes` of which each page was written.
fn touch(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0; bytes];
    for page in memory.chunks_mut(PAGE) {
        if let Some(first) = page.first_mut() {
            *first = 1;
        }
    }
    black_box(memory)
}
