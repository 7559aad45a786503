//! How often is it as loud as this, for as long as this?
//!
//! One row alone is no fault. What counts is the least loud of the last few rows, for the
//! present as for the past: of two, for what is loud at once; and of five and twelve,
//! because what only now and then is loud for a row hardly ever is for twelve of them, so
//! that what lasts need not be as loud to be as rare.

use crate::keep::keep;
use crate::peaks::{Peaks, WEEK_SECONDS};
use crate::tail::{SURPRISE, Shape, Tail};

/// Rows that it has to last.
const ROWS: [usize; 3] = [2, 5, 12];
const MOST: usize = ROWS[ROWS.len() - 1];
/// Each span is a chance to be wrong, but they are much the same: on simulated hosts three of
/// them are wrong so many times as often as one.
const CHANCES: f64 = 1.7;
/// Rows of an event that teach no more than its first.
const REST: u16 = 60;

/// How loud a group was lately, and used to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lasting {
    /// How loud the last rows were, oldest first.
    recent: [f32; MOST],
    spans: [Span; ROWS.len()],
}

/// The least loud rows of spans of one length.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    /// Of each row.
    tail: Tail,
    /// Of the loudest moment of each hour.
    peaks: Peaks,
}

keep!(Lasting { recent, spans });
keep!(Span { tail, peaks });

impl Lasting {
    /// For rows that come every so many seconds.
    pub(crate) fn new(interval_seconds: f64) -> Self {
        let span = || Span { tail: Tail::new(), peaks: Peaks::new(interval_seconds) };
        Self { recent: [0.0; MOST], spans: std::array::from_fn(|_| span()) }
    }

    /// Takes in a row; how many times a week it is loud for as long: from the loudest moments
    /// of past hours where enough of them are known, else from all rows, which is more
    /// cautious. Infinite while learning.
    pub(crate) fn push(&mut self, loudness: f64, shape: &Shape, interval_seconds: f64) -> f64 {
        let shape = Shape { surprise: SURPRISE, rest: REST, ..*shape };
        self.recent.rotate_left(1);
        if let Some(newest) = self.recent.last_mut() {
            *newest = loudness as f32;
        }
        let mut rarest = f64::INFINITY;
        for (span, rows) in self.spans.iter_mut().zip(ROWS) {
            let last = self.recent.iter().rev().take(rows);
            let least = last.copied().fold(f32::INFINITY, f32::min);
            rarest = rarest.min(span.push(least, &shape, interval_seconds));
        }
        rarest * CHANCES
    }
}

impl Span {
    fn push(&mut self, least: f32, shape: &Shape, interval_seconds: f64) -> f64 {
        let rows_per_week = WEEK_SECONDS / interval_seconds;
        let rarity = self.tail.rarity(least, shape);
        self.tail.push(least, shape);
        let per_week = rarity.map_or(f64::INFINITY, |decades| {
            let of_hours = self.peaks.hours_a_week(f64::from(least), interval_seconds);
            of_hours.unwrap_or_else(|| rows_per_week * 10_f64.powf(-f64::from(decades)))
        });
        self.peaks.push(f64::from(least));
        per_week
    }
}
