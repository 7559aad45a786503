//! What the demo has seen so far: probes, series with their extremes, events.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::stack::Stack;

/// A probe, as `holdfast local probes --json` tells it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Probe {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) level: u32,
}

/// What makes a series: its signal, its owner's kind, and the owner's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) instance: Option<String>,
}

/// A series over the demo's time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    /// How many samples the agent has taken.
    pub(crate) samples: u64,
    /// Newest value; a histogram's 99th percentile.
    pub(crate) last: Option<f64>,
    pub(crate) lowest: Option<f64>,
    pub(crate) highest: Option<f64>,
}

/// A row of the catalogue, as `holdfast signals --json` tells it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Signal {
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) kind: String,
    pub(crate) measure: String,
    pub(crate) probe: String,
}

/// Everything seen.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) probes: Vec<Probe>,
    pub(crate) series: BTreeMap<Key, Series>,
    pub(crate) signals: Vec<Signal>,
    /// Events by kind, as the collector holds them.
    pub(crate) events: BTreeMap<String, u64>,
    /// The collector shows the host as up.
    pub(crate) collector_has_host: bool,
    pub(crate) map_bytes: u64,
}

/// The part of `holdfast local status --json` that the demo reads.
#[derive(Deserialize)]
struct Status {
    values: Vec<StatusValue>,
}

#[derive(Deserialize)]
struct StatusValue {
    signal: String,
    owner: String,
    unit: Option<String>,
    device: Option<String>,
    interface: Option<String>,
    label: Option<String>,
    samples: u64,
    /// Null when it is not a number.
    last: Option<f64>,
}

#[derive(Deserialize)]
struct ProbesAnswer {
    probes: Vec<Probe>,
    map_bytes: u64,
}

impl Board {
    /// Asks the agent for its newest values, and the collector while it is needed.
    pub(crate) fn update(&mut self, stack: &Stack) -> Result<()> {
        let probes: ProbesAnswer = read(stack, &["local", "probes"])?;
        (self.probes, self.map_bytes) = (probes.probes, probes.map_bytes);
        let status: Status = read(stack, &["local", "status"])?;
        status.values.into_iter().for_each(|value| self.take(value));
        if !self.collector_has_host {
            let hosts: Vec<Value> = read(stack, &["hosts"])?;
            let up = |host: &Value| host.get("state").is_some_and(|state| state == "up");
            self.collector_has_host = hosts.iter().any(up);
            self.signals = read(stack, &["signals"])?;
        }
        Ok(())
    }

    /// Last readings, and what the collector has of events.
    pub(crate) fn finish(&mut self, stack: &Stack) -> Result<()> {
        self.update(stack)?;
        let events: Vec<Value> = read(stack, &["events", "--limit", "1000"])?;
        self.events.clear();
        for kind in events.iter().filter_map(|event| event.get("kind")?.as_str()) {
            *self.events.entry(kind.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    fn take(&mut self, value: StatusValue) {
        let instance = value.unit.or(value.device).or(value.interface).or(value.label);
        let key = Key { name: value.signal, owner: value.owner, instance };
        let series = self.series.entry(key).or_default();
        series.samples = value.samples;
        series.last = value.last;
        if let Some(last) = value.last {
            series.lowest = Some(series.lowest.map_or(last, |lowest| lowest.min(last)));
            series.highest = Some(series.highest.map_or(last, |highest| highest.max(last)));
        }
    }

    /// The catalogue's row for a series.
    pub(crate) fn signal(&self, key: &Key) -> Option<&Signal> {
        self.signals.iter().find(|s| s.name == key.name && s.owner == key.owner)
    }

    /// Probes that have yielded no sample, though the agent does not say that they
    /// are off.
    pub(crate) fn silent_probes(&self) -> Vec<&str> {
        let names = self.probes.iter().filter(|probe| probe.state != "off");
        let names = names.map(|probe| probe.name.as_str());
        names.filter(|name| !self.yields(name)).collect()
    }

    /// Whether any series of the probe has samples. A probe that knows nothing but
    /// distributions may be silent: nothing happened that it could have measured.
    pub(crate) fn yields(&self, probe: &str) -> bool {
        let mut signals = self.signals.iter().filter(|signal| signal.probe == probe).peekable();
        let known = signals.peek().is_some();
        (known && signals.all(|signal| signal.kind == "histogram"))
            || self.series.iter().any(|(key, series)| {
                series.samples > 0 && self.signal(key).is_some_and(|signal| signal.probe == probe)
            })
    }

    /// The series of a signal whose newest value is the largest.
    pub(crate) fn largest(&self, name: &str, owner: &str) -> Option<(&Key, &Series)> {
        // "other" gathers what has no row of its own: nothing to point at.
        let of_signal = |(key, _): &(&Key, &Series)| {
            key.name == name && key.owner == owner && key.instance.as_deref() != Some("other")
        };
        let newest = |series: &Series| series.last.unwrap_or(f64::MIN);
        self.series
            .iter()
            .filter(of_signal)
            .max_by(|(_, a), (_, b)| newest(a).total_cmp(&newest(b)))
    }

    /// Whether any series of a signal was ever above zero.
    pub(crate) fn moved(&self, name: &str, owner: &str) -> bool {
        self.series.iter().any(|(key, series)| {
            key.name == name && key.owner == owner && series.highest.is_some_and(|high| high > 0.0)
        })
    }
}

fn read<T: for<'a> Deserialize<'a>>(stack: &Stack, question: &[&str]) -> Result<T> {
    serde_json::from_value(stack.ask(question)?)
        .with_context(|| format!("`holdfast {}` answered something else", question.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(last: Option<f64>) -> StatusValue {
        StatusValue {
            signal: "cpu.run_queue.latency".into(),
            owner: "unit".into(),
            unit: Some("a.service".into()),
            device: None,
            interface: None,
            label: None,
            samples: 1,
            last,
        }
    }

    #[test]
    fn extremes_outlive_the_newest_value() {
        let mut board = Board::default();
        for last in [Some(3.0), None, Some(9.0), Some(0.0)] {
            board.take(value(last));
        }
        let (key, series) = board.largest("cpu.run_queue.latency", "unit").unwrap();
        assert_eq!(key.instance.as_deref(), Some("a.service"));
        assert_eq!((series.lowest, series.last, series.highest), (Some(0.0), Some(0.0), Some(9.0)));
        assert!(board.moved("cpu.run_queue.latency", "unit"));
        assert!(!board.moved("cpu.run_queue.latency", "host"));
    }
}
