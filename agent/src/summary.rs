//! From frames to summaries: pure arithmetic, no clock, no I/O.
//!
//! Each tick the sampler shows this tick's frame and the one before. A counter
//! becomes its rate per second, a gauge stays as read, a histogram becomes what it
//! counted since the last tick. A counter that fell (its source restarted), a row
//! that changed hands and a value that was not read yield no sample: a gap is
//! never filled with an invented zero.

use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::histogram::{self, BUCKETS};
use holdfast_proto::{limits, v1};

use crate::catalogue::{Kind, Owner, SignalId};
use crate::frame::{Frame, Histogram};
use crate::probes::PROBES;
use crate::report::{Newest, Point, Series, Stats, Window};

/// What one series gathered in the window that is open.
#[derive(Debug, Default)]
struct Gather {
    count: u32,
    min: f64,
    max: f64,
    sum: f64,
    last: f64,
}

impl Gather {
    fn add(&mut self, value: f64) {
        (self.min, self.max) = if self.count == 0 {
            (value, value)
        } else {
            (self.min.min(value), self.max.max(value))
        };
        self.count += 1;
        self.sum += value;
        self.last = value;
    }
}

/// A series that is being summed up.
#[derive(Debug)]
struct Track {
    series: Arc<Series>,
    /// Generation of the row when the series began.
    generation: u32,
    row: usize,
    window: Gather,
    /// What a histogram held when the window began.
    base: Option<Box<Histogram>>,
    samples: u64,
    last: f64,
}

/// Sums up frames into windows.
#[derive(Debug)]
pub struct Summarizer {
    tracks: Vec<Track>,
    /// Position in `tracks` by signal and row, `u32::MAX` where there is none.
    index: Vec<u32>,
    /// First position in `index` of each signal.
    first: Vec<usize>,
    rows: [usize; Owner::ALL.len()],
    /// Signals whose counters begin at zero with their row, as histograms do.
    from_zero: Vec<bool>,
    next_number: u32,
    next_sequence: u64,
    refused: u64,
}

const NONE: u32 = u32::MAX;

impl Summarizer {
    /// For frames of the shape of `frame`.
    #[must_use]
    pub fn new(frame: &Frame) -> Self {
        let rows = Owner::ALL.map(|owner| frame.rows(owner).len());
        let mut first = Vec::new();
        let mut cells = 0;
        for id in SignalId::all() {
            first.push(cells);
            cells += rows[id.signal().owner as usize];
        }
        Self {
            tracks: Vec::new(),
            index: vec![NONE; cells],
            first,
            rows,
            from_zero: SignalId::all().map(begins_at_zero).collect(),
            next_number: 0,
            next_sequence: 1,
            refused: 0,
        }
    }

    /// Series not summed up because there were too many
    /// ([`limits::SERIES_PER_HOST`]), counted each tick.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes in a tick. `previous` is the frame of the tick before, which must have
    /// the same shape.
    pub fn tick(&mut self, previous: &Frame, current: &Frame) {
        let elapsed = current.at.since(previous.at);
        for id in SignalId::all() {
            let owner = id.signal().owner;
            for row in 0..self.rows[owner as usize] {
                let (entry, before) = (&current.rows(owner)[row], &previous.rows(owner)[row]);
                // One that died since the last tick has a last sample.
                if !entry.live && !before.live {
                    continue;
                }
                let same = before.generation == entry.generation;
                let sample = if id.signal().kind == Kind::Histogram {
                    distribution(id, row, same.then_some(previous), current)
                } else {
                    let before = if same {
                        previous.get(id, row)
                    } else if self.from_zero[id.index()] {
                        0.0
                    } else {
                        f64::NAN
                    };
                    scalar(id, before, current.get(id, row), elapsed)
                };
                if let Some(sample) = sample {
                    self.add(id, row, current, &sample);
                }
            }
        }
    }

    fn add(&mut self, id: SignalId, row: usize, frame: &Frame, sample: &Sample<'_>) {
        let owner = id.signal().owner;
        let entry = &frame.rows(owner)[row];
        let cell = self.first[id.index()] + row;
        let known = self.tracks.get(self.index[cell] as usize);
        if known.is_none_or(|track| track.generation != entry.generation) {
            if self.tracks.len() >= limits::SERIES_PER_HOST {
                self.refused += 1;
                return;
            }
            self.index[cell] = self.tracks.len() as u32;
            self.tracks.push(Track {
                series: Arc::new(Series {
                    number: self.next_number,
                    signal: id,
                    instance: if owner == Owner::Host {
                        "".into()
                    } else {
                        Arc::clone(&entry.name)
                    },
                }),
                generation: entry.generation,
                row,
                window: Gather::default(),
                base: None,
                samples: 0,
                last: f64::NAN,
            });
            self.next_number += 1;
        }
        let Some(track) = self.tracks.get_mut(self.index[cell] as usize) else { return };
        track.samples += 1;
        match *sample {
            Sample::Scalar(value) => {
                track.window.add(value);
                track.last = value;
            }
            Sample::Distribution { p99, before } => {
                if track.base.is_none() {
                    track.base = Some(Box::new(before.cloned().unwrap_or_default()));
                }
                track.window.count += 1;
                if let Some(p99) = p99 {
                    track.last = p99;
                    track.window.last = p99;
                }
            }
        }
    }

    /// Closes the window that is open and begins the next. Series whose row is no
    /// longer theirs, or no longer live, end here.
    pub fn close(&mut self, frame: &Frame, end_unix_ms: u64, window: Duration) -> Window {
        let mut points = Vec::with_capacity(self.tracks.len());
        for track in &mut self.tracks {
            points.extend(track.close(frame));
        }
        let index = &mut self.index;
        let first = &self.first;
        index.fill(NONE);
        let mut position = 0;
        self.tracks.retain(|track| {
            let id = track.series.signal;
            let row = &frame.rows(id.signal().owner)[track.row];
            let keep = row.live && row.generation == track.generation;
            if keep {
                index[first[id.index()] + track.row] = position;
                position += 1;
            }
            keep
        });
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        Window {
            sequence,
            end_unix_ms,
            window_ms: u32::try_from(window.as_millis()).unwrap_or(u32::MAX),
            points,
        }
    }

    /// The newest value of every series, in no particular order.
    pub fn newest(&self) -> impl Iterator<Item = Newest> + '_ {
        self.tracks.iter().map(|track| Newest {
            signal: track.series.signal,
            instance: Arc::clone(&track.series.instance),
            samples: track.samples,
            last: track.last,
        })
    }
}

impl Track {
    /// This series' share of the window; `None` when it had no sample.
    fn close(&mut self, frame: &Frame) -> Option<Point> {
        let window = std::mem::take(&mut self.window);
        if window.count == 0 {
            return None;
        }
        let series = Arc::clone(&self.series);
        let Some(mut base) = self.base.take() else {
            let mean = window.sum / f64::from(window.count);
            let stats = Stats {
                count: window.count,
                min: window.min,
                mean,
                max: window.max,
                last: window.last,
            };
            return Some(Point { series, stats, histogram: None });
        };
        let row = &frame.rows(series.signal.signal().owner)[self.row];
        if row.generation != self.generation {
            return None;
        }
        let now = frame.histogram(series.signal, self.row)?;
        let mut counts = [0u64; BUCKETS];
        for ((count, new), old) in counts.iter_mut().zip(&now.counts).zip(&base.counts) {
            *count = new.saturating_sub(*old);
        }
        let sum = now.sum.saturating_sub(base.sum);
        base.copy_from(now);
        self.base = Some(base);
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        let lowest = counts.iter().position(|&n| n > 0);
        let highest = counts.iter().rposition(|&n| n > 0);
        let stats = Stats {
            count: window.count,
            min: lowest.map_or(0.0, |i| histogram::lower_bound(i) as f64),
            mean: sum as f64 / total as f64,
            // The last bucket has no upper bound: say where it starts.
            max: highest
                .map_or(0.0, |i| histogram::middle(i).max(histogram::lower_bound(i + 1) as f64)),
            last: window.last,
        };
        Some(Point { series, stats, histogram: Some(v1::Histogram::from_dense(&counts, sum)) })
    }
}

enum Sample<'a> {
    Scalar(f64),
    Distribution { p99: Option<f64>, before: Option<&'a Histogram> },
}

/// What the agent's own programs count, they count for a row from the moment it
/// gets its owner; everybody else's counters were there before.
fn begins_at_zero(id: SignalId) -> bool {
    let probe = PROBES.iter().find(|spec| spec.name == id.signal().probe);
    id.signal().owner != Owner::Host && probe.is_some_and(|spec| spec.level > 0)
}

fn scalar(id: SignalId, before: f64, now: f64, elapsed: Duration) -> Option<Sample<'static>> {
    let value = match id.signal().kind {
        Kind::Gauge | Kind::Histogram => now,
        Kind::Counter => {
            let grown = now - before;
            if grown < 0.0 || elapsed.is_zero() {
                return None;
            }
            grown / elapsed.as_secs_f64()
        }
    };
    value.is_finite().then_some(Sample::Scalar(value))
}

fn distribution<'a>(
    id: SignalId,
    row: usize,
    previous: Option<&'a Frame>,
    current: &Frame,
) -> Option<Sample<'a>> {
    let now = current.histogram(id, row)?;
    let before = previous.and_then(|frame| frame.histogram(id, row));
    if now.sum == 0 && now.counts.iter().all(|&n| n == 0) {
        return None;
    }
    let zero = [0; BUCKETS];
    let old = before.map_or(&zero, |h| &h.counts);
    let grown = now.counts.iter().zip(old).map(|(new, old)| new.saturating_sub(*old)).enumerate();
    Some(Sample::Distribution { p99: histogram::quantile(grown, 0.99), before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{CPU_LOAD, CPU_USER, UNIT_CPU_USAGE, UNIT_ON_CPU, UNIT_RUN_QUEUE};
    use crate::frame::Shape;
    use holdfast_core::clock::BootTime;

    fn frames() -> (Frame, Frame) {
        let mut first = Frame::new(Shape { units: 4, devices: 2, interfaces: 2 });
        first.at = BootTime::new(Duration::from_secs(100));
        let mut second = first.clone();
        second.at = BootTime::new(Duration::from_secs(102));
        (first, second)
    }

    fn point(window: &Window, id: SignalId) -> Option<&Point> {
        window.points.iter().find(|point| point.series.signal == id)
    }

    #[test]
    fn counters_become_rates_and_gauges_stay() {
        let (mut a, mut b) = frames();
        a.set(CPU_USER, 0, 1_000.0);
        b.set(CPU_USER, 0, 5_000.0);
        b.set(CPU_LOAD, 0, 0.5);
        let mut summarizer = Summarizer::new(&a);
        summarizer.tick(&a, &b);
        let window = summarizer.close(&b, 7, Duration::from_secs(10));
        assert_eq!(point(&window, CPU_USER).map(|p| p.stats.mean), Some(2_000.0));
        let load = point(&window, CPU_LOAD).expect("a gauge").stats;
        assert_eq!((load.count, load.min, load.max, load.last), (1, 0.5, 0.5, 0.5));
        assert_eq!((window.sequence, window.end_unix_ms, window.window_ms), (1, 7, 10_000));
    }

    #[test]
    fn a_unit_that_lived_between_two_ticks_is_not_lost() {
        let (a, mut b) = frames();
        let mut c = b.clone();
        c.at = BootTime::new(Duration::from_secs(103));
        for frame in [&mut b, &mut c] {
            frame.assign(Owner::Unit, 1, "a.service".into());
        }
        b.set(UNIT_ON_CPU, 1, 30.0);
        b.set(UNIT_CPU_USAGE, 1, 30.0);
        c.set(UNIT_ON_CPU, 1, 35.0);
        c.retire(Owner::Unit, 1);
        let mut summarizer = Summarizer::new(&a);
        summarizer.tick(&a, &b);
        summarizer.tick(&b, &c);
        let window = summarizer.close(&c, 0, Duration::from_secs(10));
        let on_cpu = point(&window, UNIT_ON_CPU).expect("from its first moment to its last").stats;
        assert_eq!((on_cpu.count, on_cpu.max, on_cpu.last), (2, 15.0, 5.0));
        assert!(point(&window, UNIT_CPU_USAGE).is_none(), "a cgroup may have counted before");
        summarizer.tick(&c, &c.clone());
        assert!(summarizer.close(&c, 0, Duration::from_secs(10)).points.is_empty());
    }

    #[test]
    fn resets_gaps_and_new_owners_yield_no_rate() {
        let (mut a, mut b) = frames();
        a.set(CPU_USER, 0, 5_000.0);
        b.set(CPU_USER, 0, 10.0);
        a.assign(Owner::Unit, 1, "a.service".into());
        a.set(UNIT_CPU_USAGE, 1, 10.0);
        b.assign(Owner::Unit, 1, "a.service".into());
        b.assign(Owner::Unit, 1, "b.service".into());
        b.set(UNIT_CPU_USAGE, 1, 900.0);
        let mut summarizer = Summarizer::new(&a);
        summarizer.tick(&a, &b);
        let window = summarizer.close(&b, 0, Duration::from_secs(10));
        assert!(window.points.is_empty(), "{window:?}");
    }

    #[test]
    fn wrapped_counters_and_hours_of_sleep_yield_no_absurd_rates() {
        let (mut a, mut b) = frames();
        let mut summarizer = Summarizer::new(&a);
        // Backwards by one, wrapped at 32 bits and at 64, not read, not a number of this world.
        for (before, now) in [
            (5.0, 4.0),
            (f64::from(u32::MAX), 3.0),
            (u64::MAX as f64, 0.0),
            (f64::NAN, 1e18),
            (1e18, f64::NAN),
            (0.0, f64::INFINITY),
        ] {
            a.set(CPU_USER, 0, before);
            b.set(CPU_USER, 0, now);
            summarizer.tick(&a, &b);
        }
        // A histogram whose counts fell counts nothing rather than nearly 2^64.
        for (frame, count) in [(&mut a, 100), (&mut b, 7)] {
            frame.assign(Owner::Unit, 1, "a.service".into());
            frame.histogram_mut(UNIT_RUN_QUEUE, 1).expect("row").counts[10] = count;
        }
        summarizer.tick(&a, &b);
        let window = summarizer.close(&b, 0, Duration::from_secs(10));
        assert!(window.points.is_empty(), "{window:?}");

        // The host slept: what the counter gained is spread over all that time.
        a.set(CPU_USER, 0, 1e9);
        b.set(CPU_USER, 0, 2e9);
        b.at = BootTime::new(a.at.since_boot() + Duration::from_secs(10_000));
        summarizer.tick(&a, &b);
        // And a clock that stands still yields nothing.
        summarizer.tick(&a, &a.clone());
        let window = summarizer.close(&b, 0, Duration::from_secs(60));
        let rate = point(&window, CPU_USER).expect("a rate").stats;
        assert_eq!((rate.count, rate.max), (1, 1e5));
    }

    #[test]
    fn histograms_hold_what_the_window_counted() {
        let (mut a, mut b) = frames();
        for frame in [&mut a, &mut b] {
            frame.assign(Owner::Unit, 1, "a.service".into());
            frame.histogram_mut(UNIT_RUN_QUEUE, 1).expect("row").counts[10] = 100;
        }
        let fresh = b.histogram_mut(UNIT_RUN_QUEUE, 1).expect("row");
        (fresh.counts[10], fresh.counts[20], fresh.sum) = (190, 10, 5_000);
        let mut summarizer = Summarizer::new(&a);
        summarizer.tick(&a, &b);
        summarizer.tick(&b, &b.clone());
        let window = summarizer.close(&b, 0, Duration::from_secs(10));
        let point = point(&window, UNIT_RUN_QUEUE).expect("a histogram");
        let counted = point.histogram.as_ref().expect("its buckets");
        assert_eq!((&counted.bucket[..], &counted.count[..]), (&[10, 20][..], &[90, 10][..]));
        assert_eq!((point.stats.count, point.stats.mean), (2, 50.0));
        assert_eq!(point.stats.last, histogram::middle(20));
        assert_eq!(&*point.series.instance, "a.service");

        let quiet = summarizer.close(&b, 0, Duration::from_secs(10));
        assert!(quiet.points.is_empty(), "no tick, no sample");
    }

    #[test]
    fn a_dead_row_ends_its_series_and_numbers_are_not_reused() {
        let (mut a, mut b) = frames();
        for frame in [&mut a, &mut b] {
            frame.assign(Owner::Unit, 1, "a.service".into());
            frame.set(UNIT_ON_CPU, 1, 1.0);
        }
        let mut summarizer = Summarizer::new(&a);
        summarizer.tick(&a, &b);
        b.retire(Owner::Unit, 1);
        let last = summarizer.close(&b, 0, Duration::from_secs(10));
        assert_eq!(last.points.len(), 1);
        assert_eq!(summarizer.newest().count(), 0);
        for frame in [&mut a, &mut b] {
            frame.assign(Owner::Unit, 1, "b.service".into());
            frame.set(UNIT_ON_CPU, 1, 1.0);
        }
        summarizer.tick(&a, &b);
        let next = summarizer.close(&b, 0, Duration::from_secs(10));
        assert_eq!(next.points[0].series.number, last.points[0].series.number + 1);
    }
}
