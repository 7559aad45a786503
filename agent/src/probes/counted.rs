//! From what the kernel has counted so far to what the frame holds.
//!
//! Cells in the kernel are never reset: a row's value is what its cell has gained
//! since the row got its present owner, the host's is the sum over all rows. A
//! row that changed hands since the last tick begins with what its cell held at that
//! tick, so nothing of a new unit's first moments is lost.

use std::array;

use holdfast_agent_ebpf::cells::Histogram as Cell;
use holdfast_proto::histogram::BUCKETS;

use crate::catalogue::SignalId;
use crate::frame::{self, Frame};
use crate::kernel::cells::load;

/// `N` counters of each row of an owner.
pub(super) struct Counters<const N: usize> {
    signals: [SignalId; N],
    rows: Vec<CounterRow<N>>,
}

#[derive(Clone)]
struct CounterRow<const N: usize> {
    generation: u32,
    /// What the cell held when the row got its owner.
    base: [u64; N],
    /// What the cell held at the last tick.
    last: [u64; N],
}

impl<const N: usize> Counters<N> {
    /// For `rows` rows; `cell` reads what a row's cell holds.
    pub(super) fn new(
        signals: [SignalId; N],
        rows: usize,
        mut cell: impl FnMut(usize) -> [u64; N],
    ) -> Self {
        let rows = (0..rows).map(|row| {
            let now = cell(row);
            CounterRow { generation: 0, base: now, last: now }
        });
        Self { signals, rows: rows.collect() }
    }

    /// Writes the counters of `row`, whose cell holds `now`. Returns whether any of
    /// them changed since the last tick.
    pub(super) fn put(&mut self, frame: &mut Frame, row: usize, now: [u64; N]) -> bool {
        let Some(signal) = self.signals.first().map(|id| id.signal()) else { return false };
        let generation = frame.rows(signal.owner).get(row).map(|row| row.generation);
        let (Some(mine), Some(generation)) = (self.rows.get_mut(row), generation) else {
            return false;
        };
        if mine.generation != generation {
            (mine.generation, mine.base) = (generation, mine.last);
        }
        // A row that lost its owner still tells what its owner did last.
        if generation > 0 {
            for ((id, now), base) in self.signals.iter().zip(now).zip(mine.base) {
                frame.set(*id, row, now.wrapping_sub(base) as f64);
            }
        }
        std::mem::replace(&mut mine.last, now) != now
    }
}

/// A distribution of each row of an owner, and perhaps of the host.
pub(super) struct Distributions {
    signal: SignalId,
    host: Option<SignalId>,
    /// What was counted up to the last tick; none where nothing ever was, which is most.
    rows: Vec<Option<Box<Counts>>>,
}

#[derive(Clone, Copy)]
struct Counts {
    sum: u64,
    counts: [u32; BUCKETS],
}

impl Distributions {
    /// For `rows` rows; `cells` gives a row's cells, one for each CPU.
    pub(super) fn new<'a, I: Iterator<Item = &'a Cell> + Clone>(
        signal: SignalId,
        host: Option<SignalId>,
        rows: usize,
        mut cells: impl FnMut(usize) -> I,
    ) -> Self {
        let rows = (0..rows).map(|row| Some(Counts::of(cells(row))).filter(Counts::any));
        Self { signal, host, rows: rows.map(|counts| counts.map(Box::new)).collect() }
    }

    /// Adds what `row` gained since the last tick. Quick when it gained nothing.
    pub(super) fn put<'a>(
        &mut self,
        frame: &mut Frame,
        row: usize,
        cells: impl Iterator<Item = &'a Cell> + Clone,
    ) {
        let last_sum = |last: &Option<Box<Counts>>| last.as_ref().map_or(0, |last| last.sum);
        let unchanged = self.rows.get(row).is_none_or(|last| last_sum(last) == sum(cells.clone()));
        if !unchanged {
            self.put_changed(frame, row, cells);
        }
    }

    /// As [`put`](Self::put), for a row that is known to have gained something.
    pub(super) fn put_changed<'a>(
        &mut self,
        frame: &mut Frame,
        row: usize,
        cells: impl Iterator<Item = &'a Cell> + Clone,
    ) {
        let Some(last) = self.rows.get_mut(row) else { return };
        let now = Counts::of(cells);
        if last.is_none() && !now.any() {
            return;
        }
        let last = last.get_or_insert_default();
        let gained = Counts {
            sum: now.sum.wrapping_sub(last.sum),
            counts: array::from_fn(|n| now.counts[n].wrapping_sub(last.counts[n])),
        };
        **last = now;
        if let Some(histogram) = frame.histogram_mut(self.signal, row) {
            gained.add_to(histogram);
        }
        if let Some(histogram) = self.host.and_then(|id| frame.histogram_mut(id, 0)) {
            gained.add_to(histogram);
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self { sum: 0, counts: [0; BUCKETS] }
    }
}

impl Counts {
    /// Whether there is a value at all.
    fn any(&self) -> bool {
        self.sum != 0 || self.counts.iter().any(|count| *count != 0)
    }

    /// The sum of `cells`. Sums first, as the programs write them last.
    fn of<'a>(cells: impl Iterator<Item = &'a Cell> + Clone) -> Self {
        let mut all = Self { sum: sum(cells.clone()), counts: [0; BUCKETS] };
        for cell in cells {
            for (total, count) in all.counts.iter_mut().zip(&cell.counts) {
                *total = total.wrapping_add(count.load(std::sync::atomic::Ordering::Relaxed));
            }
        }
        all
    }

    fn add_to(&self, histogram: &mut frame::Histogram) {
        histogram.sum = histogram.sum.wrapping_add(self.sum);
        for (total, gained) in histogram.counts.iter_mut().zip(self.counts) {
            *total = total.wrapping_add(u64::from(gained));
        }
    }
}

fn sum<'a>(cells: impl Iterator<Item = &'a Cell>) -> u64 {
    cells.fold(0, |sum, cell| sum.wrapping_add(load(&cell.sum)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::catalogue::{HOST_CONNECT, Owner, UNIT_CONNECT, UNIT_EXITS};
    use crate::frame::Shape;

    fn frame() -> Frame {
        Frame::new(Shape { units: 3, devices: 1, interfaces: 1 })
    }

    #[test]
    fn a_new_owner_gets_what_came_since_the_last_tick() {
        let mut frame = frame();
        let mut counters = Counters::new([UNIT_EXITS], 3, |_| [100]);
        assert!(counters.put(&mut frame, 1, [105]));
        assert!(frame.get(UNIT_EXITS, 1).is_nan(), "nobody owns the row");
        frame.assign(Owner::Unit, 1, "a.service".into());
        assert!(counters.put(&mut frame, 1, [107]));
        assert_eq!(frame.get(UNIT_EXITS, 1), 2.0);
        assert!(!counters.put(&mut frame, 1, [107]));
        frame.assign(Owner::Unit, 1, "b.service".into());
        assert!(counters.put(&mut frame, 1, [108]));
        assert_eq!(frame.get(UNIT_EXITS, 1), 1.0);
        assert!(!counters.put(&mut frame, 9, [1]), "no such row");
    }

    #[test]
    fn counts_of_all_cpus_add_up_over_a_wrap() {
        let cell = |count: u32, sum| Cell {
            sum: AtomicU64::new(sum),
            counts: array::from_fn(|n| AtomicU32::new(if n == 5 { count } else { 0 })),
        };
        let (cpu0, cpu1) = (cell(u32::MAX, 10), cell(1, 20));
        let cells = || [&cpu0, &cpu1].into_iter();
        let mut frame = frame();
        frame.assign(Owner::Unit, 2, "a.service".into());
        let mut all = Distributions::new(UNIT_CONNECT, Some(HOST_CONNECT), 3, |_| cells());
        all.put(&mut frame, 2, cells());
        assert_eq!(frame.histogram(UNIT_CONNECT, 2).map(frame::Histogram::total), Some(0));
        cpu0.counts[5].fetch_add(2, Relaxed);
        cpu1.counts[5].fetch_add(1, Relaxed);
        cpu1.sum.fetch_add(7, Relaxed);
        all.put(&mut frame, 2, cells());
        for (id, row) in [(UNIT_CONNECT, 2), (HOST_CONNECT, 0)] {
            let histogram = frame.histogram(id, row).unwrap();
            assert_eq!((histogram.counts[5], histogram.sum, histogram.total()), (3, 7, 3));
        }
    }
}
