//! Is something read no more that was always read?
//!
//! That values are missing says nothing about them, and never makes a score. But what came
//! with every row for long, and then comes no more, is worth a word of its own.

use crate::keep::keep;

/// Rows in a line after which a metric is expected with every row.
const REGULAR: u16 = 200;
/// Rows without it that are a gap, and not a hiccup.
const SURE: u16 = 3;
/// A gap is none that is not so many times as long as the longest before it.
const LONGER: u16 = 4;

/// Which rows a metric was read in.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Gap {
    /// Rows in a line that it was read in, up to the gap under way.
    line: u16,
    /// Rows of the gap under way.
    absent: u16,
    /// The longest gap of before.
    longest: u16,
}

keep!(Gap { line, absent, longest });

impl Gap {
    /// Takes in whether it was read. What has been missing for `most` rows is expected no
    /// more.
    pub(crate) fn push(&mut self, read: bool, most: u16) {
        if !read {
            self.absent = self.absent.saturating_add(1);
            if self.absent >= most {
                self.line = 0;
            }
            return;
        }
        if self.absent > 0 {
            *self = Self { line: 0, absent: 0, longest: self.longest.max(self.absent) };
        }
        self.line = self.line.saturating_add(1);
    }

    /// It is expected, and has not been there for longer than ever before.
    pub(crate) const fn is_missing(self) -> bool {
        self.line >= REGULAR
            && self.absent >= SURE
            && self.absent > self.longest.saturating_mul(LONGER)
    }

    /// Expects nothing before it has come for long again: there is a reason why it may not.
    pub(crate) const fn excuse(&mut self) {
        self.line = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rows: impl IntoIterator<Item = bool>) -> Vec<usize> {
        let mut gap = Gap::default();
        let mut missing = |read| {
            gap.push(read, 500);
            gap.is_missing()
        };
        let rows = rows.into_iter().enumerate();
        rows.filter_map(|(n, read)| missing(read).then_some(n)).collect()
    }

    fn rows(lengths: &[(bool, usize)]) -> impl Iterator<Item = bool> {
        lengths.iter().flat_map(|(read, length)| std::iter::repeat_n(*read, *length))
    }

    #[test]
    fn what_always_came_is_missed_until_it_comes_or_is_forgotten() {
        assert_eq!(run(rows(&[(true, 300), (false, 5), (true, 9)])), [302, 303, 304]);
        let long = run(rows(&[(true, 300), (false, 2_000)]));
        assert_eq!((long.first(), long.last()), (Some(&302), Some(&798)));
    }

    #[test]
    fn what_comes_now_and_then_is_not_missed() {
        assert_eq!(run((0..5_000).map(|n| n % 100 < 90)), []);
        assert_eq!(run(rows(&[(true, 199), (false, 900)])), []);
        // As long as the one before, or not much longer.
        let again = rows(&[(true, 300), (false, 9), (true, 300), (false, 36)]);
        assert_eq!(run(again).len(), 7, "only the first one");
    }
}
