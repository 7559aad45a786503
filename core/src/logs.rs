//! Where a daemon's own log goes: structured lines on standard error, filtered
//! by `HOLDFAST_LOG` (as in `info,holdfast_agent=debug`).

use std::{
    env, fmt,
    io::{self, IsTerminal},
    str::FromStr,
};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// The environment variable that holds the filter.
pub const FILTER_VARIABLE: &str = "HOLDFAST_LOG";

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; without time stamps where the journal adds its own.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::Format(name.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such format.
    #[error("unknown log format `{0}`; use `text` or `json`")]
    Format(String),
    /// The filter cannot be read.
    #[error("malformed log filter `{filter}` ({what}); use for example `info` or `info,h2=warn`")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        what: String,
    },
    /// Logging was set up before.
    #[error("the log is already set up")]
    Twice,
}

/// Starts logging to standard error, once for the whole process. The filter is
/// the value of [`FILTER_VARIABLE`], or `default_filter` when that is not set.
///
/// # Errors
///
/// The filter is malformed, or logging was started before.
pub fn init(format: Format, default_filter: &str) -> Result<(), Error> {
    let filter = env::var(FILTER_VARIABLE).unwrap_or_else(|_| default_filter.to_owned());
    let filter = parse_filter(&filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let in_journal = env::var_os("JOURNAL_STREAM").is_some();
    match format {
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        Format::Text if in_journal => {
            registry.with(lines.with_ansi(false).without_time()).try_init()
        }
        Format::Text => registry.with(lines.with_ansi(io::stderr().is_terminal())).try_init(),
    }
    .map_err(|_| Error::Twice)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|e| Error::Filter { filter: filter.to_owned(), what: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_filters_are_checked() {
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        }
        assert!("xml".parse::<Format>().is_err());
        assert!(parse_filter("info,holdfast_agent=debug").is_ok());
        let error = parse_filter("info,a=b=c").unwrap_err().to_string();
        assert!(error.contains("`info,a=b=c`"), "{error}");
    }

    #[test]
    fn a_second_start_is_an_error() {
        let (first, second) = (init(Format::Json, "error"), init(Format::Text, "error"));
        assert!(first.is_ok());
        assert!(matches!(second, Err(Error::Twice)));
    }
}
