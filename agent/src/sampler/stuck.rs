//! Units with a task that the kernel says is stuck: it waited without a break for longer
//! than `kernel.hung_task_timeout_secs`. The healer is told, and again when nobody of the
//! unit waits like that any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_healer::{Fact, Sign};

use crate::catalogue::{Owner, UNIT_UNINTERRUPTIBLE};
use crate::frame::Frame;

/// Most units that are followed.
const UNITS: usize = 64;

/// Units that have stuck tasks.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    units: BTreeSet<Arc<str>>,
}

impl Stuck {
    /// Takes in that a task of `unit` is stuck; the fact when that is news.
    pub(super) fn note(&mut self, unit: &Arc<str>) -> Option<Fact> {
        let news = self.units.len() < UNITS && self.units.insert(Arc::clone(unit));
        news.then(|| sign(unit, true))
    }

    /// Units in which nobody waits any more, or that are gone.
    pub(super) fn over(&mut self, frame: &Frame) -> Vec<Fact> {
        if self.units.is_empty() {
            return Vec::new();
        }
        let waits = |unit: &Arc<str>| {
            let rows = frame.rows(Owner::Unit);
            let row = rows.iter().position(|row| row.live && row.name == *unit);
            // What is not counted on this host does not say that it is over.
            row.is_some_and(|row| frame.get(UNIT_UNINTERRUPTIBLE, row) != 0.0)
        };
        let (still, over) = self.units.iter().cloned().partition(waits);
        self.units = still;
        let over: BTreeSet<Arc<str>> = over;
        over.iter().map(|unit| sign(unit, false)).collect()
    }
}

fn sign(unit: &Arc<str>, stands: bool) -> Fact {
    Fact::Sign { unit: Arc::clone(unit), sign: Sign::StuckDState, stands }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    #[test]
    fn a_unit_is_stuck_until_nobody_of_it_waits() {
        let mut frame = Frame::new(Shape { units: 4, devices: 1, interfaces: 1 });
        let unit: Arc<str> = "db.service".into();
        frame.assign(Owner::Unit, 1, Arc::clone(&unit));
        frame.set(UNIT_UNINTERRUPTIBLE, 1, 2.0);
        let mut stuck = Stuck::default();
        assert_eq!(stuck.over(&frame), []);
        assert_eq!(stuck.note(&unit), Some(sign(&unit, true)));
        assert_eq!(stuck.note(&unit), None, "that is known");
        assert_eq!(stuck.over(&frame), []);
        frame.set(UNIT_UNINTERRUPTIBLE, 1, 0.0);
        assert_eq!(stuck.over(&frame), [sign(&unit, false)]);
        assert_eq!(stuck.over(&frame), []);
    }
}
