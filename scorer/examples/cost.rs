//! What a sample costs and what is remembered of a metric, as one JSON object; run by
//! `cargo xtask bench scoring`.

use std::hint::black_box;
use std::time::Duration;

use holdfast_scorer::forest::Forest;
use holdfast_scorer::group::Group;
use holdfast_scorer::series::Series;

const METRICS: usize = 38;
const ROWS: usize = 100_000;
/// Rows that the numbers are taken from, over and over.
const TABLE: usize = 4096;

fn main() {
    let mut noise = 1_u64;
    let mut next = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 40) as f64
    };
    let table: Vec<f64> = (0..METRICS * TABLE).map(|_| next()).collect();
    let row = |n: usize| table.chunks(METRICS).nth(n % TABLE).unwrap_or_default();

    let mut group = Group::new(METRICS, 60.0);
    let mut run = |from: usize| {
        for n in from..from + ROWS {
            black_box(group.push(n as f64 * 60.0, row(n)));
        }
    };
    run(0);
    let learnt = cpu();
    run(ROWS);
    let of_group = per(cpu() - learnt, ROWS * METRICS);

    let forest = group.forest_due().map(|(past, version)| {
        let start = cpu();
        let forest = Forest::grow(past, version);
        (cpu() - start, forest)
    });
    let grown_ms = forest.as_ref().map_or(f64::NAN, |(took, _)| took.as_secs_f64() * 1e3);
    if let Some((_, forest)) = forest {
        group.plant(forest);
    }
    let start = cpu();
    for n in 2 * ROWS..3 * ROWS {
        black_box(group.push(n as f64 * 60.0, row(n)));
    }
    let with_forest = per(cpu() - start, ROWS * METRICS);

    let mut series = Series::default();
    let start = cpu();
    table.iter().cycle().take(4 * METRICS * TABLE).for_each(|value| {
        black_box(series.push(*value));
    });
    let of_series = per(cpu() - start, 4 * METRICS * TABLE);
    println!(
        "{{\"group_ns\": {of_group:.1}, \"group_with_forest_ns\": {with_forest:.1}, \
         \"series_ns\": {of_series:.1}, \"forest_ms\": {grown_ms:.3}, \
         \"metric_bytes\": {}, \"group_bytes\": {}, \"series_bytes\": {}}}",
        Group::bytes_per_metric(),
        group.bytes() / METRICS,
        size_of::<Series>(),
    );
}

fn per(time: Duration, count: usize) -> f64 {
    time.as_nanos() as f64 / count as f64
}

/// CPU time of this process so far, which others on the machine do not add to.
fn cpu() -> Duration {
    holdfast_core::clock::process_cpu()
}
