//! TCP sockets by unit: smoothed round-trip time, how many there are, and how full
//! the accept queues are, from the kernel's socket diagnostics.
//!
//! To list sockets costs the kernel a look at each of them, so they are polled every
//! [`INTERVAL`]. A poll that takes long goes on at the next tick.

use std::io;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use nix::errno::Errno;

use super::{Context, Probe};
use crate::catalogue::{
    HOST_ACCEPT_FILL, HOST_RTT, Owner, UNIT_ACCEPT_FILL, UNIT_ACCEPT_LIMIT, UNIT_ACCEPT_USED,
    UNIT_RTT, UNIT_SOCKETS_ESTABLISHED,
};
use crate::frame::Frame;
use crate::host::socket_diag::{ESTABLISHED, Family, LISTEN, Line, Message, Socket};
use crate::kernel::Kernel;
use crate::losses::{Cause, Losses};
use crate::units::SharedMembers;
use holdfast_proto::histogram::bucket_of;

/// Time from one poll to the next. A listing takes about a microsecond a socket and
/// the look at the kernel's whole table; round-trip times and queues that matter last
/// longer than this.
const INTERVAL: Duration = Duration::from_secs(10);
/// Pieces taken in one tick, 32 KiB each: about 5,000 sockets.
const PIECES_PER_TICK: usize = 64;
/// Most sockets looked at in one poll; the rest is counted as lost.
const SOCKETS: u64 = 20_000;
/// A poll ends here at the latest; what was left of it is one loss.
const BYTES: usize = 16 << 20;

/// So does one that took this long: the kernel owes the rest and does not give it.
const LONGEST: Duration = Duration::from_secs(30);

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// What a poll found of a unit.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    /// Whose it is: the generation of the row.
    generation: u32,
    established: u32,
    /// Of the fullest accept queue.
    queue: Option<Queue>,
}

/// An accept queue.
#[derive(Debug, Clone, Copy, Default)]
struct Queue {
    used: u32,
    limit: u32,
}

impl Queue {
    /// 1 is full: the kernel lets one more wait than was asked for.
    fn fill(self) -> f64 {
        f64::from(self.used) / (f64::from(self.limit) + 1.0)
    }
}

/// A poll under way.
#[derive(Debug, Default)]
struct Poll {
    begun: BootTime,
    /// Position of the family asked for in [`FAMILIES`].
    family: usize,
    sockets: u64,
    bytes: usize,
    refused: usize,
    untold: u64,
    host: Option<Queue>,
}

struct Sockets {
    line: Line,
    members: Result<SharedMembers, String>,
    losses: Losses,
    poll: Option<Poll>,
    due: BootTime,
    /// By row: of the poll under way, and of the last one.
    pending: Vec<Found>,
    told: Vec<Found>,
    host: Option<Queue>,
    degraded: Option<String>,
    /// Why the last poll failed.
    failure: Option<String>,
}

pub(super) fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let line = Line::open().map_err(|error| reason(&error))?;
    let members = context.members.cloned().map_err(str::to_owned);
    Ok(Box::new(Sockets {
        line,
        degraded: members.as_ref().err().cloned(),
        members,
        losses: context.losses.clone(),
        poll: None,
        due: BootTime::default(),
        pending: Vec::new(),
        told: Vec::new(),
        host: None,
        failure: None,
    }))
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::EPROTONOSUPPORT) => {
            "this kernel has no socket diagnostics for TCP; they are in the modules inet_diag and tcp_diag".to_owned()
        }
        _ => format!("the kernel's socket diagnostics cannot be read: {error}"),
    }
}

impl Probe for Sockets {
    fn read(&mut self, _: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        if let Err(error) = self.advance(frame) {
            self.failure = Some(reason(&error));
            // A line in the middle of an answer is of no use.
            if let Ok(line) = Line::open() {
                self.line = line;
            }
            self.poll = None;
            self.told.clear();
            self.host = None;
        }
        self.tell(frame);
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

impl Sockets {
    fn advance(&mut self, frame: &mut Frame) -> io::Result<()> {
        if self.poll.is_none() {
            if frame.at < self.due {
                return Ok(());
            }
            self.due = BootTime::new(frame.at.since_boot() + INTERVAL);
            let rows = frame.rows(Owner::Unit).iter();
            self.pending.clear();
            self.pending
                .extend(rows.map(|row| Found { generation: row.generation, ..Found::default() }));
            self.ask(0)?;
            self.poll = Some(Poll { begun: frame.at, ..Poll::default() });
        }
        if self.poll.as_ref().is_some_and(|poll| frame.at.since(poll.begun) > LONGEST) {
            return self.cut();
        }
        for _ in 0..PIECES_PER_TICK {
            let Some(poll) = &mut self.poll else { break };
            let Some((messages, bytes)) = self.line.piece()? else { break };
            poll.bytes += bytes;
            let mut done = false;
            for message in messages {
                match message {
                    Message::Socket(_) if poll.sockets >= SOCKETS => {
                        self.losses.add(Cause::Sockets, 1);
                    }
                    Message::Socket(socket) => {
                        poll.sockets += 1;
                        let slot = slot_of(&socket, self.members.as_ref().ok());
                        poll.untold += u64::from(socket.cgroup_id.is_none());
                        count(&socket, slot, &mut self.pending, &mut poll.host, frame);
                    }
                    Message::Done => done = true,
                    Message::Refused(error) => {
                        poll.refused += 1;
                        if poll.refused == FAMILIES.len() {
                            return Err(io::Error::from_raw_os_error(error));
                        }
                        done = true;
                    }
                    Message::Malformed => self.losses.add(Cause::SocketMessages, 1),
                }
            }
            if poll.bytes >= BYTES {
                self.cut()?;
            } else if done {
                let next = poll.family + 1;
                poll.family = next;
                if next < FAMILIES.len() {
                    self.ask(next)?;
                } else {
                    self.finish();
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, family: usize) -> io::Result<()> {
        match FAMILIES.get(family) {
            Some(family) => self.line.ask(*family, &[ESTABLISHED, LISTEN]),
            None => Ok(()),
        }
    }

    /// Ends a poll before its time. What is left of the answer goes with the line it
    /// would have come over.
    fn cut(&mut self) -> io::Result<()> {
        self.losses.add(Cause::Sockets, 1);
        self.line = Line::open()?;
        self.finish();
        Ok(())
    }

    fn finish(&mut self) {
        let Some(poll) = self.poll.take() else { return };
        self.failure = None;
        std::mem::swap(&mut self.told, &mut self.pending);
        self.host = poll.host;
        if self.members.is_ok() {
            let untold = poll.sockets > 0 && poll.untold == poll.sockets;
            self.degraded = untold.then(|| "this kernel does not tell the cgroup of a socket, so sockets are counted for the host, not for units".to_owned());
        }
    }

    /// Gauges stay until the next poll has looked.
    fn tell(&self, frame: &mut Frame) {
        for (row, found) in self.told.iter().enumerate() {
            let owner = frame.rows(Owner::Unit).get(row);
            if owner.is_none_or(|owner| !owner.live || owner.generation != found.generation) {
                continue;
            }
            frame.set(UNIT_SOCKETS_ESTABLISHED, row, f64::from(found.established));
            if let Some(queue) = found.queue {
                frame.set(UNIT_ACCEPT_USED, row, f64::from(queue.used));
                frame.set(UNIT_ACCEPT_LIMIT, row, f64::from(queue.limit));
                frame.set(UNIT_ACCEPT_FILL, row, queue.fill());
            }
        }
        if let Some(queue) = self.host {
            frame.set(HOST_ACCEPT_FILL, 0, queue.fill());
        }
    }
}

fn slot_of(socket: &Socket, members: Option<&SharedMembers>) -> usize {
    let slot = |id| members.and_then(|members| members.borrow().slots.get(&id).copied());
    socket.cgroup_id.and_then(slot).unwrap_or(0)
}

fn count(
    socket: &Socket,
    slot: usize,
    rows: &mut [Found],
    host: &mut Option<Queue>,
    frame: &mut Frame,
) {
    let Some(found) = rows.get_mut(slot) else { return };
    match socket.state {
        ESTABLISHED => {
            found.established += 1;
            let Some(us) = socket.rtt_us else { return };
            let ns = u64::from(us) * 1000;
            let of_unit = frame.rows(Owner::Unit).get(slot).map(|row| row.generation);
            for (id, row, wanted) in
                [(HOST_RTT, 0, true), (UNIT_RTT, slot, of_unit == Some(found.generation))]
            {
                if let Some(histogram) = frame.histogram_mut(id, row).filter(|_| wanted) {
                    histogram.sum = histogram.sum.wrapping_add(ns);
                    if let Some(bucket) = histogram.counts.get_mut(bucket_of(ns)) {
                        *bucket += 1;
                    }
                }
            }
        }
        LISTEN => {
            let queue = Queue { used: socket.receive_queue, limit: socket.send_queue };
            for fullest in [&mut found.queue, host] {
                if fullest.is_none_or(|other| other.fill() <= queue.fill()) {
                    *fullest = Some(queue);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Histogram, Shape};

    fn socket(state: u8, queues: (u32, u32), rtt_us: Option<u32>) -> Socket {
        let (receive_queue, send_queue) = queues;
        Socket { state, receive_queue, send_queue, rtt_us, cgroup_id: Some(9) }
    }

    #[test]
    fn the_fullest_queue_stands_for_the_unit() {
        let mut frame = Frame::new(Shape { units: 2, devices: 1, interfaces: 1 });
        let (mut rows, mut host) = (vec![Found::default(); 2], None);
        for queues in [(10, 4095), (2, 1), (0, 128)] {
            count(&socket(LISTEN, queues, None), 1, &mut rows, &mut host, &mut frame);
        }
        let queue = rows[1].queue.unwrap();
        assert_eq!((queue.used, queue.limit, queue.fill()), (2, 1, 1.0));
        assert_eq!(host.map(Queue::fill), Some(1.0));
        assert!(rows[0].queue.is_none());
    }

    #[test]
    fn each_socket_is_one_value_and_those_without_a_row_are_nobodys() {
        let mut frame = Frame::new(Shape { units: 2, devices: 1, interfaces: 1 });
        let (mut rows, mut host) = (vec![Found::default(); 2], None);
        for (slot, rtt) in [(1, Some(100)), (1, Some(300)), (0, Some(50)), (1, None), (7, Some(1))]
        {
            count(&socket(ESTABLISHED, (0, 0), rtt), slot, &mut rows, &mut host, &mut frame);
        }
        let unit = frame.histogram(UNIT_RTT, 1).unwrap();
        assert_eq!((unit.total(), unit.sum, rows[1].established), (2, 400_000, 3));
        assert_eq!(frame.histogram(HOST_RTT, 0).map(Histogram::total), Some(3));
    }
}
