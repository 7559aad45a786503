//! What the signals of the healed units were in the last five minutes, for the evidence.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalogue::{Kind, Owner, SignalId};
use crate::report::{Point, Window};

/// A value is kept of so much time, and so many of them.
const STEP: Duration = Duration::from_secs(10);
const VALUES: usize = 30;
/// Most signals of a unit that are kept.
const SIGNALS: usize = 64;

/// The past of a signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Its name.
    pub signal: String,
    /// The oldest first, ten seconds apart; counters as rates, distributions as their 99 %
    /// quantile.
    pub values: Vec<f32>,
}

/// The recent past of all healed units.
#[derive(Debug, Default)]
pub(super) struct History {
    taken_unix_ms: u64,
    units: BTreeMap<Arc<str>, BTreeMap<SignalId, VecDeque<f32>>>,
}

impl History {
    /// Takes in a window: what it says of units that `wanted` names, when it is time.
    pub(super) fn take(&mut self, window: &Window, wanted: impl Fn(&str) -> bool) {
        let passed = window.end_unix_ms.abs_diff(self.taken_unix_ms);
        if u128::from(passed) < STEP.as_millis() {
            return;
        }
        self.taken_unix_ms = window.end_unix_ms;
        self.units.retain(|unit, _| wanted(unit));
        for point in &window.points {
            let of = point.series.signal.signal();
            if of.owner == Owner::Unit && wanted(&point.series.instance) {
                self.put(point);
            }
        }
    }

    fn put(&mut self, Point { series, stats, .. }: &Point) {
        let kind = series.signal.signal().kind;
        let value = if kind == Kind::Histogram { stats.last } else { stats.mean };
        let unit = self.units.entry(Arc::clone(&series.instance)).or_default();
        if unit.len() >= SIGNALS && !unit.contains_key(&series.signal) {
            return;
        }
        let values = unit.entry(series.signal).or_default();
        if values.len() >= VALUES {
            values.pop_front();
        }
        values.push_back(value as f32);
    }

    /// The past of `unit`: signals that were ever anything but zero.
    pub(super) fn of(&self, unit: &str) -> Vec<Course> {
        let signals = self.units.get(unit).into_iter().flatten();
        let moved = signals.filter(|(_, values)| values.iter().any(|value| *value != 0.0));
        moved
            .map(|(id, values)| Course {
                signal: id.signal().name.to_owned(),
                values: values.iter().copied().collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{UNIT_ON_CPU, UNIT_RSS, UNIT_RUN_QUEUE};
    use crate::report::{Series, Stats};

    fn point(unit: &str, signal: SignalId, value: f64) -> Point {
        let stats = Stats { count: 1, min: value, mean: value, max: value, last: 2.0 * value };
        let series = Series { number: 0, signal, instance: unit.into() };
        Point { series: Arc::new(series), stats, histogram: None }
    }

    #[test]
    fn five_minutes_of_healed_units_are_kept() {
        let mut history = History::default();
        for second in 1..=400_u64 {
            let value = second as f64;
            let points = vec![
                point("a.service", UNIT_ON_CPU, value),
                point("a.service", UNIT_RUN_QUEUE, value),
                point("a.service", UNIT_RSS, 0.0),
                point("b.service", UNIT_ON_CPU, value),
            ];
            let end_unix_ms = second * 1_000;
            let window = Window { sequence: second, end_unix_ms, window_ms: 1_000, points };
            history.take(&window, |unit| unit == "a.service");
        }
        assert_eq!(history.of("b.service"), []);
        let courses = history.of("a.service");
        let names: Vec<&str> = courses.iter().map(|course| course.signal.as_str()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        for course in courses {
            assert_eq!(course.values.len(), VALUES);
            let quantile = course.signal == "cpu.run_queue.latency";
            assert_eq!(course.values.last(), Some(&if quantile { 800.0 } else { 400.0 }));
        }
        history.take(
            &Window { sequence: 0, end_unix_ms: 900_000, window_ms: 1_000, points: Vec::new() },
            |_| false,
        );
        assert_eq!(history.of("a.service"), []);
    }
}
