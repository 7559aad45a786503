//! One host, unit, device or interface and what is usual for it, at several time scales.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_scorer::episode::Episodes;
use holdfast_scorer::group::{self, Group, Verdict};
use holdfast_scorer::keep::{Keep, Refusal};

use super::Options;
use super::book::{COURSE, Reason};
use super::scale::Scale;
use crate::catalogue::{Kind, Owner, SignalId};

/// The time scales: as the windows come, for the onset of hard faults; and coarser ones, for
/// what is slower. Where windows are that long themselves there are fewer.
const STEPS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(10), Duration::from_secs(60)];
/// History before a subject's past is believed as much as it ever will be.
const GROWN: Duration = Duration::from_secs(2 * 86_400);
/// Signals that explain an episode.
const REASONS: usize = 5;
/// What time on CPUs counts for when it is told why something is unusual: whatever a unit does
/// too much of costs that, too.
const CPU: f32 = 0.5;
/// What is as loud as this is certain: how much louder says more about its scale, by time or
/// by order of magnitude, than about its part.
const CERTAIN: f32 = 4.0 * ODD;
/// Deviations, added up over five ways to look, from which on a signal is odd.
pub(super) const ODD: f32 = 15.0;
/// Each false alarm makes its subject so many times as hard to alarm, for a while.
const MISTRUST_DECADES: f64 = 1.0;
const MOST_MISTRUST: f64 = 3.0;
const MISTRUST_HALF_LIFE_DAYS: f64 = 7.0;

/// A time of caution after a change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Caution {
    from: BootTime,
    until: BootTime,
    decades: f64,
}

impl Caution {
    pub(super) fn new(now: BootTime, length: Duration, decades: f64) -> Self {
        Self { from: now, until: BootTime::new(now.since_boot() + length), decades }
    }

    /// Decades of caution left: it fades evenly.
    fn left(&self, now: BootTime) -> f64 {
        let whole = self.until.since(self.from).as_secs_f64();
        if whole <= 0.0 { 0.0 } else { self.decades * self.until.since(now).as_secs_f64() / whole }
    }
}

/// What is followed at one time scale.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) step: Duration,
    pub(super) group: Group,
    pub(super) follower: Episodes,
    /// Follows how often it is loud at a rate high enough to be observed.
    pub(super) check: Episodes,
    /// The episode that its episode under way is a part of.
    pub(super) episode: Option<u64>,
    pub(super) verdict: Option<Verdict>,
    windows_per_row: u32,
    windows: u32,
    /// Sums of the row under way; the means of the last one while it is new. Empty where a
    /// window is a row.
    sums: Vec<f64>,
    counts: Vec<u32>,
    course: VecDeque<f32>,
}

/// A subject of the scorer.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) owner: Owner,
    pub(super) instance: Arc<str>,
    pub(super) tiers: Vec<Tier>,
    /// The window it was last seen in.
    pub(super) seen: u64,
    /// What the window under way says, on the scales of the signals.
    pub(super) values: Vec<f64>,
    caution: Caution,
    mistrust: f64,
}

fn options(owner: Owner, metrics: usize, step: Duration, learning: Duration) -> group::Options {
    group::Options {
        learning_seconds: learning.as_secs_f64(),
        // The scales see to that.
        least: 1.0,
        // What happens on a host as a whole has patterns; and there is one of it.
        forest: owner == Owner::Host,
        ..group::Options::new(metrics, step.as_secs_f64())
    }
}

impl Subject {
    pub(super) fn new(
        owner: Owner,
        instance: Arc<str>,
        metrics: usize,
        &Options { window, learning, .. }: &Options,
    ) -> Self {
        let tiers = STEPS.map(|step| {
            let rows = step.as_millis().div_ceil(window.as_millis().max(1)).max(1);
            let windows_per_row = u32::try_from(rows).unwrap_or(u32::MAX);
            let step = window * windows_per_row;
            Tier::new(options(owner, metrics, step, learning), step, windows_per_row)
        });
        let mut tiers = Vec::from(tiers);
        tiers.dedup_by_key(|tier| tier.step);
        Self {
            owner,
            instance,
            tiers,
            seen: 0,
            values: vec![f64::NAN; metrics],
            caution: Caution::default(),
            mistrust: 0.0,
        }
    }

    pub(super) fn be_careful(&mut self, caution: Caution, now: BootTime) {
        if caution.left(now) >= self.caution.left(now) {
            self.caution = caution;
        }
    }

    /// Somebody said that its alarm was false.
    pub(super) fn distrust(&mut self) {
        self.mistrust = (self.mistrust + MISTRUST_DECADES).min(MOST_MISTRUST);
        for tier in &mut self.tiers {
            tier.follower.dismiss();
            tier.episode = None;
        }
    }

    /// Mistrust fades with every window.
    pub(super) fn forgive(&mut self, window: Duration) {
        let half_lives = window.as_secs_f64() / 86_400.0 / MISTRUST_HALF_LIFE_DAYS;
        self.mistrust *= (-half_lives).exp2();
    }

    /// Its alarms must be rarer than usual now: only so many times as often.
    pub(super) fn doubt(&self, now: BootTime) -> f64 {
        10_f64.powf(-self.caution.left(now) - self.mistrust)
    }

    /// Puts what was learnt into bytes.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        (self.owner as u8).put(out);
        (*self.instance).to_owned().put(out);
        self.mistrust.put(out);
        self.tiers.len().put(out);
        for tier in &self.tiers {
            tier.step.as_secs_f64().put(out);
            tier.group.save(out);
        }
    }

    /// What [`save`](Self::save) wrote when there were the signals `known`.
    pub(super) fn restore(
        from: &mut &[u8],
        settings: &Options,
        columns: impl Fn(Owner) -> Vec<Option<usize>>,
        known: impl Fn(Owner) -> usize,
    ) -> Result<Self, Refusal> {
        let owner = usize::from(u8::take(from).ok_or(Refusal::Damaged)?);
        let owner = *Owner::ALL.get(owner).ok_or(Refusal::Damaged)?;
        let instance = String::take(from).ok_or(Refusal::Damaged)?;
        let mistrust = f64::take(from).ok_or(Refusal::Damaged)?;
        let tiers = usize::take(from).ok_or(Refusal::Damaged)?;
        let columns = columns(owner);
        let mut subject = Self::new(owner, instance.into(), columns.len(), settings);
        subject.mistrust =
            if mistrust.is_finite() { mistrust.clamp(0.0, MOST_MISTRUST) } else { 0.0 };
        if tiers != subject.tiers.len() {
            return Err(Refusal::Other);
        }
        for tier in &mut subject.tiers {
            let step = f64::take(from).ok_or(Refusal::Damaged)?;
            if step.to_bits() != tier.step.as_secs_f64().to_bits() {
                return Err(Refusal::Other);
            }
            let saved =
                Group::restore(&options(owner, known(owner), tier.step, settings.learning), from)?;
            tier.group = saved.with_columns(&columns);
        }
        Ok(subject)
    }
}

impl Tier {
    fn new(group: group::Options, step: Duration, windows_per_row: u32) -> Self {
        let several = if windows_per_row > 1 { group.metrics } else { 0 };
        Self {
            step,
            group: Group::with(&group),
            follower: Episodes::new(step.as_secs_f64()),
            check: Episodes::new(step.as_secs_f64()),
            episode: None,
            verdict: None,
            windows_per_row,
            windows: 0,
            sums: vec![0.0; several],
            counts: vec![0; several],
            course: VecDeque::new(),
        }
    }

    /// Takes in a window that ended `seconds` after 1970; what it says, when a row is
    /// full.
    pub(super) fn push(&mut self, seconds: f64, values: &[f64]) -> Option<Verdict> {
        if self.windows_per_row > 1 {
            if self.windows == 0 {
                self.sums.fill(0.0);
                self.counts.fill(0);
            }
            self.windows += 1;
            for ((sum, count), value) in self.sums.iter_mut().zip(&mut self.counts).zip(values) {
                if value.is_finite() {
                    *sum += value;
                    *count += 1;
                }
            }
            if self.windows < self.windows_per_row {
                return None;
            }
            self.windows = 0;
            for (sum, count) in self.sums.iter_mut().zip(&self.counts) {
                *sum = if *count == 0 { f64::NAN } else { *sum / f64::from(*count) };
            }
        }
        let row = if self.windows_per_row > 1 { &self.sums } else { values };
        let verdict = self.group.push(seconds, row);
        self.verdict = Some(verdict);
        if self.course.len() >= COURSE {
            self.course.pop_front();
        }
        self.course.push_back(verdict.score as f32);
        Some(verdict)
    }

    /// The row that was just full, where `values` is the window that filled it.
    pub(super) fn row<'a>(&'a self, values: &'a [f64]) -> &'a [f64] {
        if self.windows_per_row > 1 { &self.sums } else { values }
    }

    /// How far its past is believed, from 0 to 1: the less, the less of it there is.
    pub(super) fn trust(&self) -> f64 {
        let known = self.group.rows() as f64 * self.step.as_secs_f64();
        (known / GROWN.as_secs_f64()).min(1.0).sqrt()
    }

    /// Scores up to the newest row.
    pub(super) fn course(&self) -> Vec<f32> {
        self.course.iter().copied().collect()
    }

    /// What is told of the row that was just full: signals that are missing, then what made it
    /// loud, what it costs after what it is.
    pub(super) fn reasons(&self, signals: &[SignalId], values: &[f64]) -> Vec<Reason> {
        let values = self.row(values);
        let loudness = self.group.loudness();
        let all: f32 = loudness.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        let loud = |n: usize| loudness.get(n).copied().unwrap_or(0.0);
        let rank = |n: usize| {
            let signal = signals.get(n);
            let missing = signal.is_some_and(|signal| self.is_missing(n, *signal));
            let is_cpu = signal.is_some_and(|signal| signal.signal().is_cpu());
            let certain = loud(n).min(CERTAIN);
            (missing, if is_cpu { CPU * certain } else { certain }, loud(n))
        };
        let mut order: Vec<usize> = (0..signals.len().min(loudness.len())).collect();
        order.sort_by(|a, b| {
            let (a, b) = (rank(*a), rank(*b));
            b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then(b.2.total_cmp(&a.2))
        });
        let told = order.into_iter().take(REASONS).filter(|n| rank(*n) > (false, 0.0, 0.0));
        told.filter_map(|n| {
            let (signal, value) = (*signals.get(n)?, *values.get(n)?);
            let scale = Scale::of(signal.signal());
            Some(Reason {
                signal,
                value: scale.back(value),
                usual: scale.back(self.group.usual(n)?),
                share: f64::from(loud(n) / all),
            })
        })
        .collect()
    }

    /// Whether a signal used to be read in every row and is read no more. Distributions have no
    /// value where nothing happened.
    fn is_missing(&self, n: usize, signal: SignalId) -> bool {
        signal.signal().kind != Kind::Histogram && self.group.is_missing(n)
    }

    /// Whether any of them is.
    pub(super) fn misses(&self, signals: &[SignalId]) -> bool {
        signals.iter().enumerate().any(|(n, signal)| self.is_missing(n, *signal))
    }

    /// Signals that are far from usual, and how many were read.
    pub(super) fn odd(&self, values: &[f64]) -> (usize, usize) {
        let read = self.row(values).iter().filter(|value| value.is_finite()).count();
        let odd = self.group.loudness().iter().filter(|loud| **loud >= ODD).count();
        (odd.min(read), read)
    }
}
