//! Counters by a word of the kernel's: a reason, an error number.
//!
//! There are more words than are ever met, so a word gets its row in the frame with
//! its first count, and keeps it. Signals share the rows of words they have in common.

use crate::catalogue::{Owner, SignalId};
use crate::frame::Frame;
use crate::units::OTHER;

/// The counters of one signal.
pub(super) struct Labels {
    signal: SignalId,
    /// Row of each word that was met.
    rows: Vec<Option<usize>>,
}

impl Labels {
    /// For as many words as `names`.
    pub(super) fn new(signal: SignalId, names: &[Option<Box<str>>]) -> Self {
        Self { signal, rows: vec![None; names.len()] }
    }

    /// Writes what each word counts. What has no name or finds no row goes to row 0.
    pub(super) fn put(
        &mut self,
        frame: &mut Frame,
        names: &[Option<Box<str>>],
        counts: impl Iterator<Item = u64>,
    ) {
        let mut other = 0u64;
        for ((mine, name), count) in self.rows.iter_mut().zip(names).zip(counts) {
            if count == 0 {
                continue;
            }
            let told = match *mine {
                Some(row) => Some((row, count)),
                // A row that is new begins at zero. One that other signals have already
                // does not, so it gets a zero first and the count a tick later.
                None => name.as_deref().and_then(|name| match find(frame, name) {
                    Some(row) => Some((row, 0)),
                    None => Some((take(frame, name)?, count)),
                }),
            };
            match told {
                Some((row, count)) => {
                    *mine = Some(row);
                    frame.set(self.signal, row, count as f64);
                }
                None => other = other.wrapping_add(count),
            }
        }
        if !self.rows.is_empty() {
            frame.set(self.signal, 0, other as f64);
        }
    }
}

fn find(frame: &Frame, name: &str) -> Option<usize> {
    let rows = frame.rows(Owner::Label);
    rows.iter().skip(1).position(|row| row.live && *row.name == *name).map(|n| n + 1)
}

/// A row that nobody has had.
fn take(frame: &mut Frame, name: &str) -> Option<usize> {
    if name == OTHER {
        return None;
    }
    let free = frame.rows(Owner::Label).iter().skip(1).position(|row| !row.live)? + 1;
    frame.assign(Owner::Label, free, name.into());
    Some(free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{LABEL_CONNECT_FAILED, LABEL_DROPS, LABEL_RESETS_SENT};
    use crate::frame::{LABEL_ROWS, Shape};

    fn frame() -> Frame {
        Frame::new(Shape { units: 1, devices: 1, interfaces: 1 })
    }

    fn names(words: &[&str]) -> Vec<Option<Box<str>>> {
        words.iter().map(|word| (!word.is_empty()).then(|| (*word).into())).collect()
    }

    #[test]
    fn words_get_rows_as_they_are_met() {
        let (mut frame, words) = (frame(), names(&["", "NO_SOCKET", "CSUM"]));
        let mut drops = Labels::new(LABEL_DROPS, &words);
        drops.put(&mut frame, &words, [0, 0, 7].into_iter());
        assert_eq!(&*frame.rows(Owner::Label)[1].name, "CSUM");
        assert_eq!((frame.get(LABEL_DROPS, 1), frame.get(LABEL_DROPS, 0)), (7.0, 0.0));
        drops.put(&mut frame, &words, [3, 2, 8].into_iter());
        let all: Vec<f64> = (0..3).map(|row| frame.get(LABEL_DROPS, row)).collect();
        assert_eq!(all, [3.0, 8.0, 2.0]);
        assert!(!frame.rows(Owner::Label)[3].live && frame.get(LABEL_DROPS, 3).is_nan());
    }

    #[test]
    fn a_shared_word_begins_with_a_zero() {
        let (mut frame, words) = (frame(), names(&["NO_SOCKET"]));
        Labels::new(LABEL_DROPS, &words).put(&mut frame, &words, [1].into_iter());
        let mut resets = Labels::new(LABEL_RESETS_SENT, &words);
        resets.put(&mut frame, &words, [5].into_iter());
        assert_eq!(frame.get(LABEL_RESETS_SENT, 1), 0.0);
        resets.put(&mut frame, &words, [6].into_iter());
        assert_eq!((frame.get(LABEL_RESETS_SENT, 1), frame.get(LABEL_DROPS, 1)), (6.0, 1.0));
    }

    #[test]
    fn more_words_than_rows_are_told_together() {
        let words: Vec<_> = (0..LABEL_ROWS + 9).map(|n| Some(format!("E{n}").into())).collect();
        let mut frame = frame();
        let counts = words.iter().map(|_| 1);
        Labels::new(LABEL_CONNECT_FAILED, &words).put(&mut frame, &words, counts);
        assert_eq!(frame.get(LABEL_CONNECT_FAILED, 0), 10.0);
        assert_eq!(frame.get(LABEL_CONNECT_FAILED, LABEL_ROWS - 1), 1.0);
    }

    #[test]
    fn without_names_there_is_nothing_to_tell() {
        let mut frame = frame();
        Labels::new(LABEL_DROPS, &[]).put(&mut frame, &[], [9].into_iter());
        assert!(frame.get(LABEL_DROPS, 0).is_nan());
    }
}
