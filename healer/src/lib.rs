//! What is done for a service that is ill, and when nothing may be. Pure: facts and time come
//! in, decisions go out; what must outlive the agent leaves and comes as [`Kept`].
//!
//! It is level-triggered: each decision follows from what is known now, not from the event
//! that made it known. An action is *reserved* when it is decided: it counts against the
//! budgets, and is kept, before anything happens. So an agent that is killed at any point
//! finds out, when it is back, whether systemd knows of another run of the unit, and does
//! nothing twice.
//!
//! After an action a service has its time to get well. Then the verdict (helped, no effect,
//! harmed) says how the ladder goes on, and nothing else is done for it before.
//!
//! What stands against an action is a [`Guard`]; each of them has its own test, which fails
//! without it.

#![forbid(unsafe_code)]

mod action;
mod budget;
pub mod check;
pub mod config;
mod decision;
mod fact;
mod guard;
pub mod journal;
mod kept;
mod look;
mod operation;
pub mod plan;
mod policy;
mod safeguard;
mod service;
pub mod trend;
mod trigger;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use serde::{Deserialize, Serialize};

pub use action::{Action, Blast, UnknownAction};
pub use decision::Decision;
pub use fact::{Active, Ended, Fact, Health, Invocation, Order, Sign, UnitState};
pub use guard::Guard;
pub use look::{Look, Skipped};
pub use operation::{Before, Operation, OperationId, Outcome, Stage, Verdict};
pub use policy::{Budget, Policy, Settings};
pub use trigger::{Mode, Trigger};

use budget::Attempts;
use guard::Asked;
use safeguard::{Safeguard, stands};
use service::{Pause, Service};

/// Nothing is begun that was decided longer ago than this.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);

/// What the fleet lends a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Permit {
    actions: u32,
    until: BootTime,
}

/// What must outlive the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    services: BTreeMap<Arc<str>, Service>,
    attempts: Attempts,
    paused: Option<Pause>,
    next: u64,
    /// When the agent started that knew this.
    #[serde(with = "kept::maybe_time")]
    started: Option<BootTime>,
}

/// Decides for the services of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healer {
    settings: Settings,
    services: BTreeMap<Arc<str>, Service>,
    attempts: Attempts,
    paused: Option<Pause>,
    packages: bool,
    reachable: bool,
    permits: BTreeMap<Arc<str>, Permit>,
    started: BootTime,
    next: u64,
    journal: bool,
    /// Grows when a decision changes what is known without saying so.
    revision: u64,
}

impl Healer {
    /// For an agent that starts now, with what was kept of the one before it; `same_boot` when
    /// the host has not booted since.
    #[must_use]
    pub fn new(settings: Settings, kept: Kept, same_boot: bool, now: BootTime) -> Self {
        let Kept { services: mut known, mut attempts, mut paused, next, .. } = kept;
        for service in known.values_mut() {
            service.of_former_agent();
            if !same_boot {
                service.of_former_boot();
            }
        }
        if !same_boot {
            attempts.of_former_boot();
            if let Some(pause) = &mut paused {
                pause.from = BootTime::default();
            }
        }
        Self::with(settings, Kept { services: known, attempts, paused, next, started: Some(now) })
    }

    /// Goes on in the same agent with other settings, or with a new journal: what is known of
    /// services that stay is kept. All facts that hold have to be told again.
    #[must_use]
    pub fn resume(settings: Settings, kept: Kept) -> Self {
        Self::with(settings, kept)
    }

    fn with(settings: Settings, kept: Kept) -> Self {
        let mut healer = Self {
            settings,
            services: kept.services,
            attempts: kept.attempts,
            paused: kept.paused,
            packages: false,
            // As long as nothing else is said: no unit is known before it can be reached.
            reachable: true,
            permits: BTreeMap::new(),
            started: kept.started.unwrap_or_default(),
            next: kept.next,
            // Nothing was tried with it yet.
            journal: true,
            revision: 0,
        };
        healer.meet();
        healer
    }

    /// Services that come, and that go. Of those that go it is kept how often something was
    /// done: a file that is broken for a moment gives no budget back.
    fn meet(&mut self) {
        for (unit, service) in &mut self.services {
            if !self.settings.services.contains_key(unit) {
                service.set_gone();
            }
        }
        let mut room = config::SERVICES;
        self.services.retain(|unit, service| {
            let known = self.settings.services.contains_key(unit);
            let counts = !known && room > 0 && service.attempts_made > 0;
            room -= usize::from(counts);
            known || counts
        });
        for unit in self.settings.services.keys() {
            self.services.entry(Arc::clone(unit)).or_default();
        }
    }

    /// What must outlive the agent, now.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let services = self.services.iter().map(|(unit, of)| (Arc::clone(unit), of.kept()));
        Kept {
            services: services.collect(),
            attempts: self.attempts.clone(),
            paused: self.paused,
            next: self.next,
            started: Some(self.started),
        }
    }

    /// Whether the journal can be written: as long as it cannot nothing is done.
    pub fn set_journal(&mut self, writable: bool) {
        self.journal = writable;
    }

    /// Takes in what is known now and was not before.
    pub fn learn(&mut self, fact: Fact, now: BootTime) -> Vec<Decision> {
        let mut decisions = Vec::new();
        match fact {
            Fact::Unit { unit, state } => self.of(&unit, |service| service.set_state(state)),
            Fact::Gone { unit } if stands(Safeguard::GoneIsOver) => {
                self.of(&unit, Service::set_gone);
            }
            Fact::Gone { .. } => {}
            Fact::OutOfMemory { unit } => self.of(&unit, |service| service.set_out_of_memory(now)),
            Fact::Check { unit, check, health } => {
                self.of(&unit, |service| service.set_check(check, health));
            }
            Fact::Sign { unit, sign, stands } => {
                self.of(&unit, |service| service.set_sign(sign, stands));
            }
            Fact::Packages { busy } => self.packages = busy,
            Fact::Systemd { reachable } => self.reachable = reachable,
            Fact::Finished { operation, outcome } => {
                decisions.extend(self.finish(operation, outcome, now));
            }
            Fact::Order(order) => self.obey(order, now),
            Fact::Permit { unit, actions, until } => {
                if self.services.contains_key(&unit) {
                    self.permits.insert(unit, Permit { actions, until });
                }
            }
        }
        decisions
    }

    fn of(&mut self, unit: &Arc<str>, then: impl FnOnce(&mut Service)) {
        if let Some(service) = self.services.get_mut(unit) {
            then(service);
        }
    }

    fn obey(&mut self, order: Order, now: BootTime) {
        match order {
            Order::Pause { unit, length } => {
                let pause = Some(Pause { from: now, length });
                match unit {
                    Some(unit) => self.of(&unit, |service| service.paused = pause),
                    None => self.paused = pause,
                }
            }
            Order::Silence { unit, trigger, length } => {
                self.of(&unit, |service| service.silence(trigger, now, length));
            }
            Order::Resume { unit: Some(unit) } => self.of(&unit, Service::resume),
            Order::Resume { unit: None } => self.paused = None,
            Order::Clear { unit } => self.of(&unit, Service::clear),
            Order::Run { unit, action } => self.of(&unit, |service| service.ordered = Some(action)),
            Order::Confirm { unit } => self.of(&unit, |service| service.confirmed = true),
        }
    }

    /// An operation ended.
    fn finish(&mut self, id: OperationId, outcome: Outcome, now: BootTime) -> Option<Decision> {
        let is_it = |service: &Service| {
            service.operation.as_ref().is_some_and(|operation| {
                operation.id == id && matches!(operation.stage, Stage::Running | Stage::Unknown)
            })
        };
        let (unit, service) = self.services.iter_mut().find(|(_, service)| is_it(service))?;
        let policy = self.settings.services.get(unit)?;
        let operation = service.operation.as_mut()?;
        if !operation.action.is_repair() && outcome == Outcome::Done {
            // Told is told: there is nothing to judge.
            let (trigger, action) = (operation.trigger, operation.action.clone());
            service.operation = None;
            if let Some(trigger) = trigger {
                service.climb(policy, trigger, &action);
            }
            return None;
        }
        match outcome {
            // What failed may have had an effect all the same.
            Outcome::Done | Outcome::Failed { .. } => {
                operation.stage = Stage::Judged { since: now };
                None
            }
            Outcome::Dropped { reason } => {
                service.operation = None;
                Some(Decision::Lost { unit: Arc::clone(unit), operation: id, why: reason })
            }
        }
    }

    /// What is to be done now. To be asked after each fact, and once a second.
    pub fn decide(&mut self, now: BootTime) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for unit in self.settings.services.keys().cloned().collect::<Vec<_>>() {
            decisions.extend(self.settle(&unit, now));
            decisions.extend(self.carry_out_order(&unit, now));
            decisions.extend(self.heal(&unit, now));
        }
        decisions
    }

    /// Goes on with the operation under way.
    fn settle(&mut self, unit: &Arc<str>, now: BootTime) -> Option<Decision> {
        let policy = self.settings.services.get(unit)?;
        let service = self.services.get_mut(unit)?;
        self.revision += u64::from(service.forget_rungs(now));
        let state = service.state;
        let operation = service.operation.as_mut()?;
        let changing = state.is_none_or(|state| state.job || state.active == Active::Changing);
        match operation.stage {
            Stage::Running if now.since(operation.reserved) >= Operation::LONGEST => {
                self.revision += 1;
                operation.stage = Stage::Judged { since: now };
            }
            Stage::Unknown if !changing => {
                let another = state.is_some_and(|state| {
                    state.active != Active::Inactive
                        && state.invocation != operation.before.invocation
                });
                if !another {
                    service.note_interruption();
                    let operation = service.operation.as_mut()?;
                    self.revision += 1;
                    let id = operation.id;
                    service.operation = None;
                    let why = "the agent ended before it was carried out".to_owned();
                    return Some(Decision::Lost { unit: Arc::clone(unit), operation: id, why });
                }
                self.revision += 1;
                operation.stage = Stage::Judged { since: now };
            }
            _ => {}
        }
        let verdict = service.judge(policy, now)?;
        self.revision += 1;
        let operation = service.operation.take()?;
        if let Some(trigger) = operation.trigger {
            service.learn(policy, trigger, &operation.action, verdict, now);
        }
        Some(Decision::Judged { unit: Arc::clone(unit), operation, verdict })
    }

    /// Does what an operator asked for, or says at once why not.
    fn carry_out_order(&mut self, unit: &Arc<str>, now: BootTime) -> Option<Decision> {
        let action = self.services.get_mut(unit)?.ordered.take()?;
        self.revision += 1;
        match self.objection(unit, None, &action, now, &[])? {
            Some((guard, why)) => Some(Decision::Held {
                unit: Arc::clone(unit),
                trigger: None,
                action,
                guard: guard.name().to_owned(),
                why,
            }),
            None => self.begin(unit, None, action, now),
        }
    }

    /// Does what is next against what is wrong.
    fn heal(&mut self, unit: &Arc<str>, now: BootTime) -> Option<Decision> {
        let policy = self.settings.services.get(unit)?;
        let service = self.services.get(unit)?;
        let Some((trigger, action)) = service.next(policy, now) else {
            let service = self.services.get_mut(unit)?;
            self.revision += u64::from(service.told.is_some() || service.confirmed);
            (service.told, service.confirmed) = (None, false);
            return None;
        };
        let mode = policy.mode(trigger);
        if let Some((guard, why)) = self.objection(unit, Some(trigger), &action, now, &[])? {
            let unit = self.tell(unit, trigger, &action, guard.name())?;
            let guard = guard.name().to_owned();
            return Some(Decision::Held { unit, trigger: Some(trigger), action, guard, why });
        }
        let confirmed = self.services.get(unit)?.confirmed;
        match mode {
            Mode::Observe => {
                let unit = self.tell(unit, trigger, &action, "observe")?;
                Some(Decision::Would { unit, trigger, action })
            }
            Mode::Confirm if !confirmed => {
                let unit = self.tell(unit, trigger, &action, "confirm")?;
                Some(Decision::Ask { unit, trigger, action })
            }
            Mode::Confirm | Mode::Act => self.begin(unit, Some(trigger), action, now),
        }
    }

    /// Says the same thing once.
    fn tell(
        &mut self,
        unit: &Arc<str>,
        trigger: Trigger,
        action: &Action,
        what: &'static str,
    ) -> Option<Arc<str>> {
        let service = self.services.get_mut(unit)?;
        let told = Some((trigger, action.clone(), what));
        if service.told == told {
            return None;
        }
        self.revision += 1;
        service.told = told;
        Some(Arc::clone(unit))
    }

    /// What stands against `action`, but for the guards in `but`; the outer `None` when there
    /// is no such service.
    fn objection(
        &self,
        unit: &Arc<str>,
        trigger: Option<Trigger>,
        action: &Action,
        now: BootTime,
        but: &[Guard],
    ) -> Option<Option<(Guard, String)>> {
        let policy = self.settings.services.get(unit)?;
        let service = self.services.get(unit)?;
        let asked = Asked { healer: self, unit, policy, service, trigger, action, now };
        Some(guard::first(&asked, but))
    }

    /// Reserves an action.
    fn begin(
        &mut self,
        unit: &Arc<str>,
        trigger: Option<Trigger>,
        action: Action,
        now: BootTime,
    ) -> Option<Decision> {
        self.next += 1;
        let service = self.services.get_mut(unit)?;
        let operation = Operation {
            id: OperationId(self.next),
            trigger,
            reserved: now,
            deadline: BootTime::new(now.since_boot() + BEGIN_WITHIN),
            before: service.before(),
            stage: Stage::Running,
            action,
        };
        if operation.action.is_disruptive() {
            service.attempts.add(now);
            service.attempts_made += 1;
            self.attempts.add(now);
            if let Some(permit) = self.permits.get_mut(unit) {
                permit.actions = permit.actions.saturating_sub(1);
            }
        }
        self.revision += 1;
        (service.told, service.confirmed) = (None, false);
        service.operation = Some(operation.clone());
        Some(Decision::Begin { unit: Arc::clone(unit), operation })
    }

    /// Grows whenever [`decide`](Self::decide) changed something, whether or not it decided
    /// anything: then when it was asked matters for a replay.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether operation `id` is still to be carried out, asked at the last moment with what is
    /// known then.
    ///
    /// # Errors
    ///
    /// Why it is not, in plain words.
    pub fn still_due(&self, id: OperationId, now: BootTime) -> Result<(), String> {
        let of = |service: &Service| {
            service
                .operation
                .clone()
                .filter(|operation| operation.id == id && operation.stage == Stage::Running)
        };
        let found = self.services.iter().find_map(|(unit, service)| Some((unit, of(service)?)));
        let Some((unit, operation)) = found else { return Err("it is not wanted any more".into()) };
        if !stands(Safeguard::AskedAgain) {
            return Ok(());
        }
        if now > operation.deadline {
            return Err("it was decided too long ago".into());
        }
        if let Some(trigger) = operation.trigger
            && !self.services.get(unit).is_some_and(|service| service.stands(trigger, now))
        {
            return Err(format!("{} is not so any more", trigger.name()));
        }
        // Itself.
        let own = [
            Guard::Busy,
            Guard::Chain,
            Guard::BackOff,
            Guard::Budget,
            Guard::HostBudget,
            Guard::Permit,
        ];
        match self.objection(unit, operation.trigger, &operation.action, now, &own) {
            Some(Some((_, why))) => Err(why),
            _ => Ok(()),
        }
    }

    fn is_ill(&self, unit: &str, now: BootTime) -> bool {
        self.services.get(unit).is_some_and(|service| service.is_ill(now))
    }

    /// Who, of those that `unit` requires or that require it, something is done for.
    fn busy_in_chain(&self, unit: &Arc<str>) -> Option<Arc<str>> {
        let below = self.settings.all_required(unit);
        let busy = self.services.iter().filter(|(_, service)| service.operation.is_some());
        busy.map(|(other, _)| other)
            .filter(|other| *other != unit)
            .find(|other| {
                below.contains(*other) || self.settings.all_required(other).contains(unit)
            })
            .cloned()
    }

    fn has_permit(&self, unit: &str, now: BootTime) -> bool {
        self.permits.get(unit).is_some_and(|permit| permit.actions > 0 && now < permit.until)
    }
}

#[cfg(test)]
mod noise;
#[cfg(test)]
mod regressions;
#[cfg(test)]
mod tests;
