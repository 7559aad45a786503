//! How often what was decided, for the metrics page.

use std::collections::BTreeMap;

use holdfast_healer::{Action, Decision, Look, Verdict};

/// Counts since the agent started, and how things are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Services that are healed.
    pub services: usize,
    /// Services with which something is wrong, by what is most certain.
    pub ill: BTreeMap<&'static str, u64>,
    /// Actions that were begun, by name.
    pub begun: BTreeMap<&'static str, u64>,
    /// Verdicts on them, by name.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Actions that were held back, by the guard's name.
    pub held: BTreeMap<String, u64>,
    /// Whether what is decided can be written down: nothing is done otherwise.
    pub journal: bool,
}

impl Tally {
    /// Takes in a decision.
    pub(super) fn count(&mut self, decision: &Decision) {
        let count = match decision {
            Decision::Begin { operation, .. } => {
                self.begun.entry(name(&operation.action)).or_default()
            }
            Decision::Judged { verdict, .. } => self.verdicts.entry(verdict.name()).or_default(),
            Decision::Held { guard, .. } => self.held.entry(guard.clone()).or_default(),
            Decision::Would { .. } | Decision::Ask { .. } | Decision::Lost { .. } => return,
        };
        *count += 1;
    }

    /// Takes in how things are.
    pub(super) fn look(&mut self, services: &[Look], journal: bool) {
        (self.services, self.journal) = (services.len(), journal);
        self.ill.clear();
        for trigger in services.iter().filter_map(|service| service.triggers.first()) {
            *self.ill.entry(trigger.name()).or_default() += 1;
        }
    }
}

/// All hooks are one: who names them is not bounded.
const fn name(action: &Action) -> &'static str {
    match action {
        Action::Reload => "reload",
        Action::Restart => "restart",
        Action::KillRestart => "kill-restart",
        Action::Freeze => "freeze",
        Action::Throttle => "throttle",
        Action::Hook(_) => "hook",
        Action::Handover => "handover",
        Action::Reboot => "reboot",
        Action::Escalate => "escalate",
    }
}

/// Names of all verdicts, so that a count of none is there, too.
pub(crate) const VERDICTS: [&str; 3] =
    [Verdict::Helped.name(), Verdict::NoEffect.name(), Verdict::Harmed.name()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_counted_by_what_they_are() {
        let mut tally = Tally::default();
        let held = |guard: &str| Decision::Held {
            unit: "a.service".into(),
            trigger: None,
            action: Action::Hook("x".into()),
            guard: guard.into(),
            why: String::new(),
        };
        for guard in ["budget", "grace", "budget"] {
            tally.count(&held(guard));
        }
        assert_eq!(tally.held, [("budget".into(), 2), ("grace".into(), 1)].into());
        assert!(tally.begun.is_empty() && tally.verdicts.is_empty());
    }
}
