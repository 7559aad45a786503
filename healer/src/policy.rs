//! What may be done for a service, and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::trigger::{Mode, Trigger};

/// What may be done for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Other services of this host without which it cannot serve.
    pub requires: BTreeSet<Arc<str>>,
    /// Units of this host that may take from it what it needs: those that are throttled.
    pub culprits: BTreeSet<Arc<str>>,
    /// For so long after its start it may be unwell.
    pub min_uptime: Duration,
    /// For so long after an action it may get well before that is judged.
    pub judged_after: Duration,
    /// What is tried, where that is not the default.
    pub ladders: BTreeMap<Trigger, Vec<Action>>,
    /// What it may do by itself, where that is not the default.
    pub modes: BTreeMap<Trigger, Mode>,
    /// How often.
    pub budget: Budget,
    /// Disruptive actions need a permit of the fleet.
    pub permits: bool,
}

/// How many disruptive actions there may be in a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// In ten minutes.
    pub per_10m: u32,
    /// In a day.
    pub per_24h: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            requires: BTreeSet::new(),
            culprits: BTreeSet::new(),
            min_uptime: Duration::from_secs(30),
            judged_after: Duration::from_secs(60),
            ladders: BTreeMap::new(),
            modes: BTreeMap::new(),
            budget: Budget { per_10m: 3, per_24h: 10 },
            permits: false,
        }
    }
}

impl Policy {
    /// What is tried against `trigger`, in this order.
    #[must_use]
    pub fn ladder(&self, trigger: Trigger) -> Vec<Action> {
        self.ladders.get(&trigger).cloned().unwrap_or_else(|| trigger.ladder())
    }

    /// What it may do by itself against `trigger`.
    #[must_use]
    pub fn mode(&self, trigger: Trigger) -> Mode {
        self.modes.get(&trigger).copied().unwrap_or_else(|| trigger.mode())
    }
}

/// What holds for all services of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The services, by unit.
    pub services: BTreeMap<Arc<str>, Policy>,
    /// Units that are never touched, whatever the services say. A name that ends in `*` is all
    /// that begin like it.
    pub protected: BTreeSet<String>,
    /// How often something disruptive may be done on this host.
    pub budget: Budget,
    /// For so long after the agent's start nothing is done: not all is known yet.
    pub grace: Duration,
    /// Chance for times of waiting, the same on replay.
    pub seed: u64,
}

/// What no agent may ever touch.
const PROTECTED: [&str; 12] = [
    "init.scope",
    "systemd-*",
    "dbus.service",
    "dbus-broker.service",
    "dbus.socket",
    "ssh.service",
    "ssh.socket",
    "sshd.service",
    "holdfast-agent.service",
    "NetworkManager.service",
    "networking.service",
    "polkit.service",
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
            protected: PROTECTED.iter().map(|unit| (*unit).to_owned()).collect(),
            budget: Budget { per_10m: 6, per_24h: 40 },
            grace: Duration::from_secs(30),
            seed: 0,
        }
    }
}

impl Settings {
    /// Whether `unit` is never touched.
    #[must_use]
    pub fn is_protected(&self, unit: &str) -> bool {
        self.protected.iter().any(|rule| match rule.strip_suffix('*') {
            Some(front) => unit.starts_with(front),
            None => unit == rule,
        })
    }

    /// All that `unit` cannot serve without, at any remove. Ends where services require each
    /// other in a circle.
    #[must_use]
    pub fn all_required(&self, unit: &str) -> BTreeSet<Arc<str>> {
        let mut found = BTreeSet::new();
        let mut ahead: Vec<&str> = vec![unit];
        while let Some(next) = ahead.pop() {
            let Some(policy) = self.services.get(next) else { continue };
            for required in &policy.requires {
                if found.insert(Arc::clone(required)) {
                    ahead.push(required);
                }
            }
        }
        found
    }
}
