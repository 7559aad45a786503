//! How often something was done. Attempts are counted when they are reserved, and nothing
//! but time makes them uncounted.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use serde::{Deserialize, Serialize};

use crate::policy::Budget;

const SHORT: Duration = Duration::from_secs(600);
const LONG: Duration = Duration::from_secs(86_400);
/// After this long without an attempt the next one need not wait.
const QUIET: Duration = Duration::from_secs(600);
/// The first wait, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Attempts remembered: more than any budget may allow in a day.
const REMEMBERED: usize = 256;

/// Attempts of a service, or of a host, the newest last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempts(VecDeque<Attempt>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Attempt(#[serde(with = "crate::kept::time")] BootTime);

impl Attempts {
    pub(crate) fn add(&mut self, now: BootTime) {
        self.0.retain(|attempt| now.since(attempt.0) < LONG);
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Attempt(now));
    }

    fn within(&self, last: Duration, now: BootTime) -> u32 {
        let recent = self.0.iter().filter(|attempt| now.since(attempt.0) < last).count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    /// How many there were in ten minutes, and in a day.
    pub(crate) fn recent(&self, now: BootTime) -> (u32, u32) {
        (self.within(SHORT, now), self.within(LONG, now))
    }

    /// Why there may be no more now.
    pub(crate) fn exhausted(&self, budget: Budget, now: BootTime) -> Option<String> {
        let of = |count: u32, most: u32, what: &str| {
            (count >= most).then(|| format!("{count} of {most} actions in {what} are used up"))
        };
        of(self.within(SHORT, now), budget.per_10m, "10 minutes")
            .or_else(|| of(self.within(LONG, now), budget.per_24h, "24 hours"))
    }

    /// The next one may not be before this: the more there were lately the later, and by
    /// chance, so that many hosts do not act as one (full jitter).
    pub(crate) fn not_before(&self, now: BootTime, chance: f64) -> Option<BootTime> {
        let newest = self.0.back()?.0;
        let mut recent = 0;
        let mut after = now;
        for attempt in self.0.iter().rev() {
            if after.since(attempt.0) >= QUIET {
                break;
            }
            (recent, after) = (recent + 1, attempt.0);
        }
        if recent == 0 {
            return None;
        }
        let most = FIRST_WAIT.saturating_mul(1 << (recent - 1).min(10)).min(LONGEST_WAIT);
        Some(BootTime::new(newest.since_boot() + most.mul_f64(chance.clamp(0.0, 1.0))))
    }

    /// What happened before this boot happened at its beginning at the latest.
    pub(crate) fn of_former_boot(&mut self) {
        self.0.iter_mut().for_each(|attempt| attempt.0 = BootTime::default());
    }
}

/// A chance in `0..1` that is the same for the same seed, name and number.
pub(crate) fn chance(seed: u64, name: &str, number: u64) -> f64 {
    let mut x = seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for byte in name.bytes() {
        x = (x ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
    }
    for _ in 0..2 {
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    }
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    const BUDGET: Budget = Budget { per_10m: 3, per_24h: 5 };

    #[test]
    fn both_budgets_hold_and_time_gives_back() {
        let mut attempts = Attempts::default();
        for n in 0..3 {
            assert_eq!(attempts.exhausted(BUDGET, at(n * 60)), None);
            attempts.add(at(n * 60));
        }
        assert!(attempts.exhausted(BUDGET, at(200)).is_some_and(|why| why.contains("3 of 3")));
        assert_eq!(attempts.exhausted(BUDGET, at(600)), None, "the first is ten minutes ago");
        attempts.add(at(2_000));
        attempts.add(at(3_000));
        assert!(attempts.exhausted(BUDGET, at(9_000)).is_some_and(|why| why.contains("24 hours")));
        assert_eq!(attempts.exhausted(BUDGET, at(86_400)), None);
    }

    #[test]
    fn waits_grow_and_are_forgotten() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.not_before(at(0), 1.0), None);
        attempts.add(at(0));
        assert_eq!(attempts.not_before(at(1), 1.0), Some(at(10)));
        attempts.add(at(20));
        assert_eq!(attempts.not_before(at(21), 1.0), Some(at(40)));
        assert_eq!(attempts.not_before(at(21), 0.0), Some(at(20)));
        assert_eq!(attempts.not_before(at(620), 1.0), None);
        for n in 0..2_000 {
            attempts.add(at(700 + n));
        }
        assert_eq!(attempts.0.len(), REMEMBERED);
        assert_eq!(attempts.not_before(at(2_700), 1.0), Some(at(2_699 + 600)));
    }

    #[test]
    fn a_boot_gives_nothing_back_at_once() {
        let mut attempts = Attempts::default();
        (0..3).for_each(|n| attempts.add(at(50_000 + n)));
        attempts.of_former_boot();
        assert!(attempts.exhausted(BUDGET, at(30)).is_some());
        assert!(attempts.exhausted(BUDGET, at(600)).is_none());
    }

    #[test]
    fn chance_is_even_and_the_same_again() {
        let all: Vec<f64> = (0..1_000).map(|n| chance(7, "a.service", n)).collect();
        let mean = all.iter().sum::<f64>() / 1_000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert_eq!(all.first(), Some(&chance(7, "a.service", 0)));
        assert_ne!(chance(7, "a.service", 0), chance(7, "b.service", 0));
    }
}
