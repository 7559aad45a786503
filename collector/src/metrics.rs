//! What the collector counts of itself, in OpenMetrics form.
//!
//! Every refusal has a [`Reason`], and all reasons are there from the start, so
//! that a rule on a rate never starts from an absent series.

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::history::Usage;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$row:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$row])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name in the metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

labels! {
    /// Why a connection, a stream or a message was refused.
    Reason {
        /// What arrived on the gRPC port is not HTTP/2.
        NotHttp2 = "not_http2",
        /// A connection made no valid request in time.
        Idle = "idle",
        /// There are as many connections as may be.
        Connections = "connections",
        /// A stream did not say Hello in time.
        NoHello = "no_hello",
        /// A stream started with something else, or said Hello twice.
        NotHello = "not_hello",
        /// No common protocol version.
        Protocol = "protocol",
        /// A message is too large.
        Oversized = "oversized",
        /// A message cannot be decoded.
        Malformed = "malformed",
        /// A name or text is too long or has characters it must not have.
        Name = "name",
        /// A number is out of bounds.
        Number = "number",
        /// A list is too long.
        Size = "size",
        /// A series is unknown or defined twice.
        Series = "series",
        /// A host has more series than one may have.
        SeriesLimit = "series_limit",
        /// A histogram does not hold together.
        Histogram = "histogram",
        /// A second agent under the name of a connected one.
        Duplicate = "duplicate",
        /// There are as many hosts as may be.
        Hosts = "hosts",
        /// What is known of hosts takes as much memory as it may.
        Memory = "memory",
        /// A stream brought no heartbeat for too long.
        Silent = "silent",
        /// The store could not be written.
        Store = "store",
    }
}

labels! {
    /// What kind of message arrived.
    Message {
        /// The start of a stream.
        Hello = "hello",
        /// A sign of life.
        Heartbeat = "heartbeat",
        /// The windows of a host's series.
        Summaries = "summaries",
        /// A fact worth telling at once.
        Event = "event",
        /// The state of a host's probes.
        Probes = "probes",
    }
}

labels! {
    /// One of the collector's two sides.
    Listener {
        /// For agents and operators' tools.
        Grpc = "grpc",
        /// For health checks and metrics.
        Http = "http",
    }
}

labels! {
    /// Which way bytes went.
    Direction {
        /// To the collector.
        Received = "received",
        /// From the collector.
        Sent = "sent",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListener {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    listener: &'static str,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

/// All counters and gauges.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    rejects: Family<ByReason, Counter>,
    messages: Family<ByKind, Counter>,
    connections: Family<ByListener, Gauge>,
    bytes: Family<ByDirection, Counter>,
    hosts: Family<ByState, Gauge>,
    /// Agent streams that said Hello.
    pub sessions: Gauge,
    /// Summaries taken into the history.
    pub summaries: Counter,
    /// Batches that had been taken before.
    pub batches_repeated: Counter,
    /// Events written to the store.
    pub events: Counter,
    /// Events that had been written before.
    pub events_repeated: Counter,
    /// The collector's own events that could not be kept.
    pub events_lost: Counter,
    /// Events removed by age or number.
    pub events_pruned: Counter,
    /// Time of one durable write, in seconds.
    pub commits: Histogram,
    /// Writes that failed.
    pub commit_errors: Counter,
    /// Operators watching events.
    pub watchers: Gauge,
    /// Events that slow watchers missed.
    pub watch_missed: Counter,
    /// Memory of what is known of hosts.
    pub host_bytes: Gauge,
    /// Series in the history.
    pub series: Gauge,
    /// Memory of the history.
    pub series_bytes: Gauge,
    /// Windows each series may keep.
    pub series_depth: Gauge,
    /// Series evicted for lack of memory.
    pub series_evicted: Counter,
    /// Windows dropped early for lack of memory.
    pub windows_shortened: Counter,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let commits = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("holdfast_collector"),
            rejects: Family::default(),
            messages: Family::default(),
            connections: Family::default(),
            bytes: Family::default(),
            hosts: Family::default(),
            sessions: Gauge::default(),
            summaries: Counter::default(),
            batches_repeated: Counter::default(),
            events: Counter::default(),
            events_repeated: Counter::default(),
            events_lost: Counter::default(),
            events_pruned: Counter::default(),
            commits: Histogram::new(commits),
            commit_errors: Counter::default(),
            watchers: Gauge::default(),
            watch_missed: Counter::default(),
            host_bytes: Gauge::default(),
            series: Gauge::default(),
            series_bytes: Gauge::default(),
            series_depth: Gauge::default(),
            series_evicted: Counter::default(),
            windows_shortened: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        for reason in Reason::ALL {
            drop(self.rejects.get_or_create(&ByReason { reason: reason.label() }));
        }
        for kind in Message::ALL {
            drop(self.messages.get_or_create(&ByKind { kind: kind.label() }));
        }
        let r = &mut self.registry;
        r.register("rejects", "Connections, streams and messages refused", self.rejects.clone());
        r.register("messages", "Messages from agents", self.messages.clone());
        r.register("connections", "Connections open", self.connections.clone());
        r.register_with_unit("wire", "Bytes on the wire", Unit::Bytes, self.bytes.clone());
        r.register("hosts", "Hosts known, by state", self.hosts.clone());
        r.register("sessions", "Agent streams that said Hello", self.sessions.clone());
        r.register("summaries", "Summaries taken into the history", self.summaries.clone());
        let help = "Summary batches that had been taken before";
        r.register("batches_repeated", help, self.batches_repeated.clone());
        r.register("events", "Events written to the store", self.events.clone());
        let help = "Events that had been written before";
        r.register("events_repeated", help, self.events_repeated.clone());
        let help = "Own events that could not be kept";
        r.register("events_lost", help, self.events_lost.clone());
        r.register("events_pruned", "Events removed by age or number", self.events_pruned.clone());
        let (help, unit) = ("Time of one durable write", Unit::Seconds);
        r.register_with_unit("store_commit", help, unit, self.commits.clone());
        r.register("store_errors", "Durable writes that failed", self.commit_errors.clone());
        r.register("watchers", "Operators watching events", self.watchers.clone());
        r.register("watch_missed", "Events slow watchers missed", self.watch_missed.clone());
        let help = "Memory of what is known of hosts";
        r.register_with_unit("host", help, Unit::Bytes, self.host_bytes.clone());
        r.register("series", "Series in the history", self.series.clone());
        let (help, unit) = ("Memory of the history", Unit::Bytes);
        r.register_with_unit("series", help, unit, self.series_bytes.clone());
        let help = "Windows each series may keep";
        r.register("series_depth", help, self.series_depth.clone());
        let help = "Series evicted for lack of memory";
        r.register("series_evicted", help, self.series_evicted.clone());
        let help = "Windows dropped early for lack of memory";
        r.register("windows_shortened", help, self.windows_shortened.clone());
    }

    /// Counts a refusal.
    pub fn reject(&self, reason: Reason) {
        self.rejects.get_or_create(&ByReason { reason: reason.label() }).inc();
    }

    /// Counts a message.
    pub fn message(&self, kind: Message) {
        self.messages.get_or_create(&ByKind { kind: kind.label() }).inc();
    }

    /// How many connections `listener` has open.
    pub fn connections(&self, listener: Listener) -> Gauge {
        self.connections.get_or_create_owned(&ByListener { listener: listener.label() })
    }

    /// Counts bytes.
    pub fn wire(&self, listener: Listener, direction: Direction) -> Counter {
        let (listener, direction) = (listener.label(), direction.label());
        self.bytes.get_or_create_owned(&ByDirection { listener, direction })
    }

    /// Sets how many hosts are in each state.
    pub fn set_hosts(&self, up: usize, late: usize, lost: usize) {
        for (state, count) in [("up", up), ("late", late), ("lost", lost)] {
            self.hosts.get_or_create(&ByState { state }).set(count as i64);
        }
    }

    /// Shows what the history holds and lost.
    pub fn set_history(&self, usage: Usage) {
        self.series.set(usage.series as i64);
        self.series_bytes.set(usage.bytes as i64);
        self.series_depth.set(usage.depth as i64);
        self.series_evicted.inc_by(usage.evicted.saturating_sub(self.series_evicted.get()));
        self.windows_shortened.inc_by(usage.shortened.saturating_sub(self.windows_shortened.get()));
    }

    /// Everything as OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _infallible = text::encode(&mut page, &self.registry);
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_there_from_the_start() {
        let metrics = Metrics::new();
        metrics.reject(Reason::NotHttp2);
        metrics.commits.observe(0.003);
        let page = metrics.encode();
        assert!(
            page.contains("holdfast_collector_rejects_total{reason=\"not_http2\"} 1\n"),
            "{page}"
        );
        assert!(page.contains("holdfast_collector_rejects_total{reason=\"silent\"} 0\n"), "{page}");
        assert!(page.contains("holdfast_collector_store_commit_seconds_count 1\n"), "{page}");
        assert!(page.ends_with("# EOF\n"));
    }
}
