//! How a signal's values are compared: on which scale a change of them is as large as
//! another.

use crate::catalogue::{Kind, Measure, Signal};

/// What a value is turned into before it is scored: so that 1 is the least that matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// As it is: shares, and time by time.
    Linear {
        /// The least that matters.
        least: f64,
    },
    /// By its order of magnitude, sign kept, from `unit` on: latencies, sizes and numbers
    /// of things, of which ten more matter where there are ten and not where there are
    /// thousands.
    Logarithmic {
        /// Where the linear part ends.
        unit: f64,
        /// The least share that matters.
        least: f64,
    },
}

impl Scale {
    /// The scale of a signal.
    pub(super) const fn of(signal: &Signal) -> Self {
        match (signal.measure, signal.kind) {
            (Measure::Ratio, _) => Self::Linear { least: 0.005 },
            // Half a percent of the time.
            (Measure::Nanoseconds, Kind::Counter) => Self::Linear { least: 5e6 },
            (Measure::Nanoseconds, _) => Self::Logarithmic { unit: 1_000.0, least: 0.1 },
            (Measure::Bytes, Kind::Counter) => Self::Logarithmic { unit: 65_536.0, least: 0.1 },
            (Measure::Bytes, _) => Self::Logarithmic { unit: 1_048_576.0, least: 0.1 },
            // One error where there never was one is something.
            (Measure::Count, Kind::Counter) => Self::Logarithmic { unit: 1.0, least: 0.02 },
            (Measure::Count, _) => Self::Logarithmic { unit: 1.0, least: 0.1 },
        }
    }

    pub(super) fn forth(self, value: f64) -> f64 {
        match self {
            Self::Linear { least } => value / least,
            Self::Logarithmic { unit, least } => {
                (value.abs() / unit).ln_1p().copysign(value) / least
            }
        }
    }

    pub(super) fn back(self, scaled: f64) -> f64 {
        match self {
            Self::Linear { least } => scaled * least,
            Self::Logarithmic { unit, least } => {
                (unit * (scaled * least).abs().exp_m1()).copysign(scaled)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{HOST_MEMORY_GROWTH, HOST_RUN_QUEUE, UNIT_ON_CPU};

    #[test]
    fn there_and_back() {
        for id in [HOST_RUN_QUEUE, HOST_MEMORY_GROWTH, UNIT_ON_CPU] {
            let scale = Scale::of(id.signal());
            for value in [0.0, 1.0, -5e6, 3e9] {
                let again = scale.back(scale.forth(value));
                assert!((again - value).abs() <= 1e-9 * value.abs(), "{value} {again}");
            }
            assert!(scale.forth(f64::NAN).is_nan());
        }
        let scale = Scale::of(HOST_RUN_QUEUE.signal());
        assert!(scale.forth(1e9) - scale.forth(1e8) < 24.0, "by orders of magnitude");
        let slower = scale.forth(1.1e9) - scale.forth(1e9);
        assert!((0.9..1.1).contains(&slower), "a tenth is the least that matters: {slower}");
    }
}
