//! Rows of numbers from text: bounded lines, and each error with its line.

use std::io::{self, BufRead, Read as _};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Longest line: some ten thousand columns.
const LONGEST_LINE: u64 = 1 << 20;
/// What separates columns, in the order they are tried.
const SEPARATORS: [char; 3] = [',', ';', '\t'];
/// Names of the column that tells when a row was taken.
const TIMES: [&str; 5] = ["timestamp", "time", "date", "datetime", "ts"];
/// Numbers from here on are milliseconds since 1970, not seconds: 5138-11-16 as seconds.
const MILLISECONDS_FROM: f64 = 1e11;

/// What is wrong with the input, and where.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("is empty: a header or a row of numbers is needed")]
    Empty,
    #[error("line {0} is longer than a mebibyte: this is no table of numbers")]
    TooLong(u64),
    #[error("line {0} is no text in UTF-8: is the file compressed? It is not read as such")]
    Binary(u64),
    #[error("line {line} has {found} columns where there are {expected} above")]
    Columns { line: u64, found: usize, expected: usize },
    #[error("line {line}, column {column:?}: {text:?} is no number")]
    Number { line: u64, column: String, text: String },
    #[error(
        "line {line}: {text:?} is no time: write 2026-01-31 23:59:58, 2026-01-31T23:59:58Z, or \
         seconds since 1970"
    )]
    Time { line: u64, text: String },
    #[error("has no column but the time")]
    NoMetric,
}

/// A row, in memory that is used again for the next one.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The time as it was written; empty when the table has none.
    pub(crate) time: String,
    /// Seconds since 1970.
    pub(crate) seconds: Option<f64>,
    /// One value for each metric; `NaN` where there was none.
    pub(crate) values: Vec<f64>,
    /// The first value as it was written.
    pub(crate) first: String,
}

/// A table being read.
pub(crate) struct Table<R> {
    input: R,
    line: u64,
    text: Vec<u8>,
    separator: char,
    time_column: Option<usize>,
    metrics: Vec<String>,
    /// The first line, when it is no header but already a row.
    pending: bool,
}

impl<R: BufRead> Table<R> {
    /// Reads the header, or finds that there is none.
    pub(crate) fn open(input: R) -> Result<Self, Error> {
        let mut table = Self {
            input,
            line: 0,
            text: Vec::new(),
            separator: ',',
            time_column: None,
            metrics: Vec::new(),
            pending: false,
        };
        if !table.read_line()? {
            return Err(Error::Empty);
        }
        let line = text_of(&table.text, table.line)?;
        let separator = SEPARATORS.into_iter().find(|separator| line.contains(*separator));
        let separator = separator.unwrap_or(',');
        let cells: Vec<&str> = line.split(separator).map(clean).collect();
        let is_row = cells.iter().all(|cell| number(cell).is_some() || seconds(cell).is_some());
        if is_row {
            // Two columns of which the first grows like a clock are told by their form only
            // when it is no plain number: those are metrics.
            let time = cells.first().filter(|cell| number(cell).is_none());
            table.time_column = time.map(|_| 0);
            table.metrics = (0..cells.len() - usize::from(table.time_column.is_some()))
                .map(|n| format!("m{n}"))
                .collect();
        } else {
            let is_time = |cell: &&str| TIMES.iter().any(|time| cell.eq_ignore_ascii_case(time));
            table.time_column = cells.iter().position(is_time);
            let metrics = cells.iter().enumerate().filter(|(n, _)| Some(*n) != table.time_column);
            table.metrics = metrics.map(|(_, name)| (*name).to_owned()).collect();
        }
        table.pending = is_row;
        table.separator = separator;
        if table.metrics.is_empty() { Err(Error::NoMetric) } else { Ok(table) }
    }

    /// Names of the metrics, in the order of their columns.
    pub(crate) fn metrics(&self) -> &[String] {
        &self.metrics
    }

    /// Whether rows say when they were taken.
    pub(crate) fn has_time(&self) -> bool {
        self.time_column.is_some()
    }

    /// Number of the line read last.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// Reads the next row; `false` at the end. Empty lines are no rows.
    pub(crate) fn read(&mut self, row: &mut Row) -> Result<bool, Error> {
        loop {
            if !std::mem::take(&mut self.pending) && !self.read_line()? {
                return Ok(false);
            }
            if !self.text.trim_ascii().is_empty() {
                break;
            }
        }
        let line = text_of(&self.text, self.line)?;
        row.values.clear();
        row.time.clear();
        row.seconds = None;
        let mut found = 0;
        for (n, cell) in line.split(self.separator).map(clean).enumerate() {
            found = n + 1;
            if Some(n) == self.time_column {
                let at = seconds(cell)
                    .ok_or_else(|| Error::Time { line: self.line, text: short(cell) })?;
                row.seconds = Some(at);
                row.time.push_str(cell);
                continue;
            }
            let value = number(cell).ok_or_else(|| Error::Number {
                line: self.line,
                column: self.metrics.get(row.values.len()).cloned().unwrap_or_default(),
                text: short(cell),
            })?;
            if row.values.is_empty() {
                row.first.clear();
                row.first.push_str(cell);
            }
            row.values.push(value);
        }
        let expected = self.metrics.len() + usize::from(self.time_column.is_some());
        if found != expected {
            return Err(Error::Columns { line: self.line, found, expected });
        }
        Ok(true)
    }

    /// Reads a line without its end; `false` when there is none.
    fn read_line(&mut self) -> Result<bool, Error> {
        self.text.clear();
        let mut bounded = (&mut self.input).take(LONGEST_LINE + 1);
        if bounded.read_until(b'\n', &mut self.text)? == 0 {
            return Ok(false);
        }
        self.line += 1;
        if self.text.len() as u64 > LONGEST_LINE {
            return Err(Error::TooLong(self.line));
        }
        if self.line == 1 && self.text.starts_with(b"\xef\xbb\xbf") {
            self.text.drain(..3);
        }
        while matches!(self.text.last(), Some(b'\n' | b'\r')) {
            self.text.pop();
        }
        Ok(true)
    }
}

fn text_of(text: &[u8], line: u64) -> Result<&str, Error> {
    match std::str::from_utf8(text) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Error::Binary(line)),
    }
}

/// A cell without spaces and quotation marks around it.
fn clean(cell: &str) -> &str {
    let cell = cell.trim();
    cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')).unwrap_or(cell)
}

/// What an error shows of a cell.
fn short(cell: &str) -> String {
    cell.chars().take(40).collect()
}

/// The number in a cell; `NaN` for one that says that there is none.
fn number(cell: &str) -> Option<f64> {
    let none = ["", "nan", "null", "na", "n/a", "none", "-"];
    if none.iter().any(|word| cell.eq_ignore_ascii_case(word)) {
        return Some(f64::NAN);
    }
    cell.parse().ok()
}

/// Seconds since 1970 of a time; one without a zone is UTC.
fn seconds(cell: &str) -> Option<f64> {
    if let Ok(number) = cell.parse::<f64>() {
        let seconds = if number.abs() >= MILLISECONDS_FROM { number / 1e3 } else { number };
        return number.is_finite().then_some(seconds);
    }
    let timestamp = cell.parse::<Timestamp>().ok().or_else(|| {
        let civil: DateTime = cell.parse().ok()?;
        Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(timestamp.as_nanosecond() as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Option<f64>, Vec<f64>);

    fn rows(text: &[u8]) -> Result<Vec<Read>, Error> {
        let mut table = Table::open(text)?;
        let (mut row, mut rows) = (Row::default(), Vec::new());
        while table.read(&mut row)? {
            rows.push((row.seconds, row.values.clone()));
        }
        Ok(rows)
    }

    #[test]
    fn times_and_numbers_of_many_forms() {
        let text = b"timestamp,value\n2014-04-10 00:04:00,1.5\n1970-01-01T00:01:00Z,-2e3\r\n\n61, \"7\" \n1400000000000,8\n";
        let read = rows(text).unwrap();
        let seconds: Vec<_> = read.iter().filter_map(|row| row.0).collect();
        assert_eq!(seconds, [1_397_088_240.0, 60.0, 61.0, 1_400_000_000.0]);
        let values: Vec<_> = read.iter().flat_map(|row| row.1.clone()).collect();
        assert_eq!(values, [1.5, -2000.0, 7.0, 8.0]);
    }

    #[test]
    fn tables_without_time_or_header() {
        assert_eq!(rows(b"m0,m1\n1,2\n").unwrap(), [(None, vec![1.0, 2.0])]);
        assert_eq!(rows(b"1;2;3\n4;5;6").unwrap().len(), 2);
        assert_eq!(
            rows(b"2014-04-10 00:04:00\t1\n").unwrap(),
            [(Some(1_397_088_240.0), vec![1.0])]
        );
        assert!(rows(b"a\n\nnull\n").unwrap()[0].1[0].is_nan());
        assert_eq!(rows(b"\xef\xbb\xbfvalue\n3\n").unwrap(), [(None, vec![3.0])]);
    }

    #[test]
    fn errors_name_the_line() {
        let message = |text: &[u8]| rows(text).unwrap_err().to_string();
        assert!(message(b"").contains("empty"));
        assert!(message(b"timestamp\n5\n").contains("no column"));
        assert!(message(b"a,b\n1,2\n3\n").starts_with("line 3 has 1 columns"));
        assert!(message(b"a,b\n1,x y\n").contains("line 2, column \"b\": \"x y\""));
        assert!(message(b"time,b\nsoon,1\n").contains("line 2: \"soon\" is no time"));
        assert!(message(b"a\n\x1f\x8b\x08\n").starts_with("line 2 is no text"));
        assert!(message(b"a\n1\x002\n").starts_with("line 2 is no text"));
        let long = [b"a\n".as_slice(), &vec![b'1'; 2 << 20]].concat();
        assert!(message(&long).starts_with("line 2 is longer"));
    }
}
