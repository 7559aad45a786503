//! Follows the units of the services: connects to systemd, and asks it again about each unit
//! that it says has changed.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::{self, BootTime};
use holdfast_healer::{Action, Fact};
use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use super::{Healing, Inner, observe};
use crate::host::systemd::{Changes, Properties, Systemd};

/// How long to wait before systemd is connected to again.
pub(super) const RECONNECT: Duration = Duration::from_secs(2);

impl Healing {
    pub(super) fn follow_systemd(&mut self, reachable: bool) {
        self.learn(Fact::Systemd { reachable });
    }

    /// Takes in how systemd sees a unit; whether that is news.
    pub(super) fn see(&mut self, unit: &Arc<str>, found: &Properties) -> bool {
        self.resources.place(unit, &found.control_group);
        let ahead = BootTime::now()
            .since_boot()
            .saturating_sub(Duration::from_nanos(clock::monotonic_ns()));
        let unit = Arc::clone(unit);
        let fact = match observe::state(found, ahead, self.known.state(&unit)) {
            Some(state) => Fact::Unit { unit, state },
            None => Fact::Gone { unit },
        };
        self.learn(fact)
    }

    pub(super) fn connect(&self, after: Duration) {
        let to_self = self.to_self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut told = false;
            loop {
                match Systemd::connect().await {
                    Ok((systemd, changes)) => {
                        let _ = to_self.send(Inner::Connected(systemd, Box::new(changes))).await;
                        return;
                    }
                    Err(error) if !told => {
                        told = true;
                        tracing::warn!(%error, "nothing can be healed; trying again");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(RECONNECT).await;
                if to_self.is_closed() {
                    return;
                }
            }
        });
    }

    pub(super) fn read_all(&mut self) {
        let units: Vec<Arc<str>> =
            self.services.iter().map(|service| Arc::clone(&service.unit)).collect();
        units.iter().for_each(|unit| self.read(unit));
    }

    /// Asks systemd how `unit` is; once more when it changes meanwhile.
    pub(super) fn read(&mut self, unit: &Arc<str>) {
        let Some(systemd) = self.systemd.clone() else { return };
        if !self.healer.heals(unit) {
            return;
        }
        if let Some(again) = self.reading.get_mut(unit) {
            *again = true;
            return;
        }
        self.reading.insert(Arc::clone(unit), false);
        let (to_self, unit) = (self.to_self.clone(), Arc::clone(unit));
        tokio::spawn(async move {
            let found = systemd.properties(&unit).await;
            let _ = to_self.send(Inner::Read { unit, found }).await;
        });
    }

    /// Lets units go on that an agent froze that was killed then.
    pub(super) fn thaw(&self) {
        let Some(systemd) = &self.systemd else { return };
        for look in self.healer.look(BootTime::now()) {
            let frozen = match look.operation.map(|operation| operation.action) {
                Some(Action::Freeze) => [look.unit].into(),
                Some(Action::Throttle) => self.culprits(&look.unit),
                _ => continue,
            };
            for unit in frozen {
                let systemd = systemd.clone();
                tokio::spawn(async move {
                    if let Err(error) = systemd.signal(&unit, Signal::SIGCONT).await {
                        tracing::warn!(unit = &*unit, %error, "it may stand still");
                    }
                });
            }
        }
    }
}

/// Hands on what systemd tells.
pub(super) async fn follow(mut changes: Changes, to: mpsc::Sender<Inner>) {
    while let Some(changed) = changes.next().await {
        if to.send(Inner::Changed(changed)).await.is_err() {
            return;
        }
    }
    let _ = to.send(Inner::Disconnected).await;
}
