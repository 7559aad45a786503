//! The metrics of one host or unit together: one score for a row of them.

use crate::baseline::{Baseline, CAP, History, Rates, Running, Weights, scaled};
use crate::forest::{Forest, Reservoir};
use crate::gap::Gap;
use crate::keep::{Keep, Refusal, keep};
use crate::lasting::Lasting;
use crate::rate::Rate;
use crate::season::{Clock, Hour};
use crate::squash;
use crate::subspace::Subspace;
use crate::tail::{Shape, Tail};
use crate::week::Week;

/// The loudest metrics that count: the mean of the means of so many.
const LOUDEST: [usize; 2] = [3, 6];
/// Half-life of the score, in rows: one row alone is no fault.
const SMOOTH_ROWS: f64 = 2.0;
/// Rows before a deviation is believed.
const FIRST_ROWS: u64 = 30;
/// Rows before the common movements are learnt, and before what they leave is believed.
const SUBSPACE_ROWS: u64 = 100;
const LEFT_ROWS: u64 = 130;
/// The least that matters of what the common movements leave, in usual deviations.
const LEFT_LEAST: f64 = 0.25;
/// Rows before it is remembered how loud they were: at first all are.
const SETTLED_ROWS: u64 = 150;
/// Deviations enter the common movements no further than this.
const SUBSPACE_CAP: f32 = 10.0;
/// Deviations, added up, and decades that are loud together.
const LOUD_DEVIATIONS: f64 = 12.0;
const LOUD_DECADES: f64 = 2.0;
/// How loud both must be for an alarm.
const ALARM: f64 = 1.6;
/// What the forest's oddity counts for, in deviations. On raw values it would earn none:
/// see `docs/measurements.md`.
const FOREST_WEIGHT: f64 = 15.0;
/// Days between two forests.
const FOREST_DAYS: f64 = 7.0;
const DAY_SECONDS: f64 = 86_400.0;
/// History before the hour of the day is judged, and before anything is scored.
const SEASON_DAYS: f64 = 2.0;
/// History before the days of the week are told apart.
const WEEK_DAYS: f64 = 14.0;
const LEARNING_DAYS: f64 = 0.25;
const MEMORY_DAYS: f64 = 30.0;

/// One metric of a group.
#[derive(Debug, Clone, Default, PartialEq)]
struct Metric {
    baseline: Baseline,
    left: Left,
    gap: Gap,
}

keep!(Metric { baseline, left, gap });

impl Metric {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.baseline.week.as_ref().map_or(0, |_| size_of::<Week>())
    }
}

/// What the common movements usually leave of a metric.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Left {
    low: f64,
    high: f64,
    long: Running,
    short: Running,
}

keep!(Left { low, high, long, short });

/// What a row says about its group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// In `0..1`; alarming from [`THRESHOLD`](crate::THRESHOLD) on. 0 while learning.
    pub score: f64,
    /// There is not enough history to score.
    pub learning: bool,
    /// The loudest metrics' deviations, added up and smoothed.
    pub deviations: f64,
    /// How rare that is on this host, in decades.
    pub decades: f64,
    /// How often it is as loud as this for a few rows, in alarms a week. Infinite while
    /// learning.
    pub per_week: f64,
    /// Metrics that used to come with every row and have not come for a while.
    pub missing: u32,
}

/// What a group is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How many metrics it has.
    pub metrics: usize,
    /// Time between its rows.
    pub interval_seconds: f64,
    /// History before anything is scored; 200 rows at least.
    pub learning_seconds: f64,
    /// The least that matters of any metric: it always counts as one usual deviation, so that
    /// what never moved does not make much of next to nothing. 0 where that is not known.
    pub least: f64,
    /// Whether to keep what a forest is grown from: a KiB for each metric.
    pub forest: bool,
}

impl Options {
    /// As [`Group::new`].
    #[must_use]
    pub fn new(metrics: usize, interval_seconds: f64) -> Self {
        let learning_seconds = LEARNING_DAYS * DAY_SECONDS;
        Self { metrics, interval_seconds, learning_seconds, least: 0.0, forest: true }
    }
}

/// Watches metrics together.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    interval_seconds: f64,
    least: f64,
    /// None before the first value: a unit has few of the signals that there are.
    metrics: Vec<Option<Box<Metric>>>,
    subspace: Subspace,
    rates: Rates,
    clock: Clock,
    tail: Tail,
    lasting: Lasting,
    shape: Shape,
    /// When the last row was, as the baselines see it.
    last_hour: Option<(Hour, Weights)>,
    smooth: Rate,
    smoothed: f64,
    rows: u64,
    /// From these rows on the hours of the day, and the days of the week, are known.
    day_rows: u64,
    week_rows: u64,
    rows_per_day: u16,
    past: Option<Reservoir>,
    forest: Option<Forest>,
    /// From this row on a new forest is due.
    forest_due: u64,
    rows_per_forest: u64,
    // Scratch, so that a row needs no memory of its own.
    long: Vec<f32>,
    used: Vec<f32>,
    loudness: Vec<f32>,
}

impl Group {
    /// Of so many metrics, in rows that come every so many seconds.
    #[must_use]
    pub fn new(metrics: usize, interval_seconds: f64) -> Self {
        Self::with(&Options::new(metrics, interval_seconds))
    }

    /// As `options` say.
    #[must_use]
    pub fn with(options: &Options) -> Self {
        let Options { metrics, interval_seconds, .. } = *options;
        let interval = if interval_seconds.is_finite() {
            interval_seconds.clamp(1e-3, DAY_SECONDS)
        } else {
            60.0
        };
        let rows = |days: f64| days * DAY_SECONDS / interval;
        Self {
            interval_seconds: interval,
            least: options.least,
            metrics: vec![None; metrics],
            subspace: Subspace::new(metrics),
            rates: Rates::new(interval),
            clock: Clock::new(interval),
            tail: Tail::new(),
            lasting: Lasting::new(interval),
            last_hour: None,
            shape: Shape {
                bulk: 0.9,
                memory: rows(MEMORY_DAYS) as f32,
                warm_up: rows(options.learning_seconds / DAY_SECONDS).max(100.0) as f32,
                surprise: f32::INFINITY,
                rest: 0,
            },
            smooth: Rate::of_half_life(SMOOTH_ROWS),
            smoothed: 0.0,
            rows: 0,
            day_rows: rows(SEASON_DAYS) as u64,
            week_rows: rows(WEEK_DAYS) as u64,
            rows_per_day: rows(1.0) as u16,
            past: options.forest.then(|| Reservoir::new(metrics, rows(1.0))),
            forest: None,
            forest_due: rows(FOREST_DAYS) as u64,
            rows_per_forest: (rows(FOREST_DAYS) as u64).max(1),
            long: vec![0.0; metrics],
            used: vec![0.0; metrics],
            loudness: vec![0.0; metrics],
        }
    }

    /// Scores a row of values taken at `seconds` since 1970; `NaN` where a metric was not
    /// read. Values beyond the group's metrics are ignored, missing ones not read.
    pub fn push(&mut self, seconds: f64, values: &[f64]) -> Verdict {
        let hour = self.clock.at(seconds);
        let weights = self.rates.after(self.rows, self.history());
        let early = self.rows < FIRST_ROWS;
        let mut missing = 0;
        for (n, metric) in self.metrics.iter_mut().enumerate() {
            let value = values.get(n).copied().unwrap_or(f64::NAN);
            let residuals = match metric {
                None if !value.is_finite() => None,
                metric => {
                    let metric = metric.get_or_insert_default();
                    metric.gap.push(value.is_finite(), self.rows_per_day);
                    missing += u32::from(metric.gap.is_missing());
                    metric.baseline.push(value, &hour, &weights, self.least)
                }
            };
            let residuals = residuals.filter(|_| !early).unwrap_or_default();
            let loud = residuals.long.abs() + residuals.short.abs() + residuals.fast.abs();
            put(&mut self.loudness, n, loud);
            put(&mut self.long, n, residuals.long.clamp(-SUBSPACE_CAP, SUBSPACE_CAP));
        }
        self.add_what_is_left();
        let oddity = self.forest.as_ref().map_or(0.0, |forest| forest.oddity(&self.loudness));
        if let Some(past) = &mut self.past {
            past.push(&self.loudness);
        }
        let raw = loudest(&self.loudness) + FOREST_WEIGHT * f64::from(oddity);
        self.smoothed += self.smooth.settled() * (raw - self.smoothed);
        let learning = self.tail.is_learning(&self.shape);
        let per_week = if self.rows < SETTLED_ROWS {
            f64::INFINITY
        } else {
            self.lasting.push(self.smoothed, &self.shape, self.interval_seconds)
        };
        let decades = f64::from(self.tail.push(self.smoothed as f32, &self.shape));
        self.rows += 1;
        self.last_hour = Some((hour, weights));
        let both = (self.smoothed / LOUD_DEVIATIONS * decades / LOUD_DECADES).sqrt();
        let score = if learning { 0.0 } else { squash(both / ALARM) };
        Verdict { score, learning, deviations: self.smoothed, decades, per_week, missing }
    }

    fn history(&self) -> History {
        match self.rows {
            rows if rows > self.week_rows => History::Weeks,
            rows if rows > self.day_rows => History::Days,
            _ => History::Short,
        }
    }

    /// Adds how unusual each metric is without what all do together.
    fn add_what_is_left(&mut self) {
        self.used.copy_from_slice(&self.long);
        self.subspace.reduce(&mut self.used);
        let weights = self.rates.after(self.rows, History::Short);
        let (w_long, w_short) = weights.long_and_short();
        let early = self.rows < LEFT_ROWS;
        // Where a metric has a least that matters, so has what is left of it.
        let least = if self.least > 0.0 { LEFT_LEAST } else { 0.0 };
        for (n, metric) in self.metrics.iter_mut().enumerate() {
            let Some(metric) = metric else { continue };
            let value = f64::from(self.used.get(n).copied().unwrap_or(0.0));
            let left = &mut metric.left;
            (left.low, left.high) = (left.low.min(value), left.high.max(value));
            let floor = (1e-3 * (left.high - left.low)).max(least);
            let long = scaled(value - left.long.mean, left.long.variance, floor);
            let short = scaled(value - left.short.mean, left.short.variance, floor);
            left.long.push(value, w_long);
            left.short.push(value, w_short);
            if !early && let Some(loudness) = self.loudness.get_mut(n) {
                *loudness += long.abs() + short.abs();
            }
        }
        if self.rows >= SUBSPACE_ROWS {
            let w =
                self.rates.after(self.rows - SUBSPACE_ROWS + 1, History::Short).long_and_short().0;
            self.subspace.learn(&mut self.long, w as f32);
        }
    }

    /// The past from which a new forest is to be grown with [`Forest::grow`], and the
    /// version that it gets; `None` while none is due. To be asked after each row.
    #[must_use]
    pub fn forest_due(&self) -> Option<(&Reservoir, u32)> {
        let version = self.forest.as_ref().map_or(1, |forest| forest.version.wrapping_add(1));
        let past = self.past.as_ref().filter(|past| past.is_enough())?;
        (self.rows >= self.forest_due).then_some((past, version))
    }

    /// Uses a new forest from now on.
    pub fn plant(&mut self, forest: Forest) {
        self.forest = Some(forest);
        self.forest_due = self.rows.saturating_add(self.rows_per_forest);
    }

    /// Grows and plants a forest at once when one is due, for those who can wait for it.
    pub fn grow_when_due(&mut self) {
        if let Some((past, version)) = self.forest_due() {
            let forest = Forest::grow(past, version);
            self.plant(forest);
        }
    }

    /// How loud each metric was in the last row: usual deviations, added up over five ways
    /// to look at it.
    #[must_use]
    pub fn loudness(&self) -> &[f32] {
        &self.loudness
    }

    /// What was usual for metric `n` at the time of the last row; `None` before its first
    /// value.
    #[must_use]
    pub fn usual(&self, n: usize) -> Option<f64> {
        let metric = self.metrics.get(n)?.as_deref();
        let baseline = &metric.filter(|metric| metric.baseline.seen)?.baseline;
        let (hour, weights) = self.last_hour.as_ref()?;
        Some(baseline.usual_at(hour, weights))
    }

    /// Whether metric `n` used to come with every row and has not come for a while.
    #[must_use]
    pub fn is_missing(&self, n: usize) -> bool {
        self.metrics.get(n).and_then(Option::as_ref).is_some_and(|metric| metric.gap.is_missing())
    }

    /// Misses nothing before it has come for long again: there is a reason why it may not.
    pub fn excuse_gaps(&mut self) {
        self.metrics.iter_mut().flatten().for_each(|metric| metric.gap.excuse());
    }

    /// How many rows it has seen.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends everything that was learnt to `out`.
    pub fn save(&self, out: &mut Vec<u8>) {
        self.interval_seconds.put(out);
        self.metrics.put(out);
        self.subspace.put(out);
        self.clock.put(out);
        self.tail.put(out);
        self.lasting.put(out);
        self.smoothed.put(out);
        self.rows.put(out);
        self.past.put(out);
        self.forest.put(out);
        self.forest_due.put(out);
    }

    /// Takes what [`save`](Self::save) wrote from the front of `from`, for a group as
    /// `options` say.
    ///
    /// # Errors
    ///
    /// [`Refusal::Damaged`] when it is not there, [`Refusal::Other`] when it is of other
    /// metrics or of another interval.
    pub fn restore(options: &Options, from: &mut &[u8]) -> Result<Self, Refusal> {
        let mut group = Self::with(options);
        let taken = (|| {
            let interval = f64::take(from)?;
            let metrics = Vec::<Option<Box<Metric>>>::take(from)?;
            let same = interval.to_bits() == group.interval_seconds.to_bits()
                && metrics.len() == group.metrics.len();
            group.metrics = metrics;
            group.subspace = Keep::take(from)?;
            group.clock = Keep::take(from)?;
            group.tail = Keep::take(from)?;
            group.lasting = Keep::take(from)?;
            group.smoothed = Keep::take(from)?;
            group.rows = Keep::take(from)?;
            let past = <Option<Reservoir> as Keep>::take(from)?;
            group.forest = Keep::take(from)?;
            group.forest_due = Keep::take(from)?;
            if past.is_some() == group.past.is_some() {
                group.past = past;
            }
            Some(same)
        })();
        match taken {
            Some(true) if group.fits() => Ok(group),
            Some(_) => Err(Refusal::Other),
            None => Err(Refusal::Damaged),
        }
    }

    /// The same past for other metrics: each is what metric `columns[n]` was, or new. What
    /// was learnt of all together stays as far as it can; a forest has to grow again.
    #[must_use]
    pub fn with_columns(mut self, columns: &[Option<usize>]) -> Self {
        let same = columns.len() == self.metrics.len()
            && columns.iter().enumerate().all(|(n, from)| *from == Some(n));
        if same {
            return self;
        }
        let metric =
            |from: &Option<usize>| from.and_then(|n| self.metrics.get(n)).cloned().flatten();
        self.metrics = columns.iter().map(metric).collect();
        self.subspace = self.subspace.with_columns(columns);
        self.forest = None;
        let width = columns.len();
        let rows_a_day = DAY_SECONDS / self.interval_seconds;
        self.past = self.past.map(|_| Reservoir::new(width, rows_a_day));
        for scratch in [&mut self.long, &mut self.used, &mut self.loudness] {
            *scratch = vec![0.0; width];
        }
        self
    }

    /// Whether all its parts are of as many metrics as it is.
    fn fits(&self) -> bool {
        let metrics = self.metrics.len();
        self.subspace.is_of(metrics)
            && self.past.as_ref().is_none_or(|past| past.is_of(metrics))
            && self.forest.as_ref().is_none_or(Forest::is_sound)
    }

    /// Most bytes that a metric adds to a group, without the forest; those that have no
    /// week take half of it.
    #[must_use]
    pub fn bytes_per_metric() -> usize {
        size_of::<Metric>()
            + size_of::<Week>()
            + (3 + crate::subspace::COMPONENTS) * size_of::<f32>()
    }

    /// Bytes that the group takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of_floats = self.long.len() + self.used.len() + self.loudness.len();
        let of_directions = crate::subspace::COMPONENTS * self.metrics.len();
        size_of::<Self>()
            + self.metrics.len() * size_of::<Option<Box<Metric>>>()
            + self.metrics.iter().flatten().map(|metric| metric.bytes()).sum::<usize>()
            + (of_floats + of_directions) * size_of::<f32>()
            + self.past.as_ref().map_or(0, Reservoir::bytes)
            + self.forest.as_ref().map_or(0, Forest::bytes)
    }
}

fn put(values: &mut [f32], n: usize, value: f32) {
    if let Some(place) = values.get_mut(n) {
        *place = value;
    }
}

/// The mean of the means of the [`LOUDEST`]; of fewer where there are not so many.
fn loudest(loudness: &[f32]) -> f64 {
    const MOST: usize = LOUDEST[1];
    let mut top = [0.0_f32; MOST];
    for value in loudness {
        let mut value = value.min(5.0 * CAP);
        for place in &mut top {
            if value > *place {
                std::mem::swap(place, &mut value);
            }
        }
    }
    let mean = |count: usize| {
        let count = count.min(loudness.len()).max(1);
        top.iter().take(count).map(|v| f64::from(*v)).sum::<f64>() / count as f64
    };
    LOUDEST.map(mean).iter().sum::<f64>() / LOUDEST.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: u64, metric: u64) -> f64 {
        let mut x = (n * 31 + metric + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^= x >> 29;
        x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (x >> 11) as f64 / (1u64 << 53) as f64
    }

    fn row(n: u64) -> [f64; 6] {
        std::array::from_fn(|metric| noise(n, metric as u64))
    }

    #[test]
    fn a_fault_is_seen_and_named_and_quiet_is_quiet() {
        let mut group = Group::new(6, 60.0);
        let mut false_rows = 0;
        for n in 0..8_000 {
            let verdict = group.push(n as f64 * 60.0, &row(n));
            assert!(verdict.learning == (n < 360), "{n}");
            false_rows += u32::from(verdict.score >= crate::THRESHOLD);
        }
        assert!(false_rows < 20, "{false_rows}");
        let mut seen = 0.0_f64;
        for n in 8_000..8_010 {
            let mut values = row(n);
            values[4] += 10.0;
            seen = seen.max(group.push(n as f64 * 60.0, &values).score);
        }
        assert!(seen >= crate::THRESHOLD, "{seen}");
        let loudest = group.loudness().iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        assert_eq!(loudest.map(|(n, _)| n), Some(4));
    }

    #[test]
    fn rows_of_any_width_and_no_numbers_are_taken() {
        let mut group = Group::new(3, f64::NAN);
        for n in 0..2_000 {
            let values = [f64::NAN, f64::INFINITY, 1.0, 7.0];
            let verdict = group.push(n as f64, values.get(..n % 5).unwrap_or(&values));
            assert!((0.0..1.0).contains(&verdict.score));
        }
        assert!(Group::new(0, 1.0).push(0.0, &[]).score == 0.0);
    }

    #[test]
    fn what_is_read_no_more_is_missing_and_says_nothing_else() {
        let mut group = Group::new(6, 60.0);
        let mut last = None;
        for n in 0..1_010 {
            let mut values = row(n);
            if n >= 1_000 {
                values[2] = f64::NAN;
            }
            let verdict = group.push(n as f64 * 60.0, &values);
            assert_eq!(verdict.missing, u32::from(n >= 1_002), "{n}");
            last = Some(verdict);
        }
        assert!(group.is_missing(2) && !group.is_missing(1));
        assert!(last.is_some_and(|verdict| verdict.score < crate::THRESHOLD), "{last:?}");
        group.excuse_gaps();
        assert_eq!(group.push(1e6, &[]).missing, 0);
    }

    #[test]
    fn the_loudest_are_averaged() {
        assert_eq!(loudest(&[]), 0.0);
        assert_eq!(loudest(&[6.0]), 6.0);
        let expected = f64::midpoint(4.0, 3.0);
        assert!((loudest(&[1.0, 2.0, 3.0, 4.0, 5.0]) - expected).abs() < 1e-6);
    }
}
