//! Which units are under pressure, so that they are looked at in detail when others
//! are not. Pure: frames in, changes out.
//!
//! A unit is under pressure when its tasks stall for CPU, memory or I/O, are held
//! back by a quota, or reclaim memory themselves, for more than a share of the time;
//! or when one was killed for want of memory. It stays so for a while after.

use std::time::Duration;

use holdfast_core::clock::BootTime;

use crate::catalogue::{
    Owner, SignalId, UNIT_CPU_SOME, UNIT_CPU_THROTTLED, UNIT_IO_SOME, UNIT_MEMORY_SOME,
    UNIT_OOM_KILLS, UNIT_RECLAIM,
};
use crate::frame::Frame;

/// How long a unit is looked at after it was last under pressure.
const HOLD: Duration = Duration::from_secs(60);
/// Most units looked at in detail at once.
pub const MOST: usize = 32;
/// How much of the past counts each second: about three seconds are looked at.
const PAST: f64 = 2.0 / 3.0;

/// Counters of nanoseconds that the unit could not go on.
const STALLS: [SignalId; 4] = [UNIT_CPU_SOME, UNIT_MEMORY_SOME, UNIT_IO_SOME, UNIT_CPU_THROTTLED];

#[derive(Debug, Clone, Copy, Default)]
struct Unit {
    generation: u32,
    /// The worst share of the last seconds.
    share: f64,
    /// When it was last above the threshold; none when it is not looked at.
    pressed: Option<BootTime>,
}

/// Follows the pressure of all units, by slot.
#[derive(Debug)]
pub struct Pressure {
    threshold: f64,
    units: Vec<Unit>,
    /// How often a unit under pressure found [`MOST`] others there.
    refused: u64,
}

impl Pressure {
    /// For `slots` slots; `threshold` is a share of the time.
    #[must_use]
    pub fn new(threshold: f64, slots: usize) -> Self {
        Self { threshold, units: vec![Unit::default(); slots], refused: 0 }
    }

    /// Takes in a tick. Appends to `changed` each slot that is looked at in detail
    /// from now on, or no longer.
    pub fn tick(&mut self, previous: &Frame, current: &Frame, changed: &mut Vec<(usize, bool)>) {
        let now = current.at;
        let mut newcomers: Vec<(f64, usize)> = Vec::new();
        let rows = current.rows(Owner::Unit).iter().enumerate().skip(1);
        for ((slot, row), unit) in rows.zip(self.units.iter_mut().skip(1)) {
            if unit.generation != row.generation {
                // The kernel's entries of the slot are new as well: nothing to take back.
                *unit = Unit { generation: row.generation, ..Unit::default() };
                continue;
            }
            let share = if row.live { share(slot, previous, current) } else { 0.0 };
            unit.share = (unit.share * PAST + share * (1.0 - PAST)).max(0.0);
            if unit.share > self.threshold {
                match &mut unit.pressed {
                    Some(pressed) => *pressed = now,
                    None => newcomers.push((unit.share, slot)),
                }
            } else if unit.pressed.is_some_and(|pressed| now.since(pressed) >= HOLD) {
                unit.pressed = None;
                changed.push((slot, false));
            }
        }
        newcomers.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut room = MOST.saturating_sub(self.slots().count());
        for (_, slot) in newcomers {
            let Some(unit) = self.units.get_mut(slot).filter(|_| room > 0) else {
                self.refused += 1;
                continue;
            };
            room -= 1;
            unit.pressed = Some(now);
            changed.push((slot, true));
        }
    }

    /// The slots that are looked at in detail.
    pub fn slots(&self) -> impl Iterator<Item = usize> {
        let units = self.units.iter().enumerate();
        units.filter(|(_, unit)| unit.pressed.is_some()).map(|(slot, _)| slot)
    }

    /// How often, since the start, a unit under pressure was not looked at because
    /// there were too many: once a second for each.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// The worst share of the time between the frames that the unit could not go on.
fn share(slot: usize, previous: &Frame, current: &Frame) -> f64 {
    let ns = current.at.since(previous.at).as_nanos() as f64;
    if ns <= 0.0 {
        return 0.0;
    }
    let gained = |id: SignalId| current.get(id, slot) - previous.get(id, slot);
    if gained(UNIT_OOM_KILLS) > 0.0 {
        return 1.0;
    }
    let of_frame = |frame: &Frame| frame.histogram(UNIT_RECLAIM, slot).map_or(0, |h| h.sum);
    let reclaimed = of_frame(current).saturating_sub(of_frame(previous)) as f64;
    // `max` passes over what is not a number: not read.
    let worst = STALLS.iter().fold(reclaimed, |worst, id| worst.max(gained(*id)));
    (worst / ns).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    const SLOTS: usize = 80;

    /// Plays `seconds` with the stall share of each slot.
    struct Play {
        pressure: Pressure,
        previous: Frame,
        current: Frame,
        second: u64,
    }

    impl Play {
        fn new() -> Self {
            let mut current = Frame::new(Shape { units: SLOTS, devices: 1, interfaces: 1 });
            for slot in 1..SLOTS {
                current.assign(Owner::Unit, slot, format!("{slot}.service").into());
                current.set(UNIT_CPU_SOME, slot, 0.0);
            }
            let (pressure, previous) = (Pressure::new(0.05, SLOTS), current.clone());
            let mut play = Self { pressure, previous, current, second: 100 };
            // The first sight of an owner is no difference.
            assert!(play.second(|_| f64::NAN).is_empty());
            play.previous.copy_from(&play.current);
            play
        }

        fn second(&mut self, share: impl Fn(usize) -> f64) -> Vec<(usize, bool)> {
            self.second += 1;
            self.current.at = BootTime::new(Duration::from_secs(self.second));
            for slot in 1..SLOTS {
                let total = self.previous.get(UNIT_CPU_SOME, slot) + share(slot) * 1e9;
                self.current.set(UNIT_CPU_SOME, slot, if total.is_nan() { 0.0 } else { total });
            }
            let mut changed = Vec::new();
            self.pressure.tick(&self.previous, &self.current, &mut changed);
            self.previous.copy_from(&self.current);
            changed
        }
    }

    #[test]
    fn a_pressed_unit_is_looked_at_until_a_minute_after() {
        let mut play = Play::new();
        let one = |slot| if slot == 7 { 0.5 } else { 0.01 };
        assert_eq!(play.second(one), [(7, true)]);
        assert!(play.second(one).is_empty() && play.pressure.slots().eq([7]));
        let quiet: Vec<_> = (0..120).map(|_| play.second(|_| 0.0)).collect();
        let end = quiet.iter().position(|changed| *changed == [(7, false)]).unwrap();
        assert!((60..70).contains(&end), "{end} s");
        assert_eq!(play.pressure.slots().count(), 0);
    }

    #[test]
    fn a_spike_of_one_second_below_the_threshold_of_three_is_nothing() {
        let mut play = Play::new();
        assert!(play.second(|slot| if slot == 3 { 0.1 } else { 0.0 }).is_empty());
        assert!(play.second(|_| 0.0).is_empty());
    }

    #[test]
    fn the_most_pressed_come_first_and_the_rest_is_counted() {
        let mut play = Play::new();
        let changed = play.second(|slot| slot as f64 / SLOTS as f64);
        assert_eq!(changed.len(), MOST);
        assert!(changed.iter().all(|(slot, detail)| *detail && *slot >= SLOTS - MOST));
        assert!(play.pressure.refused() > 0);
    }

    #[test]
    fn a_new_owner_begins_without_pressure() {
        let mut play = Play::new();
        play.second(|_| 0.9);
        let slot = play.pressure.slots().next().unwrap();
        play.current.assign(Owner::Unit, slot, "another.service".into());
        play.second(|_| 0.0);
        assert!(!play.pressure.slots().any(|s| s == slot));
    }

    #[test]
    fn a_kill_for_want_of_memory_is_pressure() {
        let mut play = Play::new();
        play.previous.set(UNIT_OOM_KILLS, 5, 0.0);
        play.current.set(UNIT_OOM_KILLS, 5, 1.0);
        assert_eq!(play.second(|_| 0.0), [(5, true)]);
    }
}
