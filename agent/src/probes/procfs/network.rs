//! Interfaces from /proc/net/dev and TCP from /proc/net/snmp, of the agent's
//! network namespace.

use std::io;

use super::links::Links;
use super::rows::Rows;
use super::tcp::Tcp;
use crate::catalogue::{
    NETWORK_RX_BYTES, NETWORK_RX_DROPS, NETWORK_RX_ERRORS, NETWORK_RX_PACKETS, NETWORK_TX_BYTES,
    NETWORK_TX_DROPS, NETWORK_TX_ERRORS, NETWORK_TX_PACKETS, Owner, SignalId, TCP_ESTABLISHED,
    TCP_SEGMENTS_IN, TCP_SEGMENTS_OUT, TCP_SEGMENTS_RETRANSMITTED,
};
use crate::frame::Frame;
use crate::host::Root;
use crate::host::file::{Buffer, Source, number};

/// Column of /proc/net/dev, counted after the name, of each signal.
const COLUMNS: [(usize, SignalId); 8] = [
    (0, NETWORK_RX_BYTES),
    (1, NETWORK_RX_PACKETS),
    (2, NETWORK_RX_ERRORS),
    (3, NETWORK_RX_DROPS),
    (8, NETWORK_TX_BYTES),
    (9, NETWORK_TX_PACKETS),
    (10, NETWORK_TX_ERRORS),
    (11, NETWORK_TX_DROPS),
];

pub(super) struct Network {
    dev: Source,
    snmp: Source,
    rows: Rows,
    links: Links,
    tcp: Tcp,
}

impl Network {
    pub(super) fn new(root: &Root) -> Self {
        Self {
            dev: Source::new(root.path("proc/net/dev")),
            snmp: Source::new(root.path("proc/net/snmp")),
            rows: Rows::new(Owner::Interface),
            links: Links::new(root),
            tcp: Tcp::new(root),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut Buffer, frame: &mut Frame) -> io::Result<()> {
        dev(self.dev.read(buffer)?, &mut self.rows, frame);
        self.links.read(buffer, frame);
        snmp(self.snmp.read(buffer)?, frame);
        self.tcp.read(buffer, frame)
    }
}

fn dev(text: &str, rows: &mut Rows, frame: &mut Frame) {
    let mut other = [0.0; COLUMNS.len()];
    let mut overflowed = false;
    rows.begin(frame);
    // Two lines of headings, which have no colon after the first word.
    for line in text.lines().skip(2) {
        let Some((name, counters)) = line.split_once(':') else { continue };
        let name = name.trim();
        let row = rows.find(name).or_else(|| rows.take(name, frame));
        let mut fields = counters.split_ascii_whitespace();
        let mut next = 0;
        for (cell, (column, signal)) in other.iter_mut().zip(COLUMNS) {
            let value = number(fields.nth(column - next));
            next = column + 1;
            match row {
                Some(row) => frame.set(signal, row, value),
                None => *cell += value,
            }
        }
        overflowed |= row.is_none();
    }
    rows.end(frame);
    if overflowed {
        for (value, (_, signal)) in other.into_iter().zip(COLUMNS) {
            frame.set(signal, 0, value);
        }
    }
}

fn snmp(text: &str, frame: &mut Frame) {
    // Each protocol has a line of names and a line of values.
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return };
    for (name, value) in names.split_ascii_whitespace().zip(values.split_ascii_whitespace()) {
        let signal = match name {
            "OutSegs" => TCP_SEGMENTS_OUT,
            "InSegs" => TCP_SEGMENTS_IN,
            "RetransSegs" => TCP_SEGMENTS_RETRANSMITTED,
            "CurrEstab" => TCP_ESTABLISHED,
            _ => continue,
        };
        frame.set(signal, 0, number(Some(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    const HEAD: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes packets\n";

    fn frame() -> Frame {
        Frame::new(Shape { units: 1, devices: 1, interfaces: 3 })
    }

    #[test]
    fn interfaces_get_rows_and_the_rest_is_summed() {
        let (mut frame, mut rows) = (frame(), Rows::new(Owner::Interface));
        let line = |name: &str, base: u64| {
            let numbers: Vec<String> = (0..16).map(|i| (base + i).to_string()).collect();
            format!("{name}:{}\n", numbers.join(" "))
        };
        let text = [HEAD, &line("  lo", 0), &line("eth0", 100), &line("v1", 200), &line("v2", 300)]
            .concat();
        dev(&text, &mut rows, &mut frame);
        assert_eq!((frame.get(NETWORK_RX_BYTES, 1), frame.get(NETWORK_TX_DROPS, 1)), (0.0, 11.0));
        assert_eq!(
            (frame.get(NETWORK_RX_DROPS, 2), frame.get(NETWORK_TX_BYTES, 2)),
            (103.0, 108.0)
        );
        assert_eq!(
            (frame.get(NETWORK_RX_BYTES, 0), frame.get(NETWORK_TX_BYTES, 0)),
            (500.0, 516.0)
        );
        assert_eq!(&*frame.rows(Owner::Interface)[2].name, "eth0");
    }

    #[test]
    fn tcp_is_found_by_name() {
        let mut frame = frame();
        snmp(
            "Ip: A\nIp: 1\nTcp: MaxConn CurrEstab InSegs OutSegs RetransSegs\nTcp: -1 4 10 20 3\n",
            &mut frame,
        );
        let read = [TCP_ESTABLISHED, TCP_SEGMENTS_IN, TCP_SEGMENTS_OUT, TCP_SEGMENTS_RETRANSMITTED];
        assert_eq!(read.map(|signal| frame.get(signal, 0)), [4.0, 10.0, 20.0, 3.0]);
    }

    #[test]
    fn odd_text_leaves_signals_unread() {
        let (mut frame, mut rows) = (frame(), Rows::new(Owner::Interface));
        for text in ["", "x", "Tcp: OutSegs\n", "Tcp:\nTcp:\n"] {
            dev(text, &mut rows, &mut frame);
            snmp(text, &mut frame);
        }
        dev(&[HEAD, "eth0: 1 x\nno colon\n"].concat(), &mut rows, &mut frame);
        assert_eq!(frame.get(NETWORK_RX_BYTES, 1), 1.0);
        assert!(
            frame.get(NETWORK_RX_PACKETS, 1).is_nan() && frame.get(NETWORK_TX_DROPS, 1).is_nan()
        );
        assert!(frame.get(TCP_SEGMENTS_OUT, 0).is_nan());
    }
}
