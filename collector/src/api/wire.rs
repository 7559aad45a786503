//! From the collector's own types to wire messages for operators.

use holdfast_proto::v1;

use crate::{
    buckets::Buckets,
    fleet::{Host, State},
    history::Found,
    model::{
        FleetEvent, Kind, Owner, Probe, ProbeProof, ProbeState, Program, Severity, Signal, Vitals,
        Window,
    },
};

/// A host; the numbers and values that come from the history are left empty.
pub(super) fn host(host: &Host) -> v1::HostInfo {
    let (record, facts) = (&host.record, &host.record.facts);
    let state = match host.state {
        State::Up => v1::HostState::Up,
        State::Late => v1::HostState::Late,
        State::Lost => v1::HostState::Lost,
    };
    let probes = |state| host.probes.iter().filter(|probe| probe.state == state).count() as u32;
    v1::HostInfo {
        host: record.host.to_string(),
        state: state.into(),
        boot_id: facts.boot_id.clone(),
        agent_version: facts.agent_version.clone(),
        kernel_release: facts.kernel_release.clone(),
        os_name: facts.os_name.clone(),
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
        first_seen_unix_ms: record.first_seen_unix_ms,
        last_seen_unix_ms: record.last_seen_unix_ms,
        uptime_seconds: host.uptime_seconds,
        units: 0,
        series: 0,
        probes_active: probes(ProbeState::Active),
        probes_degraded: probes(ProbeState::Degraded),
        probes_off: probes(ProbeState::Off),
        vitals: Some(vitals(&host.vitals)),
        latest: Vec::new(),
    }
}

fn vitals(vitals: &Vitals) -> v1::AgentVitals {
    let loss = |(cause, count): &(String, u64)| v1::Loss { cause: cause.clone(), count: *count };
    v1::AgentVitals {
        cpu_seconds: vitals.cpu_seconds,
        rss_bytes: vitals.rss_bytes,
        map_bytes: vitals.map_bytes,
        loss: vitals.losses.iter().map(loss).collect(),
    }
}

pub(super) fn probe(probe: &Probe) -> v1::ProbeReport {
    v1::ProbeReport {
        name: probe.name.clone(),
        state: probe_state(probe.state).into(),
        reason: probe.reason.clone(),
        level: probe.level,
        program: probe.programs.iter().map(program).collect(),
        proof: match probe.proof {
            ProbeProof::Unknown => v1::ProbeProof::Unspecified,
            ProbeProof::Pending => v1::ProbeProof::Pending,
            ProbeProof::Proven => v1::ProbeProof::Proven,
            ProbeProof::Unproven => v1::ProbeProof::Unproven,
            ProbeProof::Failed => v1::ProbeProof::Failed,
        }
        .into(),
        proof_reason: probe.proof_reason.clone(),
        proven_unix_ms: probe.proven_unix_ms,
        // How deep it looks is said in the reason, when it is not all the way.
        ..v1::ProbeReport::default()
    }
}

fn program(program: &Program) -> v1::ProgramReport {
    v1::ProgramReport {
        name: program.name.clone(),
        variant: program.variant.clone(),
        state: probe_state(program.state).into(),
        reason: program.reason.clone(),
        events_per_second: program.events_per_second,
        ns_per_event: program.ns_per_event,
        map_bytes: program.map_bytes,
    }
}

fn probe_state(state: ProbeState) -> v1::ProbeState {
    match state {
        ProbeState::Active => v1::ProbeState::Active,
        ProbeState::Degraded => v1::ProbeState::Degraded,
        ProbeState::Off => v1::ProbeState::Off,
    }
}

pub(super) fn signal(signal: &Signal) -> v1::SignalInfo {
    let kind = match signal.kind {
        Kind::Counter => v1::SignalKind::Counter,
        Kind::Gauge => v1::SignalKind::Gauge,
        Kind::Histogram => v1::SignalKind::Histogram,
    };
    v1::SignalInfo {
        name: signal.name.to_string(),
        kind: kind.into(),
        owner: owner(signal.owner).into(),
        measure: signal.measure.clone(),
        help: signal.help.clone(),
        probe: signal.probe.clone(),
    }
}

fn owner(owner: Owner) -> v1::Owner {
    match owner {
        Owner::Host => v1::Owner::Host,
        Owner::Unit => v1::Owner::Unit,
        Owner::Device => v1::Owner::Device,
        Owner::Interface => v1::Owner::Interface,
        Owner::Label => v1::Owner::Label,
    }
}

/// The newest window of a series.
pub(super) fn latest(found: &Found<'_>) -> Option<v1::LatestValue> {
    let window = found.newest()?;
    Some(v1::LatestValue {
        signal: found.key.signal.name.to_string(),
        owner: owner(found.key.signal.owner).into(),
        instance: found.key.instance.to_string(),
        summary: Some(summary(window)),
        end_unix_ms: window.end_unix_ms,
    })
}

pub(super) fn point(window: &Window) -> v1::Point {
    v1::Point {
        end_unix_ms: window.end_unix_ms,
        window_ms: window.window_ms,
        summary: Some(summary(window)),
    }
}

/// Series numbers mean nothing outside of a stream: 0.
fn summary(window: &Window) -> v1::Summary {
    v1::Summary {
        series: 0,
        count: window.count,
        min: window.min,
        mean: window.mean,
        max: window.max,
        last: window.last,
        histogram: window.histogram.as_ref().map(histogram),
    }
}

fn histogram(buckets: &Buckets) -> v1::Histogram {
    let (bucket, count) = buckets.counts().map(|(bucket, count)| (bucket as u32, count)).unzip();
    v1::Histogram { bucket, count, sum: buckets.sum() }
}

pub(super) fn event(stored: &FleetEvent) -> v1::FleetEvent {
    let event = &stored.event;
    let severity = match event.severity {
        Severity::Info => v1::Severity::Info,
        Severity::Warning => v1::Severity::Warning,
        Severity::Critical => v1::Severity::Critical,
    };
    let field = |(name, value): &(String, String)| {
        let (name, value) = (name.clone(), value.clone());
        v1::Field { name, value }
    };
    v1::FleetEvent {
        id: stored.id,
        host: stored.host.to_string(),
        event: Some(v1::Event {
            sequence: event.sequence,
            unix_ms: event.unix_ms,
            kind: event.kind.clone(),
            severity: severity.into(),
            unit: event.unit.clone(),
            message: event.message.clone(),
            field: event.fields.iter().map(field).collect(),
        }),
        received_unix_ms: stored.received_unix_ms,
    }
}
