//! `holdfast events`: what happened, and with `--follow` what happens.

use std::collections::BTreeMap;

use holdfast_proto::v1::{self, ListEventsRequest};
use serde::Serialize;

use crate::{
    cli,
    connection::Collector,
    error::Error,
    output::{Look, Output},
    table::{Table, Tone, left},
    text::clean,
};

/// How much an event matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Info,
    Warning,
    Critical,
    #[default]
    Unknown,
}

impl Severity {
    fn from_wire(severity: i32) -> Self {
        match v1::Severity::try_from(severity) {
            Ok(v1::Severity::Info) => Self::Info,
            Ok(v1::Severity::Warning) => Self::Warning,
            Ok(v1::Severity::Critical) => Self::Critical,
            _ => Self::Unknown,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Info | Self::Unknown => Tone::Plain,
            Self::Warning => Tone::Warning,
            Self::Critical => Tone::Bad,
        }
    }
}

/// A fact that a host told.
#[derive(Debug, Serialize)]
struct Event {
    /// Grows from event to event.
    id: u64,
    unix_ms: u64,
    received_unix_ms: u64,
    host: String,
    /// Null when it concerns the host.
    unit: Option<String>,
    severity: Severity,
    kind: String,
    message: String,
    fields: BTreeMap<String, String>,
}

impl Event {
    /// Of the wire; `None` when there is nothing in it.
    fn from_wire(event: &v1::FleetEvent) -> Option<Self> {
        let told = event.event.as_ref()?;
        let field = |field: &v1::Field| (clean(&field.name), clean(&field.value));
        Some(Self {
            id: event.id,
            unix_ms: told.unix_ms,
            received_unix_ms: event.received_unix_ms,
            host: clean(&event.host),
            unit: Some(clean(&told.unit)).filter(|unit| !unit.is_empty()),
            severity: Severity::from_wire(told.severity),
            kind: clean(&told.kind),
            message: clean(&told.message),
            fields: told.field.iter().map(field).collect(),
        })
    }
}

pub(crate) async fn run(
    collector: &mut Collector,
    output: &mut Output,
    options: &cli::Events,
) -> Result<(), Error> {
    if options.follow {
        return follow(collector, output, options).await;
    }
    let request = request(options);
    let answer = collector.call(async |client| client.list_events(request).await).await?;
    let events: Vec<Event> = answer.event.iter().filter_map(Event::from_wire).collect();
    output.show(events.as_slice(), table)
}

/// Ends only when the collector or the reader of the output goes away.
async fn follow(
    collector: &mut Collector,
    output: &mut Output,
    options: &cli::Events,
) -> Result<(), Error> {
    let request = request(options);
    let mut events = collector.call(async |client| client.watch_events(request).await).await?;
    loop {
        match events.message().await {
            Ok(Some(event)) => {
                if let Some(event) = Event::from_wire(&event) {
                    output.show_line(&event, line)?;
                }
            }
            Ok(None) => return Err(collector.ended()),
            Err(status) => return Err(collector.failure(&status)),
        }
    }
}

fn request(options: &cli::Events) -> ListEventsRequest {
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    ListEventsRequest {
        host: text(&options.host),
        unit: text(&options.unit),
        kind: text(&options.kind),
        limit: options.limit,
        last_ms: options.last.map_or(0, |last| u64::try_from(last.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn table(events: &[Event], look: &Look) -> String {
    let mut table = Table::new(
        look,
        &[
            left("TIME"),
            left("HOST"),
            left("UNIT"),
            left("SEVERITY"),
            left("KIND"),
            left("MESSAGE"),
        ],
    );
    for event in events {
        let plain = |text: &str| (text.to_owned(), Tone::Plain);
        table.toned([
            (look.time(event.unix_ms), Tone::Faint),
            plain(&event.host),
            plain(event.unit.as_deref().unwrap_or("-")),
            (event.severity.name().to_owned(), event.severity.tone()),
            plain(&event.kind),
            plain(&event.message),
        ]);
    }
    table.finish("No events.")
}

/// One event on its own: later ones are not known yet, so nothing lines up.
fn line(event: &Event, look: &Look) -> String {
    let unit = event.unit.as_deref().map_or_else(String::new, |unit| format!(" {unit}"));
    format!(
        "{} {}{unit} {} {}: {}",
        look.time(event.unix_ms),
        event.host,
        event.severity.name(),
        event.kind,
        event.message
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{capture, field_names, plain};

    fn event(unit: &str, message: &str) -> Event {
        Event::from_wire(&v1::FleetEvent {
            id: 7,
            host: "web1".into(),
            received_unix_ms: 61_000,
            event: Some(v1::Event {
                sequence: 1,
                unix_ms: 60_000,
                kind: "process.signal".into(),
                severity: v1::Severity::Warning.into(),
                unit: unit.into(),
                message: message.into(),
                field: vec![v1::Field { name: "signal".into(), value: "SIGSEGV".into() }],
            }),
        })
        .unwrap()
    }

    #[test]
    fn golden_table_and_line() {
        let events = [event("nginx.service", "nginx was ended by SIGSEGV"), event("", "x\ny")];
        assert_eq!(
            table(&events, &plain()),
            "\
TIME                       HOST  UNIT           SEVERITY  KIND            MESSAGE
1970-01-01T00:01:00+00:00  web1  nginx.service  warning   process.signal  nginx was ended by SIGSEGV
1970-01-01T00:01:00+00:00  web1  -              warning   process.signal  x y
"
        );
        assert_eq!(
            line(&events[0], &plain()),
            "1970-01-01T00:01:00+00:00 web1 nginx.service warning process.signal: nginx was ended by SIGSEGV"
        );
        assert!(Event::from_wire(&v1::FleetEvent::default()).is_none());
    }

    #[test]
    fn field_names_are_stable() {
        let json = capture(true, |output| output.show_line(&event("", "m"), line).unwrap());
        assert_eq!(json.lines().count(), 1);
        assert!(json.contains(r#""unit":null"#), "{json}");
        assert_eq!(
            field_names(&json).join(" "),
            "fields fields.signal host id kind message received_unix_ms severity unit unix_ms"
        );
    }
}
