//! TCP sockets by unit: smoothed round-trip time, how many there are, and how full
//! the accept queues are, from the kernel's socket diagnostics.
//!
//! To list sockets costs the kernel 3 us for each and the way through its whole table of
//! connections, so they are polled every [`INTERVAL`], or less often where that would
//! cost more than it may. A poll that takes long goes on at the next tick.

use std::io;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_proto::histogram::bucket_of;
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

use super::{Context, Probe};
use crate::catalogue::{
    HOST_ACCEPT_FILL, HOST_RTT, Owner, UNIT_ACCEPT_FILL, UNIT_ACCEPT_LIMIT, UNIT_ACCEPT_USED,
    UNIT_RTT, UNIT_SOCKETS_ESTABLISHED,
};
use crate::frame::Frame;
use crate::host::file::{Buffer, Source};
use crate::host::socket_diag::{ESTABLISHED, Family, LISTEN, Line, Message, Socket};
use crate::kernel::Kernel;
use crate::losses::{Cause, Losses};
use crate::units::SharedMembers;

/// Time from one poll to the next: round-trip times and queues that matter last longer.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same where there are so many sockets that a poll is dear.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// A poll may take one part in so many of the time to the next: 0.25 % of a core.
const SHARE: u32 = 400;
/// Time spent in one tick, about 1,700 sockets; what is under way is brought to its end.
const TICK: Duration = Duration::from_millis(5);
/// Most sockets looked at in one poll; the rest is counted as lost.
const SOCKETS: u64 = 20_000;
/// A poll ends here at the latest; what was left of it is one loss.
const BYTES: usize = 16 << 20;
/// So does one that took this long: the kernel owes the rest and does not give it.
const LONGEST: Duration = Duration::from_secs(60);

/// What is asked in a poll. Those that listen come first: where there are no others,
/// the long way through the table is saved.
const QUESTIONS: [(Family, u8); 4] = [
    (Family::V4, LISTEN),
    (Family::V6, LISTEN),
    (Family::V4, ESTABLISHED),
    (Family::V6, ESTABLISHED),
];

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
#[derive(Debug)]
struct Poll {
    begun: BootTime,
    /// CPU time spent on it, the kernel's share included.
    cost: Duration,
    /// Position in [`QUESTIONS`].
    question: usize,
    /// Sockets of IPv4 and IPv6 that are neither listening nor waiting out their time,
    /// before those that listen are taken off; `None` where it is not known.
    others: [Option<u64>; 2],
    sockets: u64,
    bytes: usize,
    untold: u64,
    host: Option<Queue>,
}

struct Sockets {
    line: Line,
    buffer: Buffer,
    /// Numbers of sockets in use, of IPv4 and IPv6.
    in_use: [Source; 2],
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
    let file = |name| Source::new(context.root.path("proc/net").join(name));
    Ok(Box::new(Sockets {
        line,
        buffer: Buffer::default(),
        in_use: [file("sockstat"), file("sockstat6")],
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
        match &self.poll {
            None if frame.at < self.due => return Ok(()),
            None => self.begin(frame)?,
            Some(poll) if frame.at.since(poll.begun) > LONGEST => return self.cut(frame.at),
            Some(_) => {}
        }
        let (began, spent_before) = (BootTime::now(), cpu_time());
        loop {
            let goes_on = self.piece(frame)?;
            let passed = BootTime::now().since(began);
            let Some(poll) = &mut self.poll else { return Ok(()) };
            let ended = poll.question >= QUESTIONS.len();
            if ended || !goes_on || passed >= TICK {
                poll.cost += cpu_time().saturating_sub(spent_before);
                if ended {
                    self.finish(frame.at);
                }
                return Ok(());
            }
        }
    }

    fn begin(&mut self, frame: &Frame) -> io::Result<()> {
        let rows = frame.rows(Owner::Unit).iter();
        self.pending.clear();
        self.pending
            .extend(rows.map(|row| Found { generation: row.generation, ..Found::default() }));
        // Sooner than a poll that fails would be tried again.
        self.due = BootTime::new(frame.at.since_boot() + INTERVAL);
        let Self { in_use: [v4, v6], buffer, .. } = self;
        let others = [in_use(v4, buffer), in_use(v6, buffer)];
        self.poll = Some(Poll {
            begun: frame.at,
            cost: Duration::ZERO,
            question: 0,
            others,
            sockets: 0,
            bytes: 0,
            untold: 0,
            host: None,
        });
        self.ask()
    }

    /// Asks the next question that is worth it.
    fn ask(&mut self) -> io::Result<()> {
        let Some(poll) = &mut self.poll else { return Ok(()) };
        while let Some((family, state)) = QUESTIONS.get(poll.question) {
            let none = poll.others[usize::from(*family == Family::V6)] == Some(0);
            if *state == LISTEN || !none {
                return self.line.ask(*family, *state);
            }
            poll.question += 1;
        }
        Ok(())
    }

    /// Takes a piece of the answer; false when there is none just now.
    fn piece(&mut self, frame: &mut Frame) -> io::Result<bool> {
        let Some(poll) = &mut self.poll else { return Ok(false) };
        let Some((family, _)) = QUESTIONS.get(poll.question) else { return Ok(false) };
        let Some((messages, bytes)) = self.line.piece()? else { return Ok(false) };
        poll.bytes += bytes;
        let mut done = false;
        for message in messages {
            match message {
                Message::Socket(_) if poll.sockets >= SOCKETS => self.losses.add(Cause::Sockets, 1),
                Message::Socket(socket) => {
                    poll.sockets += 1;
                    poll.untold += u64::from(socket.cgroup_id.is_none());
                    let others = &mut poll.others[usize::from(*family == Family::V6)];
                    if socket.state == LISTEN {
                        *others = others.map(|n| n.saturating_sub(1));
                    }
                    let slot = slot_of(&socket, self.members.as_ref().ok());
                    count(&socket, slot, &mut self.pending, &mut poll.host, frame);
                }
                Message::Done => done = true,
                // A kernel without IPv6.
                Message::Refused(_) if *family == Family::V6 => done = true,
                Message::Refused(error) => return Err(io::Error::from_raw_os_error(error)),
                Message::Malformed => self.losses.add(Cause::SocketMessages, 1),
            }
        }
        if poll.bytes >= BYTES {
            self.cut(frame.at)?;
        } else if done {
            poll.question += 1;
            self.ask()?;
        }
        Ok(true)
    }

    /// Ends a poll before its time. What is left of the answer goes with the line it
    /// would have come over.
    fn cut(&mut self, now: BootTime) -> io::Result<()> {
        self.losses.add(Cause::Sockets, 1);
        self.line = Line::open()?;
        self.finish(now);
        Ok(())
    }

    fn finish(&mut self, now: BootTime) {
        let Some(poll) = self.poll.take() else { return };
        self.failure = None;
        let next = poll.begun.since_boot() + interval(poll.cost);
        self.due = BootTime::new(next.max(now.since_boot()));
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

/// Time from the begin of a poll that cost so much to that of the next.
fn interval(cost: Duration) -> Duration {
    cost.saturating_mul(SHARE).clamp(INTERVAL, LONGEST_INTERVAL)
}

/// What this thread has cost so far: a busy host must not make a poll look dear.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Sockets of TCP in use, listening ones included, those that wait out their time not.
fn in_use(source: &mut Source, buffer: &mut Buffer) -> Option<u64> {
    let text = source.read(buffer).ok()?;
    let line = text.lines().find(|line| line.starts_with("TCP"))?;
    line.split_once("inuse ")?.1.split(' ').next()?.parse().ok()
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
                if let Some(histogram) = wanted.then(|| frame.histogram_mut(id, row)).flatten() {
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
    fn a_dear_poll_is_made_less_often() {
        let seconds = |ms| interval(Duration::from_millis(ms)).as_secs_f64();
        assert_eq!([seconds(0), seconds(7), seconds(70), seconds(9000)], [10.0, 10.0, 28.0, 60.0]);
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
        frame.assign(Owner::Unit, 1, "a.service".into());
        let (mut rows, mut host) = (vec![Found::default(); 2], None);
        rows[1].generation = 1;
        for (slot, rtt) in [(1, Some(100)), (1, Some(300)), (0, Some(50)), (1, None), (7, Some(1))]
        {
            count(&socket(ESTABLISHED, (0, 0), rtt), slot, &mut rows, &mut host, &mut frame);
        }
        let unit = frame.histogram(UNIT_RTT, 1).unwrap();
        assert_eq!((unit.total(), unit.sum, rows[1].established), (2, 400_000, 3));
        assert_eq!(frame.histogram(HOST_RTT, 0).map(Histogram::total), Some(3));
    }
}
