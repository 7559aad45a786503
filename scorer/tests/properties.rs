//! What holds for any input.

use holdfast_scorer::THRESHOLD;
use holdfast_scorer::group::{Group, Options};
use holdfast_scorer::keep::{Refusal, seal, unseal};
use holdfast_scorer::series::Series;
use proptest::prelude::*;

/// Anything that is an `f64`, ordinary numbers more often.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![4 => -1e3..1e3, 1 => any::<f64>(), 1 => Just(0.0), 1 => Just(f64::NAN)]
}

/// Scores of a group that grows its forests as they fall due.
fn scores(rows: &[Vec<f64>], width: usize) -> Vec<f64> {
    let mut group = Group::new(width, 600.0);
    let mut score = |(n, row): (usize, &Vec<f64>)| {
        let score = group.push(n as f64 * 600.0, row).score;
        group.grow_when_due();
        score
    };
    rows.iter().enumerate().map(&mut score).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_series_scores_anything_within_bounds(values in prop::collection::vec(value(), 0..1_500)) {
        let mut series = Series::default();
        for value in values {
            let verdict = series.push(value);
            prop_assert!((0.0..1.0).contains(&verdict.score), "{value}: {verdict:?}");
            prop_assert!(verdict.decades.is_finite());
        }
    }

    #[test]
    fn a_group_scores_anything_within_bounds(
        rows in prop::collection::vec(prop::collection::vec(value(), 0..6), 0..600),
        times in prop::collection::vec(any::<f64>(), 600),
        interval in any::<f64>(),
    ) {
        let mut group = Group::new(4, interval);
        for (row, seconds) in rows.iter().zip(times) {
            let verdict = group.push(seconds, row);
            prop_assert!((0.0..1.0).contains(&verdict.score), "{row:?}: {verdict:?}");
            prop_assert!(group.loudness().iter().all(|loud| loud.is_finite()));
        }
    }

    #[test]
    fn a_group_goes_on_from_its_file_as_if_nothing_had_been(
        rows in prop::collection::vec(prop::collection::vec(value(), 3), 200..700),
        cut in 0.0..1.0_f64,
    ) {
        let options = Options { learning_seconds: 100.0, ..Options::new(3, 600.0) };
        let mut group = Group::with(&options);
        let (before, after) = rows.split_at((rows.len() as f64 * cut) as usize);
        for (n, row) in before.iter().enumerate() {
            group.push(n as f64 * 600.0, row);
            group.grow_when_due();
        }
        let mut body = Vec::new();
        group.save(&mut body);
        let file = seal(&body);
        let restored = Group::restore(&options, &mut unseal(&file).expect("just written"));
        let mut restored = restored.expect("just written");
        let mut again = Vec::new();
        restored.save(&mut again);
        prop_assert_eq!(&body, &again);
        for (n, row) in after.iter().enumerate() {
            let seconds = (before.len() + n) as f64 * 600.0;
            let (a, b) = (group.push(seconds, row), restored.push(seconds, row));
            prop_assert_eq!(a.score.to_bits(), b.score.to_bits());
            prop_assert_eq!(a.per_week.to_bits(), b.per_week.to_bits());
        }
        let half = body.get(..body.len() / 2).unwrap_or_default();
        prop_assert_eq!(Group::restore(&options, &mut &*half), Err(Refusal::Damaged));
        let other = Options { metrics: 4, ..options };
        prop_assert_eq!(Group::restore(&other, &mut &*body), Err(Refusal::Other));
    }

    #[test]
    fn units_of_measure_of_a_series_do_not_matter(
        values in prop::collection::vec(-100.0..100.0_f64, 300..1_500),
        power in -20..20_i32,
        shift in -1_000.0..1_000.0_f64,
    ) {
        let (mut plain, mut other) = (Series::default(), Series::default());
        let scale = 2.0_f64.powi(power);
        for value in values {
            let (a, b) = (plain.push(value).score, other.push((value + shift) * scale).score);
            prop_assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
    }

    #[test]
    fn units_of_measure_of_a_group_do_not_matter(
        rows in prop::collection::vec(prop::collection::vec(-100.0..100.0_f64, 3), 300..600),
        powers in prop::array::uniform3(-20..20_i32),
    ) {
        let scaled: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| row.iter().zip(powers).map(|(v, power)| v * 2.0_f64.powi(power)).collect())
            .collect();
        for (a, b) in scores(&rows, 3).into_iter().zip(scores(&scaled, 3)) {
            prop_assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
    }

    #[test]
    fn the_future_does_not_change_the_past(
        rows in prop::collection::vec(prop::collection::vec(-100.0..100.0_f64, 3), 200..400),
        cut in 1..200_usize,
    ) {
        let all = scores(&rows, 3);
        let some = scores(rows.get(..cut).unwrap_or_default(), 3);
        prop_assert_eq!(all.get(..cut), Some(&some[..]));
    }
}

#[test]
fn a_group_forgets_what_becomes_usual() {
    let noise = |n: u64| f64::from((n.wrapping_mul(2_654_435_761) >> 16) as u16);
    let level = |n: u64| if n < 3_000 { 0.0 } else { 500_000.0 };
    let rows: Vec<Vec<f64>> = (0..9_000)
        .map(|n| (0..6).map(|metric| noise(n * 6 + metric) + level(n)).collect())
        .collect();
    let scores = scores(&rows, 6);
    let alarms = |from: usize, to: usize| {
        scores.iter().take(to).skip(from).filter(|score| **score >= THRESHOLD).count()
    };
    assert!(alarms(3_000, 3_010) > 0, "a new level is news");
    assert_eq!(alarms(8_000, 9_000), 0, "and is not for ever");
}
