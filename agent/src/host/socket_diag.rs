//! TCP sockets as the kernel tells of them: its socket diagnostics, over netlink
//! (`sock_diag(7)`), of the agent's network namespace. Needs no privilege.
//!
//! The kernel makes up the answer piece by piece, as it is read. A reader takes as many
//! pieces as it likes, nobody waits, and what came is taken apart without trust.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// A TCP socket in state "established" (`net/tcp_states.h`).
pub const ESTABLISHED: u8 = 1;
/// A TCP socket in state "listen".
pub const LISTEN: u8 = 10;

/// Address families to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4 = 2,
    /// IPv6.
    V6 = 10,
}

/// Largest piece: the kernel makes none larger for one reading.
const PIECE_BYTES: usize = 64 << 10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// `INET_DIAG_INFO`: a `tcp_info`.
const ATTRIBUTE_INFO: u16 = 2;
/// `INET_DIAG_CGROUP_ID`, given unasked since 5.9.
const ATTRIBUTE_CGROUP: u16 = 21;
/// Asks for [`ATTRIBUTE_INFO`].
const WITH_INFO: u8 = 1 << (ATTRIBUTE_INFO - 1);
/// The part of an attribute's type that is the type.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// Sizes of `nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const SOCKET: usize = 72;
/// Where in an `inet_diag_msg` the two queue lengths are.
const RECEIVE_QUEUE: usize = 56;
const SEND_QUEUE: usize = 60;
/// Where in a `tcp_info` the smoothed round-trip time in microseconds is.
const INFO_RTT: usize = 68;

/// One TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// Its state, such as [`ESTABLISHED`].
    pub state: u8,
    /// Bytes not yet read; of a listening socket, connections not yet accepted.
    pub receive_queue: u32,
    /// Bytes not yet acknowledged; of a listening socket, how many connections may wait.
    pub send_queue: u32,
    /// Smoothed round-trip time in microseconds, where it is known.
    pub rtt_us: Option<u32>,
    /// Id of the cgroup it was made in, where the kernel tells.
    pub cgroup_id: Option<u64>,
}

/// A piece of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A socket.
    Socket(Socket),
    /// There are no more.
    Done,
    /// The kernel refuses, with this error number.
    Refused(i32),
    /// Not as it should be. What follows it in the same piece is lost.
    Malformed,
}

/// A line to the kernel.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
    sequence: u32,
    piece: Vec<u8>,
}

impl Line {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// The kernel has no such thing, or forbids it.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkSockDiag,
        )?;
        Ok(Self { socket, sequence: 0, piece: vec![0; PIECE_BYTES] })
    }

    /// Asks for all sockets of `family` in `state`, with their round-trip times if they
    /// are established. One question at a time: the answer to the last one must have
    /// been read to its end.
    ///
    /// The kernel goes through its whole table of connections (3.5 ms for 262,144
    /// entries, however few are in use), but not for those that listen.
    ///
    /// # Errors
    ///
    /// The kernel does not take the question.
    pub fn ask(&mut self, family: Family, state: u8) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        send(self.socket.as_raw_fd(), &question(self.sequence, family, state), MsgFlags::empty())?;
        Ok(())
    }

    /// The next piece of the answer: its messages and its size in bytes. `None` when
    /// there is nothing to be had just now.
    ///
    /// # Errors
    ///
    /// The line is broken.
    pub fn piece(&mut self) -> io::Result<Option<(Messages<'_>, usize)>> {
        match recv(self.socket.as_raw_fd(), &mut self.piece, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                let bytes = self.piece.get(..length).unwrap_or_default();
                Ok(Some((messages(bytes, self.sequence), length)))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn question(sequence: u32, family: Family, state: u8) -> [u8; HEADER + REQUEST] {
    let states = 1u32.wrapping_shl(state.into());
    let extra = if state == ESTABLISHED { WITH_INFO } else { 0 };
    let mut bytes = [0; HEADER + REQUEST];
    let parts: [(usize, &[u8]); 6] = [
        (0, &((HEADER + REQUEST) as u32).to_ne_bytes()),
        (4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes()),
        (6, &(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes()),
        (8, &sequence.to_ne_bytes()),
        (HEADER, &[family as u8, nix::libc::IPPROTO_TCP as u8, extra]),
        (HEADER + 4, &states.to_ne_bytes()),
    ];
    for (at, part) in parts {
        bytes.iter_mut().skip(at).zip(part).for_each(|(to, from)| *to = *from);
    }
    bytes
}

/// Takes a piece apart. Answers to other questions than the one with `sequence` are
/// left out.
#[must_use]
pub fn messages(piece: &[u8], sequence: u32) -> Messages<'_> {
    Messages { rest: piece, sequence }
}

/// The messages of a piece.
#[derive(Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    sequence: u32,
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        while !self.rest.is_empty() {
            let whole = u32_at(self.rest, 0).and_then(|length| self.rest.get(..length as usize));
            let Some(message) = whole.filter(|message| message.len() >= HEADER) else {
                self.rest = &[];
                return Some(Message::Malformed);
            };
            self.rest = self.rest.get(message.len().next_multiple_of(4)..).unwrap_or_default();
            if u32_at(message, 8) == Some(self.sequence) {
                let body = message.get(HEADER..).unwrap_or_default();
                return Some(read(u16_at(message, 4), body).unwrap_or(Message::Malformed));
            }
        }
        None
    }
}

fn read(kind: Option<u16>, body: &[u8]) -> Option<Message> {
    match kind? {
        NLMSG_DONE => Some(Message::Done),
        NLMSG_ERROR => Some(Message::Refused((u32_at(body, 0)? as i32).wrapping_neg())),
        SOCK_DIAG_BY_FAMILY => {
            let mut socket = Socket {
                state: *body.get(1)?,
                receive_queue: u32_at(body, RECEIVE_QUEUE)?,
                send_queue: u32_at(body, SEND_QUEUE)?,
                rtt_us: None,
                cgroup_id: None,
            };
            attributes(body.get(SOCKET..)?, &mut socket)?;
            Some(Message::Socket(socket))
        }
        _ => None,
    }
}

fn attributes(mut rest: &[u8], socket: &mut Socket) -> Option<()> {
    while !rest.is_empty() {
        let attribute = rest.get(..u16_at(rest, 0)?.into())?;
        let value = attribute.get(4..)?;
        match u16_at(rest, 2)? & ATTRIBUTE_TYPE {
            ATTRIBUTE_INFO => socket.rtt_us = u32_at(value, INFO_RTT).filter(|us| *us > 0),
            ATTRIBUTE_CGROUP => socket.cgroup_id = u64_at(value, 0),
            _ => {}
        }
        rest = rest.get(attribute.len().next_multiple_of(4)..).unwrap_or_default();
    }
    Some(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const SEQUENCE: u32 = 7;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(SEQUENCE.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// Two sockets and the end.
    fn sample() -> Vec<u8> {
        let mut info = [0; 240];
        info[INFO_RTT..INFO_RTT + 4].copy_from_slice(&250u32.to_ne_bytes());
        let mut established = [0; SOCKET];
        established[1] = ESTABLISHED;
        let mut body = established.to_vec();
        body.extend(attribute(8, &[3]));
        body.extend(attribute(ATTRIBUTE_INFO, &info));
        body.extend(attribute(ATTRIBUTE_CGROUP, &77u64.to_ne_bytes()));
        let mut listening = [0; SOCKET];
        listening[1] = LISTEN;
        listening[RECEIVE_QUEUE] = 5;
        listening[SEND_QUEUE] = 128;
        [
            message(SOCK_DIAG_BY_FAMILY, &body),
            message(SOCK_DIAG_BY_FAMILY, &listening),
            message(NLMSG_DONE, &[0; 4]),
        ]
        .concat()
    }

    #[test]
    fn sockets_are_told_with_what_they_have() {
        let told: Vec<_> = messages(&sample(), SEQUENCE).collect();
        let [Message::Socket(established), Message::Socket(listening), Message::Done] = told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!((established.state, established.rtt_us), (ESTABLISHED, Some(250)));
        assert_eq!((established.cgroup_id, listening.cgroup_id), (Some(77), None));
        assert_eq!((listening.receive_queue, listening.send_queue), (5, 128));
        assert_eq!(messages(&sample(), SEQUENCE + 1).count(), 0, "answers to another question");
        let refused = message(NLMSG_ERROR, &(-2i32).to_ne_bytes());
        assert_eq!(messages(&refused, SEQUENCE).next(), Some(Message::Refused(2)));
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_survived() {
        let whole = sample();
        let most = whole.len() / HEADER;
        for end in 0..whole.len() {
            let told: Vec<_> = messages(&whole[..end], SEQUENCE).collect();
            assert!(!told.contains(&Message::Done), "the end is cut off at {end}: {told:?}");
            let whole_ones = messages(&whole, SEQUENCE).zip(&told).take_while(|(a, b)| a == *b);
            let odd = told.len() - whole_ones.count();
            assert!(odd <= 1, "what comes before a cut at {end} is whole: {told:?}");
            for value in [0, 1, 3, 0x7f, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[end] = value;
                assert!(messages(&broken, SEQUENCE).count() <= most);
            }
        }
    }

    #[test]
    fn the_kernel_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut line = Line::open().unwrap();
        let (mut listening, mut established) = (0, 0);
        for (family, state) in [
            (Family::V4, LISTEN),
            (Family::V4, ESTABLISHED),
            (Family::V6, LISTEN),
            (Family::V6, ESTABLISHED),
        ] {
            line.ask(family, state).unwrap();
            let mut done = false;
            while let Some((messages, bytes)) = line.piece().unwrap() {
                assert!(bytes <= PIECE_BYTES);
                for message in messages {
                    match message {
                        Message::Socket(socket) => {
                            assert_eq!(socket.state, state);
                            listening += usize::from(state == LISTEN);
                            established += usize::from(state == ESTABLISHED);
                        }
                        Message::Done => done = true,
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert!(done, "{family:?} has no end");
        }
        assert!(listening >= 1 && established >= 2, "{listening} and {established}");
    }
}
