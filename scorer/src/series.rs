//! One metric by itself: made to notice when something begins.
//!
//! Four kinds of detectors look at the metric, each at several scales, so that no one
//! constant decides: how far the value is from its slow mean, how large the step from the
//! last one is, how far the short-term level is from its usual place, and how much the
//! short-term spread differs from the usual one. Each says how rare what it sees is, by its
//! own past; then one score per episode is given, and less of it for what has been as loud
//! before.

use crate::baseline::{CAP, Running, scaled};
use crate::rate::Rate;
use crate::squash;
use crate::tail::{Shape, Tails};

const SCALES: usize = 3;
const DETECTORS: usize = 3 * SCALES + 1;
/// Half-lives of the slow mean, the level and the spread, in samples.
const SLOW: [f64; SCALES] = [250.0, 500.0, 1000.0];
const LEVEL: [f64; SCALES] = [6.0, 12.0, 24.0];
const SPREAD: [f64; SCALES] = [20.0, 40.0, 80.0];
/// Half-life of what is usual for level and spread.
const USUAL: f64 = 1000.0;
/// Samples before a deviation is believed.
const FIRST: u64 = 50;
const FIRST_SPREAD: u64 = 10;
/// Share of the range that always counts as usual deviation.
const FLOOR: f64 = 1e-3;
/// A logarithm of a variance differs by so much from nothing.
const SPREAD_FLOOR: f32 = 0.05;
const TAIL: Shape =
    Shape { bulk: 0.95, memory: 10_000.0, warm_up: 200.0, surprise: f32::INFINITY, rest: 0 };
/// Kinds are added up with this power: the loudest counts most, agreement a little.
const POWER: i32 = 3;
/// Decades, less fatigue, that are an alarm.
const ALARM: f64 = 1.35;

/// Watches one metric.
#[derive(Debug, Clone)]
pub struct Series {
    samples: u64,
    low: f64,
    high: f64,
    last: f64,
    slow: [Running; SCALES],
    /// Mean square of steps.
    step: f64,
    level: [Level; SCALES],
    spread: [Spread; SCALES],
    tails: Tails<DETECTORS>,
    episodes: Fatigue,
}

/// A short-term mean, and where it usually is.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    now: f64,
    usual: Running,
}

/// A short-term variance, and the logarithm it usually has.
#[derive(Debug, Clone, Copy, Default)]
struct Spread {
    now: Running,
    /// Mean of the logarithm, and its variance.
    usual: (f32, f32),
}

#[derive(Debug)]
struct Rates {
    slow: [Rate; SCALES],
    step: Rate,
    level: [Rate; SCALES],
    spread: [Rate; SCALES],
    usual: Rate,
}

static RATES: std::sync::LazyLock<Rates> = std::sync::LazyLock::new(|| Rates {
    slow: SLOW.map(Rate::of_half_life),
    step: Rate::of_half_life(500.0),
    level: LEVEL.map(Rate::of_half_life),
    spread: SPREAD.map(Rate::of_half_life),
    usual: Rate::of_half_life(USUAL),
});

/// What a sample says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// In `0..1`; alarming from [`THRESHOLD`](crate::THRESHOLD) on. 0 while learning, and
    /// for what is no louder than the episode under way.
    pub score: f64,
    /// There is not enough history to score.
    pub learning: bool,
    /// How rare the sample is, in decades, whatever came before it.
    pub decades: f64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            samples: 0,
            low: 0.0,
            high: 0.0,
            last: 0.0,
            slow: [Running::default(); SCALES],
            step: 0.0,
            level: [Level::default(); SCALES],
            spread: [Spread::default(); SCALES],
            tails: Tails::new(),
            episodes: Fatigue::default(),
        }
    }
}

impl Series {
    /// Scores a sample. What is no number is no sample: it says nothing and changes nothing.
    pub fn push(&mut self, value: f64) -> Verdict {
        let learning = self.samples < TAIL.warm_up as u64;
        if !value.is_finite() || value.abs() > 1e150 {
            return Verdict { score: 0.0, learning, decades: 0.0 };
        }
        if self.samples == 0 {
            self.begin(value);
        }
        let seen = self.deviations(value);
        let [step, rest @ ..] = &self.tails.push(&seen, &TAIL);
        let kinds = std::iter::once(std::slice::from_ref(step)).chain(rest.chunks(SCALES));
        let loud =
            |kind: &[f32]| (f64::from(kind.iter().sum::<f32>()) / kind.len() as f64).powi(POWER);
        let decades: f64 = kinds.map(loud).sum();
        let decades = decades.cbrt();
        let tired = self.episodes.push(self.samples, decades);
        self.samples += 1;
        Verdict { score: if learning { 0.0 } else { squash(tired / ALARM) }, learning, decades }
    }

    fn begin(&mut self, value: f64) {
        (self.low, self.high, self.last) = (value, value, value);
        self.slow.iter_mut().for_each(|slow| slow.mean = value);
        self.level.iter_mut().for_each(|level| level.now = value);
        self.spread.iter_mut().for_each(|spread| {
            spread.now.mean = value;
            spread.usual.1 = 1.0;
        });
    }

    /// What each detector sees, in usual deviations: the step, then slow means, levels and
    /// spreads.
    fn deviations(&mut self, value: f64) -> [f32; DETECTORS] {
        let (n, rates) = (self.samples, &*RATES);
        (self.low, self.high) = (self.low.min(value), self.high.max(value));
        let floor = FLOOR * (self.high - self.low);
        let usual = rates.usual.after(n + 1);
        let late = |deviation: f32, first: u64| if n >= first { deviation.abs() } else { 0.0 };
        let mut seen = [0.0; DETECTORS];
        let mut out = seen.iter_mut();
        let mut tell = |deviation| {
            if let Some(place) = out.next() {
                *place = deviation;
            }
        };

        let step = value - self.last;
        self.last = value;
        tell(late(scaled(step, self.step, floor), FIRST));
        let w = rates.step.after(n + 1);
        self.step = (1.0 - w) * (self.step + w * step * step);
        for (slow, rate) in self.slow.iter_mut().zip(&rates.slow) {
            tell(late(scaled(value - slow.mean, slow.variance, floor), FIRST));
            slow.push(value, rate.after(n + 1));
        }
        for (level, rate) in self.level.iter_mut().zip(&rates.level) {
            level.now += rate.after(n + 1) * (value - level.now);
            if n == 0 {
                level.usual.mean = level.now;
            }
            tell(scaled(level.now - level.usual.mean, level.usual.variance, floor).abs());
            level.usual.push(level.now, usual);
        }
        for (spread, rate) in self.spread.iter_mut().zip(&rates.spread) {
            let w = rate.after(n + 1);
            spread.now.mean += w * (value - spread.now.mean);
            let left = value - spread.now.mean;
            spread.now.variance = (1.0 - w) * (spread.now.variance + w * left * left);
            // Against the range, so that it does not matter what it is measured in.
            let range = (self.high - self.low).max(f64::MIN_POSITIVE);
            let log = (spread.now.variance / range / range + FLOOR * FLOOR).ln() as f32;
            let (mean, variance) = &mut spread.usual;
            if n == 0 {
                *mean = log;
            }
            let difference = log - *mean;
            let deviation = difference / (variance.max(0.0).sqrt() + SPREAD_FLOOR);
            tell(late(deviation.clamp(-CAP, CAP), FIRST_SPREAD + 1));
            let w = usual as f32;
            *mean += w * difference;
            *variance = (1.0 - w) * (*variance + w * difference * difference);
        }
        seen
    }
}

/// Samples after a score in which only a louder one counts.
const REST: u8 = 100;
/// What is at least this share as loud has been there before.
const NEAR: f32 = 0.75;
/// Half-life of the memory of earlier episodes, in samples.
const FORGET: f32 = 4000.0;
/// Episodes remembered.
const SLOTS: usize = 16;
/// Peaks are kept in steps of this many to a decade.
const STEPS: f32 = 1_024.0;

/// One score per episode, lower for what was as loud before.
#[derive(Debug, Clone, Default)]
struct Fatigue {
    peaks: [u16; SLOTS],
    at: [u32; SLOTS],
    top: f32,
    newest: u8,
    rest: u8,
}

impl Fatigue {
    fn push(&mut self, sample: u64, decades: f64) -> f64 {
        let (loud, now) = (decades as f32, sample as u32);
        if self.rest > 0 && loud <= self.top {
            self.rest -= 1;
            return 0.0;
        }
        if loud <= 0.0 {
            return 0.0;
        }
        let goes_on = self.rest > 0;
        let newest = usize::from(self.newest);
        let earlier = self.peaks.iter().zip(&self.at).enumerate().filter(|(slot, (peak, _))| {
            **peak > 0 && f32::from(**peak) >= NEAR * STEPS * loud && !(goes_on && *slot == newest)
        });
        let alike: f32 =
            earlier.map(|(_, (_, at))| (-(now.wrapping_sub(*at) as f32) / FORGET).exp2()).sum();
        if !goes_on {
            self.newest = (self.newest + 1) % SLOTS as u8;
        }
        let slot = usize::from(self.newest);
        if let (Some(peak), Some(at)) = (self.peaks.get_mut(slot), self.at.get_mut(slot)) {
            // As large as fits, which is more than can be.
            (*peak, *at) = ((STEPS * loud) as u16, now);
        }
        (self.top, self.rest) = (loud, REST);
        (decades - f64::from((1.0 + alike).log2())).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::THRESHOLD;

    fn noise(n: u64) -> f64 {
        let mut x = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^= x >> 29;
        x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (x >> 11) as f64 / (1u64 << 53) as f64
    }

    #[test]
    fn a_jump_is_reported_once() {
        let mut series = Series::default();
        let scores: Vec<f64> = (0..3_000)
            .map(|n| series.push(noise(n) + if n >= 2_000 { 20.0 } else { 0.0 }).score)
            .collect();
        assert!(scores.iter().take(100).all(|score| *score == 0.0), "learning");
        let loud: Vec<_> = (1_500..3_000).filter(|n| scores[*n] >= THRESHOLD).collect();
        assert!(loud.first() == Some(&2_000) && loud.len() < 5, "{loud:?}");
    }

    #[test]
    fn what_comes_again_and_again_is_no_news() {
        let mut series = Series::default();
        let spike = |n: u64| if n % 300 == 299 { 30.0 } else { 0.0 };
        let loud = (0..20_000)
            .map(|n| (n, series.push(noise(n) + spike(n)).score))
            .filter(|(n, score)| *n > 4_000 && *score >= THRESHOLD)
            .count();
        assert!(loud <= 3, "{loud}");
    }

    #[test]
    fn a_flat_series_is_quiet_and_so_is_what_is_no_number() {
        let mut series = Series::default();
        for n in 0..5_000 {
            let value = if n % 7 == 0 { f64::NAN } else { 4.0 };
            assert_eq!(series.push(value).score, 0.0, "{n}");
        }
    }

    #[test]
    fn state_is_bounded() {
        assert!(size_of::<Series>() <= 512, "{}", size_of::<Series>());
    }
}
