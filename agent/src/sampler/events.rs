//! What the sampler sees in plain words. Pure.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use nix::sys::signal::Signal;

use crate::conditions::Change;
use crate::kernel::KernelEvent;
use crate::report::Severity;
use crate::teller::Fact;
use crate::units::Moved;

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
