//! Culprit and victim, from what the sampler has: counters of the kernel side and the
//! frame go in once a tick, and questions are answered with names.

use std::time::Duration;

use holdfast_core::clock::BootTime;

use super::Sampler;
use crate::blame::{CpuSource, CpuUse, DiskUse, MemoryUse, Resource};
use crate::catalogue::{
    Owner, SignalId, UNIT_IO_READ, UNIT_IO_SOME, UNIT_IO_WRITE, UNIT_MEMORY, UNIT_MEMORY_SOME,
    UNIT_RECLAIM,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::load;
use crate::report::{BlameReport, Culprit, ResourceBlame};

/// Programs without which nothing is known about waits for a CPU.
const SWITCH: &[&str] = &["sched_switch"];

/// Whether the last tick told of any unit what blame is laid by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    disk: bool,
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
        }
        let mut known = Known::default();
        let units = 1..rows.len();
        self.blame.disk(units.clone().filter_map(|unit| {
            let used = disk_use(frame, unit);
            known.disk |= used.is_some();
            used
        }));
        self.blame.memory(units.map(|unit| {
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
            let reason = self.unknown(resource).unwrap_or_default();
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

    /// Why nobody can be blamed for waits for `resource`; `None` when somebody can.
    fn unknown(&self, resource: Resource) -> Option<String> {
        match resource {
            Resource::Cpu => match &self.kernel {
                Ok(kernel) => kernel.health(SWITCH).err(),
                Err(reason) => Some(reason.clone()),
            },
            Resource::Disk => (!self.blamed.disk)
                .then(|| "nothing tells here how much each unit reads and writes".to_owned()),
            Resource::Memory => (!self.blamed.memory)
                .then(|| "nothing tells here how much memory each unit has".to_owned()),
        }
    }
}

/// All devices are one: what units have read and written, and how long they stalled.
fn disk_use(frame: &Frame, unit: usize) -> Option<DiskUse> {
    let bytes = count(frame, UNIT_IO_READ, unit)? + count(frame, UNIT_IO_WRITE, unit)?;
    let wait_ns = count(frame, UNIT_IO_SOME, unit)?;
    Some(DiskUse { device: 0, unit, wait_ns, byte_ns: bytes })
}

fn memory_use(frame: &Frame, unit: usize) -> MemoryUse {
    let reclaimed = frame.histogram(UNIT_RECLAIM, unit).map_or(0, |reclaim| reclaim.sum);
    let pressed = count(frame, UNIT_MEMORY_SOME, unit).unwrap_or_default();
    let bytes = count(frame, UNIT_MEMORY, unit);
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
        assert_eq!(disk_use(&frame, 1), None);
        assert_eq!(memory_use(&frame, 1).bytes, None);
        frame.set(UNIT_IO_READ, 1, 3.0);
        frame.set(UNIT_IO_WRITE, 1, 4.0);
        frame.set(UNIT_IO_SOME, 1, 5.0);
        frame.set(UNIT_MEMORY, 1, 9.0);
        let expected = DiskUse { device: 0, unit: 1, wait_ns: 5, byte_ns: 7 };
        assert_eq!(disk_use(&frame, 1), Some(expected));
        assert_eq!(memory_use(&frame, 1).bytes, Some(9));
    }
}
