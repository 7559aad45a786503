//! How many false alarms a host-week has while nothing is known to happen: rows of a real
//! host away from what its operators labelled, as one JSON object; run by
//! `cargo xtask bench scoring` as `quiet SECONDS TRAIN TEST LABEL`.

use std::fs;

use holdfast_scorer::episode::{Episodes, Turn};
use holdfast_scorer::group::Group;

const HOUR_SECONDS: f64 = 3_600.0;
const WEEK_SECONDS: f64 = 168.0 * HOUR_SECONDS;
/// What is promised, in alarms a week.
const PROMISED: f64 = 1.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, train, test, label] = &*arguments else {
        return Err("usage: quiet SECONDS TRAIN TEST LABEL".into());
    };
    let interval: f64 = seconds.parse()?;
    let (train, test, label) = (table(train)?, table(test)?, table(label)?);
    let labelled: Vec<bool> = label.iter().map(|row| row.first() == Some(&1.0)).collect();
    // Nobody labels to the row.
    let near = (HOUR_SECONDS / interval) as usize;
    let quiet = |n: usize| {
        let around = n.saturating_sub(near)..(n + near + 1).min(labelled.len());
        !labelled.get(around).is_some_and(|rows| rows.contains(&true))
    };

    let mut group = Group::new(train.first().map_or(0, Vec::len), interval);
    let mut episodes = Episodes::new(interval);
    let (mut told, mut rows) = (0_u32, 0_u32);
    for (n, row) in train.iter().chain(&test).enumerate() {
        let verdict = group.push(n as f64 * interval, row);
        group.grow_when_due();
        let counts = n.checked_sub(train.len()).is_some_and(quiet);
        rows += u32::from(counts);
        let begins = episodes.push(verdict.per_week, PROMISED) == Turn::Begins;
        told += u32::from(begins && counts);
    }
    let weeks = f64::from(rows) * interval / WEEK_SECONDS;
    println!("{{\"weeks\": {weeks:.4}, \"told\": {told}}}");
    Ok(())
}

/// The numbers of a table with a header; what is no number is `NaN`.
fn table(path: &str) -> Result<Vec<Vec<f64>>, std::io::Error> {
    let row = |line: &str| line.split(',').map(|v| v.trim().parse().unwrap_or(f64::NAN)).collect();
    Ok(fs::read_to_string(path)?.lines().skip(1).map(row).collect())
}
