//! Services that fall ill in every way that is known, and who is not to be touched.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::safeguard::without;

pub(super) const WEB: &str = "web.service";
pub(super) const DB: &str = "db.service";

pub(super) fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

pub(super) fn settings() -> Settings {
    let mut settings = Settings::default();
    let web = Policy { requires: [DB.into()].into(), ..Policy::default() };
    settings.services.insert(WEB.into(), web);
    settings.services.insert(DB.into(), Policy::default());
    settings
}

fn state(active: Active, ended: Ended, run: u8) -> UnitState {
    UnitState {
        active,
        ended,
        job: false,
        masked: false,
        can_reload: false,
        invocation: Invocation::new([run; 16]),
        up_since: at(0),
    }
}

pub(super) fn up(run: u8) -> UnitState {
    state(Active::Active, Ended::Well, run)
}

pub(super) fn down() -> UnitState {
    state(Active::Failed, Ended::StartLimit, 1)
}

/// A healer that has been there for long, and whose services are well.
pub(super) fn healer() -> Healer {
    let mut healer = Healer::new(settings(), Kept::default(), true, at(0));
    for unit in [WEB, DB] {
        tell(&mut healer, unit, up(1), 0);
    }
    assert_eq!(healer.decide(at(900)), []);
    healer
}

pub(super) fn tell(healer: &mut Healer, unit: &str, state: UnitState, now: u64) {
    healer.learn(Fact::Unit { unit: unit.into(), state }, at(now));
}

pub(super) fn check(healer: &mut Healer, unit: &str, health: Health, now: u64) {
    healer.learn(Fact::Check { unit: unit.into(), check: "http".into(), health }, at(now));
}

pub(super) fn order(healer: &mut Healer, order: Order, now: u64) {
    healer.learn(Fact::Order(order), at(now));
}

/// What begins now.
pub(super) fn begins(healer: &mut Healer, now: u64) -> Vec<(Arc<str>, Operation)> {
    let begun = |decision| match decision {
        Decision::Begin { unit, operation } => Some((unit, operation)),
        _ => None,
    };
    healer.decide(at(now)).into_iter().filter_map(begun).collect()
}

/// The one thing that begins now.
pub(super) fn begun(healer: &mut Healer, now: u64) -> Operation {
    let [(_, operation)] = &*begins(healer, now) else { panic!("not one thing begins") };
    operation.clone()
}

pub(super) fn done(healer: &mut Healer, operation: &Operation, now: u64) {
    let outcome = Outcome::Done;
    healer.learn(Fact::Finished { operation: operation.id, outcome }, at(now));
}

/// The first verdict from `from` on, and when.
fn verdict(healer: &mut Healer, from: u64) -> (u64, Verdict) {
    let found = (from..from + 400).find_map(|now| {
        healer.decide(at(now)).into_iter().find_map(|decision| match decision {
            Decision::Judged { verdict, .. } => Some((now, verdict)),
            _ => None,
        })
    });
    found.expect("there is a verdict some time")
}

#[test]
fn what_systemd_gave_up_on_is_restarted_at_once_and_judged_when_it_had_its_time() {
    let mut healer = healer();
    tell(&mut healer, DB, down(), 1_000);
    let operation = begun(&mut healer, 1_000);
    assert_eq!(
        (&operation.action, operation.trigger),
        (&Action::Restart, Some(Trigger::CrashLoop))
    );
    assert_eq!(healer.still_due(operation.id, at(1_001)), Ok(()));
    tell(&mut healer, DB, UnitState { up_since: at(1_002), ..up(2) }, 1_002);
    done(&mut healer, &operation, 1_002);
    assert_eq!(verdict(&mut healer, 1_003), (1_062, Verdict::Helped));
    assert!(begins(&mut healer, 1_063).is_empty());
}

#[test]
fn what_does_not_help_is_followed_by_the_next_rung_until_people_are_told() {
    let mut healer = healer();
    let mut now = 1_000;
    let mut tried = Vec::new();
    check(&mut healer, DB, Health::Failing, now);
    while now < 3_000 {
        for (_, operation) in begins(&mut healer, now) {
            tried.push(operation.action.to_string());
            let run = tried.len() as u8 + 1;
            tell(&mut healer, DB, UnitState { up_since: at(now), ..up(run) }, now);
            done(&mut healer, &operation, now);
        }
        now += 1;
    }
    assert_eq!(tried, ["restart", "kill-restart", "handover", "escalate"]);
    // Once it has been well for long the ladder begins at its foot again.
    check(&mut healer, DB, Health::Healthy, 3_000);
    for now in 3_000..3_700 {
        assert!(begins(&mut healer, now).is_empty());
    }
    check(&mut healer, DB, Health::Stalled, 3_700);
    assert_eq!(begun(&mut healer, 3_700).action, Action::Restart);
}

#[test]
fn what_harms_is_not_tried_again_for_a_day() {
    let mut healer = healer();
    check(&mut healer, DB, Health::Failing, 1_000);
    let operation = begun(&mut healer, 1_000);
    done(&mut healer, &operation, 1_001);
    // It ran and answered wrongly; now it does not even run.
    tell(&mut healer, DB, state(Active::Failed, Ended::Badly, 2), 1_005);
    assert_eq!(verdict(&mut healer, 1_005).1, Verdict::Harmed);
    tell(&mut healer, DB, UnitState { up_since: at(1_100), ..up(3) }, 1_100);
    let next = (1_131..2_000).find_map(|now| begins(&mut healer, now).pop());
    assert_eq!(next.expect("the next rung").1.action, Action::KillRestart);

    healer.learn(Fact::Gone { unit: DB.into() }, at(2_000));
    tell(&mut healer, DB, up(4), 80_000);
    check(&mut healer, DB, Health::Failing, 80_000);
    assert_eq!(begun(&mut healer, 80_000).action, Action::KillRestart, "still skipped");
}

#[test]
fn what_is_required_is_repaired_first_and_one_at_a_time() {
    let mut healer = healer();
    for unit in [WEB, DB] {
        check(&mut healer, unit, Health::Failing, 1_000);
    }
    let [(unit, operation)] = &*begins(&mut healer, 1_000) else { panic!("one of them") };
    assert_eq!(&**unit, DB);
    check(&mut healer, DB, Health::Healthy, 1_010);
    assert!(begins(&mut healer, 1_010).is_empty(), "that is not judged yet");
    tell(&mut healer, DB, UnitState { up_since: at(1_010), ..up(2) }, 1_010);
    done(&mut healer, operation, 1_010);
    assert_eq!(verdict(&mut healer, 1_011).1, Verdict::Helped);
    // As soon as that is said it is the other's turn.
    let next = healer.services[WEB].operation.as_ref().expect("it is ill, too");
    assert_eq!((&next.action, next.reserved), (&Action::Restart, at(1_070)));
}

#[test]
fn what_is_only_likely_is_told_and_what_needs_a_word_waits_for_it() {
    let mut healer = healer();
    let sign = Fact::Sign { unit: DB.into(), sign: Sign::Unusual, stands: true };
    healer.learn(sign, at(1_000));
    let told = healer.decide(at(1_000));
    let [Decision::Would { action: Action::Restart, trigger: Trigger::Degraded, .. }] = &*told
    else {
        panic!("{told:?}")
    };
    assert_eq!(healer.decide(at(1_001)), [], "once");

    let mut settings = settings();
    let db = settings.services.get_mut(DB).unwrap();
    db.modes.insert(Trigger::Degraded, Mode::Confirm);
    let mut healer = Healer::resume(settings, healer.kept());
    tell(&mut healer, DB, up(1), 1_002);
    healer.learn(Fact::Sign { unit: DB.into(), sign: Sign::Unusual, stands: true }, at(1_002));
    assert!(matches!(&*healer.decide(at(1_002)), [Decision::Ask { .. }]));
    assert_eq!(healer.decide(at(1_003)), []);
    order(&mut healer, Order::Confirm { unit: DB.into() }, 1_004);
    assert_eq!(begun(&mut healer, 1_004).action, Action::Restart);
}

#[test]
fn an_operator_is_obeyed_or_told_why_not() {
    let mut healer = healer();
    let run = |action| Order::Run { unit: DB.into(), action };
    order(&mut healer, run(Action::Restart), 1_000);
    assert_eq!(begun(&mut healer, 1_000).trigger, None);
    order(&mut healer, run(Action::Restart), 1_001);
    let told = healer.decide(at(1_001));
    let [Decision::Held { guard, trigger: None, .. }] = &*told else { panic!("{told:?}") };
    assert_eq!(guard, "busy");
}

/// Each guard: what makes it stand against the repair of the database, and what takes
/// everything else out of the way.
fn case(guard: Guard) -> (Healer, u64) {
    let mut healer = healer();
    let now = 1_000;
    tell(&mut healer, DB, down(), now);
    match guard {
        Guard::Journal => healer.set_journal(false),
        Guard::Protected => {
            healer.settings.protected.insert("d*".into());
        }
        Guard::Missing => {
            // Nothing is wrong with what is not there, but somebody may ask for it.
            healer = self::healer();
            healer.learn(Fact::Gone { unit: DB.into() }, at(now));
            order(&mut healer, Order::Run { unit: DB.into(), action: Action::Restart }, now);
        }
        Guard::Stopped => {
            tell(&mut healer, DB, state(Active::Inactive, Ended::Well, 1), now);
            check(&mut healer, DB, Health::Failing, now);
        }
        Guard::Masked => tell(&mut healer, DB, UnitState { masked: true, ..down() }, now),
        Guard::Unreachable => {
            healer.learn(Fact::Systemd { reachable: false }, at(now));
        }
        Guard::Packages => {
            healer.learn(Fact::Packages { busy: true }, at(now));
        }
        Guard::Paused => {
            order(&mut healer, Order::Pause { unit: Some(DB.into()), length: None }, now);
        }
        Guard::Grace => {
            healer = Healer::new(settings(), healer.kept(), true, at(now));
            tell(&mut healer, DB, down(), now);
        }
        Guard::Job => tell(&mut healer, DB, UnitState { job: true, ..down() }, now),
        Guard::Young => {
            tell(&mut healer, DB, UnitState { up_since: at(now - 5), ..up(2) }, now);
            check(&mut healer, DB, Health::Failing, now);
        }
        Guard::Busy => {
            begun(&mut healer, now);
            healer.services.get_mut(DB).unwrap().attempts = Attempts::default();
        }
        Guard::Requires | Guard::Chain => {
            // The other way round: who requires it has to wait.
            let (web, db) = (Policy::default(), healer.settings.services[WEB].clone());
            let db = Policy { requires: [WEB.into()].into(), ..db };
            healer.settings.services.insert(WEB.into(), web);
            healer.settings.services.insert(DB.into(), db);
            if guard == Guard::Chain {
                let run = Order::Run { unit: WEB.into(), action: Action::Restart };
                tell(&mut healer, DB, up(1), now);
                order(&mut healer, run, now);
                begun(&mut healer, now);
                tell(&mut healer, DB, down(), now);
            } else {
                tell(&mut healer, WEB, state(Active::Failed, Ended::Badly, 1), now);
                healer.services.get_mut(WEB).unwrap().paused =
                    Some(Pause { from: at(now), length: None });
            }
        }
        Guard::BackOff => healer.services.get_mut(DB).unwrap().attempts.add(at(now)),
        Guard::Budget => {
            let service = healer.services.get_mut(DB).unwrap();
            (0..10).for_each(|n| service.attempts.add(at(n)));
            healer.settings.services.get_mut(DB).unwrap().budget.per_24h = 10;
        }
        Guard::HostBudget => (0..40).for_each(|n| healer.attempts.add(at(n))),
        Guard::Uptime => {
            let ladders = &mut healer.settings.services.get_mut(DB).unwrap().ladders;
            ladders.insert(Trigger::CrashLoop, vec![Action::Reboot]);
            let until = at(now + 60);
            healer.learn(Fact::Permit { unit: DB.into(), actions: 1, until }, at(now));
        }
        Guard::Permit => healer.settings.services.get_mut(DB).unwrap().permits = true,
    }
    (healer, now)
}

#[test]
fn each_guard_stands_against_it_and_nothing_else_does() {
    for guard in Guard::ALL {
        let (healer, now) = case(guard);
        let mut guarded = healer.clone();
        let held = guarded.decide(at(now));
        let name = held.iter().find_map(|decision| match decision {
            Decision::Held { unit, guard, .. } if &**unit == DB => Some(guard.as_str()),
            _ => None,
        });
        assert_eq!(name, Some(guard.name()), "{held:?}");
        let of_db = |(unit, _): &(Arc<str>, Operation)| &**unit == DB;
        assert!(!begins(&mut guarded, now).iter().any(of_db), "{guard:?}");

        let mut unguarded = healer;
        let begun = without(Safeguard::Guard(guard), || begins(&mut unguarded, now));
        assert!(begun.iter().any(of_db), "it does not take {guard:?}");
    }
}

#[test]
fn no_host_boots_itself_without_the_fleets_permit() {
    let mut healer = healer();
    let ladders = &mut healer.settings.services.get_mut(DB).unwrap().ladders;
    ladders.insert(Trigger::CrashLoop, vec![Action::Reboot]);
    tell(&mut healer, DB, down(), 5_000);
    let told = healer.decide(at(5_000));
    let [Decision::Held { guard, .. }] = &*told else { panic!("{told:?}") };
    assert_eq!(guard, "permit");
    healer.learn(Fact::Permit { unit: DB.into(), actions: 1, until: at(5_100) }, at(5_001));
    assert_eq!(begun(&mut healer, 5_001).action, Action::Reboot);
}

#[test]
fn a_file_that_is_gone_for_a_moment_gives_no_budget_back() {
    let mut healer = healer();
    tell(&mut healer, DB, down(), 1_000);
    begun(&mut healer, 1_000);
    let mut less = settings();
    less.services.remove(DB);
    let healer = Healer::resume(less, healer.kept());
    assert!(healer.services[DB].operation.is_none());
    let mut healer = Healer::resume(settings(), healer.kept());
    tell(&mut healer, DB, down(), 1_001);
    let told = healer.decide(at(1_001));
    let [Decision::Held { guard, .. }] = &*told else { panic!("{told:?}") };
    assert_eq!(guard, "back_off");
}

#[test]
fn an_agent_that_was_killed_does_nothing_twice() {
    let restarted = |healer: &Healer, now| {
        let text = serde_json::to_string(&healer.kept()).expect("it is plain data");
        let kept: Kept = serde_json::from_str(&text).expect("it was just written");
        assert_eq!(kept, healer.kept());
        Healer::new(settings(), kept, true, at(now))
    };
    let mut first = healer();
    tell(&mut first, DB, down(), 1_000);
    let operation = begun(&mut first, 1_000);

    // Killed before it was carried out: the unit is in the run that it was in.
    let mut second = restarted(&first, 1_010);
    tell(&mut second, DB, down(), 1_010);
    let decisions = second.decide(at(1_010));
    assert!(
        matches!(&*decisions, [Decision::Lost { operation: lost, .. }, Decision::Held { .. }] if *lost == operation.id),
        "{decisions:?}"
    );
    let again = begun(&mut second, 1_041);
    assert!(again.id > operation.id);
    assert!(
        second.services[DB]
            .attempts
            .exhausted(Budget { per_10m: 2, per_24h: 9 }, at(1_041))
            .is_some()
    );

    // Killed after that: there is another run, which is judged.
    let mut third = restarted(&first, 1_010);
    tell(&mut third, DB, UnitState { up_since: at(1_005), ..up(2) }, 1_010);
    assert_eq!(third.decide(at(1_010)), []);
    assert_eq!(verdict(&mut third, 1_011), (1_070, Verdict::Helped));

    // Killed when systemd had forgotten that it failed, and before it was started: nobody
    // stopped it.
    let mut half = restarted(&first, 1_010);
    tell(&mut half, DB, state(Active::Inactive, Ended::Well, 0), 1_010);
    let decisions = half.decide(at(1_010));
    assert!(matches!(&*decisions, [Decision::Lost { .. }, Decision::Held { .. }]), "{decisions:?}");
    let mut half = restarted(&half, 1_015);
    tell(&mut half, DB, state(Active::Inactive, Ended::Well, 0), 1_015);
    assert_eq!(begun(&mut half, 1_046).action, Action::Restart);
    tell(&mut half, DB, up(2), 1_047);
    tell(&mut half, DB, state(Active::Inactive, Ended::Well, 0), 1_048);
    assert!(half.services[DB].is_stopped(), "this time somebody did");

    // Killed while it is carried out: systemd is at it, which is waited for.
    let mut fourth = restarted(&first, 1_010);
    tell(&mut fourth, DB, UnitState { job: true, ..down() }, 1_010);
    for now in 1_010..1_100 {
        assert!(begins(&mut fourth, now).is_empty());
    }
}

#[test]
fn what_is_late_or_not_so_any_more_is_not_begun() {
    let mut healer = healer();
    check(&mut healer, DB, Health::Failing, 1_000);
    let operation = begun(&mut healer, 1_000);
    assert!(healer.still_due(operation.id, at(1_031)).is_err_and(|why| why.contains("too long")));
    let mut paused = healer.clone();
    order(&mut paused, Order::Pause { unit: None, length: None }, 1_001);
    assert!(paused.still_due(operation.id, at(1_001)).is_err_and(|why| why.contains("paused")));
    check(&mut healer, DB, Health::Healthy, 1_001);
    assert!(healer.still_due(operation.id, at(1_001)).is_err_and(|why| why.contains("not so")));
    let outcome = Outcome::Dropped { reason: "not so any more".into() };
    let told = healer.learn(Fact::Finished { operation: operation.id, outcome }, at(1_001));
    assert!(matches!(&*told, [Decision::Lost { .. }]));
    assert!(healer.still_due(operation.id, at(1_002)).is_err());
}

#[test]
fn a_fault_during_an_action_is_neither_lost_nor_doubled() {
    let mut healer = healer();
    check(&mut healer, DB, Health::Failing, 1_000);
    let operation = begun(&mut healer, 1_000);
    // It crashes for good while it is restarted.
    tell(&mut healer, DB, down(), 1_001);
    assert!(begins(&mut healer, 1_002).is_empty(), "not doubled");
    done(&mut healer, &operation, 1_003);
    let next = (1_003..1_100).find_map(|now| begins(&mut healer, now).pop());
    assert_eq!(next.expect("not lost").1.trigger, Some(Trigger::CrashLoop));
}

#[test]
fn a_boot_forgets_no_budget_and_no_pause() {
    let mut healer = healer();
    (0..3).for_each(|n| healer.services.get_mut(DB).unwrap().attempts.add(at(50_000 + n)));
    order(&mut healer, Order::Pause { unit: None, length: Some(Duration::from_secs(300)) }, 50_000);
    let mut healer = Healer::new(settings(), healer.kept(), false, at(20));
    tell(&mut healer, DB, down(), 20);
    assert!(begins(&mut healer, 100).is_empty());
    assert_eq!(begins(&mut healer, 599).len(), 0, "the budget of ten minutes");
    assert_eq!(begins(&mut healer, 600).len(), 1);
}

/// Anything that can be learnt.
fn fact() -> impl Strategy<Value = Fact> {
    let unit = || prop_oneof![Just(WEB), Just(DB), Just("ssh.service"), Just("other.service")];
    let active = prop_oneof![
        3 => Just(Active::Active), 2 => Just(Active::Failed),
        1 => Just(Active::Changing), 1 => Just(Active::Inactive)
    ];
    let ended = prop_oneof![Just(Ended::Well), Just(Ended::Badly), Just(Ended::StartLimit)];
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Failing), Just(Health::Stalled)];
    let states = (unit(), active, ended, any::<bool>(), 0..4_u8, 0..100_000_u64).prop_map(
        |(unit, active, ended, job, run, up)| Fact::Unit {
            unit: unit.into(),
            state: UnitState { job, up_since: at(up), ..state(active, ended, run) },
        },
    );
    let orders = (unit(), 0..5_u8).prop_map(|(unit, which)| {
        let unit: Arc<str> = unit.into();
        Fact::Order(match which {
            0 => Order::Pause { unit: Some(unit), length: Some(Duration::from_secs(60)) },
            1 => Order::Resume { unit: Some(unit) },
            2 => Order::Clear { unit },
            3 => Order::Run { unit, action: Action::Restart },
            _ => Order::Confirm { unit },
        })
    });
    prop_oneof![
        4 => states,
        3 => (unit(), health).prop_map(|(unit, health)| Fact::Check {
            unit: unit.into(), check: "http".into(), health
        }),
        1 => orders,
        1 => any::<bool>().prop_map(|busy| Fact::Packages { busy }),
        1 => unit().prop_map(|unit| Fact::Gone { unit: unit.into() }),
        2 => (0..40_u64).prop_map(|id| Fact::Finished {
            operation: OperationId(id), outcome: Outcome::Done
        }),
    ]
}

/// Decisions over a course of facts, each some seconds after the one before; the agent is
/// killed wherever `kills` says so.
fn course(facts: &[(Fact, u16)], kills: &[usize]) -> Vec<(u64, Decision)> {
    let mut settings = settings();
    settings.services.insert("ssh.service".into(), Policy::default());
    let mut healer = Healer::new(settings.clone(), Kept::default(), true, at(0));
    let (mut now, mut all) = (100, Vec::new());
    for (n, (fact, after)) in facts.iter().enumerate() {
        now += u64::from(*after % 300);
        if kills.contains(&n) {
            healer = Healer::new(settings.clone(), healer.kept(), true, at(now));
        }
        let learnt = healer.learn(fact.clone(), at(now));
        let decided = healer.decide(at(now));
        all.extend(learnt.into_iter().chain(decided).map(|decision| (now, decision)));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn budgets_hold_and_who_is_protected_is_never_touched(
        facts in prop::collection::vec((fact(), any::<u16>()), 1..300),
        kills in prop::collection::vec(0..300_usize, 0..6),
    ) {
        let decisions = course(&facts, &kills);
        let mut begun: Vec<(u64, Arc<str>, OperationId)> = Vec::new();
        for (now, decision) in &decisions {
            if let Decision::Begin { unit, operation } = decision {
                prop_assert_ne!(&**unit, "ssh.service");
                prop_assert!(begun.iter().all(|(_, _, id)| *id < operation.id), "twice");
                if operation.action.is_disruptive() {
                    begun.push((*now, Arc::clone(unit), operation.id));
                }
            }
        }
        for (last, unit, _) in &begun {
            let within = |seconds: u64, of: Option<&Arc<str>>| {
                let of = |(at, who, _): &&(u64, Arc<str>, OperationId)| {
                    at <= last && last - at < seconds && of.is_none_or(|of| who == of)
                };
                begun.iter().filter(of).count()
            };
            prop_assert!(within(600, Some(unit)) <= 3 && within(86_400, Some(unit)) <= 10);
            prop_assert!(within(600, None) <= 6 && within(86_400, None) <= 40);
        }
    }

    #[test]
    fn the_same_facts_lead_to_the_same_decisions(
        facts in prop::collection::vec((fact(), any::<u16>()), 1..200),
    ) {
        prop_assert_eq!(course(&facts, &[]), course(&facts, &[]));
    }
}
