//! What stands against an action, in the order in which it is asked. The first that holds
//! is told, and nothing is done.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;

use crate::Healer;
use crate::action::Action;
use crate::budget::chance;
use crate::fact::Active;
use crate::policy::Policy;
use crate::safeguard::{Safeguard, stands};
use crate::service::Service;
use crate::trigger::Trigger;

/// What can stand against an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// The journal cannot be written, so nothing may happen that it would have to know.
    Journal,
    /// The unit is never touched.
    Protected,
    /// Systemd cannot be reached.
    Unreachable,
    /// Systemd knows no such unit, or was not asked yet.
    Missing,
    /// It was stopped, or ended well: nobody wants it to run.
    Stopped,
    /// It may not be started.
    Masked,
    /// A package manager is at work.
    Packages,
    /// An operator said so.
    Paused,
    /// The agent has just started, and does not know everything yet.
    Grace,
    /// Systemd is at it itself.
    Job,
    /// It has just started.
    Young,
    /// Something was done for it, and is not judged yet.
    Busy,
    /// What it requires is ill, and goes first.
    Requires,
    /// Something is done for what it requires, or for what requires it.
    Chain,
    /// Something was done lately: it has to wait for a while.
    BackOff,
    /// Its budget is used up.
    Budget,
    /// The host's is.
    HostBudget,
    /// The host has just booted: another boot would help no more than that one.
    Uptime,
    /// The fleet lends no permit.
    Permit,
}

/// No boot before the host has been up for so long.
const UPTIME: Duration = Duration::from_secs(1_800);

/// What is asked about.
pub(crate) struct Asked<'a> {
    pub(crate) healer: &'a Healer,
    pub(crate) unit: &'a Arc<str>,
    pub(crate) policy: &'a Policy,
    pub(crate) service: &'a Service,
    /// `None` when an operator asks.
    pub(crate) trigger: Option<Trigger>,
    pub(crate) action: &'a Action,
    pub(crate) now: BootTime,
}

impl Guard {
    /// All of them, in this order.
    pub const ALL: [Self; 19] = [
        Self::Journal,
        Self::Protected,
        Self::Unreachable,
        Self::Missing,
        Self::Stopped,
        Self::Masked,
        Self::Packages,
        Self::Paused,
        Self::Grace,
        Self::Job,
        Self::Young,
        Self::Busy,
        Self::Requires,
        Self::Chain,
        Self::BackOff,
        Self::Budget,
        Self::HostBudget,
        Self::Uptime,
        Self::Permit,
    ];

    /// Its name in journal and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Protected => "protected",
            Self::Unreachable => "unreachable",
            Self::Missing => "missing",
            Self::Stopped => "stopped",
            Self::Masked => "masked",
            Self::Packages => "packages",
            Self::Paused => "paused",
            Self::Grace => "grace",
            Self::Job => "job",
            Self::Young => "young",
            Self::Busy => "busy",
            Self::Requires => "requires",
            Self::Chain => "chain",
            Self::BackOff => "back_off",
            Self::Budget => "budget",
            Self::HostBudget => "host_budget",
            Self::Uptime => "uptime",
            Self::Permit => "permit",
        }
    }

    /// Whether it is asked about an action at all.
    fn concerns(self, asked: &Asked<'_>) -> bool {
        match self {
            // An operator knows what must go first, and that it was well a moment ago.
            Self::Grace | Self::Young | Self::Requires | Self::BackOff
                if asked.trigger.is_none() =>
            {
                false
            }
            // Whoever boots the host knows what they do; nobody else may without a permit.
            Self::Uptime => *asked.action == Action::Reboot && asked.trigger.is_some(),
            Self::BackOff | Self::Budget | Self::HostBudget | Self::Permit => {
                asked.action.is_disruptive()
            }
            // Telling people hurts nobody.
            Self::Protected
            | Self::Unreachable
            | Self::Stopped
            | Self::Masked
            | Self::Job
            | Self::Young
            | Self::Requires
            | Self::Chain => asked.action.is_repair(),
            _ => true,
        }
    }

    /// Why nothing may be done, in plain words; `None` when this does not stand against it.
    fn objects(self, asked: &Asked<'_>) -> Option<String> {
        let Asked { healer, unit, policy, service, action, now, .. } = *asked;
        let state = service.state.as_ref();
        let says = |holds: bool, why: &str| holds.then(|| why.to_owned());
        match self {
            Self::Journal => says(!healer.journal, "the journal cannot be written"),
            Self::Protected => {
                let throttled = policy.culprits.iter().filter(|_| *action == Action::Throttle);
                let mut touched = [unit].into_iter().chain(throttled);
                let found = touched.find(|unit| healer.settings.is_protected(unit))?;
                Some(format!("{found} is on the list of what is never touched"))
            }
            Self::Unreachable => says(!healer.reachable, "systemd cannot be reached"),
            Self::Missing => says(state.is_none(), "systemd knows no such unit"),
            Self::Stopped => says(
                service.is_stopped(),
                "it was stopped, or ended by itself and without an error",
            ),
            Self::Masked => says(state.is_some_and(|state| state.masked), "it is masked"),
            Self::Packages => says(healer.packages, "packages are being changed"),
            Self::Paused => {
                let (host, own) = (healer.paused.as_ref(), service.paused.as_ref());
                says(host.or(own).is_some_and(|pause| pause.holds(now)), "an operator paused it")
            }
            Self::Grace => says(
                now.since(healer.started) < healer.settings.grace,
                "the agent has just started",
            ),
            Self::Job => says(
                state.is_some_and(|state| state.job || state.active == Active::Changing),
                "systemd is starting, stopping or reloading it",
            ),
            Self::Young => {
                let of = |active| state.filter(|state| state.active == active);
                let young = of(Active::Active)
                    .is_some_and(|state| now.since(state.up_since) < policy.min_uptime);
                says(young, "it has just started")
            }
            Self::Busy => service.operation.as_ref().map(|operation| {
                let (action, id) = (&operation.action, operation.id);
                format!("{action} (operation {id}) is under way, or not judged yet")
            }),
            Self::Requires => {
                let required = healer.settings.all_required(unit);
                let ill = required.iter().find(|unit| healer.is_ill(unit, now))?;
                Some(format!("{ill}, which it requires, is ill and goes first"))
            }
            Self::Chain => {
                let busy = healer.busy_in_chain(unit)?;
                Some(format!("something is done for {busy}"))
            }
            Self::BackOff => {
                let number = service.attempts_made;
                let wait = chance(healer.settings.seed, unit, number);
                let from = service.attempts.not_before(now, wait)?;
                (now < from).then(|| {
                    let left = from.since(now).as_secs_f64().ceil();
                    format!("something was done lately; the next may be in {left:.0} s")
                })
            }
            Self::Budget => service.attempts.exhausted(policy.budget, now),
            Self::HostBudget => healer
                .attempts
                .exhausted(healer.settings.budget, now)
                .map(|why| format!("of this host, {why}")),
            Self::Uptime => says(now.since_boot() < UPTIME, "the host has just booted"),
            Self::Permit => says(
                needs_permit(asked) && !healer.has_permit(unit, now),
                "the fleet lends no permit: enough of its instances are being repaired",
            ),
        }
    }
}

/// Booting a host is never for one host alone to decide.
fn needs_permit(asked: &Asked<'_>) -> bool {
    asked.policy.permits || (*asked.action == Action::Reboot && asked.trigger.is_some())
}

/// The first that stands against it, but for those in `but`.
pub(crate) fn first(asked: &Asked<'_>, but: &[Guard]) -> Option<(Guard, String)> {
    Guard::ALL
        .into_iter()
        .filter(|guard| !but.contains(guard) && stands(Safeguard::Guard(*guard)))
        .filter(|guard| guard.concerns(asked))
        .find_map(|guard| Some((guard, guard.objects(asked)?)))
}
