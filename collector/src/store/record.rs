//! How things lie on disk: protobuf messages of the store's own, so that a change
//! of the wire never changes what was written.

use prost::Message;

use crate::model::{Event, FleetEvent, HostFacts, HostRecord, Name, Severity};

use super::{NewEvent, Progress};

#[derive(Message)]
struct Host {
    #[prost(string, tag = "1")]
    boot_id: String,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(string, tag = "3")]
    agent_version: String,
    #[prost(string, tag = "4")]
    kernel_release: String,
    #[prost(string, tag = "5")]
    os_name: String,
    #[prost(uint32, tag = "6")]
    cpus: u32,
    #[prost(uint64, tag = "7")]
    memory_bytes: u64,
    #[prost(uint64, tag = "8")]
    first_seen_unix_ms: u64,
    #[prost(uint64, tag = "9")]
    last_seen_unix_ms: u64,
    #[prost(bool, tag = "10")]
    up: bool,
}

#[derive(Message)]
struct StoredEvent {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(uint64, tag = "2")]
    sequence: u64,
    #[prost(uint64, tag = "3")]
    unix_ms: u64,
    #[prost(string, tag = "4")]
    kind: String,
    /// 1 info, 2 warning, 3 critical.
    #[prost(uint32, tag = "5")]
    severity: u32,
    #[prost(string, tag = "6")]
    unit: String,
    #[prost(string, tag = "7")]
    message: String,
    #[prost(message, repeated, tag = "8")]
    fields: Vec<Field>,
    #[prost(uint64, tag = "9")]
    received_unix_ms: u64,
}

#[derive(Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Message)]
struct Sequences {
    /// Incarnation and sequence in turn.
    #[prost(fixed64, repeated, tag = "1")]
    pairs: Vec<u64>,
}

pub(super) fn encode_host(record: &HostRecord) -> Vec<u8> {
    let facts = record.facts.clone();
    Host {
        boot_id: facts.boot_id,
        incarnation: facts.incarnation,
        agent_version: facts.agent_version,
        kernel_release: facts.kernel_release,
        os_name: facts.os_name,
        cpus: facts.cpus,
        memory_bytes: facts.memory_bytes,
        first_seen_unix_ms: record.first_seen_unix_ms,
        last_seen_unix_ms: record.last_seen_unix_ms,
        up: record.up,
    }
    .encode_to_vec()
}

pub(super) fn decode_host(host: &str, bytes: &[u8]) -> Result<HostRecord, prost::DecodeError> {
    let stored = Host::decode(bytes)?;
    Ok(HostRecord {
        host: host.into(),
        facts: HostFacts {
            boot_id: stored.boot_id,
            incarnation: stored.incarnation,
            agent_version: stored.agent_version,
            kernel_release: stored.kernel_release,
            os_name: stored.os_name,
            cpus: stored.cpus,
            memory_bytes: stored.memory_bytes,
        },
        first_seen_unix_ms: stored.first_seen_unix_ms,
        last_seen_unix_ms: stored.last_seen_unix_ms,
        up: stored.up,
    })
}

pub(super) fn encode_event(new: &NewEvent) -> Vec<u8> {
    let event = new.event.clone();
    let severity = match event.severity {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Critical => 3,
    };
    let field = |(name, value)| Field { name, value };
    StoredEvent {
        host: new.host.to_string(),
        sequence: event.sequence,
        unix_ms: event.unix_ms,
        kind: event.kind,
        severity,
        unit: event.unit,
        message: event.message,
        fields: event.fields.into_iter().map(field).collect(),
        received_unix_ms: new.received_unix_ms,
    }
    .encode_to_vec()
}

pub(super) fn decode_event(id: u64, bytes: &[u8]) -> Result<FleetEvent, prost::DecodeError> {
    let stored = StoredEvent::decode(bytes)?;
    let severity = match stored.severity {
        3 => Severity::Critical,
        2 => Severity::Warning,
        _ => Severity::Info,
    };
    Ok(FleetEvent {
        id,
        host: stored.host.into(),
        event: Event {
            sequence: stored.sequence,
            unix_ms: stored.unix_ms,
            kind: stored.kind,
            severity,
            unit: stored.unit,
            message: stored.message,
            fields: stored.fields.into_iter().map(|field| (field.name, field.value)).collect(),
        },
        received_unix_ms: stored.received_unix_ms,
    })
}

pub(super) fn encode_progress(progress: &Progress) -> Vec<u8> {
    let pairs = progress.iter().flat_map(|(incarnation, sequence)| [*incarnation, *sequence]);
    Sequences { pairs: pairs.collect() }.encode_to_vec()
}

pub(super) fn decode_progress(
    host: &str,
    bytes: &[u8],
) -> Result<(Name, Progress), prost::DecodeError> {
    let stored = Sequences::decode(bytes)?;
    let (pairs, _rest) = stored.pairs.as_chunks::<2>();
    Ok((
        host.into(),
        pairs.iter().map(|[incarnation, sequence]| (*incarnation, *sequence)).collect(),
    ))
}
