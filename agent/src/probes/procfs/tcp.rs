//! TCP's troubles from /proc/net/netstat and the memory of its sockets from
//! /proc/net/sockstat, of the agent's network namespace.

use std::io;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use nix::unistd::{SysconfVar, sysconf};

use crate::catalogue::{
    SignalId, TCP_BACKLOG_DROPS, TCP_LISTEN_DROPS, TCP_LISTEN_OVERFLOWS, TCP_MEMORY,
    TCP_MEMORY_ABORTS, TCP_MEMORY_PRESSURES, TCP_ORPHANS, TCP_PRUNE_DROPS, TCP_PRUNES,
    TCP_TIME_WAIT, TCP_TIMEOUTS,
};
use crate::frame::Frame;
use crate::host::Root;
use crate::host::file::{Buffer, Source, number};

/// Time from one reading to the next: the kernel takes 74 us to add up netstat's
/// counters over all CPUs and print them. A window's mean is what it would be; its
/// highest second holds five seconds' worth.
const INTERVAL: Duration = Duration::from_secs(5);

const COUNTERS: [(&str, SignalId); 8] = [
    ("ListenOverflows", TCP_LISTEN_OVERFLOWS),
    ("ListenDrops", TCP_LISTEN_DROPS),
    ("TCPMemoryPressures", TCP_MEMORY_PRESSURES),
    ("PruneCalled", TCP_PRUNES),
    ("RcvPruned", TCP_PRUNE_DROPS),
    ("TCPBacklogDrop", TCP_BACKLOG_DROPS),
    ("TCPTimeouts", TCP_TIMEOUTS),
    ("TCPAbortOnMemory", TCP_MEMORY_ABORTS),
];

#[derive(Debug)]
pub(super) struct Tcp {
    netstat: Source,
    sockstat: Source,
    page: f64,
    due: BootTime,
    told: [f64; COUNTERS.len()],
}

impl Tcp {
    pub(super) fn new(root: &Root) -> Self {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().filter(|&n| n > 0).unwrap_or(4096);
        Self {
            netstat: Source::new(root.path("proc/net/netstat")),
            sockstat: Source::new(root.path("proc/net/sockstat")),
            page: page as f64,
            due: BootTime::default(),
            told: [f64::NAN; COUNTERS.len()],
        }
    }

    pub(super) fn read(&mut self, buffer: &mut Buffer, frame: &mut Frame) -> io::Result<()> {
        if frame.at >= self.due {
            self.told = netstat(self.netstat.read(buffer)?);
            self.due = BootTime::new(frame.at.since_boot() + INTERVAL);
        }
        for ((_, signal), value) in COUNTERS.iter().zip(self.told) {
            frame.set(*signal, 0, value);
        }
        sockstat(self.sockstat.read(buffer)?, self.page, frame);
        Ok(())
    }
}

fn netstat(text: &str) -> [f64; COUNTERS.len()] {
    let mut found = [f64::NAN; COUNTERS.len()];
    // A line of names and a line of values.
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return found };
    for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
        let counter = COUNTERS.iter().position(|(wanted, _)| *wanted == name);
        if let Some(cell) = counter.and_then(|n| found.get_mut(n)) {
            *cell = number(Some(value));
        }
    }
    found
}

fn sockstat(text: &str, page: f64, frame: &mut Frame) {
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("TCP:")) else { return };
    let mut words = line.split_ascii_whitespace();
    while let (Some(name), value) = (words.next(), words.next()) {
        match name {
            "orphan" => frame.set(TCP_ORPHANS, 0, number(value)),
            "tw" => frame.set(TCP_TIME_WAIT, 0, number(value)),
            "mem" => frame.set(TCP_MEMORY, 0, number(value) * page),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::frame::Shape;

    #[test]
    fn counters_are_found_by_name_and_held_between_readings() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("proc/net");
        fs::create_dir_all(&folder).unwrap();
        let write = |overflows| {
            let text = format!(
                "TcpExt: SyncookiesSent ListenOverflows TCPTimeouts\nTcpExt: 9 {overflows} 7\n\
                 IpExt: A\nIpExt: 1\n"
            );
            fs::write(folder.join("netstat"), text).unwrap();
        };
        write(2);
        fs::write(folder.join("sockstat"), "sockets: used 36\nTCP: inuse 1 orphan 4 tw 5 mem 3\n")
            .unwrap();
        let (mut tcp, mut buffer) = (Tcp::new(&Root::new(dir.path())), Buffer::default());
        tcp.page = 4096.0;
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 1 });
        let mut read = |second| {
            frame.begin(BootTime::new(Duration::from_secs(second)));
            tcp.read(&mut buffer, &mut frame).unwrap();
            [TCP_LISTEN_OVERFLOWS, TCP_TIMEOUTS, TCP_ORPHANS, TCP_TIME_WAIT, TCP_MEMORY]
                .map(|signal| frame.get(signal, 0))
        };
        assert_eq!(read(10), [2.0, 7.0, 4.0, 5.0, 12288.0]);
        write(3);
        assert_eq!(read(14)[0], 2.0);
        assert_eq!(read(15)[0], 3.0);
    }

    #[test]
    fn odd_text_leaves_signals_unread() {
        for text in
            ["", "TcpExt: TCPTimeouts\n", "TcpExt:\nTcpExt:\n", "TcpExt: TCPTimeouts\nTcpExt: x\n"]
        {
            assert!(netstat(text).iter().all(|value| value.is_nan()), "{text:?}");
        }
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 1 });
        for text in ["", "TCP:", "TCP: mem", "TCP: tw x mem -1"] {
            sockstat(text, 4096.0, &mut frame);
        }
        assert!(frame.get(TCP_MEMORY, 0).is_nan() && frame.get(TCP_TIME_WAIT, 0).is_nan());
    }
}
