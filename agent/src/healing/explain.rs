//! Why something was done, from the journal, in plain words.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_healer::journal::Entry;
use holdfast_healer::{Decision, Fact, OperationId, Outcome, UnitState};

use super::evidence::Bundle;
use super::words;

/// Facts told of what led to an operation: those so long before it.
const BEFORE: Duration = Duration::from_secs(600);
const FACTS: usize = 20;

/// Why an operation was done, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// For which unit.
    pub unit: Arc<str>,
    /// When it was decided, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What happened, one sentence each: seconds from the decision on (before it where
    /// negative), and the sentence.
    pub course: Vec<(i64, String)>,
    /// What was seen before it was carried out.
    pub evidence: Option<Bundle>,
}

impl Explanation {
    pub(super) fn with_evidence(self, evidence: Option<Bundle>) -> Self {
        Self { evidence, ..self }
    }
}

/// What the journal tells of operation `id`; `None` when it is not in it.
pub(super) fn explain(entries: &[Entry], id: OperationId) -> Option<Explanation> {
    let begins = |entry: &Entry| {
        matches!(entry, Entry::Decided { decision: Decision::Begin { operation, .. }, .. }
            if operation.id == id)
    };
    let place = entries.iter().position(begins)?;
    let Entry::Decided { at: decided, unix_ms, decision } = entries.get(place)? else {
        return None;
    };
    let unit = Arc::clone(decision.unit());
    let seconds = |at: BootTime| -> i64 {
        let (after, before) = (at.since(*decided).as_secs(), decided.since(at).as_secs());
        i64::try_from(after).unwrap_or_default() - i64::try_from(before).unwrap_or_default()
    };
    let (past, future) = entries.split_at_checked(place)?;
    let is_start = |entry: &Entry| matches!(entry, Entry::Start { .. });
    let from = past.iter().rposition(is_start).map_or(0, |start| start + 1);
    let mut course: Vec<(i64, String)> = past
        .get(from..)?
        .iter()
        .rev()
        .filter_map(|entry| said(entry, &unit))
        .take_while(|(at, _)| decided.since(*at) <= BEFORE)
        .take(FACTS)
        .map(|(at, said)| (seconds(at), said))
        .collect();
    course.reverse();
    for entry in future {
        match entry {
            Entry::Decided { at, decision, .. } if decision.operation() == Some(id) => {
                course.push((seconds(*at), words::event(decision).message));
                if matches!(decision, Decision::Judged { .. } | Decision::Lost { .. }) {
                    break;
                }
            }
            Entry::Fact { at, fact: Fact::Finished { operation, outcome } } if *operation == id => {
                course.push((seconds(*at), ended(outcome)));
            }
            Entry::Start { resumed: false, .. } => {
                course.push((seconds_of(entry, seconds), "the agent was started again".to_owned()));
            }
            Entry::Fact { .. } => {
                course.extend(said(entry, &unit).map(|(at, said)| (seconds(at), said)));
            }
            _ => {}
        }
    }
    Some(Explanation { unit, unix_ms: *unix_ms, course, evidence: None })
}

fn seconds_of(entry: &Entry, seconds: impl Fn(BootTime) -> i64) -> i64 {
    match entry {
        Entry::Start { at, .. } => seconds(*at),
        _ => 0,
    }
}

/// What an entry says of `unit`.
fn said(entry: &Entry, unit: &Arc<str>) -> Option<(BootTime, String)> {
    match entry {
        Entry::Fact { at, fact } => Some((*at, fact_of(fact, unit)?)),
        Entry::Decided { at, decision, .. } if decision.unit() == unit => {
            Some((*at, words::event(decision).message))
        }
        _ => None,
    }
}

fn fact_of(fact: &Fact, of: &Arc<str>) -> Option<String> {
    Some(match fact {
        Fact::Unit { unit, state } if unit == of => format!("systemd: {}", state_of(state)),
        Fact::Gone { unit } if unit == of => "systemd knows it no more".to_owned(),
        Fact::OutOfMemory { unit } if unit == of => {
            "the kernel killed a process of it for want of memory".to_owned()
        }
        Fact::Check { unit, check, health } if unit == of => {
            format!("check {check}: {}", plain(health))
        }
        Fact::Sign { unit, sign, stands } if unit == of => {
            let over = if *stands { "" } else { " is over" };
            format!("sign {}{over}", plain(sign))
        }
        Fact::Packages { busy: true } => "packages are being changed".to_owned(),
        Fact::Packages { busy: false } => "packages are changed no more".to_owned(),
        Fact::Systemd { reachable: true } => "systemd can be reached again".to_owned(),
        Fact::Systemd { reachable: false } => "systemd cannot be reached".to_owned(),
        Fact::Order(order) => format!("an operator: {order:?}"),
        _ => return None,
    })
}

/// The name of a variant, as in the journal.
fn plain(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    text.trim_matches('"').replace('_', " ")
}

fn state_of(state: &UnitState) -> String {
    let mut said = plain(&state.active);
    if state.ended != holdfast_healer::Ended::Well {
        said.push_str(&format!(" (ended: {})", plain(&state.ended)));
    }
    if state.job {
        said.push_str(", a job waits or runs");
    }
    if state.masked {
        said.push_str(", masked");
    }
    said
}

fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "it was carried out".to_owned(),
        Outcome::Failed { reason } => format!("it did not work: {reason}"),
        Outcome::Dropped { reason } => format!("it was not carried out: {reason}"),
    }
}
