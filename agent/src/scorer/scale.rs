//! How a signal's values are compared: on which scale a change of them is as large as
//! another.

use crate::catalogue::{Kind, Measure, Signal};

/// What a value is turned into before it is scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// As it is: shares, and time by time.
    Linear,
    /// By its order of magnitude, sign kept, from `unit` on: latencies, sizes and numbers
    /// of things, of which ten more matter where there are ten and not where there are
    /// thousands.
    Logarithmic {
        /// Where the linear part ends.
        unit: f64,
    },
}

impl Scale {
    /// The scale of a signal.
    pub(super) const fn of(signal: &Signal) -> Self {
        match (signal.measure, signal.kind) {
            (Measure::Ratio, _) | (Measure::Nanoseconds, Kind::Counter) => Self::Linear,
            (Measure::Nanoseconds, _) => Self::Logarithmic { unit: 1_000.0 },
            (Measure::Bytes, _) => Self::Logarithmic { unit: 4_096.0 },
            (Measure::Count, _) => Self::Logarithmic { unit: 1.0 },
        }
    }

    pub(super) fn forth(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic { unit } => (value.abs() / unit).ln_1p().copysign(value),
        }
    }

    pub(super) fn back(self, scaled: f64) -> f64 {
        match self {
            Self::Linear => scaled,
            Self::Logarithmic { unit } => (unit * scaled.abs().exp_m1()).copysign(scaled),
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
        assert!(scale.forth(1e9) - scale.forth(1e8) < 2.4, "by orders of magnitude");
    }
}
