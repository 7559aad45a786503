//! A TOML document that remembers where each key and value stands, so that an
//! error found after merging several files still names the right one.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path, sync::Arc};

use toml::de::{DeTable, DeValue};

use super::Error;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    file: Arc<Path>,
    /// From 1.
    line: u32,
    /// In characters, from 1.
    column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(BTreeMap<String, Entry>),
}

impl Value {
    /// What TOML calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a floating-point number",
            Self::Boolean(_) => "a boolean",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Where the key stands.
    pub(super) key: Place,
    pub(super) node: Node,
}

impl Node {
    /// Lays `over` over this node: tables are merged, anything else is replaced.
    pub(super) fn overlay(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Table(base), Value::Table(over)) => {
                for (name, entry) in over {
                    match base.get_mut(&name) {
                        Some(existing) => {
                            existing.key = entry.key;
                            existing.node.overlay(entry.node);
                        }
                        None => {
                            base.insert(name, entry);
                        }
                    }
                }
            }
            (_, value) => *self = Self { place: over.place, value },
        }
    }
}

/// Reads the TOML document `text` of the file `path`.
pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Node, Error> {
    let source = Source::new(path, text);
    let text = std::str::from_utf8(text).map_err(|e| Error::Syntax {
        place: source.place(e.valid_up_to()),
        message: "not UTF-8".to_owned(),
    })?;
    let document = DeTable::parse(text).map_err(|e| Error::Syntax {
        place: source.place(e.span().map_or(0, |span| span.start)),
        message: e.message().replace('\n', ", "),
    })?;
    let place = source.place(0);
    Ok(Node { place, value: Value::Table(source.table(document.into_inner())?) })
}

struct Source<'a> {
    file: Arc<Path>,
    text: &'a [u8],
    /// Offset of the first byte of each line.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(path: &Path, text: &'a [u8]) -> Self {
        let after_breaks =
            text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
        Self { file: path.into(), text, lines: std::iter::once(0).chain(after_breaks).collect() }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..offset).unwrap_or_default();
        // A character has exactly one byte that is not a UTF-8 continuation.
        let characters = before.iter().filter(|b| (**b & 0xC0) != 0x80).count();
        let number = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Place { file: self.file.clone(), line: number(line), column: number(characters + 1) }
    }

    fn table(&self, table: DeTable<'_>) -> Result<BTreeMap<String, Entry>, Error> {
        let entry = |(key, value): (toml::Spanned<_>, toml::Spanned<_>)| {
            let place = self.place(key.span().start);
            let name: std::borrow::Cow<'_, str> = key.into_inner();
            let node = self.node(value.span(), value.into_inner())?;
            Ok((name.into_owned(), Entry { key: place, node }))
        };
        table.into_iter().map(entry).collect()
    }

    fn node(&self, span: Range<usize>, value: DeValue<'_>) -> Result<Node, Error> {
        let place = self.place(span.start);
        let number = |message: &str| Error::Syntax {
            place: self.place(span.start),
            message: message.to_owned(),
        };
        let value = match value {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(digits) => Value::Integer(
                i128::from_str_radix(digits.as_str(), digits.radix())
                    .map_err(|_| number("integer out of range"))?,
            ),
            DeValue::Float(digits) => Value::Float(
                digits.as_str().parse().map_err(|_| number("not a floating-point number"))?,
            ),
            DeValue::Boolean(flag) => Value::Boolean(flag),
            // No key of ours is a date; as text it is refused where it stands.
            DeValue::Datetime(date) => Value::String(date.to_string()),
            DeValue::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| self.node(item.span(), item.into_inner()))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => Value::Table(self.table(table)?),
        };
        Ok(Node { place, value })
    }
}
