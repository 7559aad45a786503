//! `cargo xtask demo`: the whole of Holdfast on this host for a while.
//!
//! Builds the programs, starts a collector and an agent with temporary state,
//! shows what the agent sees, and leaves nothing behind. It judges at the end: a
//! probe that should work here and yields nothing is a failure.

mod board;
mod loads;
mod report;
mod view;

use std::time::Duration;

use anyhow::{Result, bail};
use holdfast_core::clock::BootTime;

use crate::provoke::Load;
use crate::stack::{Ports, Programs, Stack};
use crate::stop::Stop;
use board::Board;
use loads::Loads;
use view::View;

/// How long probes may take until each has yielded something.
const SAMPLES_LIMIT: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_secs(1);

/// What to show and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// End after so many seconds, counted from the first samples [default: at Ctrl-C]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Load this host so that the signals move; may be given several times
    #[arg(long, value_name = "LOAD", value_enum)]
    provoke: Vec<Provoke>,
    /// Print one JSON object at the end, alone on standard output
    #[arg(long)]
    json: bool,
    /// Cargo's profile to build with
    #[arg(long, default_value = "release")]
    profile: String,
}

/// A choice of loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Provoke {
    /// More runnable threads than CPUs
    Cpu,
    /// Direct reads and writes on a real file system
    Disk,
    /// Page faults, direct reclaim, OOM kills in a small cgroup
    Memory,
    /// Transfers; refused, slow and unanswered connects; resets
    Network,
    /// All of these, and processes that crash and fail
    All,
}

impl Provoke {
    fn loads(self) -> &'static [Load] {
        match self {
            Self::Cpu => &[Load::Cpu],
            Self::Disk => &[Load::Disk],
            Self::Memory => &[Load::Memory, Load::Oom],
            Self::Network => &[Load::Network],
            Self::All => {
                &[Load::Cpu, Load::Disk, Load::Memory, Load::Oom, Load::Network, Load::Exits]
            }
        }
    }
}

/// Runs the demo to its end.
pub(crate) fn run(args: &Args) -> Result<()> {
    let programs = Programs::build(&args.profile)?;
    let stop = Stop::listen()?;
    let ports = if args.json { Ports::Any } else { Ports::DefaultIfFree };
    let mut stack = Stack::start(&programs, ports, &["--summary-interval", "5s"], &stop)?;
    let mut view = View::new();
    view.say(&format!("collector: {} (gRPC {})", stack.http(), stack.grpc()));
    view.say(&format!("agent:     {}", stack.socket().display()));

    let mut wanted: Vec<Load> = Vec::new();
    for load in args.provoke.iter().flat_map(|choice| choice.loads()) {
        if !wanted.contains(load) {
            wanted.push(*load);
        }
    }
    let loads = Loads::start(&wanted, &view)?;
    let mut board = Board::default();
    if wait_for_samples(&mut stack, &mut board, &stop, &view)?.is_none() {
        // Asked to end before anything was to be seen.
        return Ok(());
    }

    let start = BootTime::now();
    loop {
        let elapsed = BootTime::now().since(start);
        let rest = args.seconds.map(|limit| Duration::from_secs(limit).saturating_sub(elapsed));
        if rest.is_some_and(|rest| rest.is_zero()) || stop.wait(rest.unwrap_or(TICK).min(TICK)) {
            break;
        }
        stack.check()?;
        board.update(&stack)?;
        view.draw(&board, BootTime::now().since(start));
    }

    board.finish(&stack)?;
    let report = report::Report::new(&board, &stack)?;
    let failures = report::judge(&board, loads.running());
    drop(loads);
    drop(stack);
    view.finish();
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print_summary();
    }
    if !failures.is_empty() {
        bail!("this should work here, but does not:\n  {}", failures.join("\n  "));
    }
    Ok(())
}

/// Waits until each probe has yielded samples, or cannot here. `None`: asked to end.
fn wait_for_samples(
    stack: &mut Stack,
    board: &mut Board,
    stop: &Stop,
    view: &View,
) -> Result<Option<()>> {
    view.say("waiting for the first samples of every probe");
    let start = BootTime::now();
    loop {
        stack.check()?;
        board.update(stack)?;
        let silent = board.silent_probes();
        if silent.is_empty() && board.collector_has_host {
            return Ok(Some(()));
        }
        if BootTime::now().since(start) > SAMPLES_LIMIT {
            // Shown at the end as a failure, with the reason if there is one.
            view.say(&format!("still nothing from: {}", silent.join(", ")));
            return Ok(Some(()));
        }
        if stop.wait(Duration::from_millis(250)) {
            return Ok(None);
        }
    }
}
