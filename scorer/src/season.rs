//! What is usual at this hour of the day.

use crate::keep::keep;
use crate::week::WeekHour;

/// Bins of a day.
pub const BINS: usize = 24;
const DAY_SECONDS: f64 = 86_400.0;
/// Days after which a bin has half forgotten.
const HALF_LIFE_DAYS: f64 = 5.0;

/// By how much a metric usually differs from its long mean, by hour of the day (UTC).
#[derive(Debug, Clone, PartialEq)]
pub struct Season {
    offsets: [f32; BINS],
}

keep!(Season { offsets });

impl Default for Season {
    fn default() -> Self {
        Self { offsets: [0.0; BINS] }
    }
}

/// A time of the day, and how much a bin learns from a sample of it: the same for all
/// metrics of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hour {
    bin: usize,
    neighbour: usize,
    /// Weight of the neighbouring bin; the bin's own is the rest.
    share: f32,
    rate: f32,
    pub(crate) of_week: WeekHour,
}

/// Turns times into [`Hour`]s.
#[derive(Debug, Clone, PartialEq)]
pub struct Clock {
    /// How many samples each bin has had.
    seen: [u32; BINS],
    settled: f32,
}

keep!(Clock { seen, settled });

impl Clock {
    /// For samples that come every so many seconds.
    #[must_use]
    pub fn new(interval_seconds: f64) -> Self {
        let per_bin_and_day = DAY_SECONDS / interval_seconds / BINS as f64;
        let half_life = (HALF_LIFE_DAYS * per_bin_and_day).max(1.0);
        let rate = crate::rate::Rate::of_half_life(half_life).settled() as f32;
        Self { seen: [0; BINS], settled: rate }
    }

    /// The hour of a moment in seconds since 1970, which gets a sample now.
    pub fn at(&mut self, seconds: f64) -> Hour {
        let place = seconds.rem_euclid(DAY_SECONDS) / DAY_SECONDS * BINS as f64;
        let (bin, neighbour, share) = bins_at(place, BINS);
        let seen = self.seen.get_mut(bin).map_or(0, |seen| {
            *seen = seen.saturating_add(1);
            *seen
        });
        let rate = self.settled.max(1.0 / (seen as f32 + 1.0));
        Hour { bin, neighbour, share, rate, of_week: WeekHour::at(seconds) }
    }
}

/// The bin of a place in a circle of `bins`, the one it leans to, and the weight of that.
/// What has no place has the first.
pub(crate) fn bins_at(place: f64, bins: usize) -> (usize, usize, f32) {
    // A NaN is not the larger.
    let place = place.max(0.0);
    let bin = (place as usize).min(bins - 1);
    let into = (place - bin as f64) as f32;
    if into < 0.5 {
        (bin, (bin + bins - 1) % bins, 0.5 - into)
    } else {
        (bin, (bin + 1) % bins, into - 0.5)
    }
}

impl Season {
    /// What is usual at this hour, relative to the long mean: between the middles of two
    /// bins it goes over evenly from one to the other.
    #[must_use]
    pub fn usual(&self, hour: &Hour) -> f32 {
        let of = |bin: usize| self.offsets.get(bin).copied().unwrap_or(0.0);
        of(hour.bin) * (1.0 - hour.share) + of(hour.neighbour) * hour.share
    }

    /// Learns that a sample of this hour differed by `offset` from the long mean.
    pub fn learn(&mut self, hour: &Hour, offset: f32) {
        if let Some(mean) = self.offsets.get_mut(hour.bin) {
            *mean += hour.rate * (offset - *mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daily_pattern_is_learnt() {
        let (mut clock, mut season) = (Clock::new(300.0), Season::default());
        let wave = |seconds: f64| (seconds / DAY_SECONDS * std::f64::consts::TAU).sin() as f32;
        let mut worst: f32 = 0.0;
        for n in 0..288 * 20 {
            let seconds = f64::from(n) * 300.0;
            let hour = clock.at(seconds);
            if n > 288 * 10 {
                worst = worst.max((season.usual(&hour) - wave(seconds)).abs());
            }
            season.learn(&hour, wave(seconds));
        }
        assert!(worst < 0.1, "{worst}");
    }

    #[test]
    fn any_moment_has_an_hour() {
        let mut clock = Clock::new(1.0);
        for seconds in [0.0, -1.0, 86_399.999_999, 1e18, f64::NAN, f64::INFINITY] {
            let hour = clock.at(seconds);
            assert!(hour.bin < BINS && hour.neighbour < BINS && hour.rate > 0.0, "{seconds}");
        }
    }
}
