//! The live view of the fleet: which hosts there are, whether they are heard, and
//! what they last said about themselves.
//!
//! A host is up while heartbeats arrive, late after [`LATE_AFTER`] without one,
//! lost after [`LOST_AFTER`] or when its stream ends. Each change is returned to
//! the caller, who makes an event of it. Time is an argument; the only thing
//! here that acts on a stream is the token that tells it to stop.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_core::clock::BootTime;
use tokio_util::sync::CancellationToken;

use self::{catalogues::Catalogues, host::Stream};
use crate::model::{Catalogue, HostFacts, HostRecord, Name, Probe, Signal, Vitals};

mod catalogues;
mod host;

pub use host::{Change, Host, State};

/// A connected host without a heartbeat for so long is late.
pub const LATE_AFTER: Duration = Duration::from_secs(3);
/// A host without a heartbeat for so long is lost, connected or not.
pub const LOST_AFTER: Duration = Duration::from_secs(10);
/// How long hosts that were up when the collector stopped have to come back
/// before they count as lost.
pub const RETURN_WITHIN: Duration = Duration::from_secs(30);
/// A second agent under the same name is told of again after so long.
const TELL_DUPLICATE_EVERY: Duration = Duration::from_secs(600);
/// How many earlier incarnations of a host are remembered.
const INCARNATIONS: usize = 4;
/// What a host costs beside its catalogue and probes.
const HOST_BYTES: usize = 4096;

/// The right of one stream to speak for a host.
#[derive(Debug, Clone)]
pub struct Link {
    /// The host.
    pub host: Name,
    id: u64,
}

/// A stream was accepted.
#[derive(Debug)]
pub struct Connected {
    /// To be shown with everything the stream reports.
    pub link: Link,
    /// The catalogue as shared with other hosts.
    pub catalogue: Catalogue,
    /// What is to be kept on disk.
    pub record: HostRecord,
    /// The change of state, if it was one.
    pub change: Option<Change>,
}

/// Why a stream was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many hosts.
    #[error("the collector knows {0} hosts, as many as `max_hosts` allows")]
    Hosts(usize),
    /// Too much memory.
    #[error("what is known of all hosts would take more than `host_memory` allows ({0} bytes)")]
    Memory(usize),
    /// Another agent speaks for this host, and it started later.
    #[error("a second agent calls itself {host}; the one that started later is connected")]
    Duplicate {
        /// The name both use.
        host: Name,
        /// Whether this is to be told as an event.
        tell: bool,
    },
}

/// How much may be held.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most hosts.
    pub hosts: usize,
    /// Budget for what is known of all hosts, in bytes.
    pub memory: usize,
}

/// See the module's comment.
#[derive(Debug)]
pub struct Fleet {
    limits: Limits,
    hosts: BTreeMap<Name, Host>,
    catalogues: Catalogues,
    next_stream: u64,
    /// Memory of all hosts, catalogues apart.
    bytes: usize,
}

impl Fleet {
    /// The fleet as known from `records`, nobody connected.
    #[must_use]
    pub fn new(limits: Limits, records: Vec<HostRecord>, now: BootTime) -> Self {
        let mut fleet = Self {
            limits,
            hosts: BTreeMap::new(),
            catalogues: Catalogues::default(),
            next_stream: 0,
            bytes: 0,
        };
        for record in records.into_iter().take(limits.hosts) {
            let state = if record.up { State::Late } else { State::Lost };
            fleet.enter(record, state, now);
        }
        fleet
    }

    /// Accepts a stream that speaks for `host`. `stop` is cancelled when another
    /// stream takes its place.
    ///
    /// # Errors
    ///
    /// A limit is reached, or a later agent of the same name is connected.
    pub fn connect(
        &mut self,
        now: BootTime,
        unix_ms: u64,
        host: Name,
        facts: HostFacts,
        catalogue: Vec<Signal>,
        stop: CancellationToken,
    ) -> Result<Connected, Refused> {
        let incarnation = facts.incarnation;
        if let Some(known) = self.hosts.get_mut(&host) {
            let superseded = known.incarnations.iter().skip(1).any(|old| *old == incarnation);
            if superseded && known.stream.is_some() {
                let since = known.told_duplicate.map(|at| now.since(at));
                let tell = since.is_none_or(|since| since >= TELL_DUPLICATE_EVERY);
                if tell {
                    known.told_duplicate = Some(now);
                }
                return Err(Refused::Duplicate { host, tell });
            }
        } else {
            if self.hosts.len() >= self.limits.hosts {
                return Err(Refused::Hosts(self.limits.hosts));
            }
            self.room_for(HOST_BYTES)?;
            let (host, facts) = (host.clone(), facts.clone());
            let (first_seen_unix_ms, last_seen_unix_ms) = (unix_ms, unix_ms);
            let record =
                HostRecord { host, facts, first_seen_unix_ms, last_seen_unix_ms, up: false };
            self.enter(record, State::Lost, now);
        }
        let room = self.limits.memory.saturating_sub(self.bytes);
        let catalogue =
            self.catalogues.intern(catalogue, room).ok_or(Refused::Memory(self.limits.memory))?;
        self.next_stream += 1;
        let id = self.next_stream;
        let Some(known) = self.hosts.get_mut(&host) else {
            return Err(Refused::Hosts(self.limits.hosts));
        };

        if let Some(older) = known.stream.replace(Stream { id, stop, bytes: 0 }) {
            self.bytes -= older.bytes;
            older.stop.cancel();
        }
        if known.incarnations.front() != Some(&incarnation) {
            known.incarnations.retain(|old| *old != incarnation);
            known.incarnations.push_front(incarnation);
            known.incarnations.truncate(INCARNATIONS);
            known.summary_sequence = 0;
        }
        known.record.facts = facts;
        known.catalogue = catalogue.clone();
        known.patience = LOST_AFTER;
        let change = known.hear(now, unix_ms, "an agent connected");
        let (link, record) = (Link { host, id }, known.record.clone());
        Ok(Connected { link, catalogue, record, change })
    }

    /// A heartbeat arrived.
    pub fn heartbeat(
        &mut self,
        link: &Link,
        now: BootTime,
        unix_ms: u64,
        uptime_seconds: f64,
        vitals: Vitals,
    ) -> Option<Change> {
        let host = self.linked(link)?;
        host.uptime_seconds = uptime_seconds;
        host.vitals = vitals;
        host.hear(now, unix_ms, "heartbeats arrive again")
    }

    /// The host's probes, as reported.
    ///
    /// # Errors
    ///
    /// They would take more memory than there is.
    pub fn set_probes(&mut self, link: &Link, probes: Vec<Probe>) -> Result<(), Refused> {
        let bytes: usize = probes.iter().map(Probe::bytes).sum();
        self.room_for(bytes)?;
        let Some(host) = self.linked(link) else { return Ok(()) };
        let before = std::mem::replace(&mut host.probe_bytes, bytes);
        host.probes = probes;
        self.bytes = self.bytes + bytes - before;
        Ok(())
    }

    /// Counts memory that the stream needs for itself, until it ends.
    ///
    /// # Errors
    ///
    /// There is no room for it.
    pub fn reserve(&mut self, link: &Link, bytes: usize) -> Result<(), Refused> {
        self.room_for(bytes)?;
        let Some(stream) = self.linked(link).and_then(|host| host.stream.as_mut()) else {
            return Ok(());
        };
        stream.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Whether the batch `sequence` of the stream's agent is new; notes it if so.
    pub fn is_new_batch(&mut self, link: &Link, sequence: u64) -> bool {
        let Some(host) = self.linked(link) else { return false };
        let new = sequence > host.summary_sequence;
        host.summary_sequence = host.summary_sequence.max(sequence);
        new
    }

    /// The stream ended, after a Goodbye or without. Does nothing when another took
    /// its place before.
    pub fn disconnect(&mut self, link: &Link, goodbye: bool) -> Option<Change> {
        let host = self.linked(link)?;
        let freed = host.stream.take().map_or(0, |stream| stream.bytes);
        let reason = if goodbye { "the agent was stopped" } else { "the agent's stream ended" };
        let change =
            host.turn(State::Lost, reason).map(|change| Change { wanted: goodbye, ..change });
        self.bytes -= freed;
        change
    }

    /// Finds the hosts that went silent. To be called a few times a second.
    pub fn tick(&mut self, now: BootTime) -> Vec<Change> {
        let silent = |host: &mut Host| {
            let silence = now.since(host.heard);
            if silence >= host.patience {
                host.turn(State::Lost, "no heartbeat arrived for too long")
            } else if silence >= LATE_AFTER && host.state == State::Up {
                host.turn(State::Late, "heartbeats are late")
            } else {
                None
            }
        };
        self.hosts.values_mut().filter_map(silent).collect()
    }

    /// A host by name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.get(name)
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// The first host whose name comes after `name`.
    #[must_use]
    pub fn host_after(&self, name: &str) -> Option<&Host> {
        let after = (std::ops::Bound::Excluded(name), std::ops::Bound::Unbounded);
        self.hosts.range::<str, _>(after).next().map(|(_, host)| host)
    }

    /// Every signal of every catalogue once, by name and owner.
    #[must_use]
    pub fn signals(&self) -> Vec<Arc<Signal>> {
        self.catalogues.signals()
    }

    /// Memory of what is known of all hosts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.catalogues.bytes()
    }

    /// How many hosts are in `state`.
    #[must_use]
    pub fn count(&self, state: State) -> usize {
        self.hosts.values().filter(|host| host.state == state).count()
    }

    fn enter(&mut self, record: HostRecord, state: State, now: BootTime) {
        self.bytes += HOST_BYTES;
        self.hosts.insert(record.host.clone(), Host::new(record, state, now));
    }

    fn room_for(&self, bytes: usize) -> Result<(), Refused> {
        let fits = self.bytes() + bytes <= self.limits.memory;
        fits.then_some(()).ok_or(Refused::Memory(self.limits.memory))
    }

    /// The host that `link` still speaks for.
    fn linked(&mut self, link: &Link) -> Option<&mut Host> {
        let host = self.hosts.get_mut(&link.host)?;
        host.stream.as_ref().is_some_and(|stream| stream.id == link.id).then_some(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn fleet(hosts: usize, records: Vec<HostRecord>) -> Fleet {
        Fleet::new(Limits { hosts, memory: 1 << 20 }, records, at(0))
    }

    fn facts(incarnation: u64) -> HostFacts {
        HostFacts {
            boot_id: String::new(),
            incarnation,
            agent_version: String::new(),
            kernel_release: String::new(),
            os_name: String::new(),
            cpus: 1,
            memory_bytes: 1,
        }
    }

    fn join(
        fleet: &mut Fleet,
        now: u64,
        host: &str,
        incarnation: u64,
    ) -> Result<(Connected, CancellationToken), Refused> {
        let stop = CancellationToken::new();
        let facts = facts(incarnation);
        let joined = fleet.connect(at(now), now, host.into(), facts, Vec::new(), stop.clone())?;
        Ok((joined, stop))
    }

    fn beat(fleet: &mut Fleet, link: &Link, now: u64) -> Option<State> {
        fleet.heartbeat(link, at(now), now, 0.0, Vitals::default()).map(|change| change.state)
    }

    fn states(changes: &[Change]) -> Vec<State> {
        changes.iter().map(|change| change.state).collect()
    }

    #[test]
    fn heartbeats_decide_the_state() {
        let mut fleet = fleet(10, Vec::new());
        let (joined, _stop) = join(&mut fleet, 0, "a", 1).unwrap();
        assert_eq!(joined.change.unwrap().state, State::Up);
        assert_eq!(states(&fleet.tick(at(2))), []);
        assert_eq!(states(&fleet.tick(at(3))), [State::Late]);
        assert_eq!(states(&fleet.tick(at(4))), []);
        assert_eq!(beat(&mut fleet, &joined.link, 5), Some(State::Up));
        assert_eq!(states(&fleet.tick(at(15))), [State::Lost]);
        assert_eq!(beat(&mut fleet, &joined.link, 16), Some(State::Up));
        assert_eq!(fleet.disconnect(&joined.link, false).unwrap().state, State::Lost);
        assert_eq!(
            (fleet.disconnect(&joined.link, false), beat(&mut fleet, &joined.link, 17)),
            (None, None)
        );
    }

    #[test]
    fn the_newer_incarnation_wins_and_the_older_is_refused_while_it_lives() {
        let mut fleet = fleet(10, Vec::new());
        let (first, first_stop) = join(&mut fleet, 0, "a", 1).unwrap();
        let (second, second_stop) = join(&mut fleet, 1, "a", 2).unwrap();
        assert!(first_stop.is_cancelled() && !second_stop.is_cancelled());
        // The older stream has no say any more, not even by ending.
        assert_eq!(
            (beat(&mut fleet, &first.link, 2), fleet.disconnect(&first.link, false)),
            (None, None)
        );
        assert_eq!(fleet.host("a").unwrap().state, State::Up);

        let refused = |tell| Refused::Duplicate { host: "a".into(), tell };
        assert_eq!(join(&mut fleet, 3, "a", 1).unwrap_err(), refused(true));
        assert_eq!(join(&mut fleet, 4, "a", 1).unwrap_err(), refused(false));
        assert_eq!(join(&mut fleet, 700, "a", 1).unwrap_err(), refused(true));
        // The same agent may come back before its old stream was seen to end.
        let (_third, _stop) = join(&mut fleet, 701, "a", 2).unwrap();
        assert!(second_stop.is_cancelled());
        assert_eq!(fleet.disconnect(&second.link, false), None);
    }

    #[test]
    fn batches_are_taken_once() {
        let mut fleet = fleet(10, Vec::new());
        let (joined, _stop) = join(&mut fleet, 0, "a", 1).unwrap();
        let news = [1, 2, 2, 1, 5].map(|n| fleet.is_new_batch(&joined.link, n));
        assert_eq!(news, [true, true, false, false, true]);
        let (again, _stop) = join(&mut fleet, 1, "a", 1).unwrap();
        assert!(!fleet.is_new_batch(&again.link, 5));
        let (restarted, _stop) = join(&mut fleet, 2, "a", 2).unwrap();
        assert!(fleet.is_new_batch(&restarted.link, 1));
    }

    #[test]
    fn hosts_that_were_up_have_time_to_come_back() {
        let record = |host: &str, up| HostRecord {
            host: host.into(),
            facts: facts(1),
            first_seen_unix_ms: 0,
            last_seen_unix_ms: 0,
            up,
        };
        let mut fleet = fleet(10, vec![record("a", true), record("b", true), record("c", false)]);
        let (joined, _stop) = join(&mut fleet, 20, "a", 1).unwrap();
        assert_eq!(joined.change.unwrap().state, State::Up);
        assert_eq!(fleet.tick(at(21)), []);
        let lost = fleet.tick(at(30));
        assert_eq!(
            lost.iter().map(|c| (&*c.host, c.state)).collect::<Vec<_>>(),
            [("a", State::Lost), ("b", State::Lost)]
        );
    }

    #[test]
    fn hosts_and_memory_are_bounded() {
        let mut fleet = fleet(2, Vec::new());
        let (joined, _stop) = join(&mut fleet, 0, "a", 1).unwrap();
        let before = fleet.bytes();
        assert_eq!(fleet.reserve(&joined.link, 1 << 20), Err(Refused::Memory(1 << 20)));
        fleet.reserve(&joined.link, 1000).unwrap();
        fleet.disconnect(&joined.link, false);
        assert_eq!(fleet.bytes(), before);
        join(&mut fleet, 0, "b", 1).unwrap();
        assert_eq!(join(&mut fleet, 0, "c", 1).unwrap_err(), Refused::Hosts(2));
        assert!(join(&mut fleet, 0, "a", 1).is_ok());
    }
}
