//! Records of /dev/kmsg (Documentation/ABI/testing/dev-kmsg). Pure.
//!
//! A record is a line `prefix,sequence,microseconds,flags;text`, followed by lines
//! that begin with a space and hold keys for programs. The kernel has escaped what
//! is no printable ASCII as `\x..`.

use std::time::Duration;

/// What user space writes to the log never has this facility: only the kernel does.
const KERNEL: u32 = 0;
/// Longest line that is put together from several reads.
const LINE_BYTES: usize = 16 << 10;

/// A line of the kernel's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// 0 (emergency) to 7 (debug).
    pub(super) level: u32,
    /// On the kernel's own clock, which stands still during suspend.
    pub(super) at: Duration,
    /// The text.
    pub(super) text: &'a str,
}

impl<'a> Record<'a> {
    /// `None` for anything else: lines of keys, of user space, or malformed.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with(' ') {
            return None;
        }
        let (head, text) = line.split_once(';')?;
        let mut fields = head.split(',');
        let prefix: u32 = fields.next()?.parse().ok()?;
        let _sequence: u64 = fields.next()?.parse().ok()?;
        let microseconds = fields.next()?.parse().ok()?;
        (prefix >> 3 == KERNEL).then_some(Self {
            level: prefix & 7,
            at: Duration::from_micros(microseconds),
            text,
        })
    }
}

/// Puts lines together from what was read, in whatever pieces.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Calls `each` with every line that is complete. Returns how many were too long.
    pub(super) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) -> u64 {
        let mut too_long = 0;
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.rest.len() + piece.len() > LINE_BYTES {
                self.rest.clear();
                too_long += 1;
                continue;
            }
            self.rest.extend_from_slice(piece);
            if let Some(line) = self.rest.strip_suffix(b"\n") {
                each(&String::from_utf8_lossy(line));
                self.rest.clear();
            }
        }
        too_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_own_lines_count() {
        let line = "2,421,3841039187,-;EXT4-fs error (device loop0): x; y";
        let record = Record::parse(line).unwrap();
        assert_eq!((record.level, record.text), (2, "EXT4-fs error (device loop0): x; y"));
        assert_eq!(record.at, Duration::from_micros(3_841_039_187));
        assert!(Record::parse("6,1,0,c,more;text").is_some(), "fields may be added");
        for other in [
            "11,422,3841041241,-;EXT4-fs error (device sda1): written by a program",
            " SUBSYSTEM=block",
            "",
            ";",
            "3",
            "3,1;x",
            "3,1,-5,-;x",
            "4294967296,1,1,-;x",
            "3,18446744073709551616,1,-;x",
        ] {
            assert_eq!(Record::parse(other), None, "{other:?}");
        }
        assert!(Record::parse("3,1,18446744073709551615,-;x").is_some(), "the largest stamp");
    }

    #[test]
    fn lines_in_pieces_are_put_together() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in [b"a\nb".as_slice(), b"", b"c\n\xff", b"\n", b"\n"] {
            lines.feed(piece, |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen, ["a", "bc", "\u{fffd}", ""]);
        let long = vec![b'x'; LINE_BYTES];
        assert_eq!(lines.feed(&long, |_| ()), 0);
        assert_eq!(lines.feed(b"y\n", |_| panic!("too long")), 1);
        assert_eq!(lines.feed(b"z\n", |line| assert_eq!(line, "z")), 0);
    }
}
