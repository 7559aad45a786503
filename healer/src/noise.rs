//! A day on which nothing is broken, and everything else happens: checks that fail now and
//! then, load, deployments, upgrades, restarts by hand, agents that are restarted.

use std::time::Duration;

use holdfast_core::clock::BootTime;

use crate::check::{Check, Question, Watch};
use crate::{
    Active, Decision, Ended, Fact, Healer, Health, Invocation, Kept, Policy, Settings, Sign,
    UnitState,
};

const DAY: u64 = 86_400;
const SERVICES: usize = 20;

struct Chance(u64);

impl Chance {
    /// Whether something happens that does `per_day` times a day, asked each second.
    fn happens(&mut self, per_day: f64) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 11) as f64 / (1_u64 << 53) as f64) < per_day / DAY as f64
    }
}

/// A service, and what it goes through.
struct Subject {
    unit: std::sync::Arc<str>,
    state: UnitState,
    watch: Watch,
    /// Being restarted by somebody until then.
    restarting: Option<u64>,
    /// The check failed the last time: noise never fails twice in a row.
    failed: bool,
    busy: bool,
}

fn at(seconds: u64) -> BootTime {
    BootTime::new(Duration::from_secs(seconds))
}

fn check() -> Check {
    Check {
        name: "http".into(),
        question: Question::Tcp { address: "h:1".into() },
        every: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        failures: 2,
        successes: 2,
    }
}

fn settings() -> Settings {
    let services = (0..SERVICES).map(|n| {
        let requires = (n > 10).then(|| format!("{}.service", n - 10).into());
        let policy = Policy { requires: requires.into_iter().collect(), ..Policy::default() };
        (format!("{n}.service").into(), policy)
    });
    Settings { services: services.collect(), ..Settings::default() }
}

impl Subject {
    fn new(n: usize) -> Self {
        let state = UnitState {
            active: Active::Active,
            ended: Ended::Well,
            job: false,
            masked: false,
            can_reload: n.is_multiple_of(2),
            invocation: Invocation::new([1; 16]),
            up_since: at(0),
        };
        let unit = format!("{n}.service").into();
        let watch = Watch::new(at(0));
        Self { unit, state, watch, restarting: None, failed: false, busy: false }
    }

    /// What happens to it in this second.
    fn facts(&mut self, now: u64, chance: &mut Chance, deploying: bool) -> Vec<Fact> {
        let (unit, mut facts) = (self.unit.clone(), Vec::new());
        let begins = chance.happens(if deploying { 5_000.0 } else { 4.0 });
        match self.restarting {
            None if begins => {
                self.restarting = Some(now + 1 + now % 20);
                self.state.active = Active::Changing;
                self.state.job = true;
                facts.push(Fact::Unit { unit: unit.clone(), state: self.state });
            }
            Some(until) if now >= until => {
                self.restarting = None;
                self.state = UnitState {
                    active: Active::Active,
                    job: false,
                    invocation: Invocation::new([now as u8; 16]),
                    up_since: at(now),
                    ..self.state
                };
                facts.push(Fact::Unit { unit: unit.clone(), state: self.state });
            }
            _ => {}
        }
        if now.is_multiple_of(5) {
            // While it is restarted, and for a while after, nobody answers.
            let young = now.saturating_sub(self.state.up_since.since_boot().as_secs()) < 8;
            let flaps = !self.failed && chance.happens(0.02 * DAY as f64);
            let is_well = self.restarting.is_none() && !(young && now > 8) && !flaps;
            self.failed = !is_well;
            let said = self.watch.result(&check(), is_well, at(now));
            facts.extend(said.map(|health: Health| Fact::Check {
                unit: unit.clone(),
                check: "http".into(),
                health,
            }));
        }
        if chance.happens(if self.busy { 200.0 } else { 20.0 }) {
            self.busy = !self.busy;
            facts.push(Fact::Sign { unit, sign: Sign::Unusual, stands: self.busy });
        }
        facts
    }
}

#[test]
fn a_day_of_noise_leads_to_nothing() {
    let mut chance = Chance(17);
    let mut healer = Healer::new(settings(), Kept::default(), true, at(0));
    let mut subjects: Vec<Subject> = (0..SERVICES).map(Subject::new).collect();
    for subject in &subjects {
        healer.learn(Fact::Unit { unit: subject.unit.clone(), state: subject.state }, at(0));
    }
    let (mut deploying, mut told, mut restarts) = (0_u64, 0, 0);
    for now in 1..DAY {
        let upgrade = now.is_multiple_of(20_000);
        let busy = (upgrade, (now % 20_000) == 120 && now > 20_000);
        if busy.0 || busy.1 {
            healer.learn(Fact::Packages { busy: busy.0 }, at(now));
        }
        if chance.happens(6.0) {
            deploying = now + 60;
        }
        for subject in &mut subjects {
            let facts = subject.facts(now, &mut chance, now < deploying || upgrade);
            restarts += usize::from(facts.iter().any(
                |fact| matches!(fact, Fact::Unit { state, .. } if state.active == Active::Active),
            ));
            for fact in facts {
                healer.learn(fact, at(now));
            }
        }
        if chance.happens(8.0) {
            healer = Healer::new(settings(), healer.kept(), true, at(now));
            for subject in &subjects {
                let state = subject.state;
                healer.learn(Fact::Unit { unit: subject.unit.clone(), state }, at(now));
                let (unit, check) = (subject.unit.clone(), "http".into());
                healer.learn(Fact::Check { unit, check, health: subject.watch.health() }, at(now));
            }
        }
        for decision in healer.decide(at(now)) {
            told += 1;
            assert!(!matches!(decision, Decision::Begin { .. }), "at {now} s: {decision:?}");
        }
    }
    assert!(restarts > 100 && told > 100, "it was no quiet day: {restarts} restarts, {told} told");
}
