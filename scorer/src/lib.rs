//! How unusual is what a host does? Pure and streaming: samples go in one at a time,
//! scores come out, and nothing here knows a clock, a file or a thread.
//!
//! Two scorers share their parts. [`Series`](series::Series) watches one metric and is
//! made for onsets: one loud score at the beginning of each episode. [`Group`](group::Group)
//! watches the metrics of a host or unit together. What each of them sees is turned into
//! *decades* by its own past ([`tail`]): 3 decades is as loud as one sample in a thousand.
//!
//! All scores are in `0..1`, and the same [`THRESHOLD`] is meant for all of them.

#![forbid(unsafe_code)]

pub mod baseline;
pub mod episode;
pub mod forest;
mod gap;
pub mod group;
pub mod keep;
mod lasting;
pub mod peaks;
pub mod rate;
pub mod season;
pub mod series;
pub mod subspace;
pub mod tail;
mod week;

/// From this score on, something is reported.
///
/// Chosen on the tuning part of the benchmarks' data; `docs/measurements.md` says what
/// it leads to on each corpus.
pub const THRESHOLD: f64 = 0.575;

/// A score in `0..1` from a loudness of which 1 is ordinary and
/// [`ALARM`] is [`THRESHOLD`].
fn squash(loudness: f64) -> f64 {
    // In this order, so that infinity is 1 and not a NaN; a NaN is no news.
    let score = 1.0 - 1.0 / (1.0 + loudness.max(0.0) / ALARM * ODDS);
    if score.is_finite() { score.min(TOP) } else { 0.0 }
}

/// Loudness at which [`THRESHOLD`] is reached.
const ALARM: f64 = 1.0;
/// The threshold as odds.
const ODDS: f64 = THRESHOLD / (1.0 - THRESHOLD);
/// No score is higher: the largest number below 1.
const TOP: f64 = 1.0 - f64::EPSILON;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_bounded_and_the_threshold_is_met() {
        assert!((squash(ALARM) - THRESHOLD).abs() < 1e-12);
        assert_eq!((squash(0.0), squash(-1.0), squash(f64::NAN)), (0.0, 0.0, 0.0));
        assert_eq!(squash(f64::INFINITY), TOP);
        assert!(squash(1e300) < 1.0 && squash(2.0) > squash(1.0));
    }
}
