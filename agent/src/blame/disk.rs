//! Waits for a disk, divided among those whose bytes it was busy with.

use super::ledger::Ledger;

/// What a unit had to do with a device, counted since its counters began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUse {
    /// Row of the device.
    pub device: usize,
    /// Slot of the unit.
    pub unit: usize,
    /// Nanoseconds that its requests took, all together.
    pub wait_ns: u64,
    /// Its bytes in flight, integrated over time (bytes × nanoseconds); any measure
    /// of how much it asked of the device does, if it is the same for all units.
    pub byte_ns: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// Wait and bytes; `None` before the first reading, from which nothing follows.
    last: Option<(u64, u64)>,
    waited: f64,
    bytes: f64,
}

/// What was there at the last tick.
#[derive(Debug)]
pub(super) struct Disk {
    units: usize,
    /// By device, then by unit.
    rows: Vec<Row>,
    by_culprit: Vec<f64>,
}

impl Disk {
    /// For `devices` rows and `units` slots.
    #[must_use]
    pub(super) fn new(devices: usize, units: usize) -> Self {
        let units = units.max(1);
        Self { units, rows: vec![Row::default(); devices * units], by_culprit: vec![0.0; units] }
    }

    /// Slot `unit` is another unit's from now on.
    pub(super) fn forget(&mut self, unit: usize) {
        for row in self.rows.iter_mut().skip(unit).step_by(self.units) {
            *row = Row::default();
        }
    }

    /// Divides what was waited since the last tick: on each device the wait of a unit
    /// goes to all units by their share of the bytes. A counter that went backwards
    /// gained nothing.
    pub(super) fn tick(&mut self, uses: impl Iterator<Item = DiskUse>, ledger: &mut Ledger) {
        for row in &mut self.rows {
            (row.waited, row.bytes) = (0.0, 0.0);
        }
        for now in uses.filter(|now| now.unit < self.units) {
            if let Some(row) = self.rows.get_mut(now.device * self.units + now.unit) {
                let gained = |now: u64, last: u64| now.saturating_sub(last) as f64;
                let last = row.last.replace((now.wait_ns, now.byte_ns));
                let (wait_ns, byte_ns) = last.unwrap_or((now.wait_ns, now.byte_ns));
                row.waited = gained(now.wait_ns, wait_ns);
                row.bytes = gained(now.byte_ns, byte_ns);
            }
        }
        for victim in 1..self.units {
            self.by_culprit.fill(0.0);
            let mut waited = false;
            for device in self.rows.chunks(self.units) {
                let wait = device.get(victim).map_or(0.0, |row| row.waited);
                if wait <= 0.0 {
                    continue;
                }
                let all: f64 = device.iter().map(|row| row.bytes).sum();
                if all > 0.0 {
                    waited = true;
                    for (caused, row) in self.by_culprit.iter_mut().zip(device) {
                        *caused += wait * row.bytes / all;
                    }
                }
            }
            if waited {
                ledger.charge(victim, &self.by_culprit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_core::clock::BootTime;

    use super::*;

    fn of(device: usize, unit: usize, wait_ns: u64, byte_ns: u64) -> DiskUse {
        DiskUse { device, unit, wait_ns, byte_ns }
    }

    #[test]
    fn waits_follow_the_bytes_on_the_same_device() {
        let mut ledger = Ledger::new(4, BootTime::default());
        ledger.advance(BootTime::new(Duration::from_secs(1)));
        let mut disk = Disk::new(2, 4);
        let begin = [of(0, 1, 0, 0), of(0, 2, 0, 0), of(1, 3, 0, 0)];
        disk.tick(begin.into_iter(), &mut ledger);
        let first = [of(0, 1, 100, 10), of(0, 2, 900, 90), of(1, 3, 50, 5), of(9, 1, 7, 7)];
        disk.tick(first.into_iter(), &mut ledger);
        let last = Duration::from_secs(60);
        assert_eq!(ledger.sum(1, last).culprits, [(2, 90.0), (1, 10.0)]);
        assert_eq!(ledger.sum(3, last).culprits, [(3, 50.0)], "alone on its device");
        // Only what was gained since counts, and nothing that went backwards.
        disk.tick([of(0, 1, 110, 20), of(0, 2, 1, 1)].into_iter(), &mut ledger);
        assert_eq!(ledger.sum(1, last).culprits, [(2, 90.0), (1, 20.0)]);
        assert_eq!(ledger.sum(2, last).culprits, [(2, 810.0), (1, 90.0)]);
    }

    #[test]
    fn what_was_before_the_first_reading_is_not_counted() {
        let mut ledger = Ledger::new(4, BootTime::default());
        ledger.advance(BootTime::new(Duration::from_secs(1)));
        let mut disk = Disk::new(1, 4);
        disk.tick([of(0, 1, 500, 5), of(0, 2, 500, 5)].into_iter(), &mut ledger);
        assert!(ledger.sum(1, Duration::from_secs(60)).culprits.is_empty());
        disk.forget(1);
        disk.tick([of(0, 1, 900, 9), of(0, 2, 501, 6)].into_iter(), &mut ledger);
        assert!(ledger.sum(1, Duration::from_secs(60)).culprits.is_empty(), "it is another unit");
        assert_eq!(ledger.sum(2, Duration::from_secs(60)).culprits, [(2, 1.0)]);
    }
}
