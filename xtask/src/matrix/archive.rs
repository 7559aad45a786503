//! The first file system of a virtual machine: an archive of the form that the kernel
//! unpacks at boot (cpio, "newc").

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const ALIGNMENT: usize = 4;

/// Files for a virtual machine.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// An empty folder.
    pub(crate) fn folder(&mut self, path: &str) {
        if path.is_empty() || self.folders.contains(path) {
            return;
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER, &[]);
    }

    /// A file, and the folders it is in.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) {
        self.put(path, FILE, bytes);
    }

    /// A program with these bytes.
    pub(crate) fn script(&mut self, path: &str, text: &str) {
        self.put(path, PROGRAM, text.as_bytes());
    }

    /// A copy of a program of this machine, with the libraries it is linked to.
    pub(crate) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        let read = |from: &Path| {
            fs::read(from).with_context(|| format!("{} cannot be read", from.display()))
        };
        self.put(path, PROGRAM, &read(from)?);
        // Static programs have no list.
        let Ok(list) = shell::output(Command::new("ldd").arg(from)) else { return Ok(()) };
        for library in list.split_whitespace().filter(|word| word.starts_with('/')) {
            let place = library.trim_start_matches('/');
            self.put(place, PROGRAM, &read(Path::new(library))?);
        }
        Ok(())
    }

    /// Writes the archive.
    pub(crate) fn write(mut self, to: &Path) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[]);
        fs::write(to, &self.bytes).with_context(|| format!("cannot write {}", to.display()))
    }

    fn put(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
        self.entry(path, mode, bytes);
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.entries += 1;
        let links = if mode == FOLDER { 2 } else { 1 };
        let (length, name) = (bytes.len() as u32, path.len() as u32 + 1);
        let fields = [self.entries, mode, 0, 0, links, 0, length, 0, 0, 0, 0, name, 0]
            .map(|n| format!("{n:08X}"));
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend(fields.concat().bytes());
        self.bytes.extend(path.bytes().chain([0]));
        self.align();
        self.bytes.extend_from_slice(bytes);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_its_folders_first_and_ends() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"hello");
        archive.file("a/b/d", b"");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        archive.write(&path).unwrap();
        let bytes = fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let at = |what: &str| text.find(what).unwrap();
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0"));
        assert_eq!(text.matches("070701").count(), 5);
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        // Name at 110 bytes from the start of an entry, contents aligned behind it.
        let entry = at("a/b/c\0") - 110;
        assert_eq!(&bytes[entry + 54..entry + 62], b"00000005");
        assert_eq!(&bytes[entry + 116..entry + 121], b"hello");
    }
}
