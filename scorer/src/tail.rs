//! How rare is a value, judged by the values before it?
//!
//! A running quantile separates the bulk from the tail, and a Generalised Pareto
//! distribution, fitted by the method of moments (Hosking and Wallis 1987), tells how
//! far out in the tail a value lies. After SPOT (Siffer et al., KDD 2017), with moments
//! in place of likelihood as in FluxEV (Li et al., WSDM 2021): constant time and memory.

use crate::keep::{Keep, keep};

/// The running tail of one stream of values that are not negative.
#[derive(Debug, Clone, PartialEq)]
pub struct Tail {
    of: Tails<1>,
    /// So many values yet teach nothing when they surprise: one event is one lesson.
    rest: u16,
}

/// What lies beyond the bulk.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Beyond {
    quantile: f32,
    /// Sum of what lay above the quantile, of its squares, and how many there were.
    excess: f32,
    squares: f32,
    above: f32,
}

/// The tails of so many streams that get their values together, in little memory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tails<const STREAMS: usize> {
    beyond: [Beyond; STREAMS],
    total: f32,
    first: Option<Box<[First; STREAMS]>>,
}

/// Values that are looked at together before anything else: a quantile that is found one
/// value at a time is far off for too long.
const FIRST: usize = 200;
/// How many of them are kept: the tail has no larger share.
const LARGEST: usize = FIRST / 10 + 1;
/// In falling order.
type First = [f32; LARGEST];

/// What is the tail, and how long it is remembered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Share of the values that is not the tail; nine tenths or more.
    pub bulk: f32,
    /// How many values are remembered; older ones fade.
    pub memory: f32,
    /// How many values it takes before anything is said.
    pub warm_up: f32,
    /// A value that is by so many decades rarer than the rarest of so many values should
    /// be teaches no more than that: else a single event makes the next one ordinary.
    /// Infinite: it teaches all of itself.
    pub surprise: f32,
    /// After such a lesson, so many values teach only what does not surprise.
    pub rest: u16,
}

/// A Generalised Pareto distribution, and the logarithm of its share of all values.
struct Pareto {
    xi: f32,
    sigma: f32,
    ln_above: f32,
}

/// How rare something may be, beyond what so many values should hold, and still teach all
/// of itself, for those who judge what comes after it.
pub const SURPRISE: f32 = 0.5;
/// A shape below this is that of an exponential distribution.
const EXPONENTIAL: f32 = 1e-3;
/// Weight of what is assumed about the tail before anything is known, in values.
const PRIOR: f32 = 1.0;
/// No value is rarer than this many decades: nobody has seen so many values.
pub const CAP: f32 = 30.0;

keep!(Beyond { quantile, excess, squares, above });
keep!(Tail { of, rest });

impl<const STREAMS: usize> Keep for Tails<STREAMS> {
    fn put(&self, out: &mut Vec<u8>) {
        self.beyond.put(out);
        self.total.put(out);
        self.first.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let beyond = Keep::take(from)?;
        let total = Keep::take(from)?;
        Some(Self { beyond, total, first: Keep::take(from)? })
    }
}

impl Tail {
    /// Knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { of: Tails::new(), rest: 0 }
    }

    /// The decades of `value`: minus the decimal logarithm of the share of earlier values
    /// that were as large. 0 during warm-up; within the bulk it grows evenly with the
    /// value. Then `value` is one of the earlier ones.
    pub fn push(&mut self, value: f32, shape: &Shape) -> f32 {
        let Some(value) = bounded(value) else { return 0.0 };
        let [decades] = self.of.decades(&[value], shape).unwrap_or_default();
        let most = self.of.total.max(1.0).log10() + shape.surprise;
        let mut taught = value;
        self.rest = self.rest.saturating_sub(1);
        if decades > most {
            if self.rest > 0 {
                return decades;
            }
            self.rest = shape.rest;
            let [beyond] = &self.of.beyond;
            taught = beyond.value_at(most, self.of.total).min(value);
        }
        self.of.learn(&[taught], shape);
        decades
    }

    /// The decades that [`push`](Self::push) would give `value`, which stays out of it;
    /// `None` during warm-up.
    #[must_use]
    pub fn rarity(&self, value: f32, shape: &Shape) -> Option<f32> {
        let [decades] = self.of.decades(&[bounded(value)?], shape)?;
        Some(decades)
    }

    /// Whether too little is known to say anything.
    #[must_use]
    pub fn is_learning(&self, shape: &Shape) -> bool {
        self.of.is_learning(shape)
    }
}

impl<const STREAMS: usize> Tails<STREAMS> {
    pub(crate) fn new() -> Self {
        let first = Some(Box::new([[0.0; LARGEST]; STREAMS]));
        Self { beyond: [Beyond::default(); STREAMS], total: 0.0, first }
    }

    /// The decades of each value, as [`Tail::push`] without regard to surprise.
    pub(crate) fn push(&mut self, values: &[f32; STREAMS], shape: &Shape) -> [f32; STREAMS] {
        let values = values.map(|value| bounded(value).unwrap_or(0.0));
        let decades = self.decades(&values, shape).unwrap_or([0.0; STREAMS]);
        self.learn(&values, shape);
        decades
    }

    fn is_learning(&self, shape: &Shape) -> bool {
        self.first.is_some() || self.total < shape.warm_up
    }

    /// `None` during warm-up.
    fn decades(&self, values: &[f32; STREAMS], shape: &Shape) -> Option<[f32; STREAMS]> {
        if self.is_learning(shape) {
            return None;
        }
        let mut decades = *values;
        for (value, beyond) in decades.iter_mut().zip(&self.beyond) {
            *value = beyond.decades(*value, self.total, shape);
        }
        Some(decades)
    }

    fn learn(&mut self, values: &[f32; STREAMS], shape: &Shape) {
        self.total += 1.0;
        match &mut self.first {
            None => {
                let each = self.beyond.iter_mut().zip(values);
                each.for_each(|(beyond, value)| beyond.learn(*value, self.total, shape));
            }
            Some(first) => {
                let each = first.iter_mut().zip(values);
                each.for_each(|(largest, value)| keep_largest(largest, *value));
            }
        }
        if let Some(first) = self.first.take_if(|_| self.total >= FIRST as f32) {
            let each = self.beyond.iter_mut().zip(first.iter());
            each.for_each(|(beyond, largest)| beyond.begin(largest, shape));
        }
        if self.total > shape.memory {
            self.total *= fading(shape);
        }
    }
}

/// So large that it is out of the question, and its square is still a number.
fn bounded(value: f32) -> Option<f32> {
    value.is_finite().then(|| value.clamp(0.0, 1e15))
}

/// What is left of what is remembered after each value.
fn fading(shape: &Shape) -> f32 {
    shape.memory / (shape.memory + 1.0)
}

fn keep_largest(largest: &mut First, mut value: f32) {
    for place in largest.iter_mut() {
        if value > *place {
            std::mem::swap(place, &mut value);
        }
    }
}

impl Beyond {
    fn decades(&self, value: f32, total: f32, shape: &Shape) -> f32 {
        let u = self.quantile;
        if value <= u {
            return -(1.0 - shape.bulk).log10() * value / u.max(f32::MIN_POSITIVE);
        }
        let (excess, Pareto { xi, sigma, ln_above }) = (value - u, self.pareto(total));
        let ln_tail =
            if xi < EXPONENTIAL { -excess / sigma } else { -(xi * excess / sigma).ln_1p() / xi };
        (-(ln_above + ln_tail) * std::f32::consts::LOG10_E).clamp(0.0, CAP)
    }

    /// The value beyond the bulk that has so many decades.
    fn value_at(&self, decades: f32, total: f32) -> f32 {
        let Pareto { xi, sigma, ln_above } = self.pareto(total);
        let ln_tail = (-decades * std::f32::consts::LN_10 - ln_above).min(0.0);
        let excess =
            if xi < EXPONENTIAL { -sigma * ln_tail } else { sigma * (-xi * ln_tail).exp_m1() / xi };
        self.quantile + excess
    }

    /// The distribution of what lies above the quantile, given how many values there were.
    fn pareto(&self, total: f32) -> Pareto {
        let (u, count) = (self.quantile, self.above + PRIOR);
        let mean = (self.excess + 0.1 * u) / count;
        let variance = ((self.squares + 0.02 * u * u) / count - mean * mean).max(0.0);
        let ratio = mean * mean / variance.max(f32::MIN_POSITIVE);
        // Lighter than exponential is not believed, heavier than this has no variance.
        let xi = (0.5 * (1.0 - ratio)).clamp(0.0, 0.5);
        let sigma = if xi < EXPONENTIAL { mean } else { 0.5 * mean * (1.0 + ratio) };
        let ln_above = (count / (total + PRIOR)).min(1.0).ln();
        Pareto { xi, sigma: sigma.max(f32::MIN_POSITIVE), ln_above }
    }

    /// Takes in a value; with it there were `total`.
    fn learn(&mut self, value: f32, total: f32, shape: &Shape) {
        let is_above = value > self.quantile;
        // Stochastic approximation in proportion to the quantile itself, so that it does
        // not matter what the values are measured in.
        let step = 4.0 / (total + 50.0).min(shape.memory);
        let tail = 1.0 - shape.bulk;
        let target = if is_above { 1.0 - tail } else { -tail };
        if self.quantile > 0.0 {
            self.quantile *= 1.0 + step * target;
        } else if is_above {
            self.quantile = value * step;
        }
        if value > self.quantile {
            self.add(value - self.quantile);
        }
        if total > shape.memory {
            let keep = fading(shape);
            self.excess *= keep;
            self.squares *= keep;
            self.above *= keep;
        }
    }

    /// Begins with the quantile of the first values.
    fn begin(&mut self, largest: &First, shape: &Shape) {
        let place = ((1.0 - shape.bulk) * FIRST as f32) as usize;
        self.quantile = largest.get(place).or(largest.last()).copied().unwrap_or(0.0);
        let quantile = self.quantile;
        largest.iter().filter(|value| **value > quantile).for_each(|v| self.add(v - quantile));
    }

    fn add(&mut self, excess: f32) {
        self.excess += excess;
        self.squares += excess * excess;
        self.above += 1.0;
    }
}

impl Default for Tail {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { bulk: 0.95, memory: 100_000.0, warm_up: 500.0, surprise: f32::INFINITY, rest: 0 };

    /// Pseudo-random numbers in `0..1`, the same in each run.
    fn uniform() -> impl FnMut() -> f64 {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Share of values that were said to be rarer than one in a thousand.
    fn share_over_three(mut value: impl FnMut(f64) -> f64) -> f64 {
        let (mut tail, mut uniform) = (Tail::new(), uniform());
        let mut loud = 0;
        for n in 0..200_000 {
            let decades = tail.push(value(uniform()) as f32, &SHAPE);
            loud += i32::from(n >= 20_000 && decades >= 3.0);
        }
        f64::from(loud) / 180_000.0
    }

    #[test]
    fn decades_are_what_they_say() {
        let exponential = share_over_three(|u| -(1.0 - u).ln());
        let uniform = share_over_three(|u| u);
        let heavy = share_over_three(|u| (1.0 - u).powf(-0.3) - 1.0);
        for (name, share) in [("exponential", exponential), ("heavy", heavy)] {
            assert!((0.0005..0.002).contains(&share), "{name}: {share}");
        }
        assert!(uniform <= 0.001, "a tail that ends is not overrated: {uniform}");
    }

    #[test]
    fn units_of_measure_do_not_matter() {
        let (mut small, mut large, mut uniform) = (Tail::new(), Tail::new(), uniform());
        for _ in 0..5_000 {
            let value = uniform() as f32;
            let (a, b) = (small.push(value, &SHAPE), large.push(value * 1024.0, &SHAPE));
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
    }

    #[test]
    fn nothing_strange_comes_of_strange_values() {
        let mut tail = Tail::new();
        for value in [0.0, f32::NAN, f32::INFINITY, -5.0, f32::MAX, f32::MIN_POSITIVE, 1.0] {
            for _ in 0..400 {
                let decades = tail.push(value, &SHAPE);
                assert!((0.0..=CAP).contains(&decades), "{value}: {decades}");
            }
        }
    }

    #[test]
    fn one_event_does_not_make_the_next_ordinary() {
        let robust = Shape { surprise: SURPRISE, ..SHAPE };
        let (mut plain, mut careful) = (Tail::new(), Tail::new());
        let mut next = uniform();
        for _ in 0..20_000 {
            let value = -(1.0 - next()).ln() as f32;
            plain.push(value, &SHAPE);
            careful.push(value, &robust);
        }
        for tail in [(&mut plain, SHAPE), (&mut careful, robust)] {
            assert!(tail.0.push(1_000.0, &tail.1) > 25.0);
        }
        let again = (plain.push(1_000.0, &SHAPE), careful.push(1_000.0, &robust));
        assert!(again.0 < 8.0 && again.1 > 25.0, "{again:?}");
    }
}
