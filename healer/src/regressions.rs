//! Bugs that other programs that repair have had, each by its name, and what keeps it from
//! being one here. Each goes well, and is back when that is taken away.
//!
//! Two of the twelve have no safeguard to take away in this crate. That the wall clock jumps
//! changes nothing, because nothing here can read it: `clippy.toml` forbids that to all
//! crates, and [`wall_time_is_for_people`] reads a journal whose wall clock jumped. And that
//! two agents were started by mistake is found out by the second one, which cannot lock the
//! state directory (`agent/src/daemon.rs`).

use super::tests::{DB, at, begins, begun, check, done, down, healer, order, settings, tell};
use super::*;
use crate::check::{Check, Question, Watch};
use crate::journal::{Entry, recover, seed};
use crate::safeguard::{Safeguard, without};

/// A bug of others.
struct Regression {
    name: &'static str,
    safeguard: Safeguard,
    /// Whether all is as it must be.
    goes_well: fn() -> bool,
}

const REGRESSIONS: [Regression; 13] = [
    Regression {
        name: "1: what was told before a restart is acted upon after it",
        safeguard: Safeguard::ToldAnew,
        goes_well: || {
            let mut before = healer();
            check(&mut before, DB, Health::Failing, 1_000);
            let mut after = Healer::new(settings(), before.kept(), true, at(1_010));
            tell(&mut after, DB, up_again(1_005), 1_010);
            (1_010..2_000).all(|now| begins(&mut after, now).is_empty())
        },
    },
    Regression {
        name: "2: a service is paused, and what was reserved is carried out after that",
        safeguard: Safeguard::AskedAgain,
        goes_well: || {
            let mut healer = healer();
            check(&mut healer, DB, Health::Failing, 1_000);
            let operation = begun(&mut healer, 1_000);
            order(&mut healer, Order::Pause { unit: Some(DB.into()), length: None }, 1_001);
            healer.still_due(operation.id, at(1_001)).is_err()
        },
    },
    Regression {
        name: "2: a service is paused, and acted upon",
        safeguard: Safeguard::Guard(Guard::Paused),
        goes_well: || {
            let mut healer = healer();
            order(&mut healer, Order::Pause { unit: None, length: None }, 999);
            check(&mut healer, DB, Health::Failing, 1_000);
            (1_000..90_000).step_by(10).all(|now| begins(&mut healer, now).is_empty())
        },
    },
    Regression {
        name: "3: a new fault during an action is acted upon at the same time",
        safeguard: Safeguard::Guard(Guard::Busy),
        goes_well: || {
            let mut healer = healer();
            check(&mut healer, DB, Health::Failing, 1_000);
            let operation = begun(&mut healer, 1_000);
            // Long ago to those who count attempts.
            healer.services.get_mut(DB).unwrap().attempts = Attempts::default();
            tell(&mut healer, DB, down(), 1_001);
            let at_once = !begins(&mut healer, 1_002).is_empty();
            done(&mut healer, &operation, 1_003);
            let lost = (1_003..1_300).all(|now| begins(&mut healer, now).is_empty());
            !at_once && !lost
        },
    },
    Regression {
        name: "4: what helps for a while is done for ever",
        safeguard: Safeguard::Guard(Guard::Budget),
        goes_well: || restarts_of_a_day() <= 10,
    },
    Regression {
        name: "4: what helps for a while is done again at once",
        safeguard: Safeguard::Guard(Guard::BackOff),
        goes_well: || {
            let mut healer = healer();
            tell(&mut healer, DB, down(), 1_000);
            let operation = begun(&mut healer, 1_000);
            let outcome = Outcome::Dropped { reason: "a reason".to_owned() };
            healer.learn(Fact::Finished { operation: operation.id, outcome }, at(1_000));
            begins(&mut healer, 1_000).is_empty()
        },
    },
    Regression {
        name: "5: what is ill keeps its own check from ending",
        safeguard: Safeguard::StallsFail,
        goes_well: || {
            let (mut healer, question) =
                (healer(), Question::Tcp { address: "127.0.0.1:80".into() });
            let second = Duration::from_secs(1);
            let (name, every, timeout) = ("http".to_owned(), 5 * second, second);
            let check = Check { name, question, every, timeout, failures: 2, successes: 2 };
            let mut watch = Watch::new(at(1_000));
            (1_000..1_020).any(|now| {
                if let Some(health) = watch.tick(&check, at(now)) {
                    super::tests::check(&mut healer, DB, health, now);
                }
                !begins(&mut healer, now).is_empty()
            })
        },
    },
    Regression {
        name: "6: a restart forgets what was tried",
        safeguard: Safeguard::RungsStay,
        goes_well: || {
            let mut before = healer();
            check(&mut before, DB, Health::Failing, 1_000);
            let operation = begun(&mut before, 1_000);
            tell(&mut before, DB, up_again(1_001), 1_001);
            done(&mut before, &operation, 1_001);
            let judged = |decision: &Decision| matches!(decision, Decision::Judged { .. });
            assert!((1_002..1_100).any(|now| before.decide(at(now)).iter().any(judged)));
            let mut after = Healer::new(settings(), before.kept(), true, at(1_100));
            tell(&mut after, DB, up_again(1_001), 1_100);
            check(&mut after, DB, Health::Failing, 1_101);
            let next = (1_101..1_400).find_map(|now| begins(&mut after, now).pop());
            next.is_some_and(|(_, operation)| operation.action == Action::KillRestart)
        },
    },
    Regression {
        name: "7: a damaged journal is read as if nothing had been after the damage",
        safeguard: Safeguard::DamageStops,
        goes_well: || {
            let mut bytes = journal(&[0, 1, 2]);
            // The line that says that something was done.
            let place = bytes.len() - 20;
            bytes[place] ^= 1;
            crate::journal::read(&bytes).is_err()
        },
    },
    Regression {
        name: "8: an agent is killed between acting and writing that down, and acts again",
        safeguard: Safeguard::UnknownStays,
        goes_well: || {
            let mut before = healer();
            check(&mut before, DB, Health::Failing, 1_000);
            begun(&mut before, 1_000);
            // It was restarted, and needs a while to answer.
            let mut after = Healer::new(settings(), before.kept(), true, at(1_002));
            tell(&mut after, DB, up_again(1_001), 1_002);
            check(&mut after, DB, Health::Failing, 1_003);
            (1_002..1_060).all(|now| begins(&mut after, now).is_empty())
        },
    },
    Regression {
        name: "10: a unit that is not there any more is repaired",
        safeguard: Safeguard::GoneIsOver,
        goes_well: || {
            let mut healer = healer();
            check(&mut healer, DB, Health::Failing, 1_000);
            healer.learn(Fact::Gone { unit: DB.into() }, at(1_000));
            (1_000..2_000).all(|now| begins(&mut healer, now).is_empty())
        },
    },
    Regression {
        name: "11: what must never be touched is",
        safeguard: Safeguard::Guard(Guard::Protected),
        goes_well: || {
            let mut settings = settings();
            settings.services.insert("ssh.service".into(), Policy::default());
            let mut healer = Healer::new(settings, Kept::default(), true, at(0));
            tell(&mut healer, "ssh.service", down(), 0);
            (0..2_000).all(|now| {
                let begun = begins(&mut healer, now);
                begun.iter().all(|(_, operation)| !operation.action.is_repair())
            })
        },
    },
    Regression {
        name: "11: what an operator stopped is started",
        safeguard: Safeguard::Guard(Guard::Stopped),
        goes_well: || {
            let mut healer = healer();
            let stopped = UnitState { active: Active::Inactive, ..up_again(0) };
            tell(&mut healer, DB, stopped, 1_000);
            check(&mut healer, DB, Health::Failing, 1_001);
            (1_000..2_000).all(|now| {
                let begun = begins(&mut healer, now);
                begun.iter().all(|(_, operation)| !operation.action.is_repair())
            })
        },
    },
];

fn up_again(since: u64) -> UnitState {
    UnitState { up_since: at(since), ..super::tests::up(2) }
}

/// How often the database is started again in a day, if it is well for five minutes each time.
fn restarts_of_a_day() -> usize {
    let (mut healer, mut restarts, mut ill_from) = (healer(), 0, 1_000);
    for now in 1_000..86_400 {
        if now == ill_from {
            tell(&mut healer, DB, down(), now);
        }
        for (_, operation) in begins(&mut healer, now) {
            restarts += usize::from(operation.action.is_disruptive());
            tell(&mut healer, DB, up_again(now), now);
            done(&mut healer, &operation, now);
            ill_from = now + 300;
        }
    }
    restarts
}

/// The journal of an agent that did something, with these times for people.
fn journal(unix_ms: &[u64; 3]) -> Vec<u8> {
    let mut healer = Healer::new(settings(), Kept::default(), true, at(0));
    let (boot, version, kept) = ("b".to_owned(), "0".to_owned(), healer.kept());
    let mut entries = vec![Entry::Start { at: at(0), boot, version, resumed: false, kept }];
    for (now, unix_ms) in [1_000, 1_400, 2_000].into_iter().zip(unix_ms) {
        let fact = Fact::Unit { unit: DB.into(), state: down() };
        healer.learn(fact.clone(), at(now));
        entries.push(Entry::Fact { at: at(now), fact });
        entries.push(Entry::Asked { at: at(now) });
        let decided = |decision| Entry::Decided { at: at(now), unix_ms: *unix_ms, decision };
        entries.extend(healer.decide(at(now)).into_iter().map(decided));
    }
    entries.iter().flat_map(Entry::to_line).collect()
}

#[test]
fn bugs_of_others_are_none_here_and_would_be_without_what_prevents_them() {
    for Regression { name, safeguard, goes_well } in &REGRESSIONS {
        assert!(goes_well(), "{name}");
        let prevented = !without(*safeguard, goes_well);
        assert!(prevented, "without {safeguard:?} it goes well all the same: {name}");
    }
}

#[test]
fn wall_time_is_for_people() {
    let settings = Settings { seed: seed("b"), ..settings() };
    let of = |unix_ms| {
        let (entries, _) = crate::journal::read(&journal(unix_ms)).expect("it was just written");
        assert!(entries.iter().any(|entry| matches!(entry, Entry::Decided { .. })));
        recover(&entries, &settings)
    };
    let year = 365 * 86_400_000;
    assert_eq!(of(&[year, year + 1, year + 2]), of(&[year, 0, 3 * year]));
}
