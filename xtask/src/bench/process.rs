//! What a process has cost, from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of all threads, to the nanosecond.
///
/// Threads that have ended are not in it: measured programs keep theirs.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut total = 0;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the process is gone")?;
    for task in tasks {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let on_cpu = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        total += on_cpu.context("schedstat is unreadable")?;
    }
    Ok(Duration::from_nanos(total))
}

/// Memory in bytes, with what is shared divided among those who share it.
pub(crate) fn pss(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .context("the memory of the process cannot be read")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kibibytes.context("smaps_rollup has no Pss")? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let pid = std::process::id();
        assert!(cpu_time(pid).unwrap() > Duration::ZERO);
        assert!(pss(pid).unwrap() > 4096);
    }
}
