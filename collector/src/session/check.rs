//! From wire messages to the collector's own types, checking every name, number
//! and size on the way. What is refused here never reached anything else.

use holdfast_proto::{limits, v1};

use crate::{
    buckets::Buckets,
    metrics::Reason,
    model::{
        Event, HostFacts, Kind, Name, Owner, Probe, ProbeProof, ProbeState, Program, Severity,
        Signal, Vitals, Window,
    },
};

/// Latest wall time that is believed: the end of the year 9999.
const LATEST_UNIX_MS: u64 = 253_402_300_799_999;
/// Most values a histogram may have counted in one window.
const HISTOGRAM_TOTAL: u64 = 1 << 48;
/// How far rounding may put a mean outside its least and greatest value.
const ROUNDING: f64 = 1e-6;

/// Why a message was refused: what to count it as, and what to tell the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) reason: Reason,
    pub(super) message: String,
}

type Checked<T> = Result<T, Reject>;

fn refuse<T>(reason: Reason, message: impl Into<String>) -> Checked<T> {
    Err(Reject { reason, message: message.into() })
}

/// `Ok` when `good`, else a refusal with a message made only then.
fn ensure(good: bool, reason: Reason, message: impl FnOnce() -> String) -> Checked<()> {
    if good { Ok(()) } else { refuse(reason, message()) }
}

/// What a checked Hello says.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    pub(super) host: Name,
    pub(super) facts: HostFacts,
    pub(super) catalogue: Vec<Signal>,
}

pub(super) fn hello(wire: v1::Hello) -> Checked<Hello> {
    let Some(protocol) = holdfast_proto::negotiate(wire.protocol_min, wire.protocol_max) else {
        let ours = holdfast_proto::PROTOCOL;
        let (low, high) = (ours.start(), ours.end());
        let theirs = (wire.protocol_min, wire.protocol_max);
        return refuse(
            Reason::Protocol,
            format!(
                "no common protocol version: the agent speaks {} to {}, the collector {low} to {high}",
                theirs.0, theirs.1
            ),
        );
    };
    ensure(limits::is_host_name(&wire.host), Reason::Name, || {
        format!(
            "the host name must be 1 to {} letters, digits, `-`, `.` or `_` and start with a \
             letter or digit",
            limits::HOST_NAME_BYTES
        )
    })?;
    ensure(is_uuid(&wire.boot_id), Reason::Name, || "boot_id is not a UUID".to_owned())?;
    ensure(wire.incarnation != 0, Reason::Number, || "incarnation is 0".to_owned())?;
    ensure(limits::WINDOW_MS.contains(&wire.summary_window_ms), Reason::Number, || {
        format!("summary_window_ms {} is out of bounds", wire.summary_window_ms)
    })?;
    ensure((1..=65_536).contains(&wire.cpus), Reason::Number, || {
        format!("{} is not a number of CPUs", wire.cpus)
    })?;
    ensure(wire.memory_bytes < 1 << 56, Reason::Number, || {
        format!("{} is not a size of memory", wire.memory_bytes)
    })?;
    for (name, value) in [
        ("agent_version", &wire.agent_version),
        ("kernel_release", &wire.kernel_release),
        ("os_name", &wire.os_name),
    ] {
        label(name, value)?;
    }
    let facts = HostFacts {
        boot_id: wire.boot_id,
        incarnation: wire.incarnation,
        agent_version: wire.agent_version,
        kernel_release: wire.kernel_release,
        os_name: wire.os_name,
        cpus: wire.cpus,
        memory_bytes: wire.memory_bytes,
    };
    let catalogue = catalogue(wire.catalogue)?;
    Ok(Hello { protocol, host: wire.host.into(), facts, catalogue })
}

fn catalogue(wire: Vec<v1::SignalInfo>) -> Checked<Vec<Signal>> {
    ensure(wire.len() <= limits::CATALOGUE_SIGNALS, Reason::Size, || {
        format!("the catalogue has {} signals, more than {}", wire.len(), limits::CATALOGUE_SIGNALS)
    })?;
    let signals = wire.into_iter().map(signal).collect::<Checked<Vec<_>>>()?;
    let mut names: Vec<_> = signals.iter().map(|s| (&s.name, s.owner)).collect();
    names.sort();
    let twice = names.windows(2).find(|pair| matches!(pair, [a, b] if a == b));
    match twice.and_then(<[_]>::first) {
        Some((name, _)) => refuse(Reason::Name, format!("signal {name} is in the catalogue twice")),
        None => Ok(signals),
    }
}

fn signal(wire: v1::SignalInfo) -> Checked<Signal> {
    signal_name("a signal's name", &wire.name)?;
    let kind = match wire.kind() {
        v1::SignalKind::Counter => Kind::Counter,
        v1::SignalKind::Gauge => Kind::Gauge,
        v1::SignalKind::Histogram => Kind::Histogram,
        v1::SignalKind::Unspecified => {
            return refuse(Reason::Number, format!("signal {} has no known kind", wire.name));
        }
    };
    let owner = match wire.owner() {
        v1::Owner::Host => Owner::Host,
        v1::Owner::Unit => Owner::Unit,
        v1::Owner::Device => Owner::Device,
        v1::Owner::Interface => Owner::Interface,
        v1::Owner::Label => Owner::Label,
        v1::Owner::Unspecified => {
            return refuse(Reason::Number, format!("signal {} has no known owner", wire.name));
        }
    };
    label("a signal's measure", &wire.measure)?;
    label("a signal's probe", &wire.probe)?;
    text("a signal's help", &wire.help)?;
    let (measure, help, probe) = (wire.measure, wire.help, wire.probe);
    Ok(Signal { name: wire.name.into(), kind, owner, measure, help, probe })
}

/// Uptime and vitals of a heartbeat.
pub(super) fn heartbeat(wire: v1::Heartbeat) -> Checked<(f64, Vitals)> {
    amount("uptime_seconds", wire.uptime_seconds)?;
    let vitals = wire.vitals.unwrap_or_default();
    amount("cpu_seconds", vitals.cpu_seconds)?;
    ensure(vitals.loss.len() <= limits::PROBES, Reason::Size, || {
        format!("{} causes of loss are more than {}", vitals.loss.len(), limits::PROBES)
    })?;
    let loss = |loss: v1::Loss| {
        label("a cause of loss", &loss.cause)?;
        Ok((loss.cause, loss.count))
    };
    let losses = vitals.loss.into_iter().map(loss).collect::<Checked<_>>()?;
    let (cpu_seconds, rss_bytes, map_bytes) =
        (vitals.cpu_seconds, vitals.rss_bytes, vitals.map_bytes);
    Ok((wire.uptime_seconds, Vitals { cpu_seconds, rss_bytes, map_bytes, losses }))
}

pub(super) fn event(wire: v1::Event) -> Checked<Event> {
    ensure(wire.sequence > 0, Reason::Number, || "an event has sequence 0".to_owned())?;
    wall_time(wire.unix_ms)?;
    signal_name("an event's kind", &wire.kind)?;
    let severity = match wire.severity() {
        v1::Severity::Info => Severity::Info,
        v1::Severity::Warning => Severity::Warning,
        v1::Severity::Critical => Severity::Critical,
        v1::Severity::Unspecified => {
            return refuse(Reason::Number, "an event has no known severity");
        }
    };
    ensure(wire.unit.is_empty() || limits::is_instance(&wire.unit), Reason::Name, || {
        "an event's unit is not a unit's name".to_owned()
    })?;
    text("an event's message", &wire.message)?;
    ensure(wire.field.len() <= limits::EVENT_FIELDS, Reason::Size, || {
        format!("an event has {} fields, more than {}", wire.field.len(), limits::EVENT_FIELDS)
    })?;
    let field = |field: v1::Field| {
        signal_name("a field's name", &field.name)?;
        text("a field's value", &field.value)?;
        Ok((field.name, field.value))
    };
    Ok(Event {
        sequence: wire.sequence,
        unix_ms: wire.unix_ms,
        kind: wire.kind,
        severity,
        unit: wire.unit,
        message: wire.message,
        fields: wire.field.into_iter().map(field).collect::<Checked<_>>()?,
    })
}

pub(super) fn probes(wire: Vec<v1::ProbeReport>) -> Checked<Vec<Probe>> {
    let count = |what: &str, n: usize| {
        ensure(n <= limits::PROBES, Reason::Size, || {
            format!("{n} {what} are more than {}", limits::PROBES)
        })
    };
    count("probes", wire.len())?;
    let program = |wire: v1::ProgramReport| {
        label("a program's name", &wire.name)?;
        label("a program's variant", &wire.variant)?;
        text("a program's reason", &wire.reason)?;
        amount("events_per_second", wire.events_per_second)?;
        amount("ns_per_event", wire.ns_per_event)?;
        Ok(Program {
            state: probe_state(wire.state())?,
            name: wire.name,
            variant: wire.variant,
            reason: wire.reason,
            events_per_second: wire.events_per_second,
            ns_per_event: wire.ns_per_event,
            map_bytes: wire.map_bytes,
        })
    };
    let probe = |wire: v1::ProbeReport| {
        label("a probe's name", &wire.name)?;
        text("a probe's reason", &wire.reason)?;
        text("a proof's reason", &wire.proof_reason)?;
        count("programs", wire.program.len())?;
        Ok(Probe {
            state: probe_state(wire.state())?,
            proof: match wire.proof() {
                v1::ProbeProof::Unspecified => ProbeProof::Unknown,
                v1::ProbeProof::Pending => ProbeProof::Pending,
                v1::ProbeProof::Proven => ProbeProof::Proven,
                v1::ProbeProof::Unproven => ProbeProof::Unproven,
                v1::ProbeProof::Failed => ProbeProof::Failed,
            },
            proof_reason: wire.proof_reason,
            proven_unix_ms: wire.proven_unix_ms,
            name: wire.name,
            reason: wire.reason,
            level: wire.level,
            programs: wire.program.into_iter().map(program).collect::<Checked<_>>()?,
        })
    };
    wire.into_iter().map(probe).collect()
}

fn probe_state(wire: v1::ProbeState) -> Checked<ProbeState> {
    match wire {
        v1::ProbeState::Active => Ok(ProbeState::Active),
        v1::ProbeState::Degraded => Ok(ProbeState::Degraded),
        v1::ProbeState::Off => Ok(ProbeState::Off),
        v1::ProbeState::Unspecified => refuse(Reason::Number, "a probe has no known state"),
    }
}

/// The frame of a batch: its sequence is not 0, its window and size are in bounds.
pub(super) fn batch(wire: &v1::SummaryBatch) -> Checked<()> {
    ensure(wire.sequence > 0, Reason::Number, || "a batch has sequence 0".to_owned())?;
    wall_time(wire.end_unix_ms)?;
    ensure(limits::WINDOW_MS.contains(&wire.window_ms), Reason::Number, || {
        format!("window_ms {} is out of bounds", wire.window_ms)
    })?;
    let (defines, summaries) = (wire.define.len(), wire.summary.len());
    ensure(summaries <= limits::SUMMARIES_PER_BATCH, Reason::Size, || {
        format!("a batch has {summaries} summaries, more than {}", limits::SUMMARIES_PER_BATCH)
    })?;
    ensure(defines <= limits::SERIES_PER_HOST, Reason::SeriesLimit, || {
        format!("a batch defines {defines} series, more than {}", limits::SERIES_PER_HOST)
    })
}

/// The instance of a series of `signal`.
pub(super) fn instance(signal: &Signal, name: &str) -> Checked<()> {
    let good = match signal.owner {
        Owner::Host => name.is_empty(),
        Owner::Unit | Owner::Device | Owner::Interface | Owner::Label => limits::is_instance(name),
    };
    ensure(good, Reason::Name, || {
        format!("a series of {} has an instance that cannot be one", signal.name)
    })
}

/// One summary of a series of `signal`, in a window that ended at `end_unix_ms`.
pub(super) fn summary(
    signal: &Signal,
    end_unix_ms: u64,
    window_ms: u32,
    wire: &v1::Summary,
) -> Checked<Window> {
    let bad = |reason, what: &str| refuse(reason, format!("a summary of {} {what}", signal.name));
    let v1::Summary { count, min, mean, max, last, .. } = *wire;
    // One sample a second, some slack for ticks that were caught up.
    if count == 0 || count > window_ms / 1000 * 2 + 2 {
        return bad(Reason::Number, &format!("counts {count} samples in {window_ms} ms"));
    }
    if ![min, mean, max, last].iter().all(|value| value.is_finite()) {
        return bad(Reason::Number, "holds a value that is not finite");
    }
    let slack = ROUNDING * min.abs().max(max.abs());
    let inside = |value: f64| value >= min - slack && value <= max + slack;
    let ordered = min <= max && (signal.kind == Kind::Histogram || inside(mean) && inside(last));
    if !ordered {
        return bad(Reason::Number, "has mean or last outside of min and max");
    }
    let histogram = match (&wire.histogram, signal.kind) {
        (None, Kind::Counter | Kind::Gauge) => None,
        (Some(buckets), Kind::Histogram) if !buckets.is_valid() => {
            return bad(Reason::Histogram, "has a histogram whose buckets do not hold together");
        }
        (Some(buckets), Kind::Histogram) if buckets.total() > HISTOGRAM_TOTAL => {
            return bad(Reason::Histogram, "has a histogram that counts more than can happen");
        }
        (Some(buckets), Kind::Histogram) => Some(Buckets::new(buckets.counts(), buckets.sum)),
        (None, Kind::Histogram) => return bad(Reason::Histogram, "lacks its histogram"),
        (Some(_), _) => return bad(Reason::Histogram, "has a histogram but is no distribution"),
    };
    Ok(Window { end_unix_ms, window_ms, count, min, mean, max, last, histogram })
}

fn wall_time(unix_ms: u64) -> Checked<()> {
    ensure(unix_ms <= LATEST_UNIX_MS, Reason::Number, || format!("{unix_ms} is not a wall time"))
}

fn signal_name(what: &str, name: &str) -> Checked<()> {
    ensure(limits::is_signal_name(name), Reason::Name, || {
        format!("{what} is not made of lower-case letters, digits, `_` and `.`, or is too long")
    })
}

fn text(what: &str, value: &str) -> Checked<()> {
    ensure(limits::is_text(value), Reason::Name, || {
        format!("{what} is longer than {} bytes or has control characters", limits::TEXT_BYTES)
    })
}

/// A short text in one line.
fn label(what: &str, value: &str) -> Checked<()> {
    let good = value.len() <= limits::INSTANCE_BYTES && !value.chars().any(char::is_control);
    ensure(good, Reason::Name, || {
        format!("{what} is longer than {} bytes or has control characters", limits::INSTANCE_BYTES)
    })
}

fn amount(what: &str, value: f64) -> Checked<()> {
    ensure(value.is_finite() && value >= 0.0, Reason::Number, || {
        format!("{what} is not a finite number from 0")
    })
}

fn is_uuid(text: &str) -> bool {
    let dash = |i: usize| matches!(i, 8 | 13 | 18 | 23);
    text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(i, b)| if dash(i) { b == b'-' } else { b.is_ascii_hexdigit() })
}
