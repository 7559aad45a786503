//! What another configuration would mean: which services gain or lose which actions.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::action::Action;
use crate::check::Check;
use crate::config::Service;
use crate::policy::Budget;
use crate::trigger::{Mode, Trigger};

/// What is otherwise under `new` than under `old`, one sentence each, by unit. Nothing where
/// they mean the same, however they are written.
#[must_use]
pub fn differences(old: &[Service], new: &[Service]) -> Vec<String> {
    let by_unit = |services: &'_ [Service]| -> BTreeMap<String, Service> {
        services.iter().map(|service| (service.unit.to_string(), service.clone())).collect()
    };
    let (old, new) = (by_unit(old), by_unit(new));
    let mut told = Vec::new();
    for (unit, before) in &old {
        match new.get(unit) {
            None => told.push(format!("{unit}: is healed no more")),
            Some(after) => {
                told.extend(changes(before, after).map(|change| format!("{unit}: {change}")));
            }
        }
    }
    for (unit, service) in new.iter().filter(|(unit, _)| !old.contains_key(*unit)) {
        told.push(format!("{unit}: is healed from now on"));
        for trigger in Trigger::ALL {
            told.push(format!("{unit}: {}: {}", trigger.name(), answer(service, trigger)));
        }
    }
    told
}

/// What is done against `trigger`: "act: restart, escalate".
fn answer(service: &Service, trigger: Trigger) -> String {
    let ladder = service.policy.ladder(trigger);
    let mode = service.policy.mode(trigger);
    match ladder.is_empty() {
        true => "nothing".to_owned(),
        false => format!("{}: {}", mode.name(), rungs(&ladder)),
    }
}

fn rungs(ladder: &[Action]) -> String {
    ladder.iter().map(Action::to_string).collect::<Vec<_>>().join(", ")
}

fn changes<'a>(before: &'a Service, after: &'a Service) -> impl Iterator<Item = String> + 'a {
    let mut told = Vec::new();
    for trigger in Trigger::ALL {
        let (was, is) = (answer(before, trigger), answer(after, trigger));
        if was != is {
            let mut change = format!("{}: {is} (was {was})", trigger.name());
            let acts = |service: &Service| service.policy.mode(trigger) == Mode::Act;
            let disrupts = |service: &Service| {
                acts(service) && service.policy.ladder(trigger).iter().any(Action::is_disruptive)
            };
            if disrupts(after) && !disrupts(before) {
                let _ = write!(change, "; it may be disrupted now");
            }
            told.push(change);
        }
    }
    let (was, is) = (&before.policy, &after.policy);
    let mut say = |what: &str, was: String, is: String| {
        if was != is {
            told.push(format!("{what}: {is} (was {was})"));
        }
    };
    let budget = |of: Budget| format!("{} in 10 minutes, {} in 24 hours", of.per_10m, of.per_24h);
    say("budget", budget(was.budget), budget(is.budget));
    let list = |of: &std::collections::BTreeSet<std::sync::Arc<str>>| match of.is_empty() {
        true => "nothing".to_owned(),
        false => of.iter().map(|unit| &**unit).collect::<Vec<_>>().join(", "),
    };
    say("requires", list(&was.requires), list(&is.requires));
    say("min_uptime", format!("{:?}", was.min_uptime), format!("{:?}", is.min_uptime));
    say("judged_after", format!("{:?}", was.judged_after), format!("{:?}", is.judged_after));
    say("permits", was.permits.to_string(), is.permits.to_string());
    let folders = |of: &Service| match of.folders.is_empty() {
        true => "none".to_owned(),
        false => {
            of.folders.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        }
    };
    say("folders", folders(before), folders(after));
    let named = |of: &'a Service, name: &str| -> Option<&'a Check> {
        of.checks.iter().find(|check| check.name == name)
    };
    for check in &before.checks {
        match named(after, &check.name) {
            None => told.push(format!("check {}: is made no more", check.name)),
            Some(other) if other != check => {
                told.push(format!("check {}: is another ({})", check.name, other.shown()));
            }
            Some(_) => {}
        }
    }
    let fresh = after.checks.iter().filter(|check| named(before, &check.name).is_none());
    told.extend(fresh.map(|check| format!("check {}: is new ({})", check.name, check.shown())));
    told.into_iter()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn service(text: &str) -> Service {
        Service::parse(Path::new("web.toml"), text).unwrap()
    }

    #[test]
    fn what_means_the_same_is_no_change() {
        let spelt = service("min_uptime = '30s'\n[ladders]\ndisk_filling = ['escalate']\n");
        assert_eq!(differences(&[service("")], &[spelt]), Vec::<String>::new());
    }

    #[test]
    fn changes_are_told_in_what_they_do() {
        let after = service(
            "requires = ['db.service']\n[modes]\ndegraded = 'act'\n[budget]\nper_10m = 1\n\
             [[checks]]\nname = 'port'\ntcp = 'h:1'",
        );
        let told = differences(&[service("")], &[after]);
        let expected = [
            "web.service: degraded: act: reload, restart, handover, escalate (was observe: \
             reload, restart, handover, escalate); it may be disrupted now",
            "web.service: budget: 1 in 10 minutes, 10 in 24 hours (was 3 in 10 minutes, 10 in 24 \
             hours)",
            "web.service: requires: db.service (was nothing)",
            "web.service: check port: is new (h:1)",
        ];
        assert_eq!(told, expected);
        assert_eq!(differences(&[service("")], &[]), ["web.service: is healed no more"]);
        assert_eq!(differences(&[], &[service("")]).len(), 1 + Trigger::ALL.len());
    }
}
