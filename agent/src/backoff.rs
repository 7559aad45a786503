//! How long to wait before the next attempt: exponential, with full jitter.
//!
//! Full jitter spreads the reconnects of a whole fleet evenly over the interval,
//! so a collector that comes back is not met by all agents at once (Exponential
//! Backoff And Jitter, AWS Architecture Blog, 2015).

use std::time::Duration;

/// Longest wait before the second attempt.
pub const SHORTEST: Duration = Duration::from_millis(200);
/// Longest wait of all.
pub const LONGEST: Duration = Duration::from_secs(10);

/// Waits that double in range with each failed attempt.
#[derive(Debug, Clone)]
pub struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Starts with no failure; `seed` should differ between hosts.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { failures: 0, random: seed | 1 }
    }

    /// The next wait: anything from zero up to a bound that starts at [`SHORTEST`],
    /// doubles with each call and stays at [`LONGEST`].
    pub fn next_wait(&mut self) -> Duration {
        let bound = SHORTEST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // xorshift64*: good enough to spread a fleet, needs no crate.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let share =
            (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64;
        bound.mul_f64(share)
    }

    /// Goes to the slow end at once: the collector refused, and asking often will not help.
    pub const fn refuse(&mut self) {
        self.failures = 16;
    }

    /// Starts over: an attempt worked.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_within_a_growing_bound() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            for attempt in 0..20 {
                let bound = SHORTEST.saturating_mul(1 << attempt.min(10)).min(LONGEST);
                assert!(backoff.next_wait() <= bound, "seed {seed}, attempt {attempt}");
            }
        }
    }

    #[test]
    fn waits_use_the_whole_range() {
        let mut backoff = Backoff::new(42);
        backoff.refuse();
        let waits: Vec<_> = (0..1000).map(|_| backoff.next_wait()).collect();
        let below = waits.iter().filter(|wait| **wait < LONGEST / 2).count();
        assert!((400..600).contains(&below), "{below} of 1000 in the lower half");
        backoff.reset();
        assert!(backoff.next_wait() <= SHORTEST);
    }
}
