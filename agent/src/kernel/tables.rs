//! The tables that tell programs which row a cgroup or device belongs to,
//! written in place: a program may look up while a row is being assigned.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use holdfast_agent_ebpf::slots::{Entry, Set, WAYS};

use super::Error;
use super::cells::Cells;

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

    /// Gives `key` to `row`.
    pub(super) fn assign(&self, key: u64, row: usize) -> Result<(), Error> {
        let _writer = self.writer.lock();
        let entries = self.entries(key);
        let entry = entries
            .iter()
            .find(|entry| entry.key.load(Ordering::Relaxed) == key)
            .or_else(|| entries.iter().find(|entry| entry.key.load(Ordering::Relaxed) == 0))
            .ok_or(Error::TableFull { table: self.name, ways: WAYS })?;
        // The row first: whoever finds the key finds its row.
        entry.row.store(row as u64, Ordering::Relaxed);
        entry.key.store(key, Ordering::Release);
        Ok(())
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
