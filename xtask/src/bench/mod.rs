//! `cargo xtask bench NAME`: measurements, all printed alike.
//!
//! A measurement is a file and a row of [`BENCHES`]. It yields rows of name, value,
//! unit of measure and, where we have set ourselves one, a target. It measures and
//! does not judge: a missed target is shown, and the exit code stays 0.

mod accounting;
mod blame;
mod block_io;
pub(crate) mod faults;
mod healing;
mod idle;
mod peers;
mod process;
mod run_queue;
mod scorer;
mod scoring;
mod signals;
mod units;

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use process::pss;

use crate::stop::Stop;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which measurement; `list` shows them
    name: String,
    /// Print JSON rows instead of a table
    #[arg(long)]
    json: bool,
    /// How long to measure, where the measurement goes by time
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// How many runs, where the measurement goes by runs
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Labelled data, for `scoring`: folders nab, smd and asd
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The programs that score scores, for `scoring`
    #[arg(long, value_name = "DIR")]
    tools: Option<PathBuf>,
    /// The Python that runs them
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
    /// Measure other detectors, too, for `scoring`: ref, ewma, iforest, kmeans, hst, rrcf
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    beside: Vec<String>,
    /// Install the programs that are measured beside ours, with apt
    #[arg(long)]
    install_peers: bool,
}

/// A measurement.
struct Bench {
    name: &'static str,
    help: &'static str,
    run: fn(&Options, &Stop) -> Result<Vec<Row>>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "blame",
        help: "how often a known aggressor is blamed first, for CPU, disk and memory (root)",
        run: blame::run,
    },
    Bench {
        name: "faults",
        help: "whether services that fall ill are told, how soon and why (root; default 20 runs, 80 min)",
        run: faults::run,
    },
    Bench {
        name: "scorer",
        help: "what scoring costs the agent, as two agents beside each other (default 120 s, root)",
        run: scorer::run,
    },
    Bench {
        name: "healing",
        help: "how soon services are healed, beside monit, and what watching 200 costs (15 min, root)",
        run: healing::run,
    },
    Bench {
        name: "idle",
        help: "what the agent costs an idle host, beside node_exporter and sadc (default 60 s)",
        run: idle::run,
    },
    Bench {
        name: "units",
        help: "what the agent costs a host with 200 units (default 30 s, root)",
        run: units::run,
    },
    Bench {
        name: "run-queue",
        help: "what watching the scheduler costs a switch, beside runqlat and offcputime (four minutes, root)",
        run: run_queue::run,
    },
    Bench {
        name: "signals",
        help: "whether our numbers are those of runqlat, biolatency and bpftrace (a minute, root)",
        run: signals::run,
    },
    Bench {
        name: "scoring",
        help: "how good scores are on labelled data (--data, --tools), and what one costs",
        run: scoring::run,
    },
    Bench {
        name: "block",
        help: "what watching block I/O costs a write, beside biolatency (a minute, root)",
        run: block_io::run,
    },
];

/// What a measurement may be told.
pub(crate) struct Options {
    /// How long, when the person said so.
    pub(crate) seconds: Option<u64>,
    /// How many runs, when the person said so.
    pub(crate) runs: Option<u64>,
    /// Labelled data and the programs that score scores.
    pub(crate) labelled: Option<Labelled>,
}

/// Where labelled data is, and what judges scores on it.
pub(crate) struct Labelled {
    pub(crate) data: PathBuf,
    pub(crate) tools: PathBuf,
    pub(crate) python: PathBuf,
    /// Other detectors to measure.
    pub(crate) beside: Vec<String>,
}

/// One number. A target is an upper limit unless [`at_least`](Row::at_least) says so.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<f64>,
    /// The target is a lower limit.
    lower: bool,
    /// Whether the target is met; null without one.
    ok: Option<bool>,
}

impl Row {
    /// A number to know.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, target: None, lower: false, ok: None }
    }

    /// A number that shall be at most `target`.
    pub(crate) fn at_most(self, target: f64) -> Self {
        Self { target: Some(target), ok: Some(self.value <= target), ..self }
    }

    /// A number that shall be at least `target`.
    pub(crate) fn at_least(self, target: f64) -> Self {
        Self { target: Some(target), lower: true, ok: Some(self.value >= target), ..self }
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.name == "list" {
        for bench in BENCHES {
            println!("{:<12}{}", bench.name, bench.help);
        }
        return Ok(());
    }
    let bench = BENCHES.iter().find(|bench| bench.name == args.name);
    let bench = bench.with_context(|| format!("no measurement {}; see `list`", args.name))?;
    if args.install_peers {
        peers::install()?;
    }
    let labelled = args.data.clone().zip(args.tools.clone()).map(|(data, tools)| Labelled {
        data,
        tools,
        python: args.python.clone(),
        beside: args.beside.clone(),
    });
    let options = Options { seconds: args.seconds, runs: args.runs, labelled };
    let rows = (bench.run)(&options, &Stop::listen()?)?;
    if args.json {
        let lines: Result<Vec<String>, _> = rows.iter().map(serde_json::to_string).collect();
        println!("[\n{}\n]", lines?.join(",\n"));
    } else {
        print!("{}", table(&rows));
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let line = |name: &str, value: &str, unit: &str, target: &str, ok: &str| {
        let line = format!("{name:<48}{value:>12}  {unit:<14}{target:>10}  {ok}");
        format!("{}\n", line.trim_end())
    };
    let mut text = line("NAME", "VALUE", "UNIT", "TARGET", "MET");
    for row in rows {
        let sign = if row.lower { '≥' } else { '≤' };
        let target =
            row.target.map_or(String::new(), |target| format!("{sign} {}", number(target)));
        let ok = row.ok.map_or("", |ok| if ok { "yes" } else { "no" });
        text += &line(&row.name, &number(row.value), row.unit, &target, ok);
    }
    text
}

/// Three significant digits, without needless zeros.
fn number(value: f64) -> String {
    let text = match value.abs() {
        v if v >= 100.0 => return format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The middle of the values; not a number when there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(&upper), 1) => upper,
        (Some(&upper), _) => f64::midpoint(values.get(middle - 1).copied().unwrap_or(upper), upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_is_shown() {
        let rows = [Row::new("a", 0.2, "%").at_most(0.5), Row::new("b", 30.0, "MiB").at_most(20.0)];
        let table = table(&rows);
        assert!(table.lines().nth(1).unwrap().ends_with("≤ 0.5  yes"), "{table}");
        assert!(table.lines().nth(2).unwrap().ends_with("≤ 20  no"), "{table}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.1504, 4.0, 24.56, 771.3].map(number), ["0.15", "4", "24.6", "771"]);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
