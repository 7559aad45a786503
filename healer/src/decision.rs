//! What follows from what is known.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::operation::{Operation, OperationId, Verdict};
use crate::trigger::Trigger;

/// What follows from what is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "decision")]
pub enum Decision {
    /// Keep this, then carry it out.
    Begin {
        /// For whom.
        unit: Arc<str>,
        /// What.
        operation: Operation,
    },
    /// This would be done if it were not only observed.
    Would {
        /// For whom.
        unit: Arc<str>,
        /// Against what.
        trigger: Trigger,
        /// What.
        action: Action,
    },
    /// This waits for an operator's word.
    Ask {
        /// For whom.
        unit: Arc<str>,
        /// Against what.
        trigger: Trigger,
        /// What.
        action: Action,
    },
    /// This is not done, because something stands against it.
    Held {
        /// For whom.
        unit: Arc<str>,
        /// Against what; `None` when an operator asked for it.
        trigger: Option<Trigger>,
        /// What.
        action: Action,
        /// Name of the guard.
        guard: String,
        /// In plain words.
        why: String,
    },
    /// What came of an operation.
    Judged {
        /// For whom.
        unit: Arc<str>,
        /// Which.
        operation: Operation,
        /// What came of it.
        verdict: Verdict,
    },
    /// An operation was not carried out, or it is not known to have been.
    Lost {
        /// For whom.
        unit: Arc<str>,
        /// Which.
        operation: OperationId,
        /// Why.
        why: String,
    },
}

impl Decision {
    /// The unit it is about.
    #[must_use]
    pub const fn unit(&self) -> &Arc<str> {
        match self {
            Self::Begin { unit, .. }
            | Self::Would { unit, .. }
            | Self::Ask { unit, .. }
            | Self::Held { unit, .. }
            | Self::Judged { unit, .. }
            | Self::Lost { unit, .. } => unit,
        }
    }

    /// The operation it is about, where there is one.
    #[must_use]
    pub const fn operation(&self) -> Option<OperationId> {
        match self {
            Self::Begin { operation, .. } | Self::Judged { operation, .. } => Some(operation.id),
            Self::Lost { operation, .. } => Some(*operation),
            Self::Would { .. } | Self::Ask { .. } | Self::Held { .. } => None,
        }
    }
}
