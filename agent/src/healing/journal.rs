//! The healer's journal as a file: `healing.journal` in the state directory, and the one
//! before it, `healing.journal.1`.
//!
//! Whatever was told is in the file before anything is done about it; what is decided is on
//! the disk. What cannot be written is taken back, so that the file never holds half a line,
//! and nothing is done until it can be written again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use holdfast_core::clock::BootTime;
use holdfast_healer::journal::{self, Damage, Entry};
use holdfast_healer::{Decision, Fact, Kept};

/// A journal of this size goes on in a new file.
const FULL_BYTES: u64 = 4 << 20;
/// Never read beyond this.
const LONGEST_BYTES: u64 = 4 * FULL_BYTES;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is in it is not what was written.
    #[error(
        "{}: {damage}. Nobody knows what was done before, so nothing is done. To begin anew: \
         move the file away and restart the agent",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        damage: Damage,
    },
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Length up to the last whole line.
    bytes: u64,
    /// The last attempt to write failed.
    failed: bool,
}

impl Journal {
    /// Opens the journal in `dir`, and what is in it.
    ///
    /// # Errors
    ///
    /// See [`Error`]. A last line without an end is cut off.
    pub(super) fn open(dir: &Path) -> Result<(Self, Vec<Entry>), Error> {
        let path = dir.join("healing.journal");
        let failed = |source| Error::File { path: path.clone(), source };
        let mut file = open(&path).map_err(failed)?;
        let mut bytes = Vec::new();
        (&mut file).take(LONGEST_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        let (entries, whole) = journal::read(&bytes)
            .map_err(|damage| Error::Damaged { path: path.clone(), damage })?;
        file.set_len(whole as u64).map_err(failed)?;
        Ok((Self { path, file, bytes: whole as u64, failed: false }, entries))
    }

    /// Whether it is time for a new file.
    #[must_use]
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES
    }

    /// Whether what was told last is not in it.
    #[must_use]
    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Begins, or goes on after a gap; in a new file when this one is full.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(super) fn start(
        &mut self,
        now: BootTime,
        boot: &str,
        resumed: bool,
        kept: Kept,
    ) -> io::Result<()> {
        if self.is_full() {
            fs::rename(&self.path, self.path.with_extension("journal.1"))?;
            self.file = open(&self.path)?;
            self.bytes = 0;
        }
        let (boot, version) = (boot.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        self.failed = false;
        self.append(&[Entry::Start { at: now, boot, version, resumed, kept }]);
        self.sync();
        if self.failed { Err(io::Error::other("it cannot be written")) } else { Ok(()) }
    }

    /// Takes in what was told.
    pub(super) fn fact(&mut self, now: BootTime, fact: &Fact) {
        self.append(&[Entry::Fact { at: now, fact: fact.clone() }]);
    }

    /// Takes in that it was asked what to do, and what was decided.
    pub(super) fn asked(&mut self, now: BootTime, unix_ms: u64, decisions: &[Decision]) {
        let decided = entries(now, unix_ms, decisions);
        self.append(&[Entry::Asked { at: now }].into_iter().chain(decided).collect::<Vec<_>>());
    }

    /// Takes in what was decided.
    pub(super) fn decided(&mut self, now: BootTime, unix_ms: u64, decisions: &[Decision]) {
        self.append(&entries(now, unix_ms, decisions).collect::<Vec<_>>());
    }

    /// In one piece: a question without its answer would say less than nothing.
    fn append(&mut self, entries: &[Entry]) {
        if self.failed || entries.is_empty() {
            return;
        }
        let lines: Vec<u8> = entries.iter().flat_map(Entry::to_line).collect();
        match self.file.write_all(&lines) {
            Ok(()) => self.bytes += lines.len() as u64,
            Err(error) => self.fail(&error),
        }
    }

    /// Sees to it that all of it is on the disk.
    pub(super) fn sync(&mut self) {
        if !self.failed
            && let Err(error) = self.file.sync_data()
        {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::warn!(%error, path = %self.path.display(), "the journal of repairs cannot be written");
        self.failed = true;
        // Where even that fails it is a last line without an end.
        let _ = self.file.set_len(self.bytes);
    }

    /// Everything in this file and the one before it, the oldest first. What is damaged is
    /// left out.
    #[must_use]
    pub(super) fn read_all(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for path in [self.path.with_extension("journal.1"), self.path.clone()] {
            let Ok(file) = File::open(path) else { continue };
            let mut bytes = Vec::new();
            if file.take(LONGEST_BYTES).read_to_end(&mut bytes).is_ok() {
                entries.extend(journal::read(&bytes).map(|(all, _)| all).unwrap_or_default());
            }
        }
        entries
    }
}

fn entries(at: BootTime, unix_ms: u64, decisions: &[Decision]) -> impl Iterator<Item = Entry> + '_ {
    decisions.iter().map(move |decision| Entry::Decided { at, unix_ms, decision: decision.clone() })
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn what_was_written_is_there_and_a_torn_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, entries) = Journal::open(dir.path()).unwrap();
        assert!(entries.is_empty());
        journal.start(at(1), "boot", false, Kept::default()).unwrap();
        journal.fact(at(2), &Fact::Packages { busy: true });
        journal.asked(at(2), 0, &[]);
        drop(journal);
        let path = dir.path().join("healing.journal");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"01234567 {\"entry\"").unwrap();
        let (mut journal, entries) = Journal::open(dir.path()).unwrap();
        assert_eq!(entries.len(), 3);
        journal.asked(at(3), 0, &[]);
        assert_eq!(journal.read_all().len(), 4);
    }

    #[test]
    fn damage_is_told_with_a_way_out_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("healing.journal");
        fs::write(&path, "garbage\nmore\n").unwrap();
        let error = Journal::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("move the file away"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "garbage\nmore\n");
    }

    #[test]
    fn a_full_one_goes_on_in_a_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.start(at(1), "boot", false, Kept::default()).unwrap();
        while !journal.is_full() {
            journal.fact(at(2), &Fact::Gone { unit: "a.service".into() });
        }
        journal.start(at(3), "boot", true, Kept::default()).unwrap();
        assert!(!journal.is_full());
        assert!(dir.path().join("healing.journal.1").exists());
        let (_, entries) = Journal::open(dir.path()).unwrap();
        assert_eq!(entries.len(), 1);
        assert!(journal.read_all().len() > 1_000);
    }
}
