//! How services are and what is done for them, for people.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;

use crate::action::Action;
use crate::fact::{Health, Sign, UnitState};
use crate::guard::Guard;
use crate::operation::Operation;
use crate::policy::Budget;
use crate::trigger::{Mode, Trigger};
use crate::{Healer, Service};

/// A service as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Its unit.
    pub unit: Arc<str>,
    /// How systemd sees it; `None` when it knows no such unit, or was not asked yet.
    pub state: Option<UnitState>,
    /// What its checks say, by name.
    pub checks: Vec<(Arc<str>, Health)>,
    /// What only is likely.
    pub signs: Vec<Sign>,
    /// What is wrong with it, the most certain first.
    pub triggers: Vec<Trigger>,
    /// What is next against it, and whether it may be done.
    pub next: Option<(Trigger, Action, Mode)>,
    /// What stands against that, and why in plain words.
    pub held: Option<(Guard, String)>,
    /// What is under way.
    pub operation: Option<Operation>,
    /// How many disruptive actions there were in ten minutes, and in a day.
    pub attempts: (u32, u32),
    /// How many there may be.
    pub budget: Budget,
    /// An operator paused it, or the host, for so long still; until it is taken back when there
    /// is no length.
    pub paused: Option<Option<Duration>>,
    /// What an operator wants to hear nothing about, and for how long still.
    pub silenced: Vec<(Trigger, Duration)>,
    /// What is not tried again for a while.
    pub skipped: Vec<Skipped>,
}

/// An action that did not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Against what.
    pub trigger: Trigger,
    /// What.
    pub action: Action,
    /// For how long still.
    pub left: Duration,
}

impl Healer {
    /// All services, by unit.
    #[must_use]
    pub fn look(&self, now: BootTime) -> Vec<Look> {
        self.services.iter().filter_map(|(unit, of)| self.look_at(unit, of, now)).collect()
    }

    fn look_at(&self, unit: &Arc<str>, service: &Service, now: BootTime) -> Option<Look> {
        let policy = self.settings.services.get(unit)?;
        let next = service.next(policy, now);
        let held = next.as_ref().and_then(|(trigger, action)| {
            self.objection(unit, Some(*trigger), action, now, &[]).flatten()
        });
        let paused = [self.paused, service.paused].into_iter().flatten();
        Some(Look {
            unit: Arc::clone(unit),
            state: service.state,
            checks: service.checks().collect(),
            signs: service.signs().collect(),
            triggers: service.triggers(now).collect(),
            next: next.map(|(trigger, action)| (trigger, action, policy.mode(trigger))),
            held,
            operation: service.operation.clone(),
            attempts: service.attempts.recent(now),
            budget: policy.budget,
            paused: paused.filter(|pause| pause.holds(now)).map(|pause| pause.left(now)).next(),
            silenced: service.silenced(now),
            skipped: service.skipped(now),
        })
    }

    /// Whether anything is wrong with any service.
    #[must_use]
    pub fn is_anything_wrong(&self, now: BootTime) -> bool {
        self.services.values().any(|service| service.triggers(now).next().is_some())
    }

    /// Whether `unit` is one of its services.
    #[must_use]
    pub fn heals(&self, unit: &str) -> bool {
        self.settings.services.contains_key(unit)
    }
}
