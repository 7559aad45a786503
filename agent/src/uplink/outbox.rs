//! What still has to reach the collector: pure, bounded, no I/O.
//!
//! Events stay until the collector has acknowledged them, windows until it has or
//! until they are too old to matter, of probes and vitals only the newest counts.
//! When a list is full its oldest entry makes room and is counted.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use holdfast_proto::{limits, v1};

use super::wire;
use crate::losses::{Cause, Losses};
use crate::report::{Event, ProbeStatus, Report, Vitals, Window};

/// Most events kept for a collector that does not answer.
pub(crate) const EVENTS: usize = 1024;
/// How long windows are kept for a collector that does not answer.
pub(crate) const KEPT_MS: u32 = 60_000;
/// Most points of all windows kept: what the largest single window may hold, so
/// that short windows of many units stay small too.
const POINTS: usize = limits::SUMMARIES_PER_BATCH;

/// The queue towards the collector.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    events: VecDeque<Arc<Event>>,
    windows: VecDeque<Arc<Window>>,
    probes: Option<Arc<[ProbeStatus]>>,
    vitals: Option<Vitals>,
    sent: Sent,
    losses: Losses,
    dropped: u64,
}

/// How far the present stream has come.
#[derive(Debug, Default)]
struct Sent {
    event: u64,
    window: u64,
    probes: bool,
    heartbeats: u64,
    defined: BTreeSet<u32>,
}

impl Outbox {
    /// An empty queue that counts in `losses` what it had to drop.
    pub(crate) fn new(losses: Losses) -> Self {
        Self { losses, ..Self::default() }
    }

    /// Events and windows that had to make room.
    #[must_use]
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Events that the collector has not acknowledged.
    #[must_use]
    pub(crate) fn pending_events(&self) -> usize {
        self.events.len()
    }

    /// Takes in what the sampler says.
    pub(crate) fn take(&mut self, report: Report) {
        match report {
            Report::Event(event) => {
                if self.events.len() >= EVENTS {
                    self.events.pop_front();
                    self.drop_one(Cause::Events);
                }
                self.events.push_back(event);
            }
            Report::Window(window) => {
                self.windows.push_back(window);
                while self.has_too_many_windows() {
                    self.windows.pop_front();
                    self.drop_one(Cause::Summaries);
                }
            }
            Report::Probes(probes) => {
                self.probes = Some(probes);
                self.sent.probes = false;
            }
            Report::Vitals(vitals) => self.vitals = Some(vitals),
        }
    }

    /// Whether the oldest window has to go; the newest one always stays.
    fn has_too_many_windows(&self) -> bool {
        let length: u64 = self.windows.iter().map(|window| u64::from(window.window_ms)).sum();
        let points: usize = self.windows.iter().map(|window| window.points.len()).sum();
        self.windows.len() > 1 && (length > u64::from(KEPT_MS) || points > POINTS)
    }

    fn drop_one(&mut self, cause: Cause) {
        self.dropped += 1;
        self.losses.add(cause, 1);
    }

    /// A new stream begins: everything that is not acknowledged is to be sent again.
    pub(crate) fn restart(&mut self) {
        self.sent = Sent::default();
    }

    /// The collector holds everything up to these sequences.
    pub(crate) fn acknowledge(&mut self, event: u64, window: u64) {
        self.events.retain(|pending| pending.sequence > event);
        self.windows.retain(|pending| pending.sequence > window);
    }

    /// The next message to send, most urgent first: heartbeat, events, probes, windows.
    pub(crate) fn next_message(&mut self, uptime_seconds: f64) -> Option<v1::AgentMessage> {
        use v1::agent_message::Body;
        let body = if let Some(vitals) = self.vitals.take() {
            self.sent.heartbeats += 1;
            let vitals = Some(wire::vitals(&vitals));
            Body::Heartbeat(v1::Heartbeat {
                sequence: self.sent.heartbeats,
                uptime_seconds,
                vitals,
            })
        } else if let Some(event) =
            self.events.iter().find(|event| event.sequence > self.sent.event)
        {
            self.sent.event = event.sequence;
            Body::Event(wire::event(event))
        } else if let Some(probes) = self.probes.as_ref().filter(|_| !self.sent.probes) {
            self.sent.probes = true;
            Body::Probes(v1::Probes { probe: probes.iter().map(wire::probe).collect() })
        } else {
            let window = self.windows.iter().find(|window| window.sequence > self.sent.window)?;
            self.sent.window = window.sequence;
            Body::Summaries(wire::window(window, &mut self.sent.defined))
        };
        Some(v1::AgentMessage { body: Some(body) })
    }

    /// Whether [`next_message`](Self::next_message) has something.
    #[must_use]
    pub(crate) fn has_unsent(&self) -> bool {
        self.vitals.is_some()
            || self.events.back().is_some_and(|event| event.sequence > self.sent.event)
            || (self.probes.is_some() && !self.sent.probes)
            || self.windows.back().is_some_and(|window| window.sequence > self.sent.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::CPU_LOAD;
    use crate::report::{Point, Series, Severity, Stats};
    use v1::agent_message::Body;

    fn event(sequence: u64) -> Report {
        Report::Event(Arc::new(Event {
            sequence,
            unix_ms: 0,
            kind: "process.exit",
            severity: Severity::Info,
            unit: "".into(),
            message: String::new(),
            fields: Vec::new(),
        }))
    }

    fn window(sequence: u64) -> Report {
        let series = Arc::new(Series { number: 3, signal: CPU_LOAD, instance: "".into() });
        let stats = Stats { count: 1, min: 1.0, mean: 1.0, max: 1.0, last: 1.0 };
        let points = vec![Point { series, stats, histogram: None }];
        Report::Window(Arc::new(Window { sequence, end_unix_ms: 0, window_ms: 10_000, points }))
    }

    fn drain(outbox: &mut Outbox) -> Vec<Body> {
        std::iter::from_fn(|| outbox.next_message(1.0)).filter_map(|message| message.body).collect()
    }

    #[test]
    fn events_are_kept_until_acknowledged_and_sent_again_on_a_new_stream() {
        let mut outbox = Outbox::default();
        (1..=3).for_each(|sequence| outbox.take(event(sequence)));
        assert_eq!(drain(&mut outbox).len(), 3);
        assert!(!outbox.has_unsent());
        outbox.acknowledge(2, 0);
        outbox.restart();
        let again = drain(&mut outbox);
        assert!(matches!(&again[..], [Body::Event(event)] if event.sequence == 3));
    }

    #[test]
    fn definitions_go_once_in_each_stream() {
        let mut outbox = Outbox::default();
        outbox.take(window(1));
        outbox.take(window(2));
        let defined = |bodies: &[Body]| -> Vec<usize> {
            bodies
                .iter()
                .map(|b| if let Body::Summaries(s) = b { s.define.len() } else { 9 })
                .collect()
        };
        assert_eq!(defined(&drain(&mut outbox)), [1, 0]);
        outbox.restart();
        assert_eq!(defined(&drain(&mut outbox)), [1, 0]);
    }

    #[test]
    fn a_silent_collector_costs_the_oldest_first_and_it_is_counted() {
        let losses = Losses::default();
        let mut outbox = Outbox::new(losses.clone());
        (1..=EVENTS as u64 + 5).for_each(|sequence| outbox.take(event(sequence)));
        (1..=u64::from(KEPT_MS) / 10_000 + 2).for_each(|sequence| outbox.take(window(sequence)));
        assert_eq!((outbox.dropped(), outbox.pending_events()), (7, EVENTS));
        assert_eq!(losses.total(), 7);
        assert!(
            matches!(outbox.next_message(0.0).and_then(|m| m.body), Some(Body::Event(e)) if e.sequence == 6)
        );
    }

    #[test]
    fn a_heartbeat_overtakes_everything() {
        let mut outbox = Outbox::default();
        outbox.take(event(1));
        outbox.take(Report::Vitals(Vitals::default()));
        assert!(
            matches!(outbox.next_message(5.0).and_then(|m| m.body), Some(Body::Heartbeat(h)) if h.uptime_seconds == 5.0)
        );
    }
}
