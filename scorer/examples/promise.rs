//! How many false alarms a host-week has where nothing ever happens: stationary series of
//! many shapes, one row a minute, as JSON; run by `cargo xtask bench scoring`.

use holdfast_scorer::THRESHOLD;
use holdfast_scorer::episode::{Episodes, Turn};
use holdfast_scorer::group::Group;
use holdfast_scorer::series::Series;

const METRICS: u64 = 20;
const WEEK: u64 = 7 * 1440;
/// The first week is for learning.
const WEEKS: u64 = 9;
const HOSTS: u64 = 12;
/// Alarms closer together than this are one.
const APART: u64 = 60;

/// Uniform in `0..1`, the same for the same place.
fn uniform(host: u64, metric: u64, row: u64, salt: u64) -> f64 {
    let mut x = host
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(metric.wrapping_mul(0xBF58_476D_1CE4_E5B9))
        .wrapping_add(row.wrapping_mul(0x94D0_49BB_1331_11EB))
        .wrapping_add(salt.wrapping_mul(0xD6E8_FEB8_6659_FD93));
    for _ in 0..3 {
        x ^= x >> 30;
        x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^= x >> 27;
    }
    ((x >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

type Shape = (&'static str, fn(u64, u64, u64) -> f64);

/// Each row of each is independent of when it is but for the season and the bursts.
const SHAPES: [Shape; 6] = [
    ("normal", normal),
    ("heavy-tailed", |h, m, n| uniform(h, m, n, 1).powf(-0.3)),
    ("seasonal", |h, m, n| {
        let phase = n as f64 / 1440.0 * std::f64::consts::TAU + m as f64;
        3.0 * phase.sin() + normal(h, m, n)
    }),
    ("bursty", |h, m, n| {
        let burst = uniform(h, m, n / 10, 3) > 0.95;
        let rate = if burst { 10.0 } else { 1.0 };
        -rate * uniform(h, m, n, 4).ln()
    }),
    ("integer", |h, m, n| (-2.0 * uniform(h, m, n, 5).ln()).floor()),
    ("mixed", |h, m, n| {
        let shapes = [SHAPES[0], SHAPES[1], SHAPES[2], SHAPES[3], SHAPES[4]];
        shapes.get(m as usize % shapes.len()).map_or(0.0, |shape| shape.1(h, m, n))
    }),
];

fn normal(host: u64, metric: u64, row: u64) -> f64 {
    let radius = (-2.0 * uniform(host, metric, row, 7).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(host, metric, row, 8)).cos()
}

fn main() {
    let mut rows = Vec::new();
    for (name, value) in SHAPES {
        let (mut of_groups, mut of_series, mut promised) = (0, 0, 0);
        for host in 0..HOSTS {
            let mut group = Group::new(METRICS as usize, 60.0);
            let mut series = Series::default();
            let mut episodes = Episodes::new(60.0);
            let (mut alarms, mut single) = (Alarms::default(), Alarms::default());
            for n in 0..WEEKS * WEEK {
                let row: Vec<f64> = (0..METRICS).map(|metric| value(host, metric, n)).collect();
                let verdict = group.push(n as f64 * 60.0, &row);
                group.grow_when_due();
                let first = row.first().copied().unwrap_or(f64::NAN);
                let alone = series.push(first).score;
                let turn = episodes.push(verdict.per_week, 1.0);
                if n >= WEEK {
                    promised += u32::from(turn == Turn::Begins);
                    alarms.push(n, verdict.score);
                    single.push(n, alone);
                }
            }
            of_groups += alarms.count;
            of_series += single.count;
        }
        let weeks = (HOSTS * (WEEKS - 1)) as f64;
        rows.push(format!(
            "{{\"shape\": \"{name}\", \"episodes_per_week\": {:.3}, \"group_per_week\": {:.3}, \"series_per_week\": {:.3}}}",
            f64::from(promised) / weeks,
            f64::from(of_groups) / weeks,
            f64::from(of_series) / weeks
        ));
    }
    println!("[{}]", rows.join(",\n"));
}

#[derive(Default)]
struct Alarms {
    count: u32,
    last: Option<u64>,
}

impl Alarms {
    fn push(&mut self, row: u64, score: f64) {
        if score < THRESHOLD {
            return;
        }
        if self.last.is_none_or(|last| row - last > APART) {
            self.count += 1;
        }
        self.last = Some(row);
    }
}
