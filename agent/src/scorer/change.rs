//! What changes on a host, and how careful that makes the scorer.

use std::sync::Arc;
use std::time::Duration;

/// Something that changed what is usual, or may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The host booted.
    Boot,
    /// A unit was started.
    Started(Arc<str>),
    /// Software was installed or removed.
    Packages,
    /// Somebody said so: of a unit, or of the whole host when that is empty.
    Note {
        /// The unit.
        unit: Arc<str>,
        /// What changed.
        text: String,
    },
}

impl Change {
    /// How careful to be for how long: decades by which alarms must be rarer.
    pub(super) const fn caution(&self) -> (Duration, f64) {
        match self {
            Self::Boot => (Duration::from_secs(1_800), 3.0),
            Self::Packages | Self::Note { .. } => (Duration::from_secs(900), 2.0),
            Self::Started(_) => (Duration::from_secs(600), 2.0),
        }
    }

    pub(super) fn unit(&self) -> Option<&Arc<str>> {
        match self {
            Self::Started(unit) => Some(unit),
            Self::Note { unit, .. } if !unit.is_empty() => Some(unit),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Boot => "the host booted".to_owned(),
            Self::Started(unit) => format!("{unit} was started"),
            Self::Packages => "packages were installed or removed".to_owned(),
            Self::Note { unit, text } if unit.is_empty() => text.clone(),
            Self::Note { unit, text } => format!("{unit}: {text}"),
        }
    }
}
