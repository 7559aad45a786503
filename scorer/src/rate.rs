//! How fast a running mean forgets.

/// Share of a running mean that each new sample replaces.
///
/// A mean with half-life `h` samples gives each sample `1 - 2^(-1/h)`; until it has
/// seen that many, all samples count alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(f64);

impl Rate {
    /// For a half-life in samples, which is at least one.
    #[must_use]
    pub fn of_half_life(samples: f64) -> Self {
        // `exp_m1` keeps the digits that `1 - 2^(-1/h)` loses for long half-lives.
        Self(-(-std::f64::consts::LN_2 / samples.max(1.0)).exp_m1())
    }

    /// The share of the sample after `seen` others.
    #[must_use]
    pub fn after(self, seen: u64) -> f64 {
        self.0.max(1.0 / (seen as f64 + 1.0))
    }

    /// The share once the mean has seen enough.
    #[must_use]
    pub fn settled(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_left_after_the_half_life() {
        let rate = Rate::of_half_life(100.0);
        let left = (1.0 - rate.settled()).powi(100);
        assert!((left - 0.5).abs() < 1e-9, "{left}");
        assert_eq!((rate.after(0), rate.after(1)), (1.0, 0.5));
        assert_eq!(rate.after(1_000_000), rate.settled());
        assert!(Rate::of_half_life(f64::NAN).settled() <= 1.0);
    }
}
