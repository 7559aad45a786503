//! The tables that tell programs which row a cgroup or device belongs to,
//! written in place: a program may look up while a row is being assigned.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use holdfast_agent_ebpf::slots::{Entry, Set, WAYS};

use super::Error;
use super::cells::Cells;

/// The half of [`Entry::row`] that holds flags.
const FLAGS: u64 = !0 << 32;

/// A set-associative table; see [`holdfast_agent_ebpf::slots`].
#[derive(Debug)]
pub(super) struct Table {
    name: &'static str,
    sets: Cells<Set>,
    set_of: fn(u64) -> u32,
    /// Held while an entry is written.
    writer: Mutex<()>,
}

impl Table {
    pub(super) fn new(name: &'static str, sets: Cells<Set>, set_of: fn(u64) -> u32) -> Self {
        Self { name, sets, set_of, writer: Mutex::new(()) }
    }

    /// Gives `key` to `row`. A key that had one keeps its flags.
    pub(super) fn assign(&self, key: u64, row: usize) -> Result<(), Error> {
        let _writer = self.writer.lock();
        let entries = self.entries(key);
        let of_key = |key| entries.iter().find(|e| e.key.load(Ordering::Relaxed) == key);
        let own = of_key(key);
        let flags = own.map_or(0, |entry| entry.row.load(Ordering::Relaxed) & FLAGS);
        let entry =
            own.or_else(|| of_key(0)).ok_or(Error::TableFull { table: self.name, ways: WAYS })?;
        // The row first: whoever finds the key finds its row.
        entry.row.store(row as u64 | flags, Ordering::Relaxed);
        entry.key.store(key, Ordering::Release);
        Ok(())
    }

    /// Sets or clears `flag` of `key`. Returns whether `key` has a row.
    pub(super) fn flag(&self, key: u64, flag: u64, on: bool) -> bool {
        let _writer = self.writer.lock();
        let entry = self.entries(key).iter().find(|e| e.key.load(Ordering::Relaxed) == key);
        if let Some(entry) = entry {
            let row = entry.row.load(Ordering::Relaxed);
            entry.row.store(if on { row | flag } else { row & !flag }, Ordering::Relaxed);
        }
        entry.is_some()
    }

    /// Gives `key` to row 0.
    pub(super) fn release(&self, key: u64) {
        let _writer = self.writer.lock();
        let entries = self.entries(key);
        for entry in entries.iter().filter(|entry| entry.key.load(Ordering::Relaxed) == key) {
            entry.key.store(0, Ordering::Release);
            // A key that could not be read is 0, too, and finds this entry: row 0 it is.
            entry.row.store(0, Ordering::Release);
        }
    }

    /// The row that `key` has; `None` for row 0, "everything else".
    pub(super) fn row_of(&self, key: u64) -> Option<usize> {
        let entry = self.entries(key).iter().find(|e| e.key.load(Ordering::Acquire) == key)?;
        // The upper half holds flags.
        let row = entry.row.load(Ordering::Relaxed) as u32;
        (row != 0).then_some(row as usize)
    }

    fn entries(&self, key: u64) -> &[Entry] {
        match self.sets.get((self.set_of)(key) as usize) {
            Some(set) if key != 0 => &set.entries,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use holdfast_agent_ebpf::slots::{DETAIL, UNIT_SETS, unit_set};

    use super::*;

    #[test]
    fn flags_are_of_one_entry_and_gone_when_it_is_given_away() {
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(u64::from(UNIT_SETS) * size_of::<Set>() as u64).unwrap();
        let sets = Cells::map(memory.as_fd(), UNIT_SETS as usize, true).unwrap();
        let table = Table::new("unit", sets, unit_set);
        let row = |key: u64| {
            let entry = table.entries(key).iter().find(|e| e.key.load(Ordering::Relaxed) == key);
            entry.map(|entry| entry.row.load(Ordering::Relaxed))
        };
        // Two that share a set.
        let (one, other) = (7, 7 + u64::from(UNIT_SETS));
        table.assign(one, 3).unwrap();
        table.assign(other, 4).unwrap();
        table.flag(one, DETAIL, true);
        assert_eq!((row(one), row(other)), (Some(3 | DETAIL), Some(4)));
        table.flag(one, DETAIL, true);
        table.flag(other, DETAIL, false);
        assert_eq!((row(one), row(other)), (Some(3 | DETAIL), Some(4)));
        table.flag(one, DETAIL, false);
        assert_eq!(row(one), Some(3));
        table.flag(one, DETAIL, true);
        table.assign(one, 5).unwrap();
        assert_eq!(row(one), Some(5 | DETAIL), "it is the same cgroup");
        table.release(one);
        table.assign(one, 5).unwrap();
        assert_eq!(row(one), Some(5));
        table.flag(99, DETAIL, true);
        assert_eq!(row(99), None, "nobody's entry");
    }
}
