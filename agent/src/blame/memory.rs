//! Stalls for want of memory, divided among those who grew shortly before.

use super::ledger::Ledger;

/// How much of a unit's growth still counts a second later: half after seven seconds.
const KEPT_PER_TICK: f64 = 0.9;
/// Growth that is no news. A unit that stalls while nobody grew by more runs into a
/// limit of its own.
const NOISE_BYTES: f64 = 1024.0 * 1024.0;

/// A unit's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Slot of the unit.
    pub unit: usize,
    /// Nanoseconds that its tasks stalled for memory, seen in two ways: in direct
    /// reclaim, and by its pressure file. The one that gained more in a tick counts.
    pub stalled_ns: [u64; 2],
    /// Bytes that it has now; `None` when that is not known.
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    /// `None` before the first reading, from which nothing follows.
    stalled: Option<[u64; 2]>,
    bytes: Option<u64>,
    /// Growth of late; shrinking is not set off against it.
    grown: f64,
    waited: f64,
}

/// What was there at the last tick.
#[derive(Debug)]
pub(super) struct Memory {
    rows: Vec<Row>,
    by_culprit: Vec<f64>,
}

impl Memory {
    /// For `units` slots.
    #[must_use]
    pub(super) fn new(units: usize) -> Self {
        let units = units.max(1);
        Self { rows: vec![Row::default(); units], by_culprit: vec![0.0; units] }
    }

    /// Slot `unit` is another unit's from now on. One that was `born` just now had no
    /// memory until now.
    pub(super) fn forget(&mut self, unit: usize, born: bool) {
        if let Some(row) = self.rows.get_mut(unit) {
            *row = Row { bytes: born.then_some(0), ..Row::default() };
        }
    }

    /// Divides what was stalled since the last tick. A counter that went backwards
    /// gained nothing.
    pub(super) fn tick(&mut self, uses: impl Iterator<Item = MemoryUse>, ledger: &mut Ledger) {
        for row in &mut self.rows {
            row.grown *= KEPT_PER_TICK;
            row.waited = 0.0;
        }
        for now in uses {
            let Some(row) = self.rows.get_mut(now.unit) else { continue };
            let last = row.stalled.replace(now.stalled_ns).unwrap_or(now.stalled_ns);
            let gains = now.stalled_ns.iter().zip(last).map(|(now, last)| now.saturating_sub(last));
            row.waited = gains.max().unwrap_or(0) as f64;
            if let Some(bytes) = now.bytes {
                // What a unit had before it was first seen is nobody's growth.
                row.grown += bytes.saturating_sub(row.bytes.unwrap_or(bytes)) as f64;
                row.bytes = Some(bytes);
            }
        }
        let all: f64 = self.rows.iter().map(|row| row.grown).sum();
        for (victim, waited) in self.rows.iter().map(|row| row.waited).enumerate().skip(1) {
            if waited <= 0.0 {
                continue;
            }
            for (caused, row) in self.by_culprit.iter_mut().zip(&self.rows) {
                *caused = waited * row.grown / (all + NOISE_BYTES);
            }
            if let Some(own) = self.by_culprit.get_mut(victim) {
                *own += waited * NOISE_BYTES / (all + NOISE_BYTES);
            }
            ledger.charge(victim, &self.by_culprit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_core::clock::BootTime;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn of(unit: usize, stalled_ns: u64, mib: u64) -> MemoryUse {
        MemoryUse { unit, stalled_ns: [stalled_ns, 0], bytes: Some(mib * MIB) }
    }

    fn culprits(ticks: &[&[MemoryUse]], victim: usize) -> Vec<(usize, f64)> {
        let mut ledger = Ledger::new(4, BootTime::default());
        ledger.advance(BootTime::new(Duration::from_secs(1)));
        let mut memory = Memory::new(4);
        for tick in ticks {
            memory.tick(tick.iter().copied(), &mut ledger);
        }
        ledger.sum(victim, Duration::from_secs(60)).culprits
    }

    #[test]
    fn who_grew_is_blamed_and_who_shrank_is_not() {
        let before = [of(1, 0, 500), of(2, 0, 100), of(3, 0, 900)];
        let after = [of(1, 1000, 500), of(2, 0, 199), of(3, 0, 100)];
        assert_eq!(culprits(&[&before, &after], 1), [(2, 990.0), (1, 10.0)]);
    }

    #[test]
    fn growth_is_remembered_for_a_while() {
        let before = [of(1, 0, 500), of(2, 0, 0)];
        let mut ticks = vec![before.as_slice()];
        let grown = [of(1, 0, 500), of(2, 0, 200)];
        ticks.extend([grown.as_slice(); 5]);
        let late = [of(1, 1000, 500), of(2, 0, 200)];
        ticks.push(&late);
        assert_eq!(culprits(&ticks, 1).first().map(|(slot, _)| *slot), Some(2));
    }

    #[test]
    fn a_unit_that_stalls_while_nobody_grows_hurts_itself() {
        let (before, after) = ([of(1, 5, 500), of(2, 0, 100)], [of(1, 105, 500), of(2, 0, 100)]);
        assert_eq!(culprits(&[&before, &after], 1), [(1, 100.0)]);
        let unknown = |stalled_ns| MemoryUse { unit: 1, stalled_ns, bytes: None };
        // Two views of the same stalls are not added up.
        assert_eq!(culprits(&[&[unknown([7, 0])], &[unknown([8, 3])]], 1), [(1, 3.0)]);
    }

    #[test]
    fn a_newcomer_grows_from_nothing() {
        let mut ledger = Ledger::new(4, BootTime::default());
        ledger.advance(BootTime::new(Duration::from_secs(1)));
        let mut memory = Memory::new(4);
        memory.tick([of(1, 0, 300)].into_iter(), &mut ledger);
        memory.forget(2, true);
        memory.forget(3, false);
        memory.tick([of(1, 100, 300), of(2, 0, 99), of(3, 0, 99)].into_iter(), &mut ledger);
        let sum = ledger.sum(1, Duration::from_secs(60));
        assert_eq!(sum.culprits, [(2, 99.0), (1, 1.0)], "the others were there before");
    }
}
