//! The governor in a made-up world: what events cost, how many there are, what it does.

use proptest::prelude::*;

use super::*;

const REGAIN: u64 = 60;
const BUDGET: f64 = 1e7;

fn at(second: u64) -> BootTime {
    BootTime::new(Duration::from_secs(second))
}

fn governor() -> Governor {
    let options = Options {
        budget_ns: BUDGET,
        measure_interval: Duration::from_secs(10),
        regain_after: Duration::from_secs(REGAIN),
    };
    Governor::new(options, ["sched", "block", "tcp", "exit"])
}

/// A host where an event of each probe costs `event_ns` at full depth, and less the
/// less deep it looks. Windows are measured as asked for.
struct World {
    governor: Governor,
    event_ns: [f64; 4],
    second: u64,
    moves: Vec<(u64, Move)>,
}

impl World {
    fn new(event_ns: [f64; 4]) -> Self {
        Self { governor: governor(), event_ns, second: 1000, moves: Vec::new() }
    }

    fn true_cost(&self, n: usize, rate: f64) -> f64 {
        let depth = self.governor.probes[n].depth();
        // Not the governor's own shares: it has to find out.
        let share = [1.0, 0.9, 0.7, 0.5, 0.2, 0.0][depth as usize];
        rate * self.event_ns[n] * share
    }

    /// A second at these rates; files tell of all but "tcp".
    fn second(&mut self, rates: [f64; 4]) -> Verdict {
        self.second += 1;
        let told: Vec<_> = (0..4).map(|n| (n != 2).then_some(rates[n])).collect();
        let verdict = self.governor.tick(at(self.second), &told);
        if let Some(step) = verdict.step {
            self.moves.push((self.second, step));
        }
        if verdict.measure {
            let sample = |n: usize| Sample {
                events_per_second: rates[n],
                events: rates[n] / 10.0,
                ns_per_second: self.true_cost(n, rates[n]),
            };
            let on = |n: usize| self.governor.probes[n].depth() != Depth::Off;
            let samples: Vec<_> = (0..4).map(|n| on(n).then(|| sample(n))).collect();
            let end = BootTime::new(Duration::from_millis(self.second * 1000 + 100));
            self.governor.learn(end, &samples);
        }
        verdict
    }

    fn play(&mut self, seconds: u64, rates: [f64; 4]) {
        for _ in 0..seconds {
            self.second(rates);
        }
    }

    fn depths(&self) -> Vec<Depth> {
        self.governor.probes.iter().map(Governed::depth).collect()
    }

    fn cost(&self, rates: [f64; 4]) -> f64 {
        (0..4).map(|n| self.true_cost(n, rates[n])).sum()
    }
}

const CALM: [f64; 4] = [1e3, 10.0, 10.0, 10.0];
const STORM: [f64; 4] = [1e6, 10.0, 10.0, 10.0];
const EVENT_NS: [f64; 4] = [40.0, 200.0, 200.0, 400.0];

#[test]
fn a_storm_costs_depth_within_seconds_and_calm_brings_it_back() {
    let mut world = World::new(EVENT_NS);
    world.play(30, CALM);
    assert!(world.moves.is_empty() && world.depths().iter().all(|depth| *depth == Depth::Full));
    world.play(10, STORM);
    // 4 % of a core, and counters cost a fifth.
    assert_eq!(world.depths()[0], Depth::Counters, "{:?}", world.moves);
    assert!(world.cost(STORM) < BUDGET);
    let (_, first) = world.moves[0];
    assert_eq!((first.probe, first.from, first.to), ("sched", Depth::Full, Depth::Gated));
    assert!((first.cost - 0.04).abs() < 0.001, "{first:?}");

    let storm_moves = world.moves.len();
    world.play(300, STORM);
    assert_eq!(world.moves.len(), storm_moves, "no step up is tried that is known to be too dear");
    world.play(5 * REGAIN, CALM);
    assert!(world.depths().iter().all(|depth| *depth == Depth::Full), "{:?}", world.moves);
    let back: Vec<_> = world.moves[storm_moves..].iter().map(|(second, _)| *second).collect();
    assert!(back.windows(2).all(|pair| pair[1] - pair[0] >= REGAIN), "{back:?}");
}

#[test]
fn one_odd_window_changes_nothing() {
    let mut world = World::new(EVENT_NS);
    world.play(30, CALM);
    world.second(STORM);
    world.play(30, CALM);
    assert!(world.moves.is_empty(), "{:?}", world.moves);
}

#[test]
fn windows_are_rare_while_nothing_happens_and_at_once_when_rates_jump() {
    let mut world = World::new(EVENT_NS);
    let windows = (0..100).filter(|_| world.second(CALM).measure).count();
    assert_eq!(windows, 10);
    assert!(world.second([1e5, 0.0, 0.0, 0.0]).measure);
}

#[test]
fn without_accounting_events_are_counted_and_depth_is_given_up_all_the_same() {
    let mut governor = governor();
    governor.cannot_measure();
    let rates = [Some(1e6), Some(0.0), None, Some(0.0)];
    let moves: Vec<_> = (0..20).filter_map(|n| governor.tick(at(n), &rates).step).collect();
    assert!(!moves.is_empty() && moves.iter().all(|step| step.probe == "sched"));
    let overhead = governor.overhead();
    assert_eq!((overhead.basis, overhead.measured), (Basis::Estimated, None));
    assert!(overhead.cost < 0.9 * overhead.budget, "{overhead:?}");
}

#[test]
fn a_step_up_that_cannot_be_taken_is_tried_again_later() {
    let mut world = World::new([1000.0, 200.0, 200.0, 400.0]);
    world.play(20, STORM);
    assert_eq!(world.depths()[0], Depth::Off);
    let up = |world: &mut World| {
        let step = (0..2000).find_map(|_| world.second(CALM).step).unwrap();
        assert_eq!((step.from, step.to), (Depth::Off, Depth::Counters));
        (world.second, step)
    };
    let (first, step) = up(&mut world);
    world.governor.refused(&step);
    assert_eq!(world.depths()[0], Depth::Off);
    assert!(up(&mut world).0 - first >= 2 * REGAIN);
}

#[test]
fn flapping_waits_longer_each_time_and_no_longer_than_fifteen_minutes() {
    // Files do not tell of "tcp": the governor can only try.
    let mut world = World::new([40.0, 200.0, 2000.0, 400.0]);
    let flood = [1e3, 10.0, 1e5, 10.0];
    world.play(4 * 3600, flood);
    let ups = world.moves.iter().filter(|(_, step)| !step.lowers()).map(|(second, _)| *second);
    let ups: Vec<_> = ups.collect();
    let gaps: Vec<_> = ups.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() > 5 && gaps.is_sorted(), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= 15 * REGAIN + 10), "{gaps:?}");
    assert!(gaps.last().unwrap() >= &(15 * REGAIN), "{gaps:?}");
}

/// What a host does for a while.
fn phase() -> impl Strategy<Value = ([f64; 4], u64)> {
    let rate = || prop_oneof![0.0..100.0, 0.0..1e4, 0.0..3e6_f64];
    ([rate(), rate(), rate(), rate()], 1u64..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn depth_stays_in_range_and_never_moves_faster_than_it_may(
        event_ns in [1.0..2000.0, 1.0..2000.0, 1.0..2000.0, 1.0..2000.0_f64],
        phases in proptest::collection::vec(phase(), 1..30),
    ) {
        let mut world = World::new(event_ns);
        for (rates, seconds) in phases {
            for _ in 0..seconds {
                let before = world.depths();
                let step = world.second(rates).step;
                for (n, (was, is)) in before.iter().zip(world.depths()).enumerate() {
                    let steps = plan(world.governor.probes[n].plan.probe).steps;
                    let place = |depth| steps.iter().position(|step| *step == depth);
                    let (was, is) = (place(*was).unwrap(), place(is).unwrap());
                    let allowed = usize::from(step.is_some_and(|step| step.index == n));
                    prop_assert_eq!(was.abs_diff(is), allowed);
                }
            }
        }
        // A step up comes no sooner than the wait after any other step.
        for pair in world.moves.windows(2) {
            let [(before, _), (second, step)] = pair else { unreachable!() };
            prop_assert!(step.lowers() || second - before >= REGAIN, "{:?}", pair);
        }
    }

    #[test]
    fn full_depth_is_back_when_the_load_is_gone(
        event_ns in [1.0..2000.0, 1.0..2000.0, 1.0..2000.0, 1.0..2000.0_f64],
        phases in proptest::collection::vec(phase(), 1..10),
    ) {
        let mut world = World::new(event_ns);
        for (rates, seconds) in phases {
            world.play(seconds, rates);
        }
        // Eight steps at most, each after the longest wait at worst.
        world.play(9 * 15 * REGAIN, [0.0; 4]);
        prop_assert!(world.depths().iter().all(|depth| *depth == Depth::Full));
    }

    #[test]
    fn constant_overload_ends_within_the_budget(
        event_ns in [1.0..2000.0, 1.0..2000.0, 1.0..2000.0, 1.0..2000.0_f64],
        rates in [0.0..3e6, 0.0..1e6, 0.0..1e6, 0.0..1e6_f64],
    ) {
        let mut world = World::new(event_ns);
        world.play(30, rates);
        prop_assert!(world.cost(rates) < BUDGET, "{} at {:?}", world.cost(rates), world.depths());
        prop_assert!(world.governor.overhead().cost < BUDGET / NS_PER_SECOND);
    }
}
