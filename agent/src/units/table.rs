//! Which unit has which slot. Pure: cgroup ids and names in, decisions out.
//!
//! Several cgroups may belong to one unit and share its slot. When the last one is
//! gone the slot becomes a tombstone: it keeps its name, and its ids stay with it, so
//! that what the kernel still counts or reports for them keeps its unit. A unit that
//! comes back finds its tombstone. When no slot is free the oldest tombstone that is
//! old enough is given away; when there is none either, the cgroup counts as "other"
//! in slot 0 and waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;

/// How long a tombstone is kept at least.
pub const TOMBSTONE: Duration = Duration::from_secs(60);
/// Most ids of dead cgroups that a slot keeps.
const DEAD_IDS: usize = 4;
/// Most cgroups that wait for a slot with their names known.
const WAITING: usize = 4096;

#[derive(Debug, Default)]
struct Slot {
    name: Arc<str>,
    live: Vec<u64>,
    dead: Vec<u64>,
    gone: Option<BootTime>,
    used: bool,
}

/// Where a cgroup that appeared went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// Its slot; 0 when there was none.
    pub slot: usize,
    /// What became of the slot.
    pub kind: BirthKind,
    /// Ids that lost their slot, to be released in the kernel.
    pub released: Vec<u64>,
}

/// What became of the slot of a cgroup that appeared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BirthKind {
    /// It is another unit's now, or had never been used.
    Given,
    /// The unit was gone and is back.
    Revived,
    /// The unit had it already.
    Joined,
    /// None was free.
    Refused,
}

/// What the death of a cgroup means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// Its slot.
    pub slot: usize,
    /// Whether the unit is gone with it.
    pub unit_gone: bool,
    /// Ids that lost their slot, to be released in the kernel.
    pub released: Vec<u64>,
}

/// Units, their cgroups and their slots.
#[derive(Debug)]
pub struct Table {
    slots: Vec<Slot>,
    by_name: HashMap<Arc<str>, usize>,
    by_id: HashMap<u64, usize>,
    waiting: BTreeMap<u64, Arc<str>>,
}

impl Table {
    /// A table of `slots` slots, slot 0 included.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let mut table = Self {
            slots: Vec::new(),
            by_name: HashMap::new(),
            by_id: HashMap::new(),
            waiting: BTreeMap::new(),
        };
        table.slots.resize_with(slots.max(1), Slot::default);
        table
    }

    /// Gives cgroup `id` of unit `name` a slot.
    pub fn born(&mut self, id: u64, name: &str, now: BootTime) -> Birth {
        self.waiting.remove(&id);
        let (slot, kind, released) = match self.by_name.get(name) {
            Some(&slot) => {
                let gone = self.slots.get_mut(slot).and_then(|slot| slot.gone.take());
                let kind = if gone.is_some() { BirthKind::Revived } else { BirthKind::Joined };
                (slot, kind, Vec::new())
            }
            None => match self.free_slot(now) {
                Some(slot) => (slot, BirthKind::Given, self.give(slot, name)),
                None => {
                    if self.waiting.len() < WAITING {
                        self.waiting.insert(id, name.into());
                    }
                    return Birth { slot: 0, kind: BirthKind::Refused, released: Vec::new() };
                }
            },
        };
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.dead.retain(|&dead| dead != id);
            if !entry.live.contains(&id) {
                entry.live.push(id);
            }
        }
        self.by_id.insert(id, slot);
        Birth { slot, kind, released }
    }

    /// Takes note that cgroup `id` is gone; `None` when it had no slot.
    pub fn gone(&mut self, id: u64, now: BootTime) -> Option<Death> {
        if self.waiting.remove(&id).is_some() {
            return None;
        }
        let slot = *self.by_id.get(&id)?;
        let entry = self.slots.get_mut(slot)?;
        let before = entry.live.len();
        entry.live.retain(|&live| live != id);
        if entry.live.len() == before {
            return None;
        }
        entry.dead.push(id);
        let surplus = entry.dead.len().saturating_sub(DEAD_IDS);
        let released: Vec<u64> = entry.dead.drain(..surplus).collect();
        for id in &released {
            self.by_id.remove(id);
        }
        let unit_gone = entry.live.is_empty();
        if unit_gone {
            entry.gone = Some(now);
        }
        Some(Death { slot, unit_gone, released })
    }

    /// A cgroup that waits for a slot, when there is one again.
    pub fn next_waiting(&self, now: BootTime) -> Option<(u64, Arc<str>)> {
        let (&id, name) = self.waiting.first_key_value()?;
        (self.by_name.contains_key(name) || self.free_slot(now).is_some())
            .then(|| (id, Arc::clone(name)))
    }

    /// The unit of cgroup `id`, live or not.
    #[must_use]
    pub fn name(&self, id: u64) -> Option<Arc<str>> {
        match self.by_id.get(&id) {
            Some(&slot) => self.slots.get(slot).map(|slot| Arc::clone(&slot.name)),
            None => self.waiting.get(&id).cloned(),
        }
    }

    /// The name a slot has or had last.
    #[must_use]
    pub fn slot_name(&self, slot: usize) -> Arc<str> {
        self.slots.get(slot).map(|slot| Arc::clone(&slot.name)).unwrap_or_default()
    }

    /// The cgroups of a slot, live or gone a short while ago.
    pub fn ids(&self, slot: usize) -> impl Iterator<Item = u64> {
        let slot = self.slots.get(slot);
        slot.into_iter().flat_map(|slot| slot.live.iter().chain(&slot.dead).copied())
    }

    /// How many units are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.live.is_empty()).count()
    }

    /// A slot never used, else the tombstone that is oldest, if it is old enough.
    fn free_slot(&self, now: BootTime) -> Option<usize> {
        let slots = || self.slots.iter().enumerate().skip(1);
        if let Some((slot, _)) = slots().find(|(_, slot)| !slot.used) {
            return Some(slot);
        }
        let tombstones = slots().filter_map(|(index, slot)| slot.gone.map(|gone| (gone, index)));
        tombstones.min().filter(|&(gone, _)| now.since(gone) >= TOMBSTONE).map(|(_, index)| index)
    }

    fn give(&mut self, slot: usize, name: &str) -> Vec<u64> {
        let Some(entry) = self.slots.get_mut(slot) else { return Vec::new() };
        let last =
            std::mem::replace(entry, Slot { name: name.into(), used: true, ..Slot::default() });
        self.by_name.insert(Arc::clone(&entry.name), slot);
        if last.used {
            self.by_name.remove(&last.name);
        }
        for id in &last.dead {
            self.by_id.remove(id);
        }
        last.dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn cgroups_of_one_unit_share_its_slot() {
        let mut table = Table::new(4);
        assert_eq!(
            table.born(10, "a", at(0)),
            Birth { slot: 1, kind: BirthKind::Given, released: vec![] }
        );
        assert_eq!(table.born(11, "a", at(0)).kind, BirthKind::Joined);
        assert_eq!(table.born(11, "a", at(0)).kind, BirthKind::Joined, "told twice");
        assert_eq!(table.born(12, "b", at(0)).slot, 2);
        assert_eq!(
            table.gone(10, at(1)),
            Some(Death { slot: 1, unit_gone: false, released: vec![] })
        );
        assert_eq!(table.gone(10, at(1)), None, "told twice");
        assert!(table.gone(11, at(1)).is_some_and(|death| death.unit_gone));
        assert_eq!((table.name(10).as_deref(), table.live()), (Some("a"), 1));
    }

    #[test]
    fn tombstones_are_revived_or_given_away_oldest_first() {
        let mut table = Table::new(3);
        table.born(1, "a", at(0));
        table.born(2, "b", at(0));
        table.gone(2, at(10));
        table.gone(1, at(20));
        assert_eq!(
            table.born(3, "a", at(30)),
            Birth { slot: 1, kind: BirthKind::Revived, released: vec![] }
        );
        table.gone(3, at(31));
        // b is the oldest but not old enough yet.
        assert_eq!(table.born(4, "c", at(69)).kind, BirthKind::Refused);
        assert_eq!((table.name(4).as_deref(), table.next_waiting(at(69))), (Some("c"), None));
        assert_eq!(table.next_waiting(at(70)).map(|(id, _)| id), Some(4));
        assert_eq!(
            table.born(4, "c", at(70)),
            Birth { slot: 2, kind: BirthKind::Given, released: vec![2] }
        );
        assert_eq!((table.name(2), table.name(4).as_deref()), (None, Some("c")));
        assert_eq!(table.next_waiting(at(70)), None);
        assert_eq!(
            table.born(5, "b", at(91)),
            Birth { slot: 1, kind: BirthKind::Given, released: vec![1, 3] }
        );
        assert_eq!(&*table.slot_name(1), "b");
    }

    #[test]
    fn what_waits_in_vain_is_forgotten() {
        let mut table = Table::new(1);
        for id in 0..2 * WAITING as u64 {
            assert_eq!(table.born(id, "x", at(0)).slot, 0);
        }
        assert_eq!(table.waiting.len(), WAITING);
        assert_eq!(table.gone(0, at(0)), None);
        assert_eq!(table.waiting.len(), WAITING - 1);
    }

    #[test]
    fn a_unit_that_restarts_for_ever_does_not_pile_up_ids() {
        let mut table = Table::new(2);
        let mut released = 0;
        for id in 0..100 {
            table.born(id, "a", at(id));
            released += table.gone(id, at(id)).map_or(0, |death| death.released.len());
        }
        assert_eq!((released, table.by_id.len()), (100 - DEAD_IDS, DEAD_IDS));
    }
}
