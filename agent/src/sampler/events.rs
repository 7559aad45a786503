//! Facts become events: numbered, in plain words, and not too many of them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use nix::sys::signal::Signal;

use crate::conditions::Change;
use crate::kernel::KernelEvent;
use crate::losses::{Cause, Losses};
use crate::report::{Event, Severity};
use crate::units::Moved;

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
pub(super) struct Fact {
    pub(super) kind: &'static str,
    pub(super) severity: Severity,
    pub(super) unit: Arc<str>,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Fact {
    /// Of the host, without details.
    pub(super) fn new(kind: &'static str, severity: Severity, message: String) -> Self {
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
pub(super) struct Journal {
    next: u64,
    kinds: BTreeMap<&'static str, Allowance>,
    units: BTreeMap<(&'static str, Arc<str>), Allowance>,
    losses: Losses,
}

impl Journal {
    pub(super) fn new(losses: Losses) -> Self {
        Self { next: 1, kinds: BTreeMap::new(), units: BTreeMap::new(), losses }
    }

    /// The event of `fact`; `None`, and counted, when its kind has come too often.
    pub(super) fn enter(&mut self, fact: Fact, now: BootTime, unix_ms: u64) -> Option<Event> {
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

/// A unit that came or went.
pub(super) fn moved(moved: Moved) -> Fact {
    let (kind, verb) =
        if moved.born { ("unit.born", "appeared") } else { ("unit.gone", "is gone") };
    let message = format!("{} {verb}", moved.unit);
    Fact { unit: moved.unit, ..Fact::new(kind, Severity::Info, message) }
}

/// What the kernel told, about a process of `unit` (empty when that is not known).
pub(super) fn kernel(event: KernelEvent, unit: Option<Arc<str>>) -> Fact {
    let known = unit.is_some();
    let unit = unit.unwrap_or_default();
    let (mut fact, cgroup_id) = match event {
        KernelEvent::Exit { cgroup_id, pid, command, code, signal, core_dumped, .. } => {
            (exit(pid, command, code, signal, core_dumped), cgroup_id)
        }
        KernelEvent::OomKill { cgroup_id, pid, command, .. } => {
            let message = format!("{command} ({pid}) was killed because memory ran out");
            let fields = vec![("pid", pid.to_string()), ("command", command)];
            let fact = Fact { fields, ..Fact::new("memory.oom_kill", Severity::Critical, message) };
            (fact, cgroup_id)
        }
        KernelEvent::Hung { cgroup_id, pid, command, .. } => {
            let message = format!("{command} ({pid}) hangs: it waits in the kernel for too long");
            let fields = vec![("pid", pid.to_string()), ("command", command)];
            let fact = Fact { fields, ..Fact::new("process.hung", Severity::Warning, message) };
            (fact, cgroup_id)
        }
    };
    if !known {
        fact.fields.push(("cgroup", cgroup_id.to_string()));
    }
    Fact { unit, ..fact }
}

fn exit(pid: u32, command: String, code: u8, signal: u8, core_dumped: bool) -> Fact {
    if signal == 0 {
        let message = format!("{command} ({pid}) exited with code {code}");
        let fields =
            vec![("pid", pid.to_string()), ("command", command), ("code", code.to_string())];
        return Fact { fields, ..Fact::new("process.exit", Severity::Info, message) };
    }
    let known = Signal::try_from(i32::from(signal)).ok();
    let name = known.map_or_else(|| format!("signal {signal}"), |known| known.as_str().to_owned());
    // Asking a process to end is everyday business; these are how that is done.
    let asked = matches!(
        known,
        Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGPIPE | Signal::SIGALRM)
    );
    let severity = if asked { Severity::Info } else { Severity::Warning };
    let dumped = if core_dumped { " and dumped core" } else { "" };
    let message = format!("{command} ({pid}) was ended by {name}{dumped}");
    let fields = vec![
        ("pid", pid.to_string()),
        ("command", command),
        ("signal", name),
        ("core_dumped", core_dumped.to_string()),
    ];
    Fact { fields, ..Fact::new("process.signal", severity, message) }
}

/// A condition of the host that began or ended.
pub(super) fn condition(change: &Change) -> Fact {
    let Change { kind, instance, detail, ended, .. } = change;
    let of = if instance.is_empty() { String::new() } else { format!(" {instance}") };
    let mut fields = Vec::new();
    let of_unit = kind.of == "unit";
    if !instance.is_empty() && !of_unit {
        fields.push((kind.of, instance.clone()));
    }
    let unit: Arc<str> = if of_unit { instance.as_str().into() } else { Arc::from("") };
    match ended {
        None => {
            let message = format!("{}{of}: {detail}", kind.title);
            Fact { unit, fields, ..Fact::new(kind.name, kind.severity, message) }
        }
        Some((stood, count)) => {
            let seconds = stood.as_secs();
            fields.push(("seconds", seconds.to_string()));
            fields.push(("evidence", count.to_string()));
            let message = format!("over after {seconds} s: {}{of}; {detail}", kind.title);
            Fact { unit, fields, ..Fact::new(kind.cleared, Severity::Info, message) }
        }
    }
}

/// Wall time of something that may be long ago on the boot-time clock.
pub(super) fn past_wall_time(at: BootTime, now: BootTime, now_unix_ms: u64) -> u64 {
    now_unix_ms.saturating_sub(u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX))
}

/// Wall time of something that happened at `at_ns` on the boot-time clock.
pub(super) fn wall_time(at_ns: u64, now: BootTime, now_unix_ms: u64) -> u64 {
    let age = now.since(BootTime::new(Duration::from_nanos(at_ns)));
    // An event is read within moments: an older stamp is not one of this clock.
    if age > Duration::from_secs(60) {
        return now_unix_ms;
    }
    now_unix_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::DISK_IO_ERROR;

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

    #[test]
    fn deaths_are_told_in_plain_words() {
        let exit = |code, signal, core_dumped| KernelEvent::Exit {
            cgroup_id: 7,
            pid: 42,
            command: "app".to_owned(),
            code,
            signal,
            core_dumped,
            at_ns: 0,
        };
        let fact = kernel(exit(0, 11, true), Some("a.service".into()));
        assert_eq!(
            (fact.kind, fact.severity, &*fact.unit),
            ("process.signal", Severity::Warning, "a.service")
        );
        assert_eq!(fact.message, "app (42) was ended by SIGSEGV and dumped core");
        assert!(fact.fields.contains(&("signal", "SIGSEGV".to_owned())));
        assert_eq!(kernel(exit(0, 15, false), None).severity, Severity::Info);
        let fact = kernel(exit(7, 0, false), None);
        assert_eq!(
            (fact.kind, fact.message.as_str()),
            ("process.exit", "app (42) exited with code 7")
        );
        assert!(fact.unit.is_empty() && fact.fields.contains(&("cgroup", "7".to_owned())));
        assert!(kernel(exit(0, 64, false), None).message.contains("signal 64"));
        let oom = KernelEvent::OomKill { cgroup_id: 7, pid: 1, command: "x".to_owned(), at_ns: 0 };
        assert_eq!(kernel(oom, None).severity, Severity::Critical);
        let hung = KernelEvent::Hung { cgroup_id: 7, pid: 1, command: "x".to_owned(), at_ns: 0 };
        let fact = kernel(hung, Some("a.service".into()));
        assert_eq!((fact.kind, &*fact.unit), ("process.hung", "a.service"));
    }

    #[test]
    fn conditions_are_told_twice() {
        let change = |ended| Change {
            kind: &DISK_IO_ERROR,
            instance: "sda".to_owned(),
            detail: "a line".to_owned(),
            at: at(5),
            ended,
        };
        let fact = condition(&change(None));
        assert_eq!((fact.kind, fact.severity), ("disk.io_error", Severity::Critical));
        assert_eq!(fact.message, "I/O errors on sda: a line");
        assert_eq!(fact.fields, [("device", "sda".to_owned())]);
        let fact = condition(&change(Some((Duration::from_secs(600), 3))));
        assert_eq!((fact.kind, fact.severity), ("disk.io_error.cleared", Severity::Info));
        assert_eq!(fact.message, "over after 600 s: I/O errors on sda; a line");
        assert_eq!(past_wall_time(at(100), at(1000), 5_000_000), 4_100_000);
        assert_eq!(past_wall_time(at(0), at(1000), 7), 0);
    }

    #[test]
    fn stamps_become_wall_time() {
        assert_eq!(wall_time(8_500_000_000, at(10), 100_000), 98_500);
        assert_eq!(wall_time(11_000_000_000, at(10), 100_000), 100_000, "from the future");
        assert_eq!(wall_time(0, at(1000), 100_000), 100_000, "of another clock");
    }
}
