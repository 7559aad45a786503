//! Recent windows of every series, in memory.
//!
//! Each series is a queue of windows. All of them together keep to one budget:
//! series that stopped are forgotten first, the least recently updated before
//! others; when that is not enough, every series keeps fewer windows, alike; and
//! only when each is at the least depth are live series evicted. Each loss is
//! counted. Knows nothing of streams; time is an argument.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use holdfast_core::clock::BootTime;

use crate::{
    buckets::Buckets,
    model::{Name, SeriesKey, Window},
};

/// Fewest windows a series keeps while other series can still be shortened.
const LEAST_DEPTH: usize = 3;
/// Most windows a series keeps, whatever the span.
const MOST_DEPTH: usize = 3600;
/// A series without a window for so long has stopped.
const STOPPED: Duration = Duration::from_secs(180);
/// What a series costs beside its windows and names: itself, its row in the index.
const SERIES_BYTES: usize = size_of::<Series>() + 2 * size_of::<SeriesKey>() + 64;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How far back, memory permitting.
    pub span: Duration,
    /// Budget for all series together, in bytes.
    pub memory: usize,
}

/// Where a series was last found. Stays safe to use after the series is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    slot: usize,
    generation: u64,
}

#[derive(Debug)]
struct Series {
    host: Name,
    key: SeriesKey,
    generation: u64,
    updated: BootTime,
    windows: VecDeque<Window>,
    /// Memory of the windows' histograms.
    packed: usize,
}

impl Series {
    fn found(&self) -> Found<'_> {
        Found { key: &self.key, updated: self.updated, windows: &self.windows }
    }

    fn bytes(&self) -> usize {
        let windows = self.windows.capacity() * size_of::<Window>();
        SERIES_BYTES + self.key.instance.len() + windows + self.packed
    }
}

/// What is held and what was lost, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Series held.
    pub series: usize,
    /// Memory of all series.
    pub bytes: usize,
    /// Windows each series may keep now.
    pub depth: usize,
    /// Series evicted for lack of memory since the start.
    pub evicted: u64,
    /// Windows dropped early for lack of memory since the start.
    pub shortened: u64,
}

/// A series as found by a query.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Signal and instance.
    pub key: &'a SeriesKey,
    /// When its newest window arrived.
    pub updated: BootTime,
    /// Its windows, oldest first; never empty.
    pub windows: &'a VecDeque<Window>,
}

impl<'a> Found<'a> {
    /// The newest window.
    #[must_use]
    pub fn newest(&self) -> Option<&'a Window> {
        self.windows.back()
    }
}

/// See the module's comment.
#[derive(Debug)]
pub struct History {
    options: Options,
    series: Vec<Option<Series>>,
    free: Vec<usize>,
    by_host: BTreeMap<Name, BTreeMap<SeriesKey, usize>>,
    generation: u64,
    usage: Usage,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let usage = Usage { depth: MOST_DEPTH, ..Usage::default() };
        Self {
            options,
            series: Vec::new(),
            free: Vec::new(),
            by_host: BTreeMap::new(),
            generation: 0,
            usage,
        }
    }

    /// Adds the newest window of a series of `host`. `id` is what an earlier call
    /// returned for this series; it only makes finding it faster.
    pub fn push(
        &mut self,
        now: BootTime,
        host: &Name,
        key: &SeriesKey,
        id: Option<Id>,
        window: Window,
    ) -> Id {
        let id = id.filter(|id| self.get(*id).is_some()).unwrap_or_else(|| self.enter(host, key));
        let span_ms = self.options.span.as_millis() as usize;
        let depth = (span_ms / window.window_ms.max(1) as usize).clamp(1, self.usage.depth);
        let Some(Some(series)) = self.series.get_mut(id.slot) else { return id };

        let before = series.bytes();
        while series.windows.len() >= depth {
            let Some(oldest) = series.windows.pop_front() else { break };
            series.packed -= packed(&oldest);
        }
        if series.windows.len() == series.windows.capacity() {
            // Grown in small steps: doubling would waste up to half the budget.
            let more = if series.windows.is_empty() { 4 } else { 32 };
            series.windows.reserve_exact(more.min(depth - series.windows.len()));
        }
        series.updated = now;
        series.packed += packed(&window);
        series.windows.push_back(window);
        self.usage.bytes = self.usage.bytes + series.bytes() - before;

        if self.usage.bytes > self.options.memory {
            self.shrink(now);
        }
        id
    }

    /// Forgets series that stopped longer ago than the span, and lets series grow
    /// again when there is room. To be called every few seconds.
    pub fn upkeep(&mut self, now: BootTime) {
        let span = self.options.span;
        for (slot, _) in self.by_age(|updated| now.since(updated) > span) {
            self.remove(slot);
        }
        if self.usage.bytes < self.options.memory / 4 * 3 {
            let depth = self.usage.depth;
            self.usage.depth = (depth + depth / 10 + 1).min(MOST_DEPTH);
        }
    }

    /// All series of `host`, by signal name, owner and instance.
    pub fn of_host(&self, host: &str) -> impl Iterator<Item = Found<'_>> {
        let slots = self.by_host.get(host).into_iter().flat_map(BTreeMap::values);
        slots.filter_map(|slot| self.series.get(*slot)?.as_ref()).map(Series::found)
    }

    /// One series of `host`.
    #[must_use]
    pub fn one(&self, host: &str, key: &SeriesKey) -> Option<Found<'_>> {
        let slot = self.by_host.get(host)?.get(key)?;
        self.series.get(*slot)?.as_ref().map(Series::found)
    }

    /// What is held and what was lost.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    fn get(&self, id: Id) -> Option<&Series> {
        self.series.get(id.slot)?.as_ref().filter(|series| series.generation == id.generation)
    }

    /// Finds or makes the series.
    fn enter(&mut self, host: &Name, key: &SeriesKey) -> Id {
        if let Some(&slot) = self.by_host.get(host).and_then(|series| series.get(key))
            && let Some(Some(series)) = self.series.get(slot)
        {
            return Id { slot, generation: series.generation };
        }
        self.generation += 1;
        let series = Series {
            host: host.clone(),
            key: key.clone(),
            generation: self.generation,
            updated: BootTime::default(),
            windows: VecDeque::new(),
            packed: 0,
        };
        self.usage.series += 1;
        self.usage.bytes += series.bytes();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.series.push(None);
            self.series.len() - 1
        });
        if let Some(place) = self.series.get_mut(slot) {
            *place = Some(series);
        }
        self.by_host.entry(host.clone()).or_default().insert(key.clone(), slot);
        Id { slot, generation: self.generation }
    }

    fn remove(&mut self, slot: usize) {
        let Some(series) = self.series.get_mut(slot).and_then(Option::take) else { return };
        self.free.push(slot);
        self.usage.series -= 1;
        self.usage.bytes -= series.bytes();
        if let Some(of_host) = self.by_host.get_mut(&series.host) {
            of_host.remove(&series.key);
            if of_host.is_empty() {
                self.by_host.remove(&series.host);
            }
        }
    }

    /// Slots of the series whose last update `wanted` accepts, oldest first.
    fn by_age(&self, wanted: impl Fn(BootTime) -> bool) -> Vec<(usize, BootTime)> {
        let live = self.series.iter().enumerate();
        let mut slots: Vec<_> = live
            .filter_map(|(slot, series)| Some((slot, series.as_ref()?.updated)))
            .filter(|(_, updated)| wanted(*updated))
            .collect();
        slots.sort_by_key(|(_, updated)| *updated);
        slots
    }

    /// Gets a sixteenth below the budget, so that this is done rarely.
    fn shrink(&mut self, now: BootTime) {
        let target = self.options.memory / 16 * 15;
        self.evict(target, |updated| now.since(updated) > STOPPED);
        while self.usage.bytes > target && self.usage.depth > LEAST_DEPTH {
            let longest = self.series.iter().flatten().map(|s| s.windows.len()).max();
            let depth = self.usage.depth.min(longest.unwrap_or_default());
            self.usage.depth = depth.saturating_sub(depth / 8 + 1).max(LEAST_DEPTH);
            self.shorten();
        }
        self.evict(target, |_| true);
    }

    fn evict(&mut self, target: usize, wanted: impl Fn(BootTime) -> bool) {
        if self.usage.bytes <= target {
            return;
        }
        for (slot, _) in self.by_age(wanted) {
            if self.usage.bytes <= target {
                break;
            }
            self.remove(slot);
            self.usage.evicted += 1;
        }
    }

    /// Cuts every series to the present depth.
    fn shorten(&mut self) {
        let (depth, mut freed) = (self.usage.depth, 0);
        for series in self.series.iter_mut().flatten() {
            let surplus = series.windows.len().saturating_sub(depth);
            let before = series.bytes();
            series.packed -= series.windows.drain(..surplus).map(|w| packed(&w)).sum::<usize>();
            series.windows.shrink_to(depth);
            freed += before - series.bytes();
            self.usage.shortened += surplus as u64;
        }
        self.usage.bytes -= freed;
    }
}

fn packed(window: &Window) -> usize {
    window.histogram.as_ref().map_or(0, Buckets::heap_bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Kind, Owner, Signal};

    fn key(name: &str, owner: Owner, instance: &str) -> SeriesKey {
        let signal = Signal {
            name: name.into(),
            kind: Kind::Gauge,
            owner,
            measure: String::new(),
            help: String::new(),
            probe: String::new(),
        };
        SeriesKey { signal: Arc::new(signal), instance: instance.into() }
    }

    fn window(n: u64) -> Window {
        let (min, mean, max, last) = (0.0, 1.0, 2.0, n as f64);
        let histogram = Some(Buckets::new([(1, n)].into_iter(), n));
        let end_unix_ms = n * 10_000;
        Window { end_unix_ms, window_ms: 10_000, count: 10, min, mean, max, last, histogram }
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn history(memory: usize) -> History {
        History::new(Options { span: Duration::from_secs(600), memory })
    }

    /// The tracked usage against a count from scratch.
    fn check(history: &History) {
        let bytes: usize = history.series.iter().flatten().map(Series::bytes).sum();
        let packed = |s: &Series| s.windows.iter().map(super::packed).sum::<usize>();
        assert!(history.series.iter().flatten().all(|s| s.packed == packed(s)));
        assert_eq!(
            (history.usage.bytes, history.usage.bytes <= history.options.memory),
            (bytes, true)
        );
        let indexed: usize = history.by_host.values().map(BTreeMap::len).sum();
        assert_eq!(
            (indexed, history.series.iter().flatten().count()),
            (history.usage.series, indexed)
        );
    }

    #[test]
    fn a_series_keeps_its_span_and_survives_a_stale_id() {
        let mut history = history(1 << 20);
        let (host, load) = (Name::from("a"), key("load", Owner::Host, ""));
        let mut id = None;
        for n in 0..100 {
            id = Some(history.push(at(n * 10), &host, &load, id, window(n)));
        }
        let found = history.of_host("a").next().unwrap();
        assert_eq!((found.windows.len(), found.newest().unwrap().last), (60, 99.0));
        check(&history);

        history.upkeep(at(990 + 601));
        assert_eq!((history.usage().series, history.usage().evicted), (0, 0));
        let again = history.push(at(2000), &host, &load, id, window(200));
        assert_ne!(Some(again), id);
        assert_eq!(history.of_host("a").next().unwrap().windows.len(), 1);
        check(&history);
    }

    #[test]
    fn stopped_series_go_first_then_all_get_shorter() {
        let mut history = history(60_000);
        let host = Name::from("a");
        let keys: Vec<_> = (0..20).map(|n| key("x", Owner::Unit, &format!("u{n}"))).collect();
        for n in 0..20 {
            for key in &keys {
                history.push(at(n * 10), &host, key, None, window(n));
            }
        }
        assert_eq!((history.usage().evicted, history.usage().shortened), (0, 0));
        for n in 50..150 {
            for key in keys.iter().skip(5) {
                history.push(at(n * 10), &host, key, None, window(n));
            }
        }
        let usage = history.usage();
        assert_eq!((usage.series, usage.evicted), (15, 5));
        assert!(usage.shortened > 0 && usage.depth >= LEAST_DEPTH, "{usage:?}");
        let lengths: Vec<_> = history.of_host("a").map(|found| found.windows.len()).collect();
        assert!(lengths.iter().all(|n| *n >= LEAST_DEPTH), "{lengths:?}");
        check(&history);
    }

    #[test]
    fn live_series_are_evicted_only_at_the_least_depth() {
        let mut history = history(20_000);
        let host = Name::from("a");
        for round in 0..4 {
            for n in 0..100 {
                let key = key("x", Owner::Unit, &format!("u{n}"));
                history.push(at(round), &host, &key, None, window(round));
            }
        }
        assert!(history.usage().evicted > 0 && history.usage().depth == LEAST_DEPTH);
        check(&history);
        // The newest survives.
        assert!(history.of_host("a").any(|found| &*found.key.instance == "u99"));
    }
}
