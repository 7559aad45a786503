//! One action from its reservation to its verdict.

use std::fmt;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::fact::Invocation;
use crate::trigger::Trigger;

/// Number of an operation; it grows, and is never used twice on a host.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct OperationId(pub u64);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// It was carried out, and did not work.
    Failed {
        /// What went wrong.
        reason: String,
    },
    /// It was not carried out: its time was over, or what it was for.
    Dropped {
        /// Why.
        reason: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What it was for is gone.
    Helped,
    /// It is as before.
    NoEffect,
    /// It is worse than before.
    Harmed,
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Helped => "helped",
            Self::NoEffect => "no_effect",
            Self::Harmed => "harmed",
        }
    }
}

/// How a service was before something was done for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// It ran.
    pub was_up: bool,
    /// How many of its checks failed.
    pub failing: u32,
    /// Which run of it that was.
    pub invocation: Invocation,
}

/// An operation under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// What is done.
    pub action: Action,
    /// Against what; `None` when an operator asked for it.
    pub trigger: Option<Trigger>,
    /// When it was reserved.
    #[serde(with = "crate::kept::time")]
    pub reserved: BootTime,
    /// Nothing is begun after this.
    #[serde(with = "crate::kept::time")]
    pub deadline: BootTime,
    /// How it was before.
    pub before: Before,
    /// Where it is.
    pub stage: Stage,
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub enum Stage {
    /// It is being carried out.
    Running,
    /// The agent ended meanwhile, and does not know whether it was carried out.
    Unknown,
    /// It was carried out, and is judged once the service had its time.
    Judged {
        /// Since when.
        #[serde(with = "crate::kept::time")]
        since: BootTime,
    },
}

impl Operation {
    /// How long an operation may take once it began; then it is as if it had failed.
    pub const LONGEST: Duration = Duration::from_secs(180);
}
