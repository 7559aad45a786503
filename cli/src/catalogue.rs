//! The fleet's signals as this command needs them: what a value means, and whose it is.

use std::collections::HashMap;

use holdfast_proto::v1::{self, ListSignalsRequest};
use serde::Serialize;

use crate::{connection::Collector, error::Error, text::clean};

/// How a signal behaves over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Of a newer version than this command, or missing from the catalogue.
    #[default]
    Unknown,
}

impl Kind {
    /// Of the wire.
    pub(crate) fn from_wire(kind: i32) -> Self {
        match v1::SignalKind::try_from(kind) {
            Ok(v1::SignalKind::Counter) => Self::Counter,
            Ok(v1::SignalKind::Gauge) => Self::Gauge,
            Ok(v1::SignalKind::Histogram) => Self::Histogram,
            _ => Self::Unknown,
        }
    }

    /// As in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Unknown => "unknown",
        }
    }
}

/// What a signal belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Owner {
    Host,
    Unit,
    Device,
    Interface,
    Label,
    /// Of a newer version than this command.
    #[default]
    Unknown,
}

impl Owner {
    /// Of the wire.
    pub(crate) fn from_wire(owner: i32) -> Self {
        match v1::Owner::try_from(owner) {
            Ok(v1::Owner::Host) => Self::Host,
            Ok(v1::Owner::Unit) => Self::Unit,
            Ok(v1::Owner::Device) => Self::Device,
            Ok(v1::Owner::Interface) => Self::Interface,
            Ok(v1::Owner::Label) => Self::Label,
            _ => Self::Unknown,
        }
    }

    /// As in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Unit => "unit",
            Self::Device => "device",
            Self::Interface => "interface",
            Self::Label => "label",
            Self::Unknown => "unknown",
        }
    }
}

/// What is needed to understand a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Meaning {
    pub(crate) kind: Kind,
    /// The unit of measure; empty when the catalogue has no such signal.
    pub(crate) measure: String,
}

impl Meaning {
    /// Of a row of the catalogue.
    pub(crate) fn from_wire(signal: &v1::SignalInfo) -> Self {
        Self { kind: Kind::from_wire(signal.kind), measure: clean(&signal.measure) }
    }
}

/// The meaning of every signal, by name and owner.
#[derive(Debug, Default)]
pub(crate) struct Catalogue(HashMap<(String, Owner), Meaning>);

impl Catalogue {
    /// Asks the collector.
    pub(crate) async fn fetch(collector: &mut Collector) -> Result<Self, Error> {
        let answer =
            collector.call(async |client| client.list_signals(ListSignalsRequest {}).await).await?;
        Ok(Self::from_wire(&answer.signal))
    }

    /// Of the collector's answer.
    pub(crate) fn from_wire(signals: &[v1::SignalInfo]) -> Self {
        let entry = |signal: &v1::SignalInfo| {
            ((clean(&signal.name), Owner::from_wire(signal.owner)), Meaning::from_wire(signal))
        };
        Self(signals.iter().map(entry).collect())
    }

    /// The meaning of `signal`; unknown when the catalogue does not have it.
    pub(crate) fn meaning(&self, signal: &str, owner: Owner) -> Meaning {
        self.0.get(&(signal.to_owned(), owner)).cloned().unwrap_or_default()
    }
}
