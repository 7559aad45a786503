//! Beside a tool that others trust: the run-queue histogram against `runqlat` of
//! bcc, over the same load at the same time.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use holdfast_agent::host::Root;
use holdfast_agent::kernel::{Kernel, Options};
use holdfast_proto::histogram::{self, BUCKETS};
use holdfast_tests::need;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Threads that compete for one CPU, so that waits are long and the tail is fat.
const COMPETITORS: usize = 6;
/// How long the tool records.
const SECONDS: &str = "5";

/// Counts of our histogram, over all units and CPUs.
fn waits(kernel: &Kernel) -> [u64; BUCKETS] {
    let mut counts = [0; BUCKETS];
    let sched = kernel.sched();
    for cell in (0..sched.rows()).flat_map(|row| sched.of_row(row)) {
        for (sum, count) in counts.iter_mut().zip(&cell.wait.counts) {
            *sum += u64::from(count.load(Ordering::Relaxed));
        }
    }
    counts
}

/// Rows of the tool's table: lowest and highest value in microseconds, count.
fn parse(table: &str) -> Vec<(u64, u64, u64)> {
    let number = |word: Option<&str>| word.and_then(|word| word.trim().parse().ok());
    let row = |line: &str| {
        let (range, rest) = line.split_once(':')?;
        let (low, high) = range.split_once("->")?;
        Some((number(Some(low))?, number(Some(high))?, number(rest.split('|').next())?))
    };
    table.lines().filter_map(row).collect()
}

fn compete(stop: &AtomicBool) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("this thread may not stay on one CPU")?;
    let mut turns = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        turns = std::hint::black_box(turns.wrapping_add(1));
        if turns.is_multiple_of(5_000_000) {
            thread::yield_now();
        }
    }
    Ok(())
}

#[test]
fn the_tail_of_the_run_queue_is_what_runqlat_sees() -> Result<()> {
    if !need::ebpf() || !need::program("runqlat") {
        return Ok(());
    }
    let options = Options {
        unit_slots: 8,
        map_limit_bytes: 4 << 20,
        disabled: Vec::new(),
        ..Options::default()
    };
    let kernel = Kernel::start(&options, &Root::default()).map_err(anyhow::Error::msg)?;
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..COMPETITORS)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || compete(&stop))
        })
        .collect();
    let tool = Command::new("runqlat")
        .args([SECONDS, "1"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start runqlat")?;
    let before = waits(&kernel);
    let told = tool.wait_with_output()?;
    let after = waits(&kernel);
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().map_err(|_| anyhow::anyhow!("a competitor died"))??;
    }

    let table = parse(&String::from_utf8(told.stdout)?);
    let total: u64 = table.iter().map(|row| row.2).sum();
    ensure!(total > 500, "runqlat saw {total} waits only");
    let ours = after.iter().zip(before).map(|(after, before)| after - before).enumerate();
    let p99_us = histogram::quantile(ours, 0.99).context("no wait was counted")? / 1000.0;

    // Both p99 lie in one power of two when at most 1 % of the tool's values are
    // above that power of two and at least 1 % are not below it. Half a percent is
    // left for the moments at which only one of the two was recording.
    let octave = 1 << (p99_us as u64).max(1).ilog2();
    let share = |is_in: &dyn Fn(u64) -> bool| {
        let n: u64 = table.iter().filter(|row| is_in(row.0)).map(|row| row.2).sum();
        n as f64 / total as f64
    };
    let above = share(&|low| low >= 2 * octave);
    let below = share(&|low| low < octave && low > 0 || low == 0 && octave > 1);
    assert!(above <= 0.015 && below <= 0.995, "p99 {p99_us} µs of ours, {table:?} of runqlat");
    Ok(())
}

#[test]
fn the_table_of_runqlat_is_read() {
    let table =
        "     usecs  : count    distribution\n   0 -> 1 : 7   |**  |\n 8 -> 15 : 21 |***|\n";
    assert_eq!(parse(table), [(0, 1, 7), (8, 15, 21)]);
}
