//! CPU load: tasks that have to wait for a CPU.

use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use holdfast_core::clock::BootTime;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::pause;

/// All threads run at once for the first part of a period and rest for the second,
/// so that everything else on the host gets its turn.
const BUSY: Duration = Duration::from_millis(300);
const PERIOD: Duration = Duration::from_millis(500);

pub(super) fn run() -> Result<()> {
    thread::spawn(|| {
        loop {
            // Its end would only mean less load.
            let _ended = ping_pong(10_000);
            pause(PERIOD);
        }
    });
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let spinners: Vec<_> = (0..2 * cpus + 2).map(|_| thread::spawn(spin)).collect();
    for spinner in spinners {
        spinner.join().map_err(|_| anyhow!("a thread panicked"))?;
    }
    Ok(())
}

/// Six threads compete for one CPU for `time`, so that waits are long and the tail is
/// fat.
pub(crate) fn compete(time: Duration) -> Result<()> {
    let start = BootTime::now();
    let competitor = move || -> Result<()> {
        let mut one = CpuSet::new();
        one.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &one).context("this thread may not stay on one CPU")?;
        while BootTime::now().since(start) < time {
            for i in 0..5_000_000_u64 {
                black_box(i);
            }
            thread::yield_now();
        }
        Ok(())
    };
    let competitors: Vec<_> = (0..6).map(|_| thread::spawn(competitor)).collect();
    for competitor in competitors {
        competitor.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn spin() {
    let period = PERIOD.as_nanos();
    loop {
        let phase = BootTime::now().since_boot().as_nanos() % period;
        if phase < BUSY.as_nanos() {
            for i in 0..10_000_u64 {
                black_box(i);
            }
        } else {
            let rest = u64::try_from(period - phase).unwrap_or(0);
            pause(Duration::from_nanos(rest));
        }
    }
}

/// Two threads send one byte back and forth `rounds` times: each round makes two
/// context switches, or more where the threads share no CPU.
pub(crate) fn ping_pong(rounds: u64) -> Result<()> {
    let (from_a, to_b) = std::io::pipe().context("no pipe")?;
    let (from_b, to_a) = std::io::pipe().context("no pipe")?;
    let other = thread::spawn(move || echo(from_a, to_a));
    serve(rounds, from_b, to_b).context("the ping-pong broke off")?;
    other.join().map_err(|_| anyhow!("a thread panicked"))?.context("the ping-pong broke off")
}

fn serve(rounds: u64, mut receive: PipeReader, mut send: PipeWriter) -> std::io::Result<()> {
    let mut ball = [0];
    for _ in 0..rounds {
        send.write_all(&ball)?;
        receive.read_exact(&mut ball)?;
    }
    Ok(())
}

/// Sends back what comes, until the other side closes.
fn echo(mut receive: PipeReader, mut send: PipeWriter) -> std::io::Result<()> {
    let mut ball = [0];
    while receive.read(&mut ball)? == 1 {
        send.write_all(&ball)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_pong_ends_after_its_rounds() {
        ping_pong(100).unwrap();
    }
}
