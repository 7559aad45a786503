//! One service: what is known of it, what was tried, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::budget::Attempts;
use crate::fact::{Active, Ended, Health, Sign, UnitState};
use crate::look::Skipped;
use crate::operation::{Before, Operation, Stage, Verdict};
use crate::policy::Policy;
use crate::safeguard::{Safeguard, stands};
use crate::trigger::Trigger;

/// For so long after the kernel killed one of its processes a failure is laid to that.
const OUT_OF_MEMORY: Duration = Duration::from_secs(60);
/// What was wrong and is not for so long begins at the bottom of its ladder again.
const WELL_AGAIN: Duration = Duration::from_secs(600);
/// What harmed, or had no effect twice, is not tried again for so long.
const SKIPPED: Duration = Duration::from_secs(86_400);
const NO_EFFECTS: u32 = 2;
/// Checks of one service.
pub(crate) const CHECKS: usize = 32;

/// An operator said that nothing is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pause {
    /// Since when, and for how long; until it is taken back when there is no length.
    #[serde(with = "crate::kept::time")]
    pub(crate) from: BootTime,
    pub(crate) length: Option<Duration>,
}

impl Pause {
    pub(crate) fn holds(&self, now: BootTime) -> bool {
        self.length.is_none_or(|length| now.since(self.from) < length)
    }

    /// For how long still; `None` until it is taken back.
    pub(crate) fn left(&self, now: BootTime) -> Option<Duration> {
        self.length.map(|length| length.saturating_sub(now.since(self.from)))
    }
}

/// How far a ladder was climbed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rung {
    next: usize,
    /// What it was climbed for is gone since.
    #[serde(with = "crate::kept::maybe_time")]
    gone: Option<BootTime>,
}

/// What came of an action against something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    trigger: Trigger,
    action: Action,
    no_effects: u32,
    #[serde(with = "crate::kept::maybe_time")]
    skipped_since: Option<BootTime>,
}

/// What is known of a service. What is only true now is not kept: it is asked for again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    #[serde(skip)]
    pub(crate) state: Option<UnitState>,
    #[serde(skip)]
    out_of_memory: Option<BootTime>,
    #[serde(skip)]
    checks: BTreeMap<Arc<str>, Health>,
    #[serde(skip)]
    signs: BTreeSet<Sign>,
    /// What an operator asked for.
    #[serde(skip)]
    pub(crate) ordered: Option<Action>,
    /// An operator agreed to what waits.
    #[serde(skip)]
    pub(crate) confirmed: bool,
    /// What was told last of what is not done.
    #[serde(skip)]
    pub(crate) told: Option<(Trigger, Action, &'static str)>,
    pub(crate) operation: Option<Operation>,
    /// An agent was killed when it had made systemd forget that the service failed, and had not
    /// started it yet: so it looks as if somebody had stopped it.
    interrupted: Option<Trigger>,
    pub(crate) attempts: Attempts,
    /// How many there ever were.
    pub(crate) attempts_made: u64,
    pub(crate) paused: Option<Pause>,
    /// What an operator knows of and wants to hear nothing about.
    silenced: BTreeMap<Trigger, Pause>,
    rungs: BTreeMap<Trigger, Rung>,
    records: Vec<Record>,
}

impl Service {
    /// Takes in how systemd sees it.
    pub(crate) fn set_state(&mut self, state: UnitState) {
        if state.active != Active::Inactive {
            self.interrupted = None;
        }
        self.state = Some(state);
    }

    /// Whether nobody wants it to run.
    pub(crate) fn is_stopped(&self) -> bool {
        self.interrupted.is_none()
            && self.state.is_some_and(|state| state.active == Active::Inactive)
    }

    /// What the operation under way left half done when the agent ended.
    pub(crate) fn note_interruption(&mut self) {
        let Some(operation) = &self.operation else { return };
        let starts = matches!(operation.action, Action::Restart | Action::KillRestart);
        let is_inactive = self.state.is_some_and(|state| state.active == Active::Inactive);
        if starts && is_inactive && !operation.before.was_up {
            self.interrupted = operation.trigger;
        }
    }

    /// Systemd knows it no more: nothing is to be done for it.
    pub(crate) fn set_gone(&mut self) {
        (self.state, self.operation, self.ordered) = (None, None, None);
        self.interrupted = None;
        self.checks.clear();
        self.signs.clear();
        self.rungs.clear();
    }

    pub(crate) fn set_out_of_memory(&mut self, now: BootTime) {
        self.out_of_memory = Some(now);
    }

    pub(crate) fn set_check(&mut self, check: Arc<str>, health: Health) {
        if self.checks.contains_key(&check) || self.checks.len() < CHECKS {
            self.checks.insert(check, health);
        }
    }

    pub(crate) fn set_sign(&mut self, sign: Sign, stands: bool) {
        if stands {
            self.signs.insert(sign);
        } else {
            self.signs.remove(&sign);
        }
    }

    /// Whether `trigger` is so.
    pub(crate) fn stands(&self, trigger: Trigger, now: BootTime) -> bool {
        let Some(state) = &self.state else { return false };
        if self.interrupted == Some(trigger) {
            return true;
        }
        let failed = state.active == Active::Failed;
        let killed = state.ended == Ended::OutOfMemory
            || self.out_of_memory.is_some_and(|at| now.since(at) < OUT_OF_MEMORY);
        let sign = |sign| !failed && self.signs.contains(&sign);
        match trigger {
            Trigger::CrashLoop => failed && state.ended == Ended::StartLimit,
            Trigger::OomKilled => failed && state.ended != Ended::StartLimit && killed,
            Trigger::Crashed => failed && state.ended != Ended::StartLimit && !killed,
            Trigger::Unresponsive => !failed && self.failing() > 0,
            Trigger::StuckDState => sign(Sign::StuckDState),
            Trigger::Leaking => sign(Sign::Leaking),
            Trigger::DiskFilling => sign(Sign::DiskFilling),
            Trigger::Degraded => sign(Sign::Unusual),
        }
    }

    /// All that is wrong with it, the most certain first.
    pub(crate) fn triggers(&self, now: BootTime) -> impl Iterator<Item = Trigger> {
        Trigger::ALL.into_iter().filter(move |trigger| self.stands(*trigger, now))
    }

    /// Whether something is wrong with it that is certain.
    pub(crate) fn is_ill(&self, now: BootTime) -> bool {
        !self.is_stopped()
            && self
                .triggers(now)
                .any(|trigger| trigger.is_down() || trigger == Trigger::Unresponsive)
    }

    /// Disregards `trigger`, or all of them, for a while.
    pub(crate) fn silence(&mut self, trigger: Option<Trigger>, now: BootTime, length: Duration) {
        let pause = Pause { from: now, length: Some(length) };
        let silenced = Trigger::ALL.into_iter().filter(|of| trigger.is_none_or(|it| it == *of));
        self.silenced.extend(silenced.map(|of| (of, pause)));
    }

    /// Goes on with everything.
    pub(crate) fn resume(&mut self) {
        self.paused = None;
        self.silenced.clear();
    }

    /// What is disregarded, and for how long still.
    pub(crate) fn silenced(&self, now: BootTime) -> Vec<(Trigger, Duration)> {
        let holding = self.silenced.iter().filter(|(_, pause)| pause.holds(now));
        holding.filter_map(|(trigger, pause)| Some((*trigger, pause.left(now)?))).collect()
    }

    fn is_silenced(&self, trigger: Trigger, now: BootTime) -> bool {
        self.silenced.get(&trigger).is_some_and(|pause| pause.holds(now))
    }

    /// What its checks say.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (Arc<str>, Health)> {
        self.checks.iter().map(|(check, health)| (Arc::clone(check), *health))
    }

    /// What only is likely.
    pub(crate) fn signs(&self) -> impl Iterator<Item = Sign> {
        self.signs.iter().copied()
    }

    /// What is not tried again for a while.
    pub(crate) fn skipped(&self, now: BootTime) -> Vec<Skipped> {
        let skipped = self.records.iter().filter_map(|record| {
            let left = SKIPPED.saturating_sub(now.since(record.skipped_since?));
            let (trigger, action) = (record.trigger, record.action.clone());
            (!left.is_zero()).then_some(Skipped { trigger, action, left })
        });
        skipped.collect()
    }

    /// How many of its checks fail.
    fn failing(&self) -> u32 {
        let failing = self.checks.values().filter(|health| **health != Health::Healthy).count();
        u32::try_from(failing).unwrap_or(u32::MAX)
    }

    /// How it is now, to be compared with later.
    pub(crate) fn before(&self) -> Before {
        Before {
            was_up: self.state.is_some_and(|state| state.active == Active::Active),
            failing: self.failing(),
            invocation: self.state.map(|state| state.invocation).unwrap_or_default(),
        }
    }

    /// What is to be tried next, and against what; `None` when nothing is wrong, or nothing is
    /// left to try.
    pub(crate) fn next(&self, policy: &Policy, now: BootTime) -> Option<(Trigger, Action)> {
        let mut heard = self.triggers(now).filter(|trigger| !self.is_silenced(*trigger, now));
        heard.find_map(|trigger| {
            let from = self.rungs.get(&trigger).map_or(0, |rung| rung.next);
            let ladder = policy.ladder(trigger);
            let action =
                ladder.into_iter().skip(from).find(|action| self.can(policy, trigger, action, now));
            Some((trigger, action?))
        })
    }

    /// Whether an action can be tried at all against `trigger`.
    fn can(&self, policy: &Policy, trigger: Trigger, action: &Action, now: BootTime) -> bool {
        let able = match action {
            Action::Reload => self.state.is_some_and(|state| state.can_reload),
            Action::Throttle => !policy.culprits.is_empty(),
            _ => true,
        };
        able && !self.skips(trigger, action, now)
    }

    fn skips(&self, trigger: Trigger, action: &Action, now: BootTime) -> bool {
        let of = |record: &&Record| record.trigger == trigger && record.action == *action;
        let record = self.records.iter().find(of);
        record.and_then(|record| record.skipped_since).is_some_and(|at| now.since(at) < SKIPPED)
    }

    /// Begins at the bottom again where what was wrong has been gone for long. Whether that
    /// changed anything.
    pub(crate) fn forget_rungs(&mut self, now: BootTime) -> bool {
        if self.rungs.is_empty() {
            return false;
        }
        let stands: Vec<Trigger> = self.triggers(now).collect();
        let mut changed = false;
        self.rungs.retain(|trigger, rung| {
            let gone = (!stands.contains(trigger)).then(|| rung.gone.unwrap_or(now));
            changed |= gone != rung.gone;
            rung.gone = gone;
            gone.is_none_or(|since| now.since(since) < WELL_AGAIN) || {
                changed = true;
                false
            }
        });
        changed
    }

    /// Forgets all that was tried; not how often.
    pub(crate) fn clear(&mut self) {
        self.rungs.clear();
        self.records.clear();
        self.told = None;
    }

    /// What came of the operation under way, once that can be said.
    pub(crate) fn judge(&self, policy: &Policy, now: BootTime) -> Option<Verdict> {
        let operation = self.operation.as_ref()?;
        let Stage::Judged { since } = operation.stage else { return None };
        let Before { was_up, failing, .. } = operation.before;
        let state = self.state?;
        let is_failed = state.active == Active::Failed && !state.job;
        let late = now.since(since) >= Operation::LONGEST + policy.judged_after;
        if is_failed || (late && state.active != Active::Active) {
            return Some(if was_up { Verdict::Harmed } else { Verdict::NoEffect });
        }
        if state.active == Active::Inactive && !state.job {
            // Somebody stopped it meanwhile: nothing can be said against it.
            return Some(Verdict::NoEffect);
        }
        let up = state.up_since.max(since);
        if state.active != Active::Active || state.job || now.since(up) < policy.judged_after {
            return None;
        }
        let still = match operation.trigger {
            Some(trigger) => self.stands(trigger, now),
            None => failing > 0 && self.failing() > 0,
        };
        Some(if self.failing() > failing {
            Verdict::Harmed
        } else if still {
            Verdict::NoEffect
        } else {
            Verdict::Helped
        })
    }

    /// Takes in what came of an action against `trigger`: what did not help is followed by the
    /// next rung.
    pub(crate) fn learn(
        &mut self,
        policy: &Policy,
        trigger: Trigger,
        action: &Action,
        verdict: Verdict,
        now: BootTime,
    ) {
        let of = |record: &Record| record.trigger == trigger && record.action == *action;
        if verdict == Verdict::Helped {
            self.records.retain(|record| !of(record));
            return;
        }
        self.climb(policy, trigger, action);
        let at = self.records.iter().position(of).unwrap_or_else(|| {
            let record =
                Record { trigger, action: action.clone(), no_effects: 0, skipped_since: None };
            self.records.push(record);
            self.records.len() - 1
        });
        let Some(record) = self.records.get_mut(at) else { return };
        record.no_effects += 1;
        if verdict == Verdict::Harmed || record.no_effects >= NO_EFFECTS {
            record.skipped_since = Some(now);
        }
    }

    /// Goes on to the rung after `action`.
    pub(crate) fn climb(&mut self, policy: &Policy, trigger: Trigger, action: &Action) {
        let ladder = policy.ladder(trigger);
        let place = ladder.iter().position(|rung| rung == action).map_or(0, |place| place + 1);
        let rung = self.rungs.entry(trigger).or_default();
        rung.next = rung.next.max(place);
    }

    /// Without what is only true now.
    pub(crate) fn kept(&self) -> Self {
        if !stands(Safeguard::ToldAnew) {
            return self.clone();
        }
        let rungs_stay = stands(Safeguard::RungsStay);
        Self {
            operation: self.operation.clone(),
            interrupted: self.interrupted,
            attempts: self.attempts.clone(),
            attempts_made: self.attempts_made,
            paused: self.paused,
            silenced: self.silenced.clone(),
            rungs: self
                .rungs
                .iter()
                .filter(|_| rungs_stay)
                .map(|(of, rung)| (*of, *rung))
                .collect(),
            records: self.records.clone(),
            ..Self::default()
        }
    }

    /// What was under way when the agent ended is not known to have been carried out.
    pub(crate) fn of_former_agent(&mut self) {
        if !stands(Safeguard::UnknownStays) {
            self.operation = None;
        }
        if let Some(operation) = &mut self.operation
            && operation.stage == Stage::Running
        {
            operation.stage = Stage::Unknown;
        }
    }

    /// Times of a former boot mean nothing on this one's clock: what counts counts from its
    /// beginning, and what was under way is over.
    pub(crate) fn of_former_boot(&mut self) {
        self.attempts.of_former_boot();
        self.operation = None;
        for pause in self.paused.iter_mut().chain(self.silenced.values_mut()) {
            pause.from = BootTime::default();
        }
        self.rungs.values_mut().for_each(|rung| rung.gone = None);
        for record in &mut self.records {
            record.skipped_since = record.skipped_since.map(|_| BootTime::default());
        }
    }
}
