//! How often is it as loud as this? Judged by the loudest moment of each past hour.
//!
//! Loud moments come in clusters, so that the share of loud *samples* says little about
//! how often somebody would be woken. The largest value of each hour is another matter:
//! alarms of different hours are different alarms. And a week has 168 hours, so that
//! "once a week" lies little beyond what a few weeks have shown (block maxima: Gumbel 1958;
//! Coles, An Introduction to Statistical Modeling of Extreme Values, 2001, chapter 3).

use crate::keep::keep;
use crate::tail::{SURPRISE, Shape, Tail};

const BLOCK_SECONDS: f64 = 3_600.0;
pub(crate) const WEEK_SECONDS: f64 = 7.0 * 86_400.0;
/// A month of hours.
const SHAPE: Shape = Shape { bulk: 0.9, memory: 720.0, warm_up: 0.0, surprise: SURPRISE, rest: 0 };

/// The loudest moments of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct Peaks {
    tail: Tail,
    /// The loudest of the hour under way, and how many of its samples there were.
    top: f32,
    samples: u32,
    samples_per_block: u32,
}

keep!(Peaks { tail, top, samples, samples_per_block });

impl Peaks {
    /// For samples that come every so many seconds.
    #[must_use]
    pub fn new(interval_seconds: f64) -> Self {
        let samples_per_block = (BLOCK_SECONDS / interval_seconds).round().max(1.0) as u32;
        Self { tail: Tail::new(), top: 0.0, samples: 0, samples_per_block }
    }

    /// Blocks in a week.
    fn per_week(&self, interval_seconds: f64) -> f64 {
        WEEK_SECONDS / (f64::from(self.samples_per_block) * interval_seconds)
    }

    /// How many hours of a week have a moment as loud as `loudness`; `None` until eight
    /// days and a bit are known.
    #[must_use]
    pub fn hours_a_week(&self, loudness: f64, interval_seconds: f64) -> Option<f64> {
        let decades = self.tail.rarity(loudness as f32, &SHAPE)?;
        Some(self.per_week(interval_seconds) * 10_f64.powf(-f64::from(decades)))
    }

    /// Takes in a sample.
    pub fn push(&mut self, loudness: f64) {
        self.top = self.top.max(loudness as f32);
        self.samples += 1;
        if self.samples >= self.samples_per_block {
            self.tail.push(self.top, &SHAPE);
            (self.top, self.samples) = (0.0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_once_a_day_comes_seven_times_a_week() {
        let mut peaks = Peaks::new(600.0);
        assert_eq!(peaks.hours_a_week(1.0, 600.0), None);
        for n in 0..6 * 24 * 60 {
            // Every day one of a few loud moments, a little louder or less so.
            let loud =
                if n % 144 == 70 { 10.0 + f64::from(n * 7 % 11) } else { f64::from(n * 5 % 7) };
            peaks.push(loud);
        }
        let daily = peaks.hours_a_week(10.0, 600.0).expect("known by now");
        assert!((4.0..14.0).contains(&daily), "{daily}");
        let never = peaks.hours_a_week(100.0, 600.0).expect("known by now");
        assert!(never < 0.2, "{never}");
    }
}
