//! What the sampler says: the states of the probes and the events. It never waits
//! for those who listen; what finds no room is counted.

use std::sync::Arc;

use holdfast_core::clock::{self, BootTime};

use super::Sampler;
use super::events;
use crate::catalogue::HOST_CONDITIONS;
use crate::conditions::Evidence;
use crate::host::present::why_over;
use crate::kernel::KernelEvent;
use crate::losses::Cause;
use crate::report::{Report, Severity, State};
use crate::teller::Fact;

/// Ticks between two looks at the present state of what stands.
const CHECK_EVERY: u64 = 5;

impl Sampler {
    /// Tells the states of the probes, when they are not what was told last.
    pub(super) fn refresh_statuses(&mut self) {
        let statuses = self.statuses(&[]);
        if *statuses == *self.statuses {
            return;
        }
        for status in &statuses {
            let before = self.statuses.iter().find(|before| before.name == status.name);
            let was_on = before.is_some_and(|before| before.state != State::Off);
            if status.state == State::Off && was_on {
                let message = format!("probe {} is off: {}", status.name, status.reason);
                self.tell(Fact::new("probe.off", Severity::Warning, message));
            }
        }
        self.statuses = statuses.into();
        self.report(Report::Probes(Arc::clone(&self.statuses)), Cause::Events);
    }

    /// What is to be said once, at the start.
    pub(super) fn announce(&mut self) {
        let version = env!("CARGO_PKG_VERSION");
        let message = format!("the agent {version} started");
        self.tell(Fact::new("agent.started", Severity::Info, message));
        if let Some(reason) = self.options.forgot.take() {
            let message = format!("what is usual has to be learnt again: {reason}");
            self.tell(Fact::new("scorer.forgot", Severity::Warning, message));
        }
        let statuses = self.statuses(&[]);
        let off = |ebpf_too: bool| {
            let off = statuses.iter().filter(|status| status.state == State::Off);
            off.filter(move |status| status.level == 0 || ebpf_too)
        };
        let mut facts = Vec::new();
        let fact = |message, probes| {
            let fields = vec![("probes", probes)];
            Fact { fields, ..Fact::new("probe.off", Severity::Warning, message) }
        };
        if let Err(reason) = &self.kernel {
            tracing::warn!(reason, "eBPF cannot be used; going on with what files tell");
            let names: Vec<_> =
                off(true).filter(|status| status.level > 0).map(|status| status.name).collect();
            let message = format!("eBPF cannot be used, so some probes are off: {reason}");
            facts.push(fact(message, names.join(", ")));
        }
        // A reason that all eBPF probes share was told already.
        for status in off(self.kernel.is_ok()) {
            tracing::warn!(probe = status.name, reason = status.reason, "probe is off");
            let message = format!("probe {} is off: {}", status.name, status.reason);
            facts.push(fact(message, status.name.to_owned()));
        }
        for status in statuses.iter().filter(|status| status.state == State::Degraded) {
            tracing::warn!(probe = status.name, reason = status.reason, "probe works in part");
        }
        facts.into_iter().for_each(|fact| self.tell(fact));
        self.statuses = statuses.into();
        self.report(Report::Probes(Arc::clone(&self.statuses)), Cause::Events);
    }

    pub(super) fn tell_moved(&mut self, now: BootTime) {
        let mut moved = std::mem::take(&mut self.moved);
        for moved in moved.drain(..) {
            if moved.born {
                self.note_start(&moved.unit, now);
            }
            self.enter(events::moved(moved), now, clock::unix_ms());
        }
        self.moved = moved;
    }

    /// Takes what the probes found into the conditions, tells what began and ended,
    /// and hands on what stands to whoever keeps it.
    pub(super) fn follow_conditions(&mut self, now: BootTime) {
        let mut evidence = Vec::new();
        self.panel.evidence(&mut evidence);
        for evidence in evidence {
            self.conditions.take(evidence, now);
        }
        // What the log of the past tells may be over: look before it is told.
        if self.ticks.is_multiple_of(CHECK_EVERY) || self.conditions.has_news() {
            for (kind, instance) in self.conditions.to_check() {
                let why = kind.check.and_then(|check| why_over(&self.root, check, &instance));
                let Some(detail) = why else { continue };
                let over =
                    Evidence { kind, instance, stands: false, detail, at: now, history: false };
                self.conditions.take(over, now);
            }
        }
        let mut changes = Vec::new();
        self.conditions.tell(now, &mut changes);
        let wall = clock::unix_ms();
        for change in changes {
            let at = events::past_wall_time(change.at, now, wall);
            self.enter(events::condition(&change), now, at);
        }
        let refused = self.conditions.refused();
        self.losses.add(Cause::Conditions, refused - self.refused_conditions);
        self.refused_conditions = refused;
        self.current.set(HOST_CONDITIONS, 0, self.conditions.len() as f64);
        if let Some(saved) = self.conditions.save(now) {
            self.channels.conditions.send_replace(saved);
        }
    }

    pub(super) fn tell_kernel_events(&mut self, now: BootTime) {
        // The cgroup of a process may be as young as its death.
        self.follow_units(now);
        let wall = clock::unix_ms();
        let mut queue = std::mem::take(&mut self.kernel_queue);
        for event in queue.drain(..) {
            let Some(event) = self.attestor.sift(event) else { continue };
            let (KernelEvent::Exit { cgroup_id, at_ns, .. }
            | KernelEvent::OomKill { cgroup_id, at_ns, .. }
            | KernelEvent::Hung { cgroup_id, at_ns, .. }) = &event;
            let unit = self.units.as_ref().and_then(|units| units.name(*cgroup_id));
            let at = events::wall_time(*at_ns, now, wall);
            if let (KernelEvent::OomKill { .. }, Some(unit)) = (&event, &unit) {
                self.tell_healer(holdfast_healer::Fact::OutOfMemory { unit: Arc::clone(unit) });
            }
            if let (KernelEvent::Hung { .. }, Some(unit)) = (&event, &unit)
                && let Some(fact) = self.stuck.note(unit)
            {
                self.tell_healer(fact);
            }
            self.enter(events::kernel(event, unit), now, at);
        }
        self.kernel_queue = queue;
    }

    pub(super) fn tell(&self, fact: Fact) {
        self.channels.teller.tell(fact);
    }

    fn enter(&self, fact: Fact, now: BootTime, unix_ms: u64) {
        self.channels.teller.tell_of(fact, now, unix_ms);
    }

    /// Tells the healer something. One that does not keep up is told with the next change.
    pub(super) fn tell_healer(&self, fact: holdfast_healer::Fact) {
        if self.channels.facts.try_send(fact).is_err() && !self.channels.facts.is_closed() {
            self.losses.add(Cause::HealerFacts, 1);
        }
    }

    pub(super) fn report(&self, report: Report, cause: Cause) {
        if self.channels.reports.try_send(report).is_err() {
            self.losses.add(cause, 1);
        }
    }
}
