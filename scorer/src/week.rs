//! How each hour of the week differs from the same hour of any day.
//!
//! A Sunday is no Monday. One byte for each hour of the week, learnt once the daily pattern
//! is known, and believed only by metrics that it has helped.

use crate::baseline::Running;
use crate::keep::keep;
use crate::season::bins_at;

/// Hours of a week.
pub(crate) const HOURS: usize = 168;
/// What an hour learns from one more of its kind: it has half forgotten in four weeks.
const RATE: f32 = 0.16;
/// It is believed when what it leaves unexplained is less than this share of what the day
/// alone leaves.
const HELPS: f64 = 0.8;
/// Largest number of steps that an hour holds.
const MOST: f32 = 127.0;

/// An hour of the week, and the one that its samples lean to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WeekHour {
    hour: u8,
    neighbour: u8,
    share: f32,
}

impl WeekHour {
    /// Of a moment in seconds since 1970: a Thursday. Moments without a place have that of
    /// the first.
    pub(crate) fn at(seconds: f64) -> Self {
        let place = (seconds / 3_600.0).rem_euclid(HOURS as f64);
        let (hour, neighbour, share) = bins_at(place, HOURS);
        Self { hour: hour as u8, neighbour: neighbour as u8, share }
    }
}

/// By how much a metric usually differs, at each hour of the week, from what the day says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Week {
    /// In steps of `unit`, so that the largest difference just fits.
    hours: [i8; HOURS],
    unit: f32,
    /// The hour under way, the sum of its differences, and how many there are.
    hour: u8,
    sum: f32,
    samples: u32,
    /// Whole weeks that were learnt, up to where it makes no difference any more.
    weeks: u8,
    /// Mean square of what is left with it and without it.
    with: f64,
    without: f64,
    /// What is left with it, against its own two days.
    short: Running,
}

keep!(Week { hours, unit, hour, sum, samples, weeks, with, without, short });

impl Week {
    /// Knows nothing; what the day leaves has `variance`.
    pub(crate) fn new(variance: f64) -> Self {
        Self {
            hours: [0; HOURS],
            unit: 0.0,
            hour: 0,
            sum: 0.0,
            samples: 0,
            weeks: 0,
            with: variance,
            without: variance,
            short: Running::default(),
        }
    }

    /// What is usual at this hour beyond what the day says.
    pub(crate) fn usual(&self, at: &WeekHour) -> f64 {
        let of = |hour: u8| self.hours.get(usize::from(hour)).copied().map_or(0.0, f32::from);
        let steps = of(at.hour) * (1.0 - at.share) + of(at.neighbour) * at.share;
        f64::from(steps * self.unit)
    }

    /// Whether it has shown that it helps.
    pub(crate) fn helps(&self) -> bool {
        self.with < HELPS * self.without
    }

    /// Mean square of what it leaves, and what it left in the last two days.
    pub(crate) fn left(&self) -> (f64, Running) {
        (self.with, self.short)
    }

    /// Learns that the day left `unexplained` of a sample; `w` is the weight of one sample in
    /// a week, `w_short` in two days.
    pub(crate) fn learn(&mut self, at: &WeekHour, unexplained: f64, w: f64, w_short: f64) {
        let left = unexplained - self.usual(at);
        self.with = (1.0 - w) * self.with + w * left * left;
        self.without = (1.0 - w) * self.without + w * unexplained * unexplained;
        self.short.push(left, w_short);
        if at.hour != self.hour {
            self.close();
            if at.hour < self.hour {
                self.weeks = self.weeks.saturating_add(1);
            }
            self.hour = at.hour;
        }
        self.sum += unexplained as f32;
        self.samples += 1;
    }

    /// Puts the mean of the hour under way where it belongs.
    fn close(&mut self) {
        let (sum, samples) = (self.sum, self.samples);
        (self.sum, self.samples) = (0.0, 0);
        let Some(known) = self.hours.get(usize::from(self.hour)).copied() else { return };
        let mean = sum / samples.max(1) as f32;
        let known = f32::from(known) * self.unit;
        let value = known + RATE.max(1.0 / (f32::from(self.weeks) + 1.0)) * (mean - known);
        if !value.is_finite() {
            return;
        }
        if value.abs() > MOST * self.unit {
            self.stretch(value.abs() / MOST);
        }
        let steps = if self.unit > 0.0 { (value / self.unit).round() } else { 0.0 };
        if let Some(slot) = self.hours.get_mut(usize::from(self.hour)) {
            // `as` takes what is too large by rounding to the largest.
            *slot = steps as i8;
        }
    }

    /// Makes room for larger differences.
    fn stretch(&mut self, unit: f32) {
        for slot in &mut self.hours {
            *slot = (f32::from(*slot) * self.unit / unit).round() as i8;
        }
        self.unit = unit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two on working days from eight to four, else nothing.
    fn office(hour: u32) -> f64 {
        // 1970 began on a Thursday.
        let (day, hour) = ((hour / 24 + 3) % 7, hour % 24);
        if day < 5 && (8..16).contains(&hour) { 2.0 } else { 0.0 }
    }

    fn run(hours: u32, value: impl Fn(u32) -> f64) -> (Week, f64) {
        let (mut week, mut worst) = (Week::new(1.0), 0.0_f64);
        for n in 0..hours * 60 {
            let at = WeekHour::at(f64::from(n) * 60.0);
            // Between the middles of two hours it goes over from one to the other.
            if n > (hours - 168) * 60 && (20..40).contains(&(n % 60)) {
                worst = worst.max((week.usual(&at) - value(n / 60)).abs());
            }
            week.learn(&at, value(n / 60), 1.0 / 14_542.0, 1.0 / 4_155.0);
        }
        (week, worst)
    }

    #[test]
    fn a_week_is_learnt_in_a_week_and_believed_once_it_helped() {
        let (week, _) = run(168, office);
        assert!(!week.helps(), "nothing is shown yet");
        let (week, worst) = run(3 * 168, office);
        assert!(week.helps() && worst < 0.5, "{worst} {week:?}");
        let (week, _) =
            run(3 * 168, |hour| f64::from(hour.wrapping_mul(2_654_435_761) >> 20) - 2_048.0);
        assert!(!week.helps(), "chance has no week");
    }

    #[test]
    fn large_and_strange_differences_are_bounded() {
        let (mut week, mut n) = (Week::new(0.0), 0.0);
        for value in [1e-30, 1e30, -1e200, f64::NAN, 1e-300, 5.0] {
            for _ in 0..3 {
                n += 3_600.0;
                let at = WeekHour::at(n);
                week.learn(&at, value, 0.01, 0.1);
                assert!(!week.usual(&at).is_nan(), "{value}");
            }
        }
        for seconds in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            assert!(usize::from(WeekHour::at(seconds).hour) < HOURS);
        }
    }
}
