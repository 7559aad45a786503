//! The ring buffer of rare facts.

use std::io;

use aya::maps::{MapData, RingBuf};
use holdfast_agent_ebpf::records::{COMMAND_BYTES, Event, kind};
use tokio::io::unix::AsyncFd;

use super::readiness;

/// Most events taken at once, so that a flood does not hold up the rest.
const BATCH: usize = 256;

/// A rare fact the kernel told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// A process ended by a signal or with a non-zero code.
    Exit {
        /// Id of its cgroup.
        cgroup_id: u64,
        /// Its process id in the initial namespace.
        pid: u32,
        /// Name of its first thread.
        command: String,
        /// Exit code; 0 when a signal ended it.
        code: u8,
        /// Signal; 0 when it ended by itself.
        signal: u8,
        /// Whether it left a core dump.
        core_dumped: bool,
        /// When, on the boot-time clock.
        at_ns: u64,
    },
    /// A process was chosen to be killed because memory ran out.
    OomKill {
        /// Id of its cgroup; 0 where the kernel does not tell.
        cgroup_id: u64,
        /// Its process id in the initial namespace.
        pid: u32,
        /// Name of its first thread; empty where the kernel does not tell.
        command: String,
        /// When, on the boot-time clock.
        at_ns: u64,
    },
    /// The kernel found a task that had waited in it for longer than it tolerates.
    Hung {
        /// Id of its cgroup.
        cgroup_id: u64,
        /// Its process id in the initial namespace.
        pid: u32,
        /// Its name.
        command: String,
        /// When, on the boot-time clock.
        at_ns: u64,
    },
}

/// The stream of events. There is one.
pub struct Events {
    source: Source,
}

enum Source {
    /// Not yet registered: that needs a running runtime.
    Fresh(Option<RingBuf<MapData>>),
    Registered(AsyncFd<RingBuf<MapData>>),
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { source: Source::Fresh(Some(ring)) }
    }

    /// Waits for events and appends at most 256 of them to `out`. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    ///
    /// The runtime cannot wait for the ring buffer.
    pub async fn next(&mut self, out: &mut Vec<KernelEvent>) -> io::Result<()> {
        if let Source::Fresh(ring) = &mut self.source {
            let ring = ring.take().ok_or(io::ErrorKind::NotConnected)?;
            self.source = Source::Registered(readiness(ring)?);
        }
        let Source::Registered(ring) = &mut self.source else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        loop {
            let mut ready = ring.readable_mut().await?;
            let before = out.len();
            let mut taken = 0;
            while taken < BATCH {
                let Some(record) = ready.get_inner_mut().next() else {
                    ready.clear_ready();
                    break;
                };
                taken += 1;
                out.extend(decode(&record));
            }
            if out.len() > before {
                return Ok(());
            }
        }
    }
}

/// The event in a record; `None` when it is none of ours.
fn decode(record: &[u8]) -> Option<KernelEvent> {
    let (cgroup_id, at_ns) = (u64_at(record, 8)?, u64_at(record, 16)?);
    let (pid, status) = (u32_at(record, 4)?, u32_at(record, 24)?);
    let name = record.get(32..32 + COMMAND_BYTES)?;
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    // Any process may set its name to any bytes.
    let command: String = String::from_utf8_lossy(name)
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    match u32_at(record, 0)? {
        kind::EXIT => Some(KernelEvent::Exit {
            cgroup_id,
            pid,
            command,
            code: (status >> 8) as u8,
            signal: (status & 0x7f) as u8,
            core_dumped: status & 0x80 != 0,
            at_ns,
        }),
        kind::OOM => Some(KernelEvent::OomKill { cgroup_id, pid, command, at_ns }),
        kind::HUNG => Some(KernelEvent::Hung { cgroup_id, pid, command, at_ns }),
        _ => None,
    }
}

// `decode` reads the record by these places.
const _: () = {
    assert!(size_of::<Event>() == 32 + COMMAND_BYTES);
    assert!(std::mem::offset_of!(Event, pid) == 4);
    assert!(std::mem::offset_of!(Event, cgroup_id) == 8);
    assert!(std::mem::offset_of!(Event, at_ns) == 16);
    assert!(std::mem::offset_of!(Event, status) == 24);
    assert!(std::mem::offset_of!(Event, command) == 32);
};

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, status: u32, name: &[u8; 16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(77u32.to_ne_bytes());
        bytes.extend(5u64.to_ne_bytes());
        bytes.extend(9u64.to_ne_bytes());
        bytes.extend(status.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(name);
        bytes
    }

    #[test]
    fn statuses_as_wait_gives_them() {
        let decoded = |status| match decode(&record(kind::EXIT, status, b"a\0bbbbbbbbbbbbbb")) {
            Some(KernelEvent::Exit { code, signal, core_dumped, command, .. }) => {
                assert_eq!(command, "a");
                (code, signal, core_dumped)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(decoded(7 << 8), (7, 0, false));
        assert_eq!(decoded(11), (0, 11, false));
        assert_eq!(decoded(11 | 0x80), (0, 11, true));
    }

    #[test]
    fn names_are_made_harmless_and_bad_records_ignored() {
        let name = b"\x1b[2J\xff\xffxxxxxxxxxx";
        match decode(&record(kind::OOM, 0, name)) {
            Some(KernelEvent::OomKill { command, pid: 77, cgroup_id: 5, at_ns: 9, .. }) => {
                assert!(!command.chars().any(char::is_control) && command.ends_with("xx"));
            }
            other => panic!("{other:?}"),
        }
        let whole = record(kind::EXIT, 0, &[0; 16]);
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), None);
        }
        assert_eq!(decode(&record(9, 0, &[0; 16])), None);
    }
}
