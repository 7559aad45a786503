//! Standard output: JSON or text, and how text has to look there.

use std::{
    env,
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use holdfast_core::clock;
use jiff::{Timestamp, tz::TimeZone};
use ratatui::crossterm::terminal;
use serde::Serialize;

use crate::error::Error;

/// What the place that text goes to can show.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// Colours and emphasis are wanted.
    pub(crate) color: bool,
    /// Columns of the terminal; `None` when it is none, so that nothing is cut.
    pub(crate) width: Option<u16>,
    /// The zone that times are shown in.
    pub(crate) zone: TimeZone,
    /// Wall time, in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl Look {
    /// As found for standard output.
    pub(crate) fn of_terminal(no_color: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let plain = no_color
            || env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            color: terminal && !plain,
            width: terminal.then(|| terminal::size().map_or(80, |(columns, _)| columns.max(40))),
            zone: TimeZone::system(),
            now_ms: clock::unix_ms(),
        }
    }

    /// A point of wall time, to the second, in the local zone.
    pub(crate) fn time(&self, unix_ms: u64) -> String {
        let timestamp =
            i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let form = if self.width.is_some() { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%dT%H:%M:%S%:z" };
        timestamp.map_or_else(
            || "-".to_owned(),
            |at| at.to_zoned(self.zone.clone()).strftime(form).to_string(),
        )
    }

    /// How long ago a point of wall time was; zero when it is in the future.
    pub(crate) fn since(&self, unix_ms: u64) -> Duration {
        Duration::from_millis(self.now_ms.saturating_sub(unix_ms))
    }
}

/// Where the answer goes.
pub(crate) struct Output {
    json: bool,
    look: Look,
    writer: Box<dyn Write>,
}

impl Output {
    /// Standard output, in the form that the options and the terminal ask for.
    pub(crate) fn standard(json: bool, no_color: bool) -> Self {
        let look = Look::of_terminal(no_color);
        Self { json, look, writer: Box::new(io::stdout()) }
    }

    /// Whether JSON is wanted.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// How text has to look.
    pub(crate) fn look(&self) -> &Look {
        &self.look
    }

    /// Prints `record` as JSON, or as the text that `text` makes of it.
    pub(crate) fn show<T: Serialize + ?Sized>(
        &mut self,
        record: &T,
        text: impl FnOnce(&T, &Look) -> String,
    ) -> Result<(), Error> {
        if self.json {
            let mut json = serde_json::to_string_pretty(record).map_err(Error::Json)?;
            json.push('\n');
            self.write(&json)
        } else {
            let text = text(record, &self.look);
            self.write(&text)
        }
    }

    /// Prints `record` as JSON on one line, or as text; for answers without an end.
    pub(crate) fn show_line<T: Serialize>(
        &mut self,
        record: &T,
        text: impl FnOnce(&T, &Look) -> String,
    ) -> Result<(), Error> {
        let mut line = if self.json {
            serde_json::to_string(record).map_err(Error::Json)?
        } else {
            text(record, &self.look)
        };
        line.push('\n');
        self.write(&line)
    }

    /// Where the answer goes, for long ones.
    pub(crate) fn writer(&mut self) -> &mut dyn Write {
        &mut *self.writer
    }

    /// Prints text as it is.
    pub(crate) fn write(&mut self, text: &str) -> Result<(), Error> {
        self.writer
            .write_all(text.as_bytes())
            .and_then(|()| self.writer.flush())
            .map_err(Error::Output)
    }
}

/// What a command prints, for tests: no terminal, UTC, one day into 1970.
#[cfg(test)]
pub(crate) fn capture(json: bool, run: impl FnOnce(&mut Output)) -> String {
    use std::sync::{Arc, Mutex};

    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let printed = Arc::new(Mutex::new(Vec::new()));
    let writer = Box::new(Shared(Arc::clone(&printed)));
    run(&mut Output { json, look: plain(), writer });
    let bytes = printed.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// The look of [`capture`].
#[cfg(test)]
pub(crate) fn plain() -> Look {
    Look { color: false, width: None, zone: TimeZone::UTC, now_ms: 86_400_000 }
}

/// The names of all fields of a JSON document, as sorted paths; the elements of
/// an array share a path.
#[cfg(test)]
pub(crate) fn field_names(json: &str) -> Vec<String> {
    fn walk(value: &serde_json::Value, path: &str, into: &mut std::collections::BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    let path = format!("{path}{name}");
                    into.insert(path.clone());
                    walk(value, &format!("{path}."), into);
                }
            }
            serde_json::Value::Array(values) => {
                values.iter().for_each(|value| walk(value, path, into));
            }
            _ => {}
        }
    }
    let mut names = std::collections::BTreeSet::new();
    walk(&serde_json::from_str(json).unwrap(), "", &mut names);
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local_and_bad_ones_a_dash() {
        assert_eq!(plain().time(1_000), "1970-01-01T00:00:01+00:00");
        assert_eq!(Look { width: Some(80), ..plain() }.time(1_000), "1970-01-01 00:00:01");
        assert_eq!(plain().time(u64::MAX), "-");
        assert_eq!(plain().since(u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_line_of_json_has_no_line_feed_inside() {
        let printed =
            capture(true, |output| output.show_line(&vec![1, 2], |_, _| String::new()).unwrap());
        assert_eq!(printed, "[1,2]\n");
    }
}
