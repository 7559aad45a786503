//! What the healer answers to those who ask, and what it does when they say so.

use holdfast_core::clock::BootTime;
use holdfast_healer::{Decision, Fact, Order};

use super::{Healing, Request, View, evidence, explain};

impl Healing {
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Look { answer } => drop(answer.send(self.view())),
            Request::Order { order, answer } => drop(answer.send(self.obey(order))),
            Request::Explain { operation, answer } => {
                let Ok(journal) = &self.journal else { return drop(answer.send(None)) };
                let entries = journal.read_all();
                let explanation = explain::explain(&entries, operation)
                    .map(|found| found.with_evidence(evidence::read(&self.evidence(), operation)));
                drop(answer.send(explanation));
            }
        }
    }

    pub(super) fn view(&self) -> View {
        let mut problems = self.problems.clone();
        problems.extend(self.journal.as_ref().err().cloned());
        if self.systemd.is_none() && !self.services.is_empty() {
            problems.push("systemd cannot be reached over D-Bus: nothing can be done".to_owned());
        }
        View {
            services: self.healer.look(BootTime::now()),
            reasons: self.watched.reasons(),
            problems,
        }
    }

    /// Does what an operator says; what came of it.
    pub(super) fn obey(&mut self, order: Order) -> Result<String, String> {
        let unit = order.unit().cloned();
        if let Some(unit) = &unit
            && !self.healer.heals(unit)
        {
            let folder = self.options.services.display();
            return Err(format!("{unit} is no service here; it needs a file in {folder}"));
        }
        let now = BootTime::now();
        let said = match &order {
            Order::Pause { .. } => "paused",
            Order::Silence { .. } => "silenced",
            Order::Resume { .. } => "goes on",
            Order::Clear { .. } => "what was tried is forgotten; budgets are not",
            Order::Confirm { .. } => "confirmed",
            Order::Run { .. } => "",
        };
        let asked = matches!(order, Order::Run { .. });
        self.look_at_packages();
        self.learn(Fact::Order(order));
        let decisions = self.decide(now);
        if !asked {
            return Ok(said.to_owned());
        }
        let answer = decisions.into_iter().find_map(|decision| match decision {
            Decision::Begin { unit: of, operation }
                if Some(&of) == unit.as_ref() && operation.trigger.is_none() =>
            {
                Some(Ok(format!("operation {} began", operation.id)))
            }
            Decision::Held { unit: of, trigger: None, why, .. } if Some(&of) == unit.as_ref() => {
                Some(Err(why))
            }
            _ => None,
        });
        answer.unwrap_or_else(|| Err("it cannot be done now".to_owned()))
    }
}
