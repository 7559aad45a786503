//! Reads what tracefs says about the records of classic tracepoints: where a field
//! lies in its record.
//!
//! Written for whatever a kernel, or a file that poses as one, may hold: bounded, and
//! a line that makes no sense is no field.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::host::Root;

/// Longest format file that is read; the longest of a kernel is about 8 KiB.
const FILE_BYTES: u64 = 256 << 10;
/// Most fields of one record.
pub(super) const FIELDS: usize = 256;

/// Where tracefs may be mounted, from the root.
const FOLDERS: [&str; 2] = ["sys/kernel/tracing", "sys/kernel/debug/tracing"];

/// How a field holds its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// The value itself.
    Value,
    /// Where the value is, from the start of the record (`__data_loc`).
    Place,
    /// Where the value is, from the end of the field (`__rel_loc`).
    RelativePlace,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// Its name.
    pub(super) name: String,
    /// Offset from the start of the record, in bytes.
    pub(super) offset: u32,
    /// Size, in bytes; of an array, of all its elements.
    pub(super) bytes: u32,
    /// How it holds its value.
    pub(super) holds: Holds,
}

/// Finds the running kernel's events.
#[derive(Debug)]
pub(super) struct Tracefs {
    events: PathBuf,
}

impl Tracefs {
    /// The tracefs of the host below `root`.
    pub(super) fn new(root: &Root) -> Self {
        let mounted = FOLDERS.iter().map(|folder| root.path(folder).join("events"));
        let [first, _] = FOLDERS;
        let events = mounted.into_iter().find(|path| path.is_dir());
        Self { events: events.unwrap_or_else(|| root.path(first).join("events")) }
    }

    /// The fields of the record of `event` ("group/name").
    ///
    /// # Errors
    ///
    /// One sentence why they are not to be had.
    pub(super) fn fields(&self, event: &str) -> Result<Vec<Field>, String> {
        let path = self.events.join(event).join("format");
        let text = read(&path).map_err(|error| self.explain(event, &path, &error))?;
        Ok(parse(&text))
    }

    fn explain(&self, event: &str, path: &Path, error: &std::io::Error) -> String {
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => format!(
                "the agent may not read {}: it needs CAP_DAC_READ_SEARCH",
                self.events.display()
            ),
            std::io::ErrorKind::NotFound if self.events.is_dir() => {
                format!("this kernel has no tracepoint {event}")
            }
            std::io::ErrorKind::NotFound => {
                format!("tracefs is not mounted: there is no {}", self.events.display())
            }
            _ => format!("{} cannot be read: {error}", path.display()),
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The fields in the text of a format file, common ones included.
#[must_use]
pub(super) fn parse(text: &str) -> Vec<Field> {
    text.lines().filter_map(field).take(FIELDS).collect()
}

/// A line such as `field:unsigned short common_type; offset:0; size:2; signed:0;`.
fn field(line: &str) -> Option<Field> {
    let declaration = line.trim_start().strip_prefix("field:")?;
    let (declaration, rest) = declaration.split_once(';')?;
    let number = |key: &str| -> Option<u32> {
        let part = rest.split(';').find_map(|part| part.trim().strip_prefix(key))?;
        part.trim_start().strip_prefix(':')?.trim().parse().ok()
    };
    let holds = match declaration.split_whitespace().next()? {
        "__data_loc" => Holds::Place,
        "__rel_loc" => Holds::RelativePlace,
        _ => Holds::Value,
    };
    let (offset, bytes) = (number("offset")?, number("size")?);
    offset.checked_add(bytes)?;
    Some(Field { name: name(declaration)?.to_owned(), offset, bytes, holds })
}

/// The name in a declaration: its last word, less the length of an array. A word alone
/// is a type.
fn name(declaration: &str) -> Option<&str> {
    let mut declared = declaration.trim_end();
    while let Some(array) = declared.strip_suffix(']') {
        declared = array.get(..array.rfind('[')?)?.trim_end();
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let start = declared.rfind(|c| !is_part(c))? + 1;
    // The byte before is a whole character only where it is ASCII: look instead of index.
    declared.get(start..).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
name: hook
ID: 99
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_preempt_lazy_count;	offset:8;	size:1;	signed:0;

	field:const void * skaddr;	offset:16;	size:8;	signed:0;
	field:char comm[TASK_COMM_LEN];	offset:24;	size:16;	signed:0;
	field:__u8 saddr_v6 [2] [8] ;  offset : 40 ; size:16;signed:0
	field:__data_loc char[] cmd;	offset:56;	size:4;	signed:0;
	field:__rel_loc char[] late;	offset:60;	size:4;	signed:0;

print fmt: \"field:%s;\", REC->x
";

    #[test]
    fn fields_of_every_form() {
        let seen: Vec<_> =
            parse(TEXT).into_iter().map(|f| (f.name, f.offset, f.bytes, f.holds)).collect();
        let expected = [
            ("common_type", 0, 2, Holds::Value),
            ("common_preempt_lazy_count", 8, 1, Holds::Value),
            ("skaddr", 16, 8, Holds::Value),
            ("comm", 24, 16, Holds::Value),
            ("saddr_v6", 40, 16, Holds::Value),
            ("cmd", 56, 4, Holds::Place),
            ("late", 60, 4, Holds::RelativePlace),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(n, o, b, h)| (n.to_owned(), o, b, h)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn nonsense_is_no_field() {
        for line in [
            "field:",
            "field:;offset:1;size:1;",
            "field:int ];offset:1;size:1;",
            "field:int x;offset:-1;size:4;",
            "field:int x;offset:4294967295;size:4;",
            "field:int x;size:4;",
            "field:int [][][];offset:0;size:4;",
            "field:int \u{fffd};offset:0;size:4;",
        ] {
            assert_eq!(parse(line), [], "{line}");
        }
        let endless = "field:int x;offset:0;size:4;\n".repeat(10_000);
        assert_eq!(parse(&endless).len(), FIELDS);
    }

    #[test]
    fn why_there_are_none_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let why = || Tracefs::new(&root).fields("tcp/none").unwrap_err();
        assert!(why().contains("not mounted"), "{}", why());
        std::fs::create_dir_all(dir.path().join("sys/kernel/debug/tracing/events/tcp")).unwrap();
        assert!(why().contains("no tracepoint tcp/none"), "{}", why());
    }
}
