//! Which device or interface has which row of the frame. Row 0 is "everything else".

use std::sync::Arc;

use crate::catalogue::Owner;
use crate::frame::Frame;
use crate::units::name;

#[derive(Debug, Clone, Default)]
struct Entry {
    name: Arc<str>,
    live: bool,
    /// The pass in which it was last listed.
    seen: u64,
}

/// The rows of one owner. A pass is `begin`, then `find` or `take` for each name
/// listed, then `end`.
#[derive(Debug)]
pub(super) struct Rows {
    owner: Owner,
    entries: Vec<Entry>,
    pass: u64,
    hint: usize,
}

impl Rows {
    pub(super) fn new(owner: Owner) -> Self {
        Self { owner, entries: Vec::new(), pass: 0, hint: 0 }
    }

    pub(super) fn begin(&mut self, frame: &Frame) {
        // The frame's size is known only now, and does not change later.
        self.entries.resize(frame.rows(self.owner).len(), Entry::default());
        self.pass += 1;
        self.hint = 0;
    }

    /// The row of `name`, if it has one.
    pub(super) fn find(&mut self, name: &str) -> Option<usize> {
        let is = |entry: &Entry| entry.live && *entry.name == *name;
        // The kernel lists in the same order each time: the next row is nearly always right.
        let next = self.hint + 1;
        let row = match self.entries.get(next) {
            Some(entry) if is(entry) => next,
            _ => self.entries.iter().position(is)?,
        };
        self.hint = row;
        self.entries.get_mut(row)?.seen = self.pass;
        Some(row)
    }

    /// Gives `name` a row: one never used, or the one whose owner vanished first.
    pub(super) fn take(&mut self, name: &str, frame: &mut Frame) -> Option<usize> {
        let free = self.entries.iter().enumerate().skip(1).filter(|(_, entry)| !entry.live);
        let (row, _) = free.min_by_key(|(_, entry)| entry.seen)?;
        let entry = self.entries.get_mut(row)?;
        *entry = Entry { name: name.into(), live: true, seen: self.pass };
        // The kernel allows control characters in names of interfaces; the wire does not.
        frame.assign(self.owner, row, name::clean(name).into());
        self.hint = row;
        Some(row)
    }

    /// Retires the rows of names that were not listed in this pass; whether there were any.
    pub(super) fn end(&mut self, frame: &mut Frame) -> bool {
        let mut retired = false;
        for (row, entry) in self.entries.iter_mut().enumerate() {
            if entry.live && entry.seen != self.pass {
                entry.live = false;
                frame.retire(self.owner, row);
                retired = true;
            }
        }
        retired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    #[test]
    fn rows_follow_what_is_listed() {
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 3 });
        let mut rows = Rows::new(Owner::Interface);
        let mut pass = |names: &[&str]| {
            rows.begin(&frame);
            let found: Vec<_> = names
                .iter()
                .map(|name| rows.find(name).or_else(|| rows.take(name, &mut frame)))
                .collect();
            rows.end(&mut frame);
            found
        };
        assert_eq!(pass(&["lo", "eth0", "eth1"]), [Some(1), Some(2), None]);
        assert_eq!(pass(&["lo", "eth0"]), [Some(1), Some(2)]);
        assert_eq!(pass(&["eth0"]), [Some(2)]);
        // The row of lo is free now.
        assert_eq!(pass(&["eth1", "eth0"]), [Some(1), Some(2)]);
        assert_eq!(
            (&*frame.rows(Owner::Interface)[1].name, frame.rows(Owner::Interface)[1].generation),
            ("eth1", 2)
        );
    }

    #[test]
    fn any_name_is_found_again_and_fits_the_wire() {
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 4 });
        let mut rows = Rows::new(Owner::Interface);
        let long = "é".repeat(2048);
        for _ in 0..2 {
            rows.begin(&frame);
            for (n, name) in ["\u{1b}[2J", "?", &long].into_iter().enumerate() {
                let row = rows.find(name).or_else(|| rows.take(name, &mut frame));
                assert_eq!(row, Some(n + 1));
            }
            assert!(!rows.end(&mut frame));
        }
        for row in &frame.rows(Owner::Interface)[1..] {
            assert!(holdfast_proto::limits::is_instance(&row.name), "{:?}", row.name);
            assert_eq!(row.generation, 1);
        }
    }
}
