//! How soon does something that grows reach its limit? Of memory towards the limit of its
//! unit, and of files towards the end of their file system.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_core::clock::BootTime;

/// Readings remembered, and how many it takes to say anything.
const READINGS: usize = 60;
const ENOUGH: usize = 12;
/// Of the limit that must be used before its end is near.
const USED: f64 = 0.5;
/// So soon is soon; and once it was soon, it is over only when it is this many times as long.
const SOON: Duration = Duration::from_secs(900);
const OVER: u32 = 2;

/// Follows one thing that has a limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trend {
    readings: VecDeque<(BootTime, f64)>,
    is_near: bool,
}

impl Trend {
    /// Takes in that `used` of `limit` is used; whether the limit is near now. In any unit of
    /// measure, at any pace.
    pub fn read(&mut self, now: BootTime, used: f64, limit: f64) -> bool {
        if !(used.is_finite() && limit.is_finite() && limit > 0.0) {
            self.clear();
            return false;
        }
        if self.readings.len() >= READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back((now, used));
        let left = self.time_to(limit);
        let soon = if self.is_near { SOON * OVER } else { SOON };
        self.is_near = used >= USED * limit && left.is_some_and(|left| left <= soon);
        self.is_near
    }

    /// Forgets everything: it is another run, or another limit.
    pub fn clear(&mut self) {
        self.readings.clear();
        self.is_near = false;
    }

    /// How long until `limit` is reached at the present pace; `None` while it does not grow, or
    /// too little is known. The pace is that between the middle of the first third and the
    /// middle of the last, where all of the last is above all of the first: what goes up and
    /// down is no growth.
    #[must_use]
    pub fn time_to(&self, limit: f64) -> Option<Duration> {
        let third = self.readings.len() / 3;
        if self.readings.len() < ENOUGH {
            return None;
        }
        let (first, last) =
            (self.middle(0, third), self.middle(self.readings.len() - third, third));
        let ((began, from), (ended, to)) = (first?, last?);
        let of = |skip: usize| self.readings.iter().skip(skip).take(third).map(|(_, used)| *used);
        let most_at_first = of(0).fold(f64::MIN, f64::max);
        let least_at_last = of(self.readings.len() - third).fold(f64::MAX, f64::min);
        if least_at_last <= most_at_first {
            return None;
        }
        let pace = (to - from) / ended.since(began).as_secs_f64();
        let newest = self.readings.back()?.1;
        let seconds = (limit - newest).max(0.0) / pace;
        (pace > 0.0 && seconds < 1e9).then(|| Duration::from_secs_f64(seconds))
    }

    fn middle(&self, from: usize, many: usize) -> Option<(BootTime, f64)> {
        let mut values: Vec<f64> =
            self.readings.iter().skip(from).take(many).map(|(_, used)| *used).collect();
        values.sort_by(f64::total_cmp);
        let at = self.readings.get(from + many / 2)?.0;
        Some((at, *values.get(many / 2)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn run(used: impl Fn(u64) -> f64) -> Vec<bool> {
        let mut trend = Trend::default();
        (0..200).map(|n| trend.read(at(5 * n), used(n), 1000.0)).collect()
    }

    #[test]
    fn a_leak_is_near_its_limit_before_it_is_there() {
        // Full after 200 readings, which is 1,000 s.
        let near = run(|n| 5.0 * n as f64);
        let first = near.iter().position(|near| *near).unwrap();
        assert!((100..110).contains(&first), "from the half on: {first}");
        assert!(near[first..].iter().all(|near| *near));
    }

    #[test]
    fn what_is_large_or_goes_up_and_down_is_no_leak() {
        assert!(run(|_| 950.0).iter().all(|near| !near), "a cache that is full");
        let saw = |n: u64| 500.0 + 40.0 * (n % 7) as f64;
        assert!(run(saw).iter().all(|near| !near), "memory that is given back");
        let spike = |n: u64| if n == 50 { 999.0 } else { 600.0 };
        assert!(run(spike).iter().all(|near| !near));
        assert!(run(|n| 1000.0 - 4.0 * n as f64).iter().all(|near| !near), "it shrinks");
    }

    #[test]
    fn what_makes_no_sense_is_forgotten() {
        let mut trend = Trend::default();
        for n in 0..50 {
            trend.read(at(n), 500.0 + n as f64, 600.0);
        }
        assert!(trend.is_near);
        assert!(!trend.read(at(51), f64::NAN, 600.0));
        assert!(!trend.read(at(52), 600.0, 0.0));
        assert_eq!(trend, Trend::default());
        for _ in 0..50 {
            trend.read(at(60), 599.0, 600.0);
        }
        assert_eq!(trend.time_to(600.0), None, "no time passes");
    }
}
