//! One host as known now, and its changes of state.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use holdfast_core::clock::BootTime;
use tokio_util::sync::CancellationToken;

use super::RETURN_WITHIN;
use crate::model::{Catalogue, HostRecord, Name, Probe, Vitals};

/// Whether a host is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Heartbeats arrive.
    Up,
    /// The last heartbeats are late.
    Late,
    /// No stream, or no heartbeat for long.
    Lost,
}

/// A host changed its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The host.
    pub host: Name,
    /// Its new state.
    pub state: State,
    /// Why, for a person: "stream ended".
    pub reason: &'static str,
    /// Whether somebody wanted it so: nothing is wrong.
    pub wanted: bool,
}

/// A host as known now.
#[derive(Debug)]
pub struct Host {
    /// What outlives a restart.
    pub record: HostRecord,
    /// Whether it is heard.
    pub state: State,
    /// Time since its boot, by its last heartbeat.
    pub uptime_seconds: f64,
    /// The agent's own cost.
    pub vitals: Vitals,
    /// Its probes.
    pub probes: Vec<Probe>,
    /// Its signals; empty until its first stream since the collector started.
    pub catalogue: Catalogue,
    pub(super) heard: BootTime,
    /// How long after `heard` it counts as lost.
    pub(super) patience: Duration,
    pub(super) stream: Option<Stream>,
    /// Newest first; the first is the one that is or was connected.
    pub(super) incarnations: VecDeque<u64>,
    pub(super) summary_sequence: u64,
    pub(super) told_duplicate: Option<BootTime>,
    pub(super) probe_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u64,
    pub(super) stop: CancellationToken,
    /// Memory it reserved.
    pub(super) bytes: usize,
}

impl Host {
    /// A host of which nobody has spoken yet.
    pub(super) fn new(record: HostRecord, state: State, now: BootTime) -> Self {
        Self {
            state,
            uptime_seconds: 0.0,
            vitals: Vitals::default(),
            probes: Vec::new(),
            catalogue: Arc::default(),
            heard: now,
            patience: RETURN_WITHIN,
            stream: None,
            incarnations: VecDeque::from([record.facts.incarnation]),
            summary_sequence: 0,
            told_duplicate: None,
            probe_bytes: 0,
            record,
        }
    }

    /// A sign of life arrived.
    pub(super) fn hear(
        &mut self,
        now: BootTime,
        unix_ms: u64,
        reason: &'static str,
    ) -> Option<Change> {
        self.heard = now;
        self.record.last_seen_unix_ms = unix_ms;
        self.turn(State::Up, reason)
    }

    /// Goes over to `state`, if that is a change.
    pub(super) fn turn(&mut self, state: State, reason: &'static str) -> Option<Change> {
        if self.state == state {
            return None;
        }
        self.state = state;
        self.record.up = state != State::Lost;
        Some(Change { host: self.record.host.clone(), state, reason, wanted: false })
    }
}
