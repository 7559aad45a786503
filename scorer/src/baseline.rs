//! What is usual for one metric, over a month, two days and an hour.

use crate::keep::keep;
use crate::rate::Rate;
use crate::season::{Hour, Season};
use crate::week::Week;

/// Deviations beyond this say no more than this.
pub const CAP: f32 = 50.0;
/// Share of a metric's range that always counts as its usual deviation: a metric that
/// hardly ever moved would make much of nothing.
const FLOOR: f64 = 1e-3;
/// No sample makes the usual square of deviations larger by more than this share: else a
/// fault would make itself usual by its second row while little is known.
const GROWS: f64 = 0.3;
/// What differs by no more than so many usual deviations always teaches all of itself.
const TEACHES: f64 = 8.0;
/// The season is believed when what it leaves unexplained is less than this share.
const SEASON_HELPS: f64 = 0.8;

/// How far a sample is from what is usual, in usual deviations, signed and within
/// plus and minus [`CAP`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Residuals {
    /// From the mean of a month, with the hour of the day where that helps.
    pub long: f32,
    /// From the mean of two days, in the same way.
    pub short: f32,
    /// From the mean of an hour.
    pub fast: f32,
}

/// How fast the three baselines of a group forget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    long: Rate,
    short: Rate,
    fast: Rate,
    week: Rate,
}

/// The rates for one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    long: f64,
    short: f64,
    fast: f64,
    week: f64,
    history: History,
}

/// How much history there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum History {
    /// Too little to judge whether the hour of the day helps.
    Short,
    /// Enough for that.
    Days,
    /// Enough to look at how the days of the week differ.
    Weeks,
}

impl Weights {
    /// Of the month and of the two days.
    pub(crate) fn long_and_short(&self) -> (f64, f64) {
        (self.long, self.short)
    }
}

const DAY_SECONDS: f64 = 86_400.0;

impl Rates {
    /// For samples that come every so many seconds.
    #[must_use]
    pub fn new(interval_seconds: f64) -> Self {
        let days = |days: f64| Rate::of_half_life(days * DAY_SECONDS / interval_seconds);
        Self { long: days(30.0), short: days(2.0), fast: days(1.0 / 24.0), week: days(7.0) }
    }

    /// After `seen` other rows.
    #[must_use]
    pub fn after(&self, seen: u64, history: History) -> Weights {
        Weights {
            long: self.long.after(seen),
            short: self.short.after(seen),
            fast: self.fast.after(seen),
            week: self.week.settled(),
            history,
        }
    }
}

/// An exponentially weighted mean, and the variance around it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Running {
    /// The mean.
    pub mean: f64,
    /// Mean square of the difference from the mean of before.
    pub variance: f64,
}

keep!(Running { mean, variance });

impl Running {
    /// Takes in `value` with weight `w`.
    pub fn push(&mut self, value: f64, w: f64) {
        self.learn(value - self.mean, w);
    }

    /// The same, but a value teaches no more than one that is as far out as may be.
    pub(crate) fn push_some(&mut self, value: f64, w: f64, floor: f64) {
        self.learn(taught(value - self.mean, w, self.variance, floor), w);
    }

    fn learn(&mut self, difference: f64, w: f64) {
        self.mean += w * difference;
        self.variance = (1.0 - w) * (self.variance + w * difference * difference);
    }
}

/// What a difference counts for, so that with weight `w` it makes `variance` no larger than
/// it may.
fn taught(difference: f64, w: f64, variance: f64, floor: f64) -> f64 {
    let most = GROWS.max(TEACHES * TEACHES * w) * (variance + floor * floor);
    if w * difference * difference <= most {
        return difference;
    }
    (most / w).sqrt().copysign(difference)
}

/// One metric's past.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    pub(crate) seen: bool,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) long: Running,
    pub(crate) short: Running,
    /// Mean of an hour; its usual error is remembered for as long as the long one's.
    pub(crate) fast: Running,
    pub(crate) season: Season,
    /// Variance of what the season leaves of the long residual.
    pub(crate) seasonal_variance: f64,
    /// What the season leaves, against its own two days.
    pub(crate) seasonal_short: Running,
    /// How the days of the week differ, where the hour of the day helps.
    pub(crate) week: Option<Box<Week>>,
}

keep!(Baseline {
    seen,
    low,
    high,
    long,
    short,
    fast,
    season,
    seasonal_variance,
    seasonal_short,
    week
});

impl Default for Baseline {
    fn default() -> Self {
        Self {
            seen: false,
            low: 0.0,
            high: 0.0,
            long: Running::default(),
            short: Running::default(),
            fast: Running::default(),
            season: Season::default(),
            seasonal_variance: 0.0,
            seasonal_short: Running::default(),
            week: None,
        }
    }
}

impl Baseline {
    /// How unusual `value` is; then it becomes a part of the past. `None` for what is no
    /// number, which changes nothing. No usual deviation is taken to be smaller than `least`.
    pub fn push(
        &mut self,
        value: f64,
        hour: &Hour,
        weights: &Weights,
        least: f64,
    ) -> Option<Residuals> {
        // Differences and squares of larger ones would not be finite.
        if !value.is_finite() || value.abs() > 1e150 {
            return None;
        }
        if !self.seen {
            *self = Self { seen: true, low: value, high: value, ..Self::default() };
            (self.long.mean, self.short.mean, self.fast.mean) = (value, value, value);
        }
        (self.low, self.high) = (self.low.min(value), self.high.max(value));
        let floor = (FLOOR * (self.high - self.low)).max(least);
        let (long, short, fast) =
            (value - self.long.mean, value - self.short.mean, value - self.fast.mean);
        let unexplained = long - f64::from(self.season.usual(hour));
        let (long_left, variance, short_left, short_variance) = match self.basis(weights) {
            Basis::Mean => (long, self.long.variance, short, self.short.variance),
            Basis::Day => {
                let recent = self.seasonal_short;
                (unexplained, self.seasonal_variance, unexplained - recent.mean, recent.variance)
            }
            Basis::Week(week) => {
                let left = unexplained - week.usual(&hour.of_week);
                let (variance, recent) = week.left();
                (left, variance, left - recent.mean, recent.variance)
            }
        };
        let (l, s) =
            (scaled(long_left, variance, floor), scaled(short_left, short_variance, floor));
        let residuals =
            Residuals { long: l, short: s, fast: scaled(fast, self.fast.variance, floor) };

        let w = weights.long;
        self.long.push_some(value, w, floor);
        self.short.push_some(value, weights.short, floor);
        let fast = taught(fast, w, self.fast.variance, floor);
        self.fast.mean += weights.fast * fast;
        self.fast.variance = (1.0 - w) * (self.fast.variance + w * fast * fast);
        let left = taught(unexplained, w, self.seasonal_variance, floor);
        self.seasonal_variance = (1.0 - w) * (self.seasonal_variance + w * left * left);
        self.seasonal_short.push_some(unexplained, weights.short, floor);
        self.season.learn(hour, long as f32);
        if self.week.is_none() && weights.history >= History::Weeks && self.has_days() {
            self.week = Some(Box::new(Week::new(self.seasonal_variance)));
        }
        if let Some(week) = &mut self.week {
            week.learn(&hour.of_week, unexplained, weights.week, weights.short);
        }
        Some(residuals)
    }

    /// What is usual now: the mean of two days.
    #[must_use]
    pub fn usual(&self) -> f64 {
        self.short.mean
    }

    /// What is usual at that hour of the day, or of the week, where the hour helps; else as
    /// [`usual`](Self::usual).
    #[must_use]
    pub fn usual_at(&self, hour: &Hour, weights: &Weights) -> f64 {
        let day = self.long.mean + f64::from(self.season.usual(hour));
        match self.basis(weights) {
            Basis::Mean => self.short.mean,
            Basis::Day => day + self.seasonal_short.mean,
            Basis::Week(week) => day + week.usual(&hour.of_week) + week.left().1.mean,
        }
    }

    /// What a value is compared with.
    fn basis(&self, weights: &Weights) -> Basis<'_> {
        match &self.week {
            Some(week) if week.helps() => Basis::Week(week),
            _ if weights.history >= History::Days && self.has_days() => Basis::Day,
            _ => Basis::Mean,
        }
    }

    /// Whether the hour of the day helps.
    fn has_days(&self) -> bool {
        self.seasonal_variance < SEASON_HELPS * self.long.variance
    }
}

/// What is usual, by the most that is known to help.
enum Basis<'a> {
    Mean,
    Day,
    Week(&'a Week),
}

/// A difference in usual deviations. Where there never was one, any is as loud as can be.
pub(crate) fn scaled(difference: f64, variance: f64, floor: f64) -> f32 {
    let usual = variance.max(0.0).sqrt() + floor;
    if difference == 0.0 {
        return 0.0;
    }
    let ratio = (difference / usual) as f32;
    if ratio.is_nan() { 0.0 } else { ratio.clamp(-CAP, CAP) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::season::Clock;

    fn history(n: usize) -> History {
        match n {
            0..2_880 => History::Short,
            2_880..20_160 => History::Days,
            _ => History::Weeks,
        }
    }

    fn run(values: impl IntoIterator<Item = f64>) -> Vec<Option<Residuals>> {
        let (rates, mut clock, mut baseline) =
            (Rates::new(60.0), Clock::new(60.0), Baseline::default());
        let score = |(n, value): (usize, f64)| {
            let hour = clock.at(n as f64 * 60.0);
            baseline.push(value, &hour, &rates.after(n as u64, history(n)), 0.0)
        };
        values.into_iter().enumerate().map(score).collect()
    }

    #[test]
    fn a_flat_metric_is_never_unusual_and_its_first_step_is_for_a_while() {
        let flat = run(std::iter::repeat_n(5.0, 1000));
        assert!(flat.iter().all(|r| *r == Some(Residuals::default())));
        let step = run((0..20_000).map(|n| if n < 1000 { 5.0 } else { 6.0 }));
        let at = |n: usize| step.get(n).copied().flatten().unwrap_or_default();
        assert!(at(1000).fast >= 49.0, "{:?}", at(1000));
        assert!(at(1200).fast < 5.0 && at(19_999).long < 3.0, "{:?}", at(19_999));
    }

    #[test]
    fn units_of_measure_do_not_matter() {
        let noise = |n: u32| f64::from(n.wrapping_mul(2_654_435_761) >> 16);
        let raw = run((0..3000).map(noise));
        let other = run((0..3000).map(|n| noise(n) * 1024.0 + 4096.0));
        for (a, b) in raw.iter().flatten().zip(other.iter().flatten()) {
            assert!(
                (a.long - b.long).abs() < 1e-3 && (a.fast - b.fast).abs() < 1e-3,
                "{a:?} {b:?}"
            );
        }
    }

    #[test]
    fn a_sunday_is_no_monday() {
        // Busy in the middle of each day, but for two days of seven.
        let office = |n: usize| {
            let (day, minute) = (n / 1_440 % 7, n % 1_440);
            let busy = day < 5 && (480..960).contains(&minute);
            f64::from(u8::from(busy)) * 50.0
                + f64::from((n as u32).wrapping_mul(2_654_435_761) >> 28)
        };
        let days = 7 * 8;
        let scored = run((0..1_440 * days).map(office));
        // Noon of the last quiet day, of which the day alone would think that it is too quiet.
        let quiet = 1_440 * (days - 1) + 720;
        let of = |n: usize| scored.get(n).copied().flatten().unwrap_or_default().long.abs();
        let (early, late) = (of(quiet - 1_440 * 7 * 6), of(quiet));
        assert!(early > 1.5 && late < early / 3.0, "{early} {late}");
    }

    #[test]
    fn what_is_no_number_changes_nothing() {
        let with = run([1.0, 2.0, f64::NAN, f64::INFINITY, 1e200, 3.0]);
        assert_eq!(with.iter().filter(|r| r.is_none()).count(), 3);
    }
}
