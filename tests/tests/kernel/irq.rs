//! Interrupts of a number that the kernel counts, too.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use anyhow::{Context, Result, ensure};
use holdfast_agent::catalogue::{
    HARDIRQ_COUNT, HARDIRQ_TIME, SOFTIRQ_COUNT, SOFTIRQ_NET_RX, SOFTIRQ_TIME,
};
use holdfast_agent::kernel::cells::load;
use holdfast_agent_ebpf::cells::SOFTIRQS;
use holdfast_agent_ebpf::depth::SAMPLED;
use holdfast_core::clock::BootTime;
use nix::libc::O_DSYNC;

use crate::rig::Rig;

const MESSAGES: usize = 20_000;
const WRITES: usize = 300;

#[test]
fn deferred_interrupts_are_those_the_kernel_counts() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    rig.tick()?;
    let start = BootTime::now();
    let (before, times) = (kinds(&rig), [SOFTIRQ_NET_RX, SOFTIRQ_TIME].map(|id| rig.value(id, 0)));
    let count = rig.value(SOFTIRQ_COUNT, 0);
    let kernel_before = softirqs()?;
    talk()?;
    let kernel_after = softirqs()?;
    rig.tick()?;
    let life = BootTime::now().since(start).as_nanos() as f64;

    let (mut all, mut ours) = (0, 0);
    for (kind, after) in kinds(&rig).into_iter().enumerate() {
        let seen = after - before[kind];
        let kernel = kernel_after[kind] - kernel_before[kind];
        (all, ours) = (all + kernel, ours + seen);
        let room = kernel / 50 + 20;
        ensure!(
            seen.abs_diff(kernel) <= room,
            "{}: {seen}, by the kernel {kernel}",
            SOFTIRQS[kind]
        );
    }
    let net_rx = kernel_after[3] - kernel_before[3];
    ensure!(net_rx > MESSAGES as u64 / 2, "{net_rx} for {MESSAGES} messages over loopback");
    let counted = rig.value(SOFTIRQ_COUNT, 0) - count;
    ensure!((counted - all as f64).abs() <= 0.02 * all as f64 + 40.0, "{counted} of {all}");

    let ran = |n: usize, id| rig.value(id, 0) - times[n];
    let (net_rx_ns, all_ns) = (ran(0, SOFTIRQ_NET_RX), ran(1, SOFTIRQ_TIME));
    // A message is received in the softirq: that takes more than a tenth of a
    // microsecond, and less than the whole life of the test.
    ensure!(net_rx_ns > 100.0 * net_rx as f64, "{net_rx_ns} ns for {net_rx}");
    ensure!(net_rx_ns <= all_ns && all_ns < life * rig.kernel.irqs().len() as f64, "{all_ns} ns");
    ensure!(rig.lost("ebpf.program_skipped") == 0, "a program was skipped");
    ensure!(rig.lost("ebpf.interval_negative") == 0, "intervals below nothing");
    Ok(())
}

#[test]
fn samples_tell_the_time_of_all_deferred_interrupts() -> Result<()> {
    let Some(mut measure) = Rig::start()? else { return Ok(()) };
    let mut sampled = Rig::beside(&[])?;
    sampled.kernel.set_irq_depth(SAMPLED);
    let mut read = || -> Result<[[f64; 2]; 2]> {
        let mut values = [[0.0; 2]; 2];
        for (rig, values) in [&mut sampled, &mut measure].into_iter().zip(&mut values) {
            rig.tick()?;
            *values = [SOFTIRQ_COUNT, SOFTIRQ_NET_RX].map(|id| rig.value(id, 0));
        }
        Ok(values)
    };
    let before = read()?;
    talk()?;
    let after = read()?;
    let gained = |rig: usize, n: usize| after[rig][n] - before[rig][n];
    let (seen, all) = (gained(0, 0), gained(1, 0));
    ensure!((seen - all).abs() <= 0.01 * all, "{seen} by sample, {all}");
    let (seen, all) = (gained(0, 1), gained(1, 1));
    // The one whose programs run inside the other's is a little cheaper to look at.
    ensure!((seen - all).abs() <= 0.25 * all, "{seen} ns of receiving by sample, {all}");
    eprintln!("{seen} ns of receiving by sample, {all} in all");
    Ok(())
}

#[test]
fn handlers_of_devices_are_those_the_kernel_counts() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    rig.tick()?;
    let [count, time] = [HARDIRQ_COUNT, HARDIRQ_TIME].map(|id| rig.value(id, 0));
    let before = interrupts()?;
    write()?;
    let expected = (interrupts()? - before) as f64;
    rig.tick()?;
    let seen = rig.value(HARDIRQ_COUNT, 0) - count;
    ensure!(expected > WRITES as f64 / 2.0, "{expected} interrupts for {WRITES} writes");
    ensure!((seen - expected).abs() <= 0.02 * expected + 5.0, "{seen}, by the kernel {expected}");
    let each = (rig.value(HARDIRQ_TIME, 0) - time) / seen;
    ensure!((50.0..1e6).contains(&each), "{each} ns for each interrupt");
    Ok(())
}

/// Deferred interrupts by kind, all CPUs.
fn kinds(rig: &Rig) -> [u64; SOFTIRQS.len()] {
    let cpus = rig.kernel.irqs();
    let cpus = (0..cpus.len()).filter_map(|cpu| cpus.get(cpu));
    let mut sums = [0; SOFTIRQS.len()];
    for (sum, cell) in
        cpus.flat_map(|cpu| &cpu.soft).enumerate().map(|(n, cell)| (n % SOFTIRQS.len(), cell))
    {
        sums[sum] += load(&cell.count);
    }
    sums
}

/// The same by the kernel, which lists the kinds in the same order.
fn softirqs() -> Result<[u64; SOFTIRQS.len()]> {
    let text = fs::read_to_string("/proc/softirqs")?;
    let mut sums = [0; SOFTIRQS.len()];
    for (sum, line) in sums.iter_mut().zip(text.lines().skip(1)) {
        *sum = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).sum();
    }
    Ok(sums)
}

/// Handlers that the kernel called: interrupts times the handlers of their line.
fn interrupts() -> Result<u64> {
    let text = fs::read_to_string("/proc/interrupts")?;
    let cpus = text.lines().next().context("an empty /proc/interrupts")?.split_whitespace().count();
    let of_device = |line: &str| {
        let (line, rest) = line.split_once(':')?;
        line.trim().parse::<u32>().ok()?;
        let counts = rest.split_whitespace().take(cpus).filter_map(|word| word.parse::<u64>().ok());
        Some(counts.sum::<u64>() * (1 + rest.matches(", ").count() as u64))
    };
    Ok(text.lines().filter_map(of_device).sum())
}

/// Single bytes back and forth over loopback.
fn talk() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut one = TcpStream::connect(listener.local_addr()?)?;
    let (mut other, _) = listener.accept()?;
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    let echo = thread::spawn(move || -> Result<()> {
        let mut byte = [0];
        for _ in 0..MESSAGES / 2 {
            other.read_exact(&mut byte)?;
            other.write_all(&byte)?;
        }
        Ok(())
    });
    let mut byte = [0];
    for _ in 0..MESSAGES / 2 {
        one.write_all(&byte)?;
        one.read_exact(&mut byte)?;
    }
    echo.join().map_err(|_| anyhow::anyhow!("the echo died"))?
}

/// Blocks that must be on the disk before the next is written.
fn write() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .custom_flags(O_DSYNC)
        .open(folder.path().join("blocks"))?;
    for _ in 0..WRITES {
        file.write_all(&[1; 4096])?;
    }
    Ok(())
}
