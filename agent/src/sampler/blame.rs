//! Culprit and victim, from what the sampler has: counters of the kernel side and the
//! frame go in once a tick, and questions are answered with names.

use std::time::Duration;

use holdfast_core::clock::BootTime;

use super::Sampler;
use crate::blame::{CpuSource, CpuUse, DiskUse, MemoryUse, Resource};
use crate::catalogue::{Owner, SignalId, UNIT_MEMORY, UNIT_MEMORY_SOME, UNIT_RECLAIM, UNIT_RSS};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::load;
use crate::report::{BlameReport, Culprit, ResourceBlame};

/// Programs without which nothing is known about waits for a CPU.
const SWITCH: &[&str] = &["sched_switch"];
/// Programs without which nothing is known about whose requests a disk served: who they
/// are of is known at their issue, how long they took at their completion.
const REQUESTS: [&str; 2] = ["block_rq_issue", "block_rq_complete"];

/// Whether the last tick told of any unit what blame is laid by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    memory: bool,
}

impl CpuSource for &Kernel {
    fn used(&self, cpu: usize, unit: usize) -> CpuUse {
        self.sched().get(cpu, unit).map_or_else(CpuUse::default, |cell| CpuUse {
            switches: load(&cell.switches),
            ran_ns: load(&cell.on_cpu_ns),
            waited_ns: load(&cell.wait.sum),
        })
    }

    fn charged_ns(&self, victim: usize, culprit: usize) -> u64 {
        self.preempt().charged_ns(victim, culprit)
    }

    fn idle_ns(&self, victim: usize) -> u64 {
        self.preempt().idle_ns(victim)
    }
}

impl Sampler {
    /// Lays the blame for what units waited in the tick that was just read.
    pub(super) fn tick_blame(&mut self, now: BootTime) {
        let frame = &self.current;
        let rows = frame.rows(Owner::Unit);
        self.blame.begin(now, rows);
        if let Ok(kernel) = &self.kernel {
            self.blame.cpu(&kernel);
            let devices = 0..kernel.shared_devices();
            self.blame.disk(devices.flat_map(|device| {
                (0..rows.len()).filter_map(move |unit| disk_use(kernel, device, unit))
            }));
        }
        let mut known = Known::default();
        self.blame.memory((1..rows.len()).map(|unit| {
            let used = memory_use(frame, unit);
            known.memory |= used.bytes.is_some();
            used
        }));
        self.blamed = known;
    }

    /// Who kept `unit` waiting of late. The error says that there is no such unit.
    pub(super) fn blame_report(&self, unit: &str, last: Duration) -> Result<BlameReport, String> {
        let rows = self.current.rows(Owner::Unit);
        let named = |name: &str| rows.iter().skip(1).position(|row| *row.name == *name);
        let found = named(unit).or_else(|| named(&format!("{unit}.service")));
        let Some(victim) = found.map(|place| place + 1) else {
            let known = rows.iter().skip(1).filter(|row| row.live).map(|row| &*row.name);
            return Err(no_such_unit(unit, known));
        };
        let name = |slot: usize| rows.get(slot).map(|row| row.name.clone()).unwrap_or_default();
        let of = |resource| {
            let reason = self.unknown(resource, victim).unwrap_or_default();
            let sum = self.blame.culprits(resource, victim, last);
            let culprits = sum
                .culprits
                .iter()
                .filter(|_| reason.is_empty())
                .map(|(slot, ns)| Culprit { unit: name(*slot), itself: *slot == victim, ns: *ns });
            ResourceBlame { resource, covered: sum.covered, culprits: culprits.collect(), reason }
        };
        Ok(BlameReport { unit: name(victim), resources: Resource::ALL.map(of).into() })
    }

    /// Why nobody can be blamed for the waits of `victim` for `resource`; `None` when
    /// somebody can.
    fn unknown(&self, resource: Resource, victim: usize) -> Option<String> {
        match resource {
            Resource::Cpu => match &self.kernel {
                Ok(kernel) => kernel.health(SWITCH).err().or_else(|| self.waits_given_up(victim)),
                Err(reason) => Some(reason.clone()),
            },
            Resource::Disk => match &self.kernel {
                Ok(kernel) => REQUESTS.iter().find_map(|name| kernel.health(&[name]).err()),
                Err(reason) => Some(reason.clone()),
            },
            Resource::Memory => (!self.blamed.memory)
                .then(|| "nothing tells here how much memory each unit has".to_owned()),
        }
    }
}

/// What `unit` had to do with a device; slot 0 is all that belongs to no unit, which
/// keeps others waiting like any unit. `None` for slots that the programs do not know.
fn disk_use(kernel: &Kernel, device: usize, unit: usize) -> Option<DiskUse> {
    let cell = kernel.unit_block(device, unit)?;
    let (wait_ns, byte_ns) = (load(&cell.wait_ns), load(&cell.in_flight));
    Some(DiskUse { device, unit, wait_ns, byte_ns })
}

/// What is charged to the unit says more than what its processes have, where it is known.
fn memory_use(frame: &Frame, unit: usize) -> MemoryUse {
    let reclaimed = frame.histogram(UNIT_RECLAIM, unit).map_or(0, |reclaim| reclaim.sum);
    let pressed = count(frame, UNIT_MEMORY_SOME, unit).unwrap_or_default();
    let bytes = count(frame, UNIT_MEMORY, unit).or_else(|| count(frame, UNIT_RSS, unit));
    MemoryUse { unit, stalled_ns: [reclaimed, pressed], bytes }
}

/// A counter or gauge as it was read; `None` when it was not.
fn count(frame: &Frame, id: SignalId, unit: usize) -> Option<u64> {
    let value = frame.get(id, unit);
    (!value.is_nan()).then_some(value as u64)
}

/// That there is no `unit`, with the nearest of `known` if one is near.
fn no_such_unit<'a>(unit: &str, known: impl Iterator<Item = &'a str>) -> String {
    let unit: String = unit.chars().filter(|c| !c.is_control()).take(100).collect();
    let near = known
        .map(|name| (strsim::osa_distance(&unit, name), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.chars().count() / 3);
    match near {
        Some((_, name)) => format!("no unit `{unit}` on this host; the nearest is `{name}`"),
        None => format!("no unit `{unit}` on this host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    #[test]
    fn the_nearest_unit_is_named_when_it_is_near() {
        let of = |unit| no_such_unit(unit, ["nginx.service", "cron.service"].into_iter());
        assert!(of("ngnix.service").ends_with("the nearest is `nginx.service`"));
        assert_eq!(of("zz\u{1b}[2J"), "no unit `zz[2J` on this host");
    }

    #[test]
    fn what_was_not_read_is_not_known() {
        let mut frame = Frame::new(Shape { units: 2, devices: 1, interfaces: 1 });
        assert_eq!(memory_use(&frame, 1).bytes, None);
        frame.set(UNIT_RSS, 1, 7.0);
        assert_eq!(memory_use(&frame, 1).bytes, Some(7));
        frame.set(UNIT_MEMORY, 1, 9.0);
        assert_eq!(memory_use(&frame, 1).bytes, Some(9), "what is charged goes first");
    }
}
