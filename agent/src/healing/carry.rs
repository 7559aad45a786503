//! From what is reserved to what is finished: takes evidence, asks systemd and the healer once
//! more, carries it out.

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_core::clock::{self, BootTime};
use holdfast_healer::{Fact, Operation, OperationId, Outcome};

use super::{Healing, Inner, act, evidence, words};
use crate::host::systemd::{Error, Properties};

impl Healing {
    /// Gets ready for an action that is reserved.
    pub(super) fn prepare(&mut self, unit: Arc<str>, operation: Operation) {
        let id = operation.id;
        let written = self.journal.as_ref().is_ok_and(|journal| !journal.has_failed());
        let dropped = |reason: &str| Outcome::Dropped { reason: reason.to_owned() };
        if !written {
            return self.finish(&unit, id, dropped("it could not be written down first"));
        }
        if !operation.action.is_repair() {
            return self.finish(&unit, id, Outcome::Done);
        }
        let Some(systemd) = self.systemd.clone() else {
            return self.finish(&unit, id, dropped("systemd cannot be reached"));
        };
        let (to_self, root) = (self.to_self.clone(), self.root.clone());
        let evidence = self.evidence();
        tokio::spawn(async move {
            let seen = async {
                let cgroup = systemd.control_group(&unit).await.unwrap_or_default();
                let wall = clock::unix_ms();
                let taken = evidence::take(&evidence, &root, &unit, &cgroup, &operation, wall);
                taken.await.map_err(|error| error.to_string())
            };
            match tokio::time::timeout(evidence::LONGEST, seen).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(unit = &*unit, error, "no evidence is kept"),
                Err(_) => tracing::warn!(unit = &*unit, "the evidence took too long"),
            }
            let found = systemd.properties(&unit).await;
            // Nobody listens at the end, and then nothing is done.
            let operation = Box::new(operation);
            let _ = to_self.send(Inner::Ready { unit, operation, found }).await;
        });
    }

    /// Carries out what is reserved and prepared, if it is still due.
    pub(super) fn act(
        &mut self,
        unit: Arc<str>,
        operation: Box<Operation>,
        found: Result<Properties, Error>,
    ) {
        let id = operation.id;
        match found {
            Ok(found) => drop(self.see(&unit, &found)),
            Err(error) => {
                let reason = error.to_string();
                return self.finish(&unit, id, Outcome::Dropped { reason });
            }
        }
        self.look_at_packages();
        let systemd = match (self.healer.still_due(id, BootTime::now()), self.systemd.clone()) {
            (Ok(()), Some(systemd)) => systemd,
            (Ok(()), None) => {
                let reason = "systemd cannot be reached".to_owned();
                return self.finish(&unit, id, Outcome::Dropped { reason });
            }
            (Err(reason), _) => return self.finish(&unit, id, Outcome::Dropped { reason }),
        };
        let (to_self, hooks) = (self.to_self.clone(), self.options.hooks.clone());
        tokio::spawn(async move {
            let outcome = act::carry_out(&systemd, &hooks, &unit, &operation).await;
            // How it is now is known before it is over: else it would be judged by how it was.
            let found = systemd.properties(&unit).await.ok();
            let _ = to_self.send(Inner::Finished { unit, id, outcome, found }).await;
        });
    }

    pub(super) fn finish(&mut self, unit: &Arc<str>, operation: OperationId, outcome: Outcome) {
        if let Some(fact) = words::failed(unit, operation, &outcome) {
            tracing::warn!(unit = &**unit, "{}", fact.message);
            self.channels.teller.tell(fact);
        }
        // What follows from it is decided with the next fact or tick: so what ends at once
        // ends a circle, too.
        self.learn(Fact::Finished { operation, outcome });
    }

    pub(super) fn evidence(&self) -> PathBuf {
        self.options.state_dir.join("evidence")
    }
}
