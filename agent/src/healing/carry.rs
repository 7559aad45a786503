//! From what is reserved to what is finished: takes evidence, asks systemd and the healer once
//! more, carries it out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_core::clock::{self, BootTime};
use holdfast_healer::{Fact, Operation, OperationId, Outcome};

use super::evidence::{self, Bundle};
use super::{Healing, Inner, act, words};
use crate::host::systemd::{Error, Properties};

impl Healing {
    /// Gets ready for an action that is reserved.
    pub(super) fn prepare(&mut self, unit: Arc<str>, operation: Operation) {
        let id = operation.id;
        let dropped = |reason: &str| Outcome::Dropped { reason: reason.to_owned() };
        if !self.is_writable() {
            return self.finish(&unit, id, dropped("it could not be written down first"));
        }
        if !operation.action.is_repair() {
            return self.finish(&unit, id, Outcome::Done);
        }
        let Some(systemd) = self.systemd.clone() else {
            return self.finish(&unit, id, dropped("systemd cannot be reached"));
        };
        let (to_self, root) = (self.to_self.clone(), self.root.clone());
        let (evidence, folder) = (self.evidence(), self.resources.folder(&unit));
        let bundle = Bundle::of(&unit, clock::unix_ms(), self.history.of(&unit));
        tokio::spawn(async move {
            let taken = evidence::take(bundle, &evidence, &root, folder.as_deref(), id);
            match tokio::time::timeout(evidence::LONGEST, taken).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(unit = &*unit, %error, "no evidence is kept"),
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
        let culprits = self.culprits(&unit);
        tokio::spawn(async move {
            let outcome = act::carry_out(&systemd, &hooks, &unit, &culprits, &operation).await;
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

    /// Whom it may throttle for `unit`.
    pub(super) fn culprits(&self, unit: &str) -> BTreeSet<Arc<str>> {
        let of = self.services.iter().find(|service| *service.unit == *unit);
        of.map(|service| service.policy.culprits.clone()).unwrap_or_default()
    }

    pub(super) fn evidence(&self) -> PathBuf {
        self.options.state_dir.join("evidence")
    }
}
