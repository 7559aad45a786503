//! Culprit and victim: which unit keeps which other unit waiting, and for how long.
//!
//! Once a tick the time that each unit waited for a CPU, for a disk or for memory is
//! divided among those who caused it, itself included, and entered into a ledger for
//! each resource. Counters go in, sums come out; it reads neither clocks nor files,
//! and its size depends on the number of slots alone.

mod cpu;
mod disk;
mod ledger;
mod memory;

use std::time::Duration;

use holdfast_core::clock::BootTime;

use crate::frame::Row;

pub use cpu::{CpuSource, CpuUse};
pub use disk::DiskUse;
pub use ledger::{LONGEST, Sum};
pub use memory::MemoryUse;

use cpu::Cpu;
use disk::Disk;
use ledger::Ledger;
use memory::Memory;

/// What units wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Time on a CPU.
    Cpu,
    /// Requests to a block device.
    Disk,
    /// Memory that had to be reclaimed first.
    Memory,
}

impl Resource {
    /// All of them, in the order of the ledgers.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Disk, Self::Memory];
}

/// How many of everything there are.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Unit slots, slot 0 included.
    pub units: usize,
    /// CPUs with counters.
    pub cpus: usize,
    /// Slots that the kernel's matrix of waits tells apart.
    pub rows: usize,
    /// Device rows, row 0 included.
    pub devices: usize,
}

/// The ledgers, and what is needed to keep them.
#[derive(Debug)]
pub struct Blame {
    generations: Vec<u32>,
    /// Units of the first tick were there before.
    begun: bool,
    cpu: Cpu,
    disk: Disk,
    memory: Memory,
    ledgers: [Ledger; Resource::ALL.len()],
}

impl Blame {
    /// Empty ledgers, for counters that begin at zero.
    #[must_use]
    pub fn new(bounds: Bounds, now: BootTime) -> Self {
        let Bounds { units, cpus, rows, devices } = bounds;
        Self {
            generations: vec![0; units],
            begun: false,
            cpu: Cpu::new(cpus, units, rows),
            disk: Disk::new(devices, units),
            memory: Memory::new(units),
            ledgers: Resource::ALL.map(|_| Ledger::new(units, now)),
        }
    }

    /// Begins a tick: forgets what is too old, and units that lost their slot.
    pub fn begin(&mut self, now: BootTime, units: &[Row]) {
        for ledger in &mut self.ledgers {
            ledger.advance(now);
        }
        for (unit, (last, row)) in self.generations.iter_mut().zip(units).enumerate() {
            if std::mem::replace(last, row.generation) != row.generation {
                self.disk.forget(unit);
                self.memory.forget(unit, self.begun);
                self.ledgers.iter_mut().for_each(|ledger| ledger.forget(unit));
            }
        }
        self.begun = true;
    }

    /// Divides the waits for CPUs.
    pub fn cpu(&mut self, source: &impl CpuSource) {
        let [ledger, ..] = &mut self.ledgers;
        self.cpu.tick(source, ledger);
    }

    /// Divides the waits for disks.
    pub fn disk(&mut self, uses: impl Iterator<Item = DiskUse>) {
        let [_, ledger, _] = &mut self.ledgers;
        self.disk.tick(uses, ledger);
    }

    /// Divides the stalls for memory.
    pub fn memory(&mut self, uses: impl Iterator<Item = MemoryUse>) {
        let [.., ledger] = &mut self.ledgers;
        self.memory.tick(uses, ledger);
    }

    /// Who kept the unit in slot `victim` waiting for `resource` of late.
    #[must_use]
    pub fn culprits(&self, resource: Resource, victim: usize, last: Duration) -> Sum {
        let [cpu, disk, memory] = &self.ledgers;
        let ledger = match resource {
            Resource::Cpu => cpu,
            Resource::Disk => disk,
            Resource::Memory => memory,
        };
        ledger.sum(victim, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_changes_hands_is_forgotten_everywhere() {
        let at = |seconds| BootTime::new(Duration::from_secs(seconds));
        let bounds = Bounds { units: 4, cpus: 1, rows: 4, devices: 1 };
        let mut blame = Blame::new(bounds, at(0));
        let mut rows = vec![Row::default(); 4];
        blame.begin(at(1), &rows);
        let disk = |unit, wait_ns, byte_ns| DiskUse { device: 0, unit, wait_ns, byte_ns };
        for (wait_ns, byte_ns) in [(0, 0), (50, 10)] {
            blame.disk([disk(1, wait_ns, 0), disk(2, 0, byte_ns)].into_iter());
        }
        for stalled_ns in [[0, 0], [9, 0]] {
            blame.memory([MemoryUse { unit: 1, stalled_ns, bytes: None }].into_iter());
        }
        let of =
            |blame: &Blame, resource| blame.culprits(resource, 1, Duration::from_secs(60)).culprits;
        assert_eq!(of(&blame, Resource::Disk), [(2, 50.0)]);
        assert_eq!(of(&blame, Resource::Memory), [(1, 9.0)]);
        assert!(of(&blame, Resource::Cpu).is_empty());
        rows[1].generation = 1;
        blame.begin(at(2), &rows);
        assert!(Resource::ALL.iter().all(|resource| of(&blame, *resource).is_empty()));
    }
}
