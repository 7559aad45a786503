//! What this host gives the agent, what is missing, what that costs in signals and
//! how to get it: one page.
//!
//! [`facts`] reads, through a rooted tree; [`judge`] decides and is pure. Nothing
//! here needs a running agent, but what is found holds for the process that looks:
//! an administrator's shell may have rights that the service has not.

pub mod facts;
pub mod judge;

use serde::Serialize;

use crate::conditions::clean;
use crate::host::Root;
pub use facts::Facts;

/// Longest value on the page, in bytes.
const VALUE_BYTES: usize = 300;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Costs something, but no signal.
    Warn,
    /// Costs signals.
    Missing,
}

impl State {
    /// Its name on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Missing => "missing",
        }
    }
}

/// One line of the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub value: String,
    /// What it costs that it is so; empty when nothing.
    pub cost: String,
    /// How to get it; empty when nothing is to be done.
    pub remedy: String,
}

/// Looks at everything. `map_limit` is the memory that the eBPF maps may take, in bytes.
#[must_use]
pub fn examine(root: &Root, map_limit: u64) -> Vec<Finding> {
    judge::judge(&Facts::read(root), map_limit)
}

/// Whether signals are lost.
#[must_use]
pub fn is_missing(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.state == State::Missing)
}

/// The page as text.
#[must_use]
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { name, state, value, cost, remedy } in findings {
        let value = clean(value, VALUE_BYTES);
        text += &format!("{:<8}{name:<14}{value}\n", state.name());
        for (word, more) in [("cost", cost), ("remedy", remedy)] {
            if !more.is_empty() {
                text += &format!("{:<22}{word}: {more}\n", "");
            }
        }
    }
    text
}
