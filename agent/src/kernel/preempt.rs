//! The matrix of victims and culprits that the scheduler's program keeps, read in
//! place.

use holdfast_agent_ebpf::cells::Word;
use holdfast_agent_ebpf::turns::{charge_index, idle_index};

use super::cells::{Cells, load};

/// How long units waited for a CPU that other units had, by slot. Nanoseconds that
/// only grow, of long waits only.
#[derive(Debug)]
pub struct Preempt {
    cells: Cells<Word>,
    rows: u32,
}

impl Preempt {
    pub(super) fn new(cells: Cells<Word>, rows: u32) -> Self {
        Self { cells, rows }
    }

    /// Slots that are told apart; those beyond share row and column 0.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// How long the unit in slot `victim` waited while the one in `culprit` ran.
    #[must_use]
    pub fn charged_ns(&self, victim: usize, culprit: usize) -> u64 {
        self.at(charge_index(self.rows, slot(victim), slot(culprit)))
    }

    /// How long the unit in slot `victim` waited while its CPU was idle.
    #[must_use]
    pub fn idle_ns(&self, victim: usize) -> u64 {
        self.at(idle_index(self.rows, slot(victim)))
    }

    fn at(&self, index: u32) -> u64 {
        self.cells.get(index as usize).map(load).unwrap_or_default()
    }
}

/// One beyond every table shares row 0 like any other that is too large.
fn slot(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
