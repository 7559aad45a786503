//! Small text files of the kernel that are read again and again.
//!
//! A [`Source`] stays open and is read from its beginning each time, which makes
//! the kernel write it anew; that saves the path walk of an open. The
//! [`Buffer`] is shared by many sources and keeps its memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longest file that is read. The longest the probes know is /proc/stat of a
/// host with thousands of interrupts.
const FILE_BYTES: usize = 1 << 20;
const FIRST_BYTES: usize = 8 << 10;

/// Memory that files are read into.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
}

/// A file to be read repeatedly.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: Option<File>,
}

impl Source {
    /// The file at `path`; it is opened by the first read.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's present content. Names that others gave (of interfaces, of mount
    /// points) may be no UTF-8; then each such byte reads as `?`.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or read, or is longer than 1 MiB. The next read opens
    /// it again.
    pub fn read<'b>(&mut self, buffer: &'b mut Buffer) -> io::Result<&'b str> {
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed.insert(File::open(&self.path)?),
        };
        match fill(file, &mut buffer.bytes) {
            Ok(length) => Ok(utf8(buffer.bytes.get_mut(..length).unwrap_or_default())),
            Err(error) => {
                self.file = None;
                Err(error)
            }
        }
    }
}

/// `bytes` as text, with `?` for what is no UTF-8.
fn utf8(bytes: &mut [u8]) -> &str {
    // Each turn mends one byte or more, so this ends.
    while let Err(error) = std::str::from_utf8(bytes) {
        let bad = error.valid_up_to();
        let length = error.error_len().unwrap_or(bytes.len() - bad);
        bytes.get_mut(bad..bad + length).unwrap_or_default().fill(b'?');
    }
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// Reads until the end: a short read does not mean the end in /proc.
fn fill(file: &File, bytes: &mut Vec<u8>) -> io::Result<usize> {
    if bytes.is_empty() {
        bytes.resize(FIRST_BYTES, 0);
    }
    let mut length = 0;
    loop {
        if length == bytes.len() {
            if length >= FILE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "file longer than 1 MiB"));
            }
            bytes.resize(length * 2, 0);
        }
        let free = bytes.get_mut(length..).unwrap_or_default();
        match file.read_at(free, length as u64) {
            Ok(0) => return Ok(length),
            Ok(n) => length += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A number as /proc prints it; `NaN` when there is none, it is negative or
/// beyond 64 bits.
#[must_use]
pub fn number(field: Option<&str>) -> f64 {
    field.and_then(|text| text.parse::<u64>().ok()).map_or(f64::NAN, |n| n as f64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn content_is_read_anew_and_may_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let (mut source, mut buffer) = (Source::new(path.clone()), Buffer::default());
        assert_eq!(source.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "one").unwrap();
        assert_eq!(source.read(&mut buffer).unwrap(), "one");
        let long = "x".repeat(3 * FIRST_BYTES);
        fs::write(&path, &long).unwrap();
        assert_eq!(source.read(&mut buffer).unwrap(), long);
        fs::write(&path, "").unwrap();
        assert_eq!(source.read(&mut buffer).unwrap(), "");
    }

    #[test]
    fn odd_bytes_are_replaced_and_absurd_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut buffer = Buffer::default();
        fs::write(&path, b"\xc3\xa4\xff\xfe\xc3z").unwrap();
        assert_eq!(Source::new(path.clone()).read(&mut buffer).unwrap(), "ä???z");
        fs::write(&path, vec![b'1'; FILE_BYTES + 1]).unwrap();
        assert!(Source::new(path).read(&mut buffer).is_err());
    }

    #[test]
    fn odd_numbers_are_nan() {
        assert_eq!(number(Some("18446744073709551615")), u64::MAX as f64);
        for odd in
            [None, Some(""), Some("-1"), Some("18446744073709551616"), Some("1.5"), Some("x")]
        {
            assert!(number(odd).is_nan(), "{odd:?}");
        }
    }
}
