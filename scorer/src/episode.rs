//! From scores to episodes: when something begins, how bad it gets, when it is over.
//!
//! An episode begins when a group is as loud as it should be no more than so many times a
//! week. It goes on at a lower bar, so that something that wavers is one episode and not
//! ten, and ends when it has been quiet for a while, or when it has lasted so long that it
//! is what is usual now.

use crate::keep::keep;

/// An episode goes on while it is as loud as this many times what begins one.
const HOLD: f64 = 10.0;
const QUIET_SECONDS: f64 = 300.0;
/// What lasts this long is no episode any more.
const LONGEST_SECONDS: f64 = 86_400.0;

/// How bad an episode got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Rare enough to be told, and no more.
    Minor,
    /// Ten times as rare.
    Major,
    /// A thousand times as rare.
    Severe,
}

impl Severity {
    /// Of something that comes `per_week` times a week where `level` times is told.
    #[must_use]
    pub fn of(per_week: f64, level: f64) -> Self {
        match level / per_week.max(f64::MIN_POSITIVE) {
            ratio if ratio >= 1e3 => Self::Severe,
            ratio if ratio >= 10.0 => Self::Major,
            _ => Self::Minor,
        }
    }
}

/// What a row changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Turn {
    /// Nothing is wrong, or still the same.
    Same,
    /// An episode begins.
    Begins,
    /// The episode under way is worse than ever before, by one severity.
    Worsens,
    /// It is over: it has been quiet for long enough.
    Ends,
    /// It has lasted so long that it is usual now.
    BecomesUsual,
}

/// Follows the episodes of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Episodes {
    quiet_rows: u32,
    longest_rows: u32,
    open: Option<Open>,
    /// It became usual; nothing begins before it was quiet once.
    tired: bool,
}

/// An episode under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Open {
    /// Rows since it began.
    pub rows: u32,
    /// The least often that its loudest row comes, in times a week.
    pub rarest: f64,
    /// What it took for it to begin.
    pub level: f64,
    quiet: u32,
}

impl Open {
    /// How bad it got.
    #[must_use]
    pub fn severity(&self) -> Severity {
        Severity::of(self.rarest, self.level)
    }
}

keep!(Open { rows, rarest, level, quiet });
keep!(Episodes { quiet_rows, longest_rows, open, tired });

impl Episodes {
    /// For rows that come every so many seconds.
    #[must_use]
    pub fn new(interval_seconds: f64) -> Self {
        let rows = |seconds: f64| (seconds / interval_seconds.max(1e-3)).ceil().max(1.0) as u32;
        Self {
            quiet_rows: rows(QUIET_SECONDS),
            longest_rows: rows(LONGEST_SECONDS),
            open: None,
            tired: false,
        }
    }

    /// Takes in that the group is as loud as `per_week` times a week, where `level` times a
    /// week begins an episode.
    pub fn push(&mut self, per_week: f64, level: f64) -> Turn {
        let per_week = if per_week.is_nan() { f64::INFINITY } else { per_week };
        let Some(open) = &mut self.open else {
            if self.tired {
                self.tired = per_week <= level * HOLD;
                return Turn::Same;
            }
            if per_week > level {
                return Turn::Same;
            }
            self.open = Some(Open { rows: 0, rarest: per_week, level, quiet: 0 });
            return Turn::Begins;
        };
        open.rows = open.rows.saturating_add(1);
        let before = open.severity();
        open.rarest = open.rarest.min(per_week);
        open.quiet = if per_week <= open.level * HOLD { 0 } else { open.quiet + 1 };
        let worse = open.severity() > before;
        if open.quiet >= self.quiet_rows {
            self.open = None;
            return Turn::Ends;
        }
        if open.rows >= self.longest_rows {
            (self.open, self.tired) = (None, true);
            return Turn::BecomesUsual;
        }
        if worse { Turn::Worsens } else { Turn::Same }
    }

    /// The episode under way.
    #[must_use]
    pub fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// Ends the episode under way, because somebody knows better.
    pub fn dismiss(&mut self) {
        self.tired |= self.open.take().is_some();
    }
}

/// How often a week an alarm of each of many groups may be false, so that those of all
/// together keep a promise.
///
/// After LOND (Javanmard and Montanari, arXiv:1502.06197): each test gets an equal share
/// of the promise, times one more than there were discoveries. While something is going
/// on, more is looked at closely; the share of false ones among all stays what it was.
#[must_use]
pub fn level(promised_per_week: f64, groups: usize, discoveries: usize) -> f64 {
    promised_per_week.max(0.0) / groups.max(1) as f64 * (discoveries as f64 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rows: impl IntoIterator<Item = f64>) -> Vec<(usize, Turn)> {
        let mut episodes = Episodes::new(10.0);
        let turns = rows.into_iter().enumerate().map(|(n, rate)| (n, episodes.push(rate, 1.0)));
        turns.filter(|(_, turn)| *turn != Turn::Same).collect()
    }

    #[test]
    fn what_is_rare_enough_begins_one_and_what_is_not_does_not() {
        assert_eq!(run([1e3, 1.1, 1e3, 2.0]), []);
        assert_eq!(run([1e3, 0.9, 0.5]), [(1, Turn::Begins)]);
        assert_eq!(run([f64::INFINITY, f64::NAN, f64::INFINITY]), []);
    }

    #[test]
    fn what_wavers_is_one_episode_that_ends_once_it_is_quiet() {
        let wavering = (0..200).map(|n| if n % 5 == 0 { 0.5 } else { 9.0 });
        let rows = [0.5, 0.5].into_iter().chain(wavering).chain(std::iter::repeat_n(1e4, 40));
        assert_eq!(run(rows), [(0, Turn::Begins), (231, Turn::Ends)]);
    }

    #[test]
    fn it_gets_worse_by_steps() {
        let rows = [0.5, 0.5, 0.2, 0.05, 0.04, 1e-4, 1e-9];
        assert_eq!(run(rows), [(0, Turn::Begins), (3, Turn::Worsens), (5, Turn::Worsens)]);
        assert!(
            Severity::of(0.0, 1.0) == Severity::Severe && Severity::of(1.0, 1.0) == Severity::Minor
        );
    }

    #[test]
    fn what_lasts_for_a_day_is_usual_until_it_was_quiet() {
        let long = std::iter::repeat_n(0.5, 20_000);
        let turns = run(long.chain([1e4, 0.5, 0.5]));
        let kinds: Vec<_> = turns.iter().map(|(_, turn)| *turn).collect();
        assert_eq!(kinds, [Turn::Begins, Turn::BecomesUsual, Turn::Begins]);
    }

    #[test]
    fn a_promise_is_shared_and_discoveries_earn_more() {
        assert!((level(1.0, 4, 0) - 0.25).abs() < 1e-12);
        assert!((level(1.0, 4, 3) - 1.0).abs() < 1e-12);
        assert_eq!(level(f64::NAN, 0, 0), 0.0);
    }

    #[test]
    fn a_dismissed_one_does_not_come_back_by_itself() {
        let mut episodes = Episodes::new(10.0);
        assert_eq!((episodes.push(1e-9, 1.0), episodes.open().is_some()), (Turn::Begins, true));
        episodes.dismiss();
        assert_eq!(episodes.push(1e-9, 1.0), Turn::Same);
        assert_eq!((episodes.push(1e9, 1.0), episodes.push(1e-9, 1.0)), (Turn::Same, Turn::Begins));
    }
}
