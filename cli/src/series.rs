//! `holdfast series HOST SIGNAL`: a signal over time.

use std::fmt::Write as _;

use holdfast_proto::v1::{self, GetSeriesRequest};
use serde::Serialize;

use crate::{
    catalogue::{Kind, Meaning, Owner},
    cli::{self, Instance},
    connection::Collector,
    error::Error,
    measure,
    output::{Look, Output},
    sparkline,
    table::{Table, left, right},
    text::clean,
    value::{Scope, Statistics},
};

/// Widest sparkline beside a row, in characters.
const SPARKLINE_WIDTH: usize = 30;

/// A series and its windows, oldest first.
#[derive(Debug, Serialize)]
struct Series {
    host: String,
    signal: String,
    #[serde(flatten)]
    meaning: Meaning,
    #[serde(flatten)]
    scope: Scope,
    points: Vec<Point>,
    /// All windows as one.
    #[serde(skip)]
    whole: Statistics,
}

/// A window.
#[derive(Debug, Serialize)]
struct Point {
    end_unix_ms: u64,
    window_ms: u32,
    #[serde(flatten)]
    statistics: Statistics,
}

impl Series {
    /// Of the wire; `None` when the answer does not say which signal it is.
    fn from_wire(host: &str, series: &v1::SeriesPoints) -> Option<Self> {
        let signal = series.signal.as_ref()?;
        let windows = || series.point.iter().filter_map(|p| Some((p, p.summary.as_ref()?)));
        let point = |(point, summary): (&v1::Point, &v1::Summary)| Point {
            end_unix_ms: point.end_unix_ms,
            window_ms: point.window_ms,
            statistics: Statistics::from_wire(summary),
        };
        Some(Self {
            host: host.to_owned(),
            signal: clean(&signal.name),
            meaning: Meaning::from_wire(signal),
            scope: Scope::new(Owner::from_wire(signal.owner), &series.instance),
            points: windows().map(point).collect(),
            whole: whole(windows().map(|(_, summary)| summary)),
        })
    }

    fn sparkline(&self, width: usize) -> String {
        let headline = |point: &Point| point.statistics.headline(self.meaning.kind);
        sparkline::draw(&self.points.iter().map(headline).collect::<Vec<_>>(), width)
    }
}

/// Windows put together; the mean weighs each by its samples.
fn whole<'a>(windows: impl Iterator<Item = &'a v1::Summary>) -> Statistics {
    let merged = windows.fold(None::<v1::Summary>, |whole, window| {
        let Some(mut whole) = whole else { return Some(window.clone()) };
        let (before, more) = (f64::from(whole.count), f64::from(window.count));
        if before + more > 0.0 {
            whole.mean = (whole.mean * before + window.mean * more) / (before + more);
        }
        whole.count = whole.count.saturating_add(window.count);
        whole.min = whole.min.min(window.min);
        whole.max = whole.max.max(window.max);
        whole.last = window.last;
        match (&mut whole.histogram, &window.histogram) {
            (Some(histogram), Some(more)) => histogram.merge(more),
            (none @ None, more) => none.clone_from(more),
            (Some(_), None) => {}
        }
        Some(whole)
    });
    merged.as_ref().map(Statistics::from_wire).unwrap_or_default()
}

pub(crate) async fn run(
    collector: &mut Collector,
    output: &mut Output,
    options: &cli::Series,
) -> Result<(), Error> {
    let (_, instance) = wanted(&options.instance);
    let request = GetSeriesRequest {
        host: options.host.clone(),
        signal: options.signal.clone(),
        instance: instance.to_owned(),
        last_ms: u64::try_from(options.last.as_millis()).unwrap_or(u64::MAX),
    };
    let answer = collector.call(async |client| client.get_series(request).await).await?;
    let host = clean(&options.host);
    let found = answer.series.iter().filter_map(|series| Series::from_wire(&host, series));
    let series = select(found.collect(), &options.instance);
    if series.is_empty() {
        return Err(nothing(options));
    }
    output.show(series.as_slice(), text)
}

fn wanted(instance: &Instance) -> (Option<Owner>, &str) {
    match instance {
        Instance { unit: Some(unit), .. } => (Some(Owner::Unit), unit),
        Instance { device: Some(device), .. } => (Some(Owner::Device), device),
        Instance { interface: Some(interface), .. } => (Some(Owner::Interface), interface),
        Instance { label: Some(label), .. } => (Some(Owner::Label), label),
        _ => (None, ""),
    }
}

/// The series of the wanted instance. When none is named: the host's own if it
/// has one, for a name may belong to the host and to its units, or else all.
fn select(mut series: Vec<Series>, instance: &Instance) -> Vec<Series> {
    let owner = match wanted(instance) {
        (None, _) if series.iter().any(|s| s.scope.owner == Owner::Host) => Some(Owner::Host),
        (owner, _) => owner,
    };
    let name = wanted(instance).1;
    series.retain(|s| owner.is_none_or(|owner| s.scope.owner == owner));
    series.retain(|s| name.is_empty() || s.scope.instance() == clean(name));
    series.sort_by(|a, b| a.scope.instance().cmp(b.scope.instance()));
    series
}

fn nothing(options: &cli::Series) -> Error {
    let of = match wanted(&options.instance) {
        (Some(owner), name) => format!(" of {} {name:?}", owner.name()),
        (None, _) => String::new(),
    };
    Error::NotFound(format!(
        "host {:?} has no values of {:?}{of} in that time",
        options.host, options.signal
    ))
}

fn text(series: &[Series], look: &Look) -> String {
    match series {
        [one] => points(one, look),
        many => overview(many, look),
    }
}

/// One series: a line for each window.
fn points(series: &Series, look: &Look) -> String {
    let of = match series.scope.instance() {
        "" => String::new(),
        instance => format!(" of {instance}"),
    };
    let mut text = format!("{}{of} on {}\n", series.signal, series.host);
    if let Some(width) = look.width {
        let _ = writeln!(text, "{}", series.sparkline(usize::from(width)));
    }
    let show = |value: f64| measure::value(&series.meaning, value);
    if series.meaning.kind == Kind::Histogram {
        let titles =
            [left("TIME"), right("COUNT"), right("P50"), right("P90"), right("P99"), right("MAX")];
        let mut table = Table::new(look, &titles);
        for point in &series.points {
            let [count, p50, p90, p99, max] = distribution(&point.statistics, &show);
            table.row([look.time(point.end_unix_ms), count, p50, p90, p99, max]);
        }
        return text + &table.finish("No windows.");
    }
    let titles = [left("TIME"), right("LAST"), right("MIN"), right("MEAN"), right("MAX")];
    let mut table = Table::new(look, &titles);
    for point in &series.points {
        let s = &point.statistics;
        table.row([
            look.time(point.end_unix_ms),
            show(s.last),
            show(s.min),
            show(s.mean),
            show(s.max),
        ]);
    }
    text + &table.finish("No windows.")
}

/// Several series: a line for each, over all its windows.
fn overview(many: &[Series], look: &Look) -> String {
    let histogram = many.iter().any(|series| series.meaning.kind == Kind::Histogram);
    let titles = if histogram {
        [right("COUNT"), right("P50"), right("P90"), right("P99"), right("MAX")]
    } else {
        [right("SAMPLES"), right("LAST"), right("MIN"), right("MEAN"), right("MAX")]
    };
    let mut columns = vec![left("OF")];
    columns.extend(titles);
    if look.width.is_some() {
        columns.push(left(""));
    }
    let mut table = Table::new(look, &columns);
    for series in many {
        let show = |value: f64| measure::value(&series.meaning, value);
        let s = &series.whole;
        let numbers = if histogram {
            distribution(s, &show)
        } else {
            [s.samples.to_string(), show(s.last), show(s.min), show(s.mean), show(s.max)]
        };
        let mut cells = vec![series.scope.instance().to_owned()];
        cells.extend(numbers);
        if look.width.is_some() {
            cells.push(series.sparkline(SPARKLINE_WIDTH));
        }
        table.plain(cells);
    }
    table.finish("No series.")
}

fn distribution(statistics: &Statistics, show: &impl Fn(f64) -> String) -> [String; 5] {
    let count = statistics.count.unwrap_or_default();
    let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), show);
    [
        count.to_string(),
        or_dash(statistics.p50),
        or_dash(statistics.p90),
        or_dash(statistics.p99),
        or_dash((count > 0).then_some(statistics.max)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::{capture, field_names, plain},
        value::tests::{latest, latest_histogram, signal},
    };

    fn series(latest: &v1::LatestValue, kind: v1::SignalKind, measure: &str) -> Series {
        let owner = v1::Owner::try_from(latest.owner).unwrap();
        let point = |second: u64| v1::Point {
            end_unix_ms: second * 1000,
            window_ms: 10_000,
            summary: latest.summary.clone(),
        };
        let wire = v1::SeriesPoints {
            signal: Some(signal(&latest.signal, kind, owner, measure)),
            instance: latest.instance.clone(),
            point: vec![point(10), point(20)],
        };
        Series::from_wire("web1", &wire).unwrap()
    }

    fn histogram() -> Series {
        let latest = latest_histogram("cpu.run_queue.latency", v1::Owner::Unit, "a.service");
        series(&latest, v1::SignalKind::Histogram, "ns")
    }

    fn rate(instance: &str) -> Series {
        let latest = latest("disk.read.bytes", v1::Owner::Device, instance, 4096.0);
        series(&latest, v1::SignalKind::Counter, "bytes")
    }

    #[test]
    fn golden_histogram() {
        assert_eq!(
            text(&[histogram()], &plain()),
            "\
cpu.run_queue.latency of a.service on web1
TIME                       COUNT      P50      P90      P99   MAX
1970-01-01T00:00:10+00:00    100  2.82 µs  2.82 µs  2.88 ms  0 ns
1970-01-01T00:00:20+00:00    100  2.82 µs  2.82 µs  2.88 ms  0 ns
"
        );
    }

    #[test]
    fn golden_overview() {
        assert_eq!(
            text(&[rate("vda"), rate("vdb")], &plain()),
            "\
OF   SAMPLES     LAST      MIN     MEAN      MAX
vda       20  4 KiB/s  4 KiB/s  4 KiB/s  4 KiB/s
vdb       20  4 KiB/s  4 KiB/s  4 KiB/s  4 KiB/s
"
        );
    }

    #[test]
    fn a_terminal_gets_a_sparkline() {
        let look = Look { width: Some(80), ..plain() };
        assert!(text(&[rate("vda")], &look).contains("\n██\n"));
    }

    #[test]
    fn windows_merge() {
        assert_eq!(histogram().whole.count, Some(200));
        assert_eq!(histogram().whole.samples, 20);
    }

    #[test]
    fn without_an_instance_the_host_comes_first() {
        let mut host = rate("");
        host.scope = Scope::new(Owner::Host, "");
        let all = || vec![rate("vdb"), rate("vda")];
        let names = |series: Vec<Series>| {
            series.iter().map(|s| s.scope.instance().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(select(all(), &Instance::default())), ["vda", "vdb"]);
        let with_host = all().into_iter().chain([host]).collect();
        assert_eq!(names(select(with_host, &Instance::default())), [""]);
        let vdb = Instance { device: Some("vdb".into()), ..Instance::default() };
        assert_eq!(names(select(all(), &vdb)), ["vdb"]);
        let unit = Instance { unit: Some("vdb".into()), ..Instance::default() };
        assert!(select(all(), &unit).is_empty());
        let drops = latest("network.drops", v1::Owner::Label, "NO_SOCKET", 3.0);
        let drops = || vec![series(&drops, v1::SignalKind::Counter, "count"), rate("vda")];
        let label = Instance { label: Some("NO_SOCKET".into()), ..Instance::default() };
        assert_eq!(names(select(drops(), &label)), ["NO_SOCKET"]);
    }

    #[test]
    fn field_names_are_stable() {
        let json = capture(true, |output| output.show(&[histogram()][..], text).unwrap());
        assert_eq!(
            field_names(&json).join(" "),
            "device host interface kind label measure owner points points.count points.end_unix_ms \
             points.last points.max points.mean points.min points.p50 points.p90 points.p99 \
             points.samples points.sum points.window_ms signal unit"
        );
    }
}
