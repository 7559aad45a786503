//! What the programs cost, by the kernel's own accounting, which is on only
//! while somebody measures: it slows each run down a little.

use std::os::fd::OwnedFd;

use aya::programs::ProgramError;
use aya::sys::{Stats, enable_stats};
use holdfast_core::clock::BootTime;

use super::object::Object;
use super::{Error, Kernel};

/// The host's own switch for the accounting.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What one program cost while it was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgramCost {
    /// The program's name, as in its status.
    pub name: &'static str,
    /// Runs per second.
    pub events_per_second: f64,
    /// Mean time of a run in nanoseconds, the accounting itself included; 0 when
    /// it did not run.
    pub ns_per_event: f64,
}

/// A measurement under way. The accounting ends when it is finished or dropped.
#[derive(Debug)]
pub struct Measurement {
    _accounting: Option<OwnedFd>,
    since: BootTime,
    before: Vec<(&'static str, Run)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    count: u64,
    ns: u64,
}

impl Measurement {
    pub(super) fn start(object: &Object) -> Result<Self, Error> {
        let accounting = match enable_stats(Stats::RunTime) {
            Ok(accounting) => Some(accounting),
            // Somebody with more rights has turned it on for all.
            Err(_) if std::fs::read_to_string(SWITCH).is_ok_and(|on| on.trim() == "1") => None,
            Err(error) => return Err(Error::Accounting(error.io_error)),
        };
        Ok(Self { _accounting: accounting, since: BootTime::now(), before: runs(object) })
    }

    /// What each program cost since the start.
    #[must_use]
    pub fn finish(self, kernel: &Kernel) -> Vec<ProgramCost> {
        let seconds = BootTime::now().since(self.since).as_secs_f64();
        let after = runs(&kernel.object);
        let costs = after.into_iter().filter_map(|(name, after)| {
            let before = self.before.iter().find(|(n, _)| *n == name)?.1;
            let count = after.count.saturating_sub(before.count) as f64;
            let ns = after.ns.saturating_sub(before.ns) as f64;
            Some(ProgramCost {
                name,
                events_per_second: if seconds > 0.0 { count / seconds } else { 0.0 },
                ns_per_event: if count > 0.0 { ns / count } else { 0.0 },
            })
        });
        costs.collect()
    }
}

fn runs(object: &Object) -> Vec<(&'static str, Run)> {
    let run = |function: &str| -> Result<Run, ProgramError> {
        let program = object.program(function).ok_or(ProgramError::NotLoaded)?;
        let info = program.info()?;
        let ns = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
        Ok(Run { count: info.run_count(), ns })
    };
    object
        .running
        .iter()
        .map(|(name, function)| (*name, run(function).unwrap_or_default()))
        .collect()
}
