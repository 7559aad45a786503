//! Is the promise kept? What is promised beside what was observed.

use std::time::Duration;

use holdfast_scorer::keep::Keep;

use crate::catalogue::Owner;

/// How often a week each group's loudness is checked: so often that a few days tell
/// whether it is what it should be. It is the same scale as that of alarms, which are too
/// rare to be counted.
pub(super) const CHECKED_PER_WEEK: f64 = 10.0;

/// What is promised and what was observed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calibration {
    /// False alarms that are promised, of the whole host, each week.
    pub promised_per_week: f64,
    /// Time the scorer has watched, in weeks.
    pub weeks: f64,
    /// Book told.
    pub told: u64,
    /// Those that somebody said were false, and were real.
    pub said_false: u64,
    /// See `said_false`.
    pub said_real: u64,
    /// Groups that score, over which the promise is shared out, and that still learn.
    pub groups: u32,
    /// See `groups`.
    pub learning: u32,
    /// Each kind of detector.
    pub detectors: Vec<Detector>,
}

/// All groups of one kind of owner at one time scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Detector {
    /// Of what.
    pub owner: Owner,
    /// The time scale.
    pub step: Duration,
    /// Time that was observed, of all groups together, in weeks.
    pub group_weeks: f64,
    /// How often they should have been loud enough for ten times a week each, and how often
    /// they were, episodes included.
    pub expected: f64,
    /// See `expected`.
    pub observed: u64,
}

impl Calibration {
    /// A group that scores was watched for `step`, and perhaps became loud enough.
    pub(super) fn watch(&mut self, owner: Owner, step: Duration, loud: bool) {
        let place = self.detectors.iter().position(|d| (d.owner, d.step) == (owner, step));
        let place = place.unwrap_or_else(|| {
            self.detectors.push(Detector {
                owner,
                step,
                group_weeks: 0.0,
                expected: 0.0,
                observed: 0,
            });
            self.detectors.sort_by_key(|d| (d.owner, d.step));
            self.detectors.iter().position(|d| (d.owner, d.step) == (owner, step)).unwrap_or(0)
        });
        if let Some(detector) = self.detectors.get_mut(place) {
            detector.group_weeks += step.as_secs_f64() / (7.0 * 86_400.0);
            detector.expected = CHECKED_PER_WEEK * detector.group_weeks;
            detector.observed += u64::from(loud);
        }
    }

    pub(super) fn save(&self, out: &mut Vec<u8>) {
        self.weeks.put(out);
        self.told.put(out);
        self.said_false.put(out);
        self.said_real.put(out);
        self.detectors.len().put(out);
        for detector in &self.detectors {
            (detector.owner as u8).put(out);
            detector.step.as_secs().put(out);
            detector.group_weeks.put(out);
            detector.observed.put(out);
        }
    }

    pub(super) fn restore(&mut self, from: &mut &[u8]) -> Option<()> {
        let weeks = f64::take(from)?;
        let counts = (u64::take(from)?, u64::take(from)?, u64::take(from)?);
        for _ in 0..usize::take(from)? {
            let owner = *Owner::ALL.get(usize::from(u8::take(from)?))?;
            let step = Duration::from_secs(u64::take(from)?);
            let group_weeks = f64::take(from)?;
            let observed = u64::take(from)?;
            let expected = CHECKED_PER_WEEK * group_weeks;
            self.detectors.push(Detector { owner, step, group_weeks, expected, observed });
        }
        self.weeks = weeks;
        (self.told, self.said_false, self.said_real) = counts;
        Some(())
    }
}
