//! One tick's readings of every signal, in memory that is laid out once by the
//! catalogue and reused for ever.
//!
//! A frame has a table for each owner: the host has one row, units one row per
//! slot, devices, interfaces and labels one row each, row 0 being "everything else".
//! Scalars are kept raw (counters as read, not as rates); `NaN` means "not read".
//! Counters stay exact up to 2^53. Histograms are cumulative since their row began.

use std::sync::Arc;

use holdfast_proto::histogram::BUCKETS;

use crate::catalogue::{self, Owner, SignalId};
use holdfast_core::clock::BootTime;

/// A cumulative distribution in dense form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Sum of all values.
    pub sum: u64,
    /// How many values fell in each bucket.
    pub counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Histogram {
    /// Without a value.
    pub const EMPTY: Self = Self { sum: 0, counts: [0; BUCKETS] };

    /// How many values were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Takes over `other`, in place.
    pub fn copy_from(&mut self, other: &Self) {
        self.sum = other.sum;
        self.counts.copy_from_slice(&other.counts);
    }
}

/// Who a row of a table belongs to at present.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Unit, device, interface or label; empty for the host and for a row never used.
    pub name: Arc<str>,
    /// Grows when the row is given to somebody else: readings before and after
    /// must not be compared.
    pub generation: u32,
    /// Whether the row has an owner now.
    pub live: bool,
}

#[derive(Debug, Clone)]
struct Table {
    rows: Vec<Row>,
    scalars: Vec<f64>,
    /// Row by row; none before the first value, because most units never connect, reclaim
    /// or sync, and most rows never get a unit.
    histograms: Vec<Option<Box<Histogram>>>,
    scalar_width: usize,
    histogram_width: usize,
}

impl Table {
    fn new(owner: Owner, rows: usize) -> Self {
        let (scalar_width, histogram_width) =
            (catalogue::scalars(owner), catalogue::histograms(owner));
        Self {
            rows: vec![Row::default(); rows],
            scalars: vec![f64::NAN; rows * scalar_width],
            histograms: vec![None; rows * histogram_width],
            scalar_width,
            histogram_width,
        }
    }

    fn scalars_of(&mut self, row: usize) -> &mut [f64] {
        &mut self.scalars[row * self.scalar_width..(row + 1) * self.scalar_width]
    }

    /// Empties the histograms of a row; their memory stays for its next owner.
    fn clear_histograms(&mut self, row: usize) {
        let width = self.histogram_width;
        let of_row = self.histograms.iter_mut().skip(row * width).take(width);
        of_row.flatten().for_each(|histogram| **histogram = Histogram::EMPTY);
    }

    /// Whether a row has, or had, an owner.
    fn owned(&self, row: usize) -> bool {
        self.rows.get(row).is_some_and(|row| row.live || row.generation > 0)
    }
}

/// Rows for labels, row 0 included. Labels are words of the kernel's, not of the
/// host's: there are about as many everywhere, and few are ever met.
pub const LABEL_ROWS: usize = 128;

/// How many rows each table has; labels have [`LABEL_ROWS`].
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Unit slots, slot 0 included.
    pub units: usize,
    /// Block devices, row 0 included.
    pub devices: usize,
    /// Network interfaces, row 0 included.
    pub interfaces: usize,
}

/// All signals of one tick.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When the tick began, on the boot-time clock.
    pub at: BootTime,
    tables: [Table; Owner::ALL.len()],
}

impl Frame {
    /// An empty frame: nothing read, no row live but the host's.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let mut frame = Self {
            at: BootTime::default(),
            tables: [
                Table::new(Owner::Host, 1),
                Table::new(Owner::Unit, shape.units.max(1)),
                Table::new(Owner::Device, shape.devices.max(1)),
                Table::new(Owner::Interface, shape.interfaces.max(1)),
                Table::new(Owner::Label, LABEL_ROWS),
            ],
        };
        let host = &mut frame.tables[Owner::Host as usize];
        host.rows[0].live = true;
        frame
    }

    /// Rows of `owner`, by slot or index.
    #[must_use]
    pub fn rows(&self, owner: Owner) -> &[Row] {
        &self.tables[owner as usize].rows
    }

    /// Gives row `row` to `name` and forgets what was read for its last owner.
    ///
    /// A row beyond the table is ignored: the caller keeps to [`rows`](Self::rows).
    pub fn assign(&mut self, owner: Owner, row: usize, name: Arc<str>) {
        let table = &mut self.tables[owner as usize];
        let Some(entry) = table.rows.get_mut(row) else { return };
        *entry = Row { name, generation: entry.generation.wrapping_add(1), live: true };
        table.scalars_of(row).fill(f64::NAN);
        table.clear_histograms(row);
    }

    /// Marks row `row` as having no owner; its last readings stay until it is given away.
    pub fn retire(&mut self, owner: Owner, row: usize) {
        if let Some(entry) = self.tables[owner as usize].rows.get_mut(row) {
            entry.live = false;
        }
    }

    /// Gives retired row `row` back to the owner it had, readings and all.
    pub fn revive(&mut self, owner: Owner, row: usize) {
        if let Some(entry) = self.tables[owner as usize].rows.get_mut(row) {
            entry.live = true;
        }
    }

    /// Starts a tick: no scalar is read yet. Histograms stay, they are cumulative.
    pub fn begin(&mut self, at: BootTime) {
        self.at = at;
        for table in &mut self.tables {
            table.scalars.fill(f64::NAN);
        }
    }

    /// Takes over `other`, which has the same shape, without allocating but for the first
    /// value of a histogram. Rows that are not live in either frame keep their histograms.
    pub fn copy_from(&mut self, other: &Self) {
        self.at = other.at;
        for (to, from) in self.tables.iter_mut().zip(&other.tables) {
            to.scalars.clone_from_slice(&from.scalars);
            let width = to.histogram_width;
            debug_assert_eq!(width, from.histogram_width, "frames of one shape");
            for (row, (mine, theirs)) in to.rows.iter_mut().zip(&from.rows).enumerate() {
                if mine.live || theirs.live || mine.generation != theirs.generation {
                    let of_row = row * width..(row + 1) * width;
                    let to = to.histograms.get_mut(of_row.clone()).unwrap_or_default();
                    let from = from.histograms.get(of_row).unwrap_or_default();
                    to.iter_mut().zip(from).for_each(|(to, from)| copy_histogram(to, from));
                }
                if mine.generation != theirs.generation || mine.live != theirs.live {
                    mine.clone_from(theirs);
                }
            }
        }
    }

    /// The value of scalar signal `id` in `row`; `NaN` when not read.
    #[must_use]
    pub fn get(&self, id: SignalId, row: usize) -> f64 {
        let table = &self.tables[id.signal().owner as usize];
        table.scalars.get(row * table.scalar_width + id.column()).copied().unwrap_or(f64::NAN)
    }

    /// Sets scalar signal `id` in `row`.
    pub fn set(&mut self, id: SignalId, row: usize, value: f64) {
        let table = &mut self.tables[id.signal().owner as usize];
        if let Some(cell) = table.scalars.get_mut(row * table.scalar_width + id.column()) {
            *cell = value;
        }
    }

    /// The histogram of signal `id` in `row`; `None` for a row that never had an owner.
    #[must_use]
    pub fn histogram(&self, id: SignalId, row: usize) -> Option<&Histogram> {
        static EMPTY: Histogram = Histogram::EMPTY;
        let table = &self.tables[id.signal().owner as usize];
        let cell = table.histograms.get(row * table.histogram_width + id.column())?;
        table.owned(row).then(|| cell.as_deref().unwrap_or(&EMPTY))
    }

    /// The histogram of signal `id` in `row`, to add values to; `None` for a row that never
    /// had an owner.
    pub fn histogram_mut(&mut self, id: SignalId, row: usize) -> Option<&mut Histogram> {
        let table = &mut self.tables[id.signal().owner as usize];
        if !table.owned(row) {
            return None;
        }
        let cell = table.histograms.get_mut(row * table.histogram_width + id.column())?;
        Some(cell.get_or_insert_default())
    }
}

/// Takes over a histogram, which may be without a value.
fn copy_histogram(to: &mut Option<Box<Histogram>>, from: &Option<Box<Histogram>>) {
    match (to, from) {
        (Some(to), Some(from)) => to.copy_from(from),
        (Some(to), None) => **to = Histogram::EMPTY,
        (to @ None, from) => to.clone_from(from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{DISK_ERRORS, HOST_RUN_QUEUE, UNIT_MEMORY, UNIT_ON_CPU, UNIT_RUN_QUEUE};

    fn frame() -> Frame {
        Frame::new(Shape { units: 4, devices: 2, interfaces: 2 })
    }

    #[test]
    fn cells_do_not_overlap() {
        let mut frame = frame();
        assert!(frame.histogram(UNIT_RUN_QUEUE, 3).is_none(), "nobody's");
        frame.assign(Owner::Unit, 3, "a.service".into());
        frame.set(UNIT_ON_CPU, 3, 7.0);
        frame.set(UNIT_MEMORY, 3, 8.0);
        frame.histogram_mut(UNIT_RUN_QUEUE, 3).expect("row 3").counts[5] = 9;
        assert_eq!((frame.get(UNIT_ON_CPU, 3), frame.get(UNIT_MEMORY, 3)), (7.0, 8.0));
        assert!(frame.get(UNIT_ON_CPU, 2).is_nan() && frame.get(DISK_ERRORS, 1).is_nan());
        assert_eq!(frame.histogram(HOST_RUN_QUEUE, 0).map(Histogram::total), Some(0));
    }

    #[test]
    fn a_reassigned_row_forgets() {
        let mut frame = frame();
        frame.assign(Owner::Unit, 2, "a.service".into());
        frame.set(UNIT_ON_CPU, 2, 7.0);
        frame.retire(Owner::Unit, 2);
        assert_eq!((frame.get(UNIT_ON_CPU, 2), frame.rows(Owner::Unit)[2].live), (7.0, false));
        frame.assign(Owner::Unit, 2, "b.service".into());
        assert!(frame.get(UNIT_ON_CPU, 2).is_nan());
        assert_eq!(frame.rows(Owner::Unit)[2].generation, 2);
        frame.histogram_mut(UNIT_RUN_QUEUE, 2).expect("row 2").counts[5] = 9;
        let mut copy = self::frame();
        copy.copy_from(&frame);
        frame.assign(Owner::Unit, 2, "c.service".into());
        let total = |frame: &Frame| frame.histogram(UNIT_RUN_QUEUE, 2).map_or(0, Histogram::total);
        assert_eq!((total(&frame), total(&copy)), (0, 9));
        copy.copy_from(&frame);
        assert_eq!(total(&copy), 0);
    }

    #[test]
    fn a_copy_holds_the_same_and_a_new_tick_holds_nothing() {
        let (mut current, mut previous) = (frame(), frame());
        current.assign(Owner::Unit, 1, "a.service".into());
        current.set(UNIT_ON_CPU, 1, 5.0);
        current.histogram_mut(UNIT_RUN_QUEUE, 1).expect("row 1").counts[3] = 4;
        previous.copy_from(&current);
        current.begin(BootTime::new(std::time::Duration::from_secs(9)));
        assert!(current.get(UNIT_ON_CPU, 1).is_nan());
        assert_eq!(current.histogram(UNIT_RUN_QUEUE, 1).map(Histogram::total), Some(4));
        assert_eq!(
            (previous.get(UNIT_ON_CPU, 1), &*previous.rows(Owner::Unit)[1].name),
            (5.0, "a.service")
        );
        assert_eq!(previous.histogram(UNIT_RUN_QUEUE, 1).map(Histogram::total), Some(4));
        current.retire(Owner::Unit, 1);
        current.revive(Owner::Unit, 1);
        assert!(current.rows(Owner::Unit)[1].live);
    }

    #[test]
    fn rows_beyond_the_table_are_refused() {
        let mut frame = frame();
        frame.set(UNIT_ON_CPU, 4, 1.0);
        frame.assign(Owner::Unit, 9, "x".into());
        assert!(frame.get(UNIT_ON_CPU, 4).is_nan() && frame.histogram(UNIT_RUN_QUEUE, 4).is_none());
    }
}
