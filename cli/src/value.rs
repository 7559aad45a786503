//! The newest value of a series: its statistics, what they mean, and whose they are.

use std::collections::HashMap;

use holdfast_proto::v1;
use serde::Serialize;

use crate::{
    catalogue::{Catalogue, Kind, Meaning, Owner},
    measure,
    text::clean,
};

/// Statistics of a series over a window. Of a counter they are rates per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Statistics {
    /// How many samples, one a second, the window held.
    pub(crate) samples: u32,
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) max: f64,
    pub(crate) last: f64,
    /// How many values a histogram counted; null for other kinds, as all that follow.
    pub(crate) count: Option<u64>,
    pub(crate) sum: Option<u64>,
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
}

impl Statistics {
    /// Of a window on the wire.
    pub(crate) fn from_wire(summary: &v1::Summary) -> Self {
        let histogram = summary.histogram.as_ref().filter(|histogram| histogram.is_valid());
        Self {
            samples: summary.count,
            min: summary.min,
            mean: summary.mean,
            max: summary.max,
            last: summary.last,
            count: histogram.map(v1::Histogram::total),
            sum: histogram.map(|histogram| histogram.sum),
            p50: histogram.and_then(|histogram| histogram.quantile(0.5)),
            p90: histogram.and_then(|histogram| histogram.quantile(0.9)),
            p99: histogram.and_then(|histogram| histogram.quantile(0.99)),
        }
    }

    /// The one number that stands for the window: the 99th percentile of a
    /// histogram, the mean rate of a counter, the last reading of a gauge.
    pub(crate) fn headline(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Histogram => self.p99.unwrap_or_default(),
            Kind::Counter => self.mean,
            Kind::Gauge | Kind::Unknown => self.last,
        }
    }
}

/// Whom a series belongs to; the one of the names that applies is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Scope {
    pub(crate) owner: Owner,
    pub(crate) unit: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) label: Option<String>,
}

impl Scope {
    /// Of an owner and the name of its instance.
    pub(crate) fn new(owner: Owner, instance: &str) -> Self {
        let name = |of: Owner| (of == owner).then(|| clean(instance));
        Self {
            owner,
            unit: name(Owner::Unit),
            device: name(Owner::Device),
            interface: name(Owner::Interface),
            label: name(Owner::Label),
        }
    }

    /// The unit, device, interface or label; empty for the host.
    pub(crate) fn instance(&self) -> &str {
        [&self.unit, &self.device, &self.interface, &self.label]
            .into_iter()
            .find_map(Option::as_deref)
            .unwrap_or_default()
    }
}

/// The newest window of a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Value {
    pub(crate) signal: String,
    #[serde(flatten)]
    pub(crate) meaning: Meaning,
    #[serde(flatten)]
    pub(crate) scope: Scope,
    pub(crate) end_unix_ms: u64,
    #[serde(flatten)]
    pub(crate) statistics: Statistics,
}

impl Value {
    fn from_wire(latest: &v1::LatestValue, catalogue: &Catalogue) -> Option<Self> {
        let summary = latest.summary.as_ref()?;
        let owner = Owner::from_wire(latest.owner);
        let signal = clean(&latest.signal);
        Some(Self {
            meaning: catalogue.meaning(&signal, owner),
            scope: Scope::new(owner, &latest.instance),
            end_unix_ms: latest.end_unix_ms,
            statistics: Statistics::from_wire(summary),
            signal,
        })
    }

    /// As text: a number with its unit, or the distribution in short.
    pub(crate) fn text(&self) -> String {
        let show = |value| measure::value(&self.meaning, value);
        let statistics = &self.statistics;
        match (statistics.p50, statistics.p99, statistics.count) {
            (Some(p50), Some(p99), Some(count)) => format!(
                "p50 {}, p99 {}, {} values",
                show(p50),
                show(p99),
                measure::count(count as f64)
            ),
            _ if self.meaning.kind == Kind::Histogram => "no values".to_owned(),
            _ => show(statistics.headline(self.meaning.kind)),
        }
    }
}

/// All values of one answer, in the order they came; values without a window are left out.
pub(crate) fn all(latest: &[v1::LatestValue], catalogue: &Catalogue) -> Vec<Value> {
    latest.iter().filter_map(|latest| Value::from_wire(latest, catalogue)).collect()
}

/// Finds values by signal, for one instance.
pub(crate) struct Lookup<'a>(HashMap<&'a str, &'a Value>);

impl<'a> Lookup<'a> {
    /// The values that belong to `instance` of `owner`.
    pub(crate) fn new(
        values: impl IntoIterator<Item = &'a Value>,
        owner: Owner,
        instance: &str,
    ) -> Self {
        let belongs =
            |value: &&Value| value.scope.owner == owner && value.scope.instance() == instance;
        Self(
            values
                .into_iter()
                .filter(belongs)
                .map(|value| (value.signal.as_str(), value))
                .collect(),
        )
    }

    /// The number that stands for the newest window of `signal`.
    pub(crate) fn headline(&self, signal: &str) -> Option<f64> {
        self.0.get(signal).map(|value| value.statistics.headline(value.meaning.kind))
    }

    /// The mean rate of a counter of nanoseconds, as a share of the time passed.
    pub(crate) fn share(&self, signal: &str) -> Option<f64> {
        self.0.get(signal).map(|value| value.statistics.mean / 1e9)
    }

    /// The median and the 99th percentile of a histogram.
    pub(crate) fn quantiles(&self, signal: &str) -> (Option<f64>, Option<f64>) {
        self.0.get(signal).map_or((None, None), |v| (v.statistics.p50, v.statistics.p99))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A window of ten samples around `value`.
    pub(crate) fn latest(
        signal: &str,
        owner: v1::Owner,
        instance: &str,
        value: f64,
    ) -> v1::LatestValue {
        v1::LatestValue {
            signal: signal.into(),
            owner: owner.into(),
            instance: instance.into(),
            summary: Some(v1::Summary {
                series: 1,
                count: 10,
                min: value,
                mean: value,
                max: value,
                last: value,
                histogram: None,
            }),
            end_unix_ms: 86_390_000,
        }
    }

    /// A window whose values are 90 times bucket 10, 10 times bucket 50.
    pub(crate) fn latest_histogram(
        signal: &str,
        owner: v1::Owner,
        instance: &str,
    ) -> v1::LatestValue {
        let mut value = latest(signal, owner, instance, 0.0);
        if let Some(summary) = &mut value.summary {
            summary.histogram =
                Some(v1::Histogram { bucket: vec![10, 50], count: vec![90, 10], sum: 1000 });
        }
        value
    }

    /// A row of the catalogue.
    pub(crate) fn signal(
        name: &str,
        kind: v1::SignalKind,
        owner: v1::Owner,
        measure: &str,
    ) -> v1::SignalInfo {
        v1::SignalInfo {
            name: name.into(),
            kind: kind.into(),
            owner: owner.into(),
            measure: measure.into(),
            help: format!("What {name} means"),
            probe: "sched".into(),
        }
    }

    #[test]
    fn bad_histograms_and_unknown_signals_do_no_harm() {
        let mut bad = latest_histogram("x", v1::Owner::Unit, "a\u{7}.service");
        if let Some(histogram) = bad.summary.as_mut().and_then(|s| s.histogram.as_mut()) {
            histogram.bucket.push(3);
        }
        let values = all(&[bad], &Catalogue::default());
        assert_eq!(values.len(), 1);
        assert_eq!(values[0].statistics.p99, None);
        assert_eq!(values[0].scope.instance(), "a\u{fffd}.service");
        assert_eq!(values[0].text(), "0");
    }

    #[test]
    fn lookups_are_by_owner_and_instance() {
        let catalogue = Catalogue::from_wire(&[signal(
            "cpu.on_cpu.time",
            v1::SignalKind::Counter,
            v1::Owner::Unit,
            "ns",
        )]);
        let values = all(
            &[
                latest("cpu.on_cpu.time", v1::Owner::Host, "", 1e9),
                latest("cpu.on_cpu.time", v1::Owner::Unit, "a.service", 5e8),
            ],
            &catalogue,
        );
        let lookup = Lookup::new(&values, Owner::Unit, "a.service");
        assert_eq!(lookup.share("cpu.on_cpu.time"), Some(0.5));
        assert_eq!(lookup.share("memory.current"), None);
        assert_eq!(values[1].text(), "50.0 %");
    }
}
