//! Facts become events: numbered, and not too many of them. Every stage that has something
//! to say says it here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_core::clock::{self, BootTime};
use tokio::sync::mpsc;

use crate::losses::{Cause, Losses};
use crate::report::{Event, Report, Severity};

/// Events of one kind that may come at once, and how many a second after that.
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 2.0;
/// The same for one kind of one unit, so that scripts whose commands fail all the
/// time do not hide what happens elsewhere.
const UNIT_BURST: f64 = 20.0;
const UNIT_PER_SECOND: f64 = 0.2;
/// Most allowances kept; those that are whole again are forgotten first.
const ALLOWANCES: usize = 512;

/// What is known about an event before it has a number.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Stable kind, such as `process.signal`.
    pub kind: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The unit it concerns; empty for the host.
    pub unit: Arc<str>,
    /// One plain sentence.
    pub message: String,
    /// Details by name.
    pub fields: Vec<(&'static str, String)>,
}

impl Fact {
    /// Of the host, without details.
    #[must_use]
    pub fn new(kind: &'static str, severity: Severity, message: String) -> Self {
        Self { kind, severity, unit: Arc::from(""), message, fields: Vec::new() }
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: f64,
    at: BootTime,
}

impl Allowance {
    fn refill(&mut self, now: BootTime, per_second: f64, burst: f64) {
        let elapsed = now.since(self.at).as_secs_f64();
        *self = Self { left: (self.left + elapsed * per_second).min(burst), at: now };
    }
}

/// Numbers events and holds back floods, by kind and by unit.
#[derive(Debug)]
struct Journal {
    next: u64,
    kinds: BTreeMap<&'static str, Allowance>,
    units: BTreeMap<(&'static str, Arc<str>), Allowance>,
    losses: Losses,
}

impl Journal {
    fn new(losses: Losses) -> Self {
        Self { next: 1, kinds: BTreeMap::new(), units: BTreeMap::new(), losses }
    }

    /// The event of `fact`; `None`, and counted, when its kind has come too often.
    fn enter(&mut self, fact: Fact, now: BootTime, unix_ms: u64) -> Option<Event> {
        if !self.allow(fact.kind, &fact.unit, now) {
            self.losses.add(Cause::EventRate, 1);
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        let Fact { kind, severity, unit, message, fields } = fact;
        Some(Event { sequence, unix_ms, kind, severity, unit, message, fields })
    }

    fn allow(&mut self, kind: &'static str, unit: &Arc<str>, now: BootTime) -> bool {
        if self.units.len() >= ALLOWANCES {
            self.units.retain(|_, unit| {
                unit.refill(now, UNIT_PER_SECOND, UNIT_BURST);
                unit.left < UNIT_BURST
            });
        }
        if self.units.len() >= ALLOWANCES {
            return false;
        }
        let of_kind = self.kinds.entry(kind).or_insert(Allowance { left: BURST, at: now });
        of_kind.refill(now, PER_SECOND, BURST);
        let whole = Allowance { left: UNIT_BURST, at: now };
        let of_unit = self.units.entry((kind, Arc::clone(unit))).or_insert(whole);
        of_unit.refill(now, UNIT_PER_SECOND, UNIT_BURST);
        let allowed = of_kind.left >= 1.0 && of_unit.left >= 1.0;
        if allowed {
            of_kind.left -= 1.0;
            of_unit.left -= 1.0;
        }
        allowed
    }
}

/// Tells events to whoever takes the reports. It never waits: what finds no room is counted.
#[derive(Debug, Clone)]
pub struct Teller {
    journal: Arc<Mutex<Journal>>,
    reports: mpsc::Sender<Report>,
    losses: Losses,
}

impl Teller {
    /// Tells `reports`.
    #[must_use]
    pub fn new(reports: mpsc::Sender<Report>, losses: Losses) -> Self {
        let journal = Arc::new(Mutex::new(Journal::new(losses.clone())));
        Self { journal, reports, losses }
    }

    /// Tells something that happens now.
    pub fn tell(&self, fact: Fact) {
        self.tell_of(fact, BootTime::now(), clock::unix_ms());
    }

    /// Tells something that happened at `unix_ms`.
    pub fn tell_of(&self, fact: Fact, now: BootTime, unix_ms: u64) {
        // Held until it is handed on, so that events come in the order of their numbers.
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(event) = journal.enter(fact, now, unix_ms) else { return };
        let Event { kind, unit, message, .. } = &event;
        tracing::debug!(kind, unit = &**unit, message, "event");
        if self.reports.try_send(Report::Event(Arc::new(event))).is_err() {
            self.losses.add(Cause::Events, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn a_flood_of_one_kind_leaves_room_for_the_others() {
        let losses = Losses::default();
        let mut journal = Journal::new(losses.clone());
        let fact = |kind| Fact::new(kind, Severity::Info, String::new());
        let of = |n: u64| Fact { unit: format!("{n}.service").into(), ..fact("unit.born") };
        let taken = (0..200).filter_map(|n| journal.enter(of(n), at(5), 0)).count();
        assert_eq!((taken, losses.total()), (BURST as usize, 150));
        let next = journal.enter(fact("unit.gone"), at(5), 9).unwrap();
        assert_eq!((next.sequence, next.unix_ms), (51, 9));
        assert!(journal.enter(fact("unit.born"), at(6), 0).is_some(), "some are let through again");
    }

    #[test]
    fn a_noisy_unit_leaves_room_for_the_others() {
        let losses = Losses::default();
        let mut journal = Journal::new(losses.clone());
        let exit = |unit: &str| Fact {
            unit: unit.into(),
            ..Fact::new("process.exit", Severity::Info, String::new())
        };
        let taken = (0..100).filter_map(|_| journal.enter(exit("noisy"), at(5), 0)).count();
        assert_eq!((taken, losses.total()), (UNIT_BURST as usize, 80));
        assert!(journal.enter(exit("quiet"), at(5), 0).is_some());
        assert!(journal.enter(exit("noisy"), at(10), 0).is_some(), "one in five seconds");
        assert!(journal.enter(exit("noisy"), at(10), 0).is_none());
    }

    #[test]
    fn what_is_kept_about_units_is_bounded() {
        let mut journal = Journal::new(Losses::default());
        for n in 0..10 * ALLOWANCES as u64 {
            let fact = Fact {
                unit: format!("{n}").into(),
                ..Fact::new("a", Severity::Info, String::new())
            };
            journal.enter(fact, at(n), 0);
            assert!(journal.units.len() <= ALLOWANCES);
        }
        assert_eq!(journal.next, 10 * ALLOWANCES as u64 + 1, "none was refused: they come slowly");
    }
}
