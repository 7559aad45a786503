//! TCP by unit: segments sent again, resets, and what became of connects, from
//! the programs on the socket hooks; and sockets of any protocol that were refused
//! memory or room.

use super::counted::{Counters, Distributions};
use super::labels::Labels;
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    HOST_CONNECT, HOST_CONNECT_FAILED, HOST_CONNECT_REFUSED, HOST_CONNECT_SLOW,
    HOST_CONNECT_TIMED_OUT, HOST_MEMORY_REFUSED, HOST_RECEIVE_FULL, HOST_RESETS_RECEIVED,
    HOST_RESETS_SENT, HOST_RETRANSMITS, LABEL_CONNECT_FAILED, LABEL_RESETS_SENT, SignalId,
    UNIT_CONNECT, UNIT_CONNECT_FAILED, UNIT_CONNECT_REFUSED, UNIT_CONNECT_SLOW,
    UNIT_CONNECT_TIMED_OUT, UNIT_MEMORY_REFUSED, UNIT_RECEIVE_FULL, UNIT_RESETS_RECEIVED,
    UNIT_RESETS_SENT, UNIT_RETRANSMITS,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::load;

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "tcp",
    doc: "TCP retransmits, resets, and latency and failures of connects, and sockets refused memory, of each unit",
    level: 2,
    programs: &[
        "tcp_retransmit_skb",
        "tcp_send_reset",
        "tcp_receive_reset",
        "inet_sock_set_state",
        "sock_exceed_buf_limit",
        "sock_rcvqueue_full",
        "udp_fail_queue_rcv_skb",
    ],
    open,
};

const COUNT: usize = 9;
const HOST: [SignalId; COUNT] = [
    HOST_RETRANSMITS,
    HOST_RESETS_SENT,
    HOST_RESETS_RECEIVED,
    HOST_CONNECT_SLOW,
    HOST_CONNECT_FAILED,
    HOST_CONNECT_REFUSED,
    HOST_CONNECT_TIMED_OUT,
    HOST_MEMORY_REFUSED,
    HOST_RECEIVE_FULL,
];
const UNIT: [SignalId; COUNT] = [
    UNIT_RETRANSMITS,
    UNIT_RESETS_SENT,
    UNIT_RESETS_RECEIVED,
    UNIT_CONNECT_SLOW,
    UNIT_CONNECT_FAILED,
    UNIT_CONNECT_REFUSED,
    UNIT_CONNECT_TIMED_OUT,
    UNIT_MEMORY_REFUSED,
    UNIT_RECEIVE_FULL,
];

struct Tcp {
    degraded: Option<String>,
    counters: Counters<COUNT>,
    connects: Distributions,
    resets: Labels,
    errors: Labels,
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    let cells = kernel.tcp();
    Ok(Box::new(Tcp {
        degraded: kernel.health(SPEC.programs)?,
        counters: Counters::new(UNIT, cells.len(), |row| counters(kernel, row)),
        connects: Distributions::new(UNIT_CONNECT, Some(HOST_CONNECT), cells.len(), |row| {
            cells.get(row).into_iter().map(|cell| &cell.connect)
        }),
        resets: Labels::new(LABEL_RESETS_SENT, &kernel.names().resets),
        errors: Labels::new(LABEL_CONNECT_FAILED, &kernel.names().errors),
    }))
}

impl Probe for Tcp {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let kernel = kernel_of(kernel)?;
        let cells = kernel.tcp();
        let mut host = [0u64; COUNT];
        for row in 0..cells.len() {
            let now = counters(kernel, row);
            host.iter_mut().zip(now).for_each(|(sum, n)| *sum = sum.wrapping_add(n));
            self.counters.put(frame, row, now);
            self.connects.put(frame, row, cells.get(row).into_iter().map(|cell| &cell.connect));
        }
        if let Some(reasons) = kernel.tcp_reasons() {
            let names = kernel.names();
            self.resets.put(frame, &names.resets, reasons.resets.iter().map(load));
            self.errors.put(frame, &names.errors, reasons.errors.iter().map(load));
        }
        HOST.iter().zip(host).for_each(|(id, sum)| frame.set(*id, 0, sum as f64));
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

fn counters(kernel: &Kernel, row: usize) -> [u64; COUNT] {
    kernel.tcp().get(row).map_or([0; COUNT], |cell| {
        [
            load(&cell.retransmits),
            load(&cell.resets_sent),
            load(&cell.resets_received),
            load(&cell.connects_slow),
            load(&cell.connects_failed),
            load(&cell.connects_refused),
            load(&cell.connects_timed_out),
            load(&cell.memory_refused),
            load(&cell.receive_full),
        ]
    })
}
