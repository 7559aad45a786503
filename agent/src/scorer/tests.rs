//! A simulated host with two units, for days.

use holdfast_scorer::keep::Refusal;

use super::*;
use crate::catalogue::{HOST_CONDITIONS, HOST_RUN_QUEUE, MEMORY_AVAILABLE, UNIT_ON_CPU, UNIT_RSS};
use crate::report::{Series, Stats};

const WINDOW: Duration = Duration::from_secs(10);
const OPTIONS: Options =
    Options { window: WINDOW, promised_per_week: 1.0, learning: Duration::from_secs(1_800) };

fn noise(n: u64, salt: u64) -> f64 {
    let mut x = (n * 31 + salt + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x >> 11) as f64 / (1u64 << 53) as f64
}

fn point(signal: SignalId, instance: &str, value: f64) -> Point {
    let series = Series { number: 0, signal, instance: instance.into() };
    let stats = Stats { count: 10, min: value, mean: value, max: value, last: value };
    Point { series: Arc::new(series), stats, histogram: None }
}

/// A host with two units; `busy` is CPU time a second that the first one has besides.
fn window(n: u64, busy: f64) -> Window {
    let mut points = vec![
        point(MEMORY_AVAILABLE, "", 8e9 + 1e7 * noise(n, 1)),
        point(HOST_CONDITIONS, "", 50.0 * noise(n, 9)),
    ];
    for (salt, unit) in [(2, "a.service"), (4, "b.service")] {
        let busy = if unit == "a.service" { busy } else { 0.0 };
        points.push(point(UNIT_ON_CPU, unit, 1e8 * noise(n, salt) + busy));
        points.push(point(UNIT_RSS, unit, 1e8 + 1e6 * noise(n, salt + 1)));
    }
    Window { sequence: n, end_unix_ms: (1_700_000_000 + n * 10) * 1_000, window_ms: 10_000, points }
}

fn at(n: u64) -> BootTime {
    BootTime::new(Duration::from_secs(n * 10))
}

/// What is new while windows `from..to` pass.
fn run(scorer: &mut Scorer, from: u64, to: u64, busy: f64) -> Vec<(u64, News, u64)> {
    let mut all = Vec::new();
    for n in from..to {
        let news = scorer.window(&window(n, busy), at(n));
        all.extend(news.into_iter().map(|(news, id)| (n, news, id)));
    }
    all
}

/// Three days of nothing.
const DAYS: u64 = 3 * 8_640;

#[test]
fn a_fault_is_one_incident_with_its_reason_and_its_end() {
    let mut scorer = Scorer::new(OPTIONS);
    let quiet = run(&mut scorer, 0, DAYS, 0.0);
    assert!(quiet.is_empty(), "{quiet:?}");
    assert!(scorer.score(Owner::Unit, "a.service").is_some());

    let fault = run(&mut scorer, DAYS, DAYS + 30, 1.8e9);
    let (first, news, id) = *fault.first().expect("it is seen");
    assert!(news == News::Began && first < DAYS + 6, "{fault:?}");
    assert_eq!(fault.iter().filter(|(_, news, _)| *news == News::Began).count(), 1, "{fault:?}");
    let episode = scorer.episode(id).expect("it is remembered");
    let part = episode.leading().expect("it has a part");
    assert_eq!((part.owner, &*part.instance), (Owner::Unit, "a.service"));
    let reason = part.reasons.first().expect("it has a reason");
    assert_eq!(reason.signal, UNIT_ON_CPU);
    assert!(reason.value > 1e9 && reason.usual < 2e8 && reason.share > 0.4, "{reason:?}");

    let after = run(&mut scorer, DAYS + 30, DAYS + 30 + 360, 0.0);
    assert_eq!(
        after.last().map(|(_, news, of)| (*news, *of)),
        Some((News::Ended, id)),
        "{after:?}"
    );
    assert!(scorer.episode(id).is_some_and(|i| i.ended_unix_ms > Some(i.began_unix_ms)));
}

#[test]
fn what_is_read_no_more_is_told_once_and_not_when_there_is_a_reason() {
    let without = |n: u64| {
        let mut window = window(n, 0.0);
        window.points.retain(|point| {
            point.series.signal != UNIT_RSS || &*point.series.instance != "a.service"
        });
        window
    };
    let mut scorer = Scorer::new(OPTIONS);
    run(&mut scorer, 0, DAYS, 0.0);
    let news: Vec<_> = (DAYS..DAYS + 60)
        .flat_map(|n| scorer.window(&without(n), at(n)).into_iter().map(move |news| (n, news)))
        .collect();
    let [(first, (News::Began, id))] = *news else { panic!("{news:?}") };
    assert_eq!(first, DAYS + 2, "the third window without it");
    let episode = scorer.episode(id).expect("it is remembered");
    let part = episode.leading().expect("it has a part");
    assert_eq!((&*part.instance, episode.severity), ("a.service", Severity::Minor));
    let reason = part.reasons.first().expect("it has a reason");
    assert!(reason.signal == UNIT_RSS && reason.value.is_nan() && reason.usual > 9e7, "{reason:?}");

    let mut scorer = Scorer::new(OPTIONS);
    run(&mut scorer, 0, DAYS, 0.0);
    scorer.change_depth();
    let news: Vec<_> = (DAYS..DAYS + 60).flat_map(|n| scorer.window(&without(n), at(n))).collect();
    assert!(news.is_empty(), "{news:?}");
}

#[test]
fn what_was_learnt_goes_on_from_its_file_as_if_nothing_had_been() {
    let mut scorer = Scorer::new(OPTIONS);
    run(&mut scorer, 0, 1_000, 0.0);
    let file = scorer.save();
    let mut restored = Scorer::restore(OPTIONS, &file).expect("it was just written");
    assert_eq!(restored.save(), file);
    for n in 1_000..1_100 {
        scorer.window(&window(n, 0.0), at(n));
        restored.window(&window(n, 0.0), at(n));
        let of = |scorer: &Scorer| scorer.score(Owner::Unit, "a.service").map(f64::to_bits);
        assert_eq!(of(&scorer), of(&restored));
    }
    for length in [0, 3, 17, 18, 100, file.len() / 2, file.len() - 1] {
        let refused = Scorer::restore(OPTIONS, &file[..length]).err();
        assert_eq!(refused, Some(Refusal::Damaged), "{length}");
    }
    let other = Options { window: Duration::from_secs(5), ..OPTIONS };
    assert_eq!(Scorer::restore(other, &file).err(), Some(Refusal::Other));
}

#[test]
fn a_change_calls_for_care_and_so_does_a_false_alarm() {
    let mut scorer = Scorer::new(OPTIONS);
    run(&mut scorer, 0, DAYS, 0.0);
    let care = |scorer: &Scorer, unit: &str, now| {
        let subject = scorer.subjects.iter().find(|s| &*s.instance == unit).unwrap();
        subject.doubt(now) * subject.tiers[0].trust()
    };
    assert!((care(&scorer, "a.service", at(DAYS)) - 1.0).abs() < 1e-9);
    scorer.change(Change::Started("a.service".into()), at(DAYS));
    assert!(care(&scorer, "a.service", at(DAYS)) < 0.02);
    assert!(care(&scorer, "a.service", at(DAYS + 30)) > 0.05, "it fades");
    assert!((care(&scorer, "b.service", at(DAYS)) - 1.0).abs() < 1e-9, "it is not concerned");

    let fault = run(&mut scorer, DAYS, DAYS + 60, 5e9);
    let (_, _, id) = *fault.first().expect("it is loud enough all the same");
    assert_eq!(scorer.episode(id).unwrap().changes, ["a.service was started"]);
    scorer.feedback(id, Feedback::False).unwrap();
    assert!(
        scorer.feedback(id, Feedback::Real).is_err() && scorer.feedback(1, Feedback::Real).is_err()
    );
    assert!(care(&scorer, "a.service", at(DAYS + 1_000)) < 0.11);
    assert_eq!(scorer.calibration().said_false, 1);
}

#[test]
fn nobody_is_scored_before_enough_is_known_and_there_is_an_end_to_it() {
    let mut scorer = Scorer::new(OPTIONS);
    run(&mut scorer, 0, 100, 0.0);
    assert_eq!(scorer.score(Owner::Host, ""), None);
    let calibration = scorer.calibration();
    assert_eq!((calibration.groups, calibration.told), (0, 0));
    assert!(calibration.learning > 0);

    // Who comes and goes is never met, and leaves nothing behind.
    for n in 100..2_100 {
        let passes = point(UNIT_RSS, &format!("run-{n}.scope"), 1.0);
        scorer.window(&Window { points: vec![passes], ..window(n, 0.0) }, at(n));
    }
    assert_eq!((scorer.subjects.len(), scorer.refused()), (3, 0));
    assert!(scorer.newcomers.len() <= NEWCOMERS);

    let points: Vec<Point> =
        (0..1_000).map(|n| point(UNIT_RSS, &format!("{n}.service"), 1.0)).collect();
    for n in 2_100..2_112 {
        let many = Window { points: points.clone(), ..window(n, 0.0) };
        scorer.window(&many, at(n));
    }
    // Those of before have been away for long enough to make room, but not the host.
    assert_eq!(scorer.subjects.len(), SUBJECTS);
    assert!(scorer.refused() > 0);
    assert_eq!(scorer.index.iter().map(HashMap::len).sum::<usize>(), SUBJECTS);
}

#[test]
fn odd_values_from_the_host_do_no_harm() {
    let mut scorer = Scorer::new(OPTIONS);
    for n in 0..400_u64 {
        let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, f64::MAX][n as usize % 5];
        let points = vec![point(HOST_RUN_QUEUE, "", odd), point(UNIT_ON_CPU, "", odd)];
        let odd_time =
            Window { end_unix_ms: n.wrapping_mul(0x9E37_79B9_7F4A_7C15), points, ..window(n, 0.0) };
        scorer.window(&odd_time, at(0));
    }
    assert!(scorer.score(Owner::Host, "").is_none_or(|score| (0.0..1.0).contains(&score)));
    assert!((0.0..=1.0).contains(&scorer.odd()));
}
