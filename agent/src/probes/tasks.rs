//! The living tasks by unit: threads, resident memory and its growth, uninterruptible
//! sleep and major faults, from a pass of an eBPF iterator over all of them.
//!
//! A pass costs a fraction of a microsecond for each thread of the host. The next one
//! is due when it adds less than a thousandth of a CPU; until then the last values
//! stand.

use std::time::Duration;

use holdfast_core::clock::BootTime;
use nix::unistd::{SysconfVar, sysconf};

use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    HOST_MEMORY_GROWTH, HOST_RSS, HOST_THREADS, HOST_UNINTERRUPTIBLE, Owner, UNIT_MEMORY,
    UNIT_MEMORY_GROWTH, UNIT_RSS, UNIT_TASK_MAJOR_FAULTS, UNIT_THREADS, UNIT_UNINTERRUPTIBLE,
};
use crate::frame::Frame;
use crate::kernel::cells::load;
use crate::kernel::{Kernel, TaskSums};

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "tasks",
    doc: "Threads, resident memory and its growth, uninterruptible sleep and major faults of each unit",
    level: 2,
    programs: &["task_iterator"],
    open,
};

/// How many times as long as a pass took is waited until the next one.
const PAUSE: u32 = 1000;
/// Longest time between two passes.
const LONGEST: Duration = Duration::from_secs(10);

struct Tasks {
    degraded: Option<String>,
    page_bytes: f64,
    next: BootTime,
    found: Vec<TaskSums>,
    faults: Vec<Faults>,
    /// Of the host, then of each unit.
    growth: Vec<Growth>,
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    let degraded = kernel.health(SPEC.programs)?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().filter(|&n| n > 0).unwrap_or(4096);
    let mut found = Vec::new();
    kernel.count_tasks(&mut found).map_err(|error| failed(&error))?;
    let mut faults = vec![Faults::default(); found.len()];
    for (slot, faults) in faults.iter_mut().enumerate() {
        faults.add(now(kernel, slot, &found));
        faults.total = 0;
    }
    Ok(Box::new(Tasks {
        degraded,
        page_bytes: page as f64,
        next: BootTime::default(),
        growth: vec![Growth::default(); found.len() + 1],
        found,
        faults,
    }))
}

impl Probe for Tasks {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let kernel = kernel_of(kernel)?;
        let due = frame.at >= self.next;
        if due {
            let start = BootTime::now();
            kernel.count_tasks(&mut self.found).map_err(|error| failed(&error))?;
            let took = BootTime::now().since(start);
            self.next = BootTime::new(frame.at.since_boot() + (took * PAUSE).min(LONGEST));
            for slot in 0..self.found.len() {
                self.faults[slot].add(now(kernel, slot, &self.found));
            }
        }
        self.put(frame, due);
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

impl Tasks {
    /// Writes what was found, just now or in the last pass.
    fn put(&mut self, frame: &mut Frame, fresh: bool) {
        let at = frame.at;
        let mut host = TaskSums::default();
        for (slot, sums) in self.found.iter().enumerate() {
            host.threads += sums.threads;
            host.uninterruptible += sums.uninterruptible;
            host.rss_pages += sums.rss_pages;
            let Some(row) = frame.rows(Owner::Unit).get(slot) else { continue };
            let (generation, live) = (row.generation, row.live);
            if !live {
                continue;
            }
            let rss = sums.rss_pages as f64 * self.page_bytes;
            frame.set(UNIT_THREADS, slot, sums.threads as f64);
            frame.set(UNIT_UNINTERRUPTIBLE, slot, sums.uninterruptible as f64);
            frame.set(UNIT_RSS, slot, rss);
            if let Some(faults) = self.faults.get_mut(slot) {
                frame.set(UNIT_TASK_MAJOR_FAULTS, slot, faults.of(generation) as f64);
            }
            // What is charged to the unit says more than what its processes have, where
            // it is known.
            let charged = frame.get(UNIT_MEMORY, slot);
            let source = Source { generation, charged: !charged.is_nan() };
            let bytes = if charged.is_nan() { rss } else { charged };
            if let Some(growth) = self.growth.get_mut(slot + 1) {
                frame.set(UNIT_MEMORY_GROWTH, slot, growth.of(fresh, source, at, bytes));
            }
        }
        let rss = host.rss_pages as f64 * self.page_bytes;
        frame.set(HOST_THREADS, 0, host.threads as f64);
        frame.set(HOST_UNINTERRUPTIBLE, 0, host.uninterruptible as f64);
        frame.set(HOST_RSS, 0, rss);
        if let Some(growth) = self.growth.first_mut() {
            frame.set(HOST_MEMORY_GROWTH, 0, growth.of(fresh, Source::default(), at, rss));
        }
    }
}

/// Major faults of a slot's processes so far, living and ended.
fn now(kernel: &Kernel, slot: usize, found: &[TaskSums]) -> u64 {
    let ended = kernel.process().get(slot).map_or(0, |cell| load(&cell.major_faults));
    ended.wrapping_add(found.get(slot).map_or(0, |sums| sums.major_faults))
}

fn failed(error: &std::io::Error) -> String {
    format!("the pass over all tasks failed: {error}")
}

/// Major faults of one slot. A process that ends during a pass, or moves to another
/// unit, makes their sum smaller for once: only what is gained is added.
#[derive(Debug, Clone, Default)]
struct Faults {
    last: u64,
    /// What was gained since the start.
    total: u64,
    /// The present owner, and what had been gained when it came.
    generation: u32,
    base: u64,
    /// What had been gained at the last tick.
    told: u64,
}

impl Faults {
    fn add(&mut self, now: u64) {
        self.total = self.total.wrapping_add(now.saturating_sub(self.last));
        self.last = now;
    }

    /// What the owner has had.
    fn of(&mut self, generation: u32) -> u64 {
        if self.generation != generation {
            (self.generation, self.base) = (generation, self.told);
        }
        self.told = self.total;
        self.total.wrapping_sub(self.base)
    }
}

/// Whose memory it is, and as who counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Source {
    generation: u32,
    charged: bool,
}

/// How fast memory grows.
#[derive(Debug, Clone, Copy, Default)]
struct Growth {
    last: Option<(Source, BootTime, f64)>,
    bytes_per_second: Option<f64>,
}

impl Growth {
    /// The growth up to the last pass, which was made now if it is `fresh`.
    fn of(&mut self, fresh: bool, source: Source, at: BootTime, bytes: f64) -> f64 {
        let same = self.last.is_some_and(|(before, ..)| before == source);
        if fresh || !same {
            let grown = self.step(source, at, bytes);
            self.bytes_per_second = Some(grown).filter(|grown| !grown.is_nan());
        }
        self.bytes_per_second.unwrap_or(f64::NAN)
    }

    /// Bytes a second since the last step; `NaN` when there is none to compare with.
    fn step(&mut self, source: Source, at: BootTime, bytes: f64) -> f64 {
        let last = self.last.replace((source, at, bytes));
        match last {
            Some((before, then, had)) if before == source && at > then => {
                (bytes - had) / at.since(then).as_secs_f64()
            }
            _ => f64::NAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_never_go_back() {
        let mut faults = Faults::default();
        faults.add(10);
        assert_eq!(faults.of(1), 10, "what came before the first tick is the first owner's");
        faults.add(14);
        faults.add(4);
        assert_eq!(faults.of(1), 14, "a process moved away with its faults");
        faults.add(6);
        assert_eq!(faults.of(1), 16);
        faults.add(9);
        assert_eq!(faults.of(2), 3, "the next owner gets what came since the last tick");
    }

    #[test]
    fn growth_is_of_one_owner_and_one_count() {
        let at = |seconds| BootTime::new(Duration::from_secs(seconds));
        let (one, other) = (Source::default(), Source { generation: 1, charged: false });
        let mut growth = Growth::default();
        assert!(growth.step(one, at(1), 100.0).is_nan());
        assert_eq!(growth.step(one, at(3), 50.0), -25.0);
        assert!(growth.step(one, at(3), 70.0).is_nan(), "no time has passed");
        assert!(growth.step(other, at(4), 0.0).is_nan(), "another owner");
        assert_eq!(growth.step(other, at(5), 7.0), 7.0);
    }
}
