//! TCP trouble over the loopback interface, with nothing but sockets: neither
//! rights nor packet filters are needed.
//!
//! A listener whose queue is full answers no SYN. A client that comes then has to
//! send its SYN again after a second: that is a retransmit and a slow connect, or,
//! if the client has less patience, a connect that nobody answered.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use holdfast_core::clock::BootTime;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrLike, bind, connect, listen,
    setsockopt, socket, sockopt,
};

use super::pause;

const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

pub(super) fn run() -> Result<()> {
    let parts: [fn() -> Result<()>; 3] = [transfers, refusals, slow_connects];
    for part in parts {
        thread::spawn(move || again_and_again(part));
    }
    again_and_again(unanswered_connects)
}

fn again_and_again(part: fn() -> Result<()>) -> ! {
    loop {
        if let Err(error) = part() {
            eprintln!("{error:#}");
            pause(Duration::from_secs(1));
        }
    }
}

/// A few megabytes a second, each connection ended by a reset: the reader closes
/// with bytes unread, which TCP must tell the writer.
fn transfers() -> Result<()> {
    const CHUNK: usize = 64 << 10;
    let listener = TcpListener::bind(HERE).context("cannot listen")?;
    let address = listener.local_addr()?;
    loop {
        let mut writer = TcpStream::connect(address).context("cannot connect")?;
        let (mut reader, _) = listener.accept().context("cannot accept")?;
        let mut buffer = vec![0; CHUNK];
        for _ in 0..10 {
            writer.write_all(&buffer)?;
            reader.read_exact(&mut buffer)?;
            pause(Duration::from_millis(10));
        }
        writer.write_all(b"unread")?;
        // A blocking look makes sure that the bytes are there.
        reader.peek(&mut buffer)?;
        drop(reader);
    }
}

/// Connects to a port that nobody listens on.
fn refusals() -> Result<()> {
    let closed = TcpListener::bind(HERE).context("cannot listen")?.local_addr()?;
    for _ in 0..50 {
        let _refused = TcpStream::connect(closed);
        pause(Duration::from_millis(20));
    }
    Ok(())
}

/// Connects that succeed only after the SYN was sent again.
fn slow_connects() -> Result<()> {
    let (listener, address) = full_listener()?;
    let _first = TcpStream::connect(address).context("cannot connect")?;
    let late = thread::spawn(move || TcpStream::connect(address));
    pause(Duration::from_millis(500));
    listener.accept().context("cannot accept")?;
    late.join().map_err(|_| anyhow!("a thread panicked"))?.context("cannot connect late")?;
    Ok(())
}

/// The same from many threads at once, again and again for `time`.
pub(crate) fn slow_connects_for(time: Duration) -> Result<()> {
    let start = BootTime::now();
    let again = move || -> Result<()> {
        while BootTime::now().since(start) < time {
            slow_connects()?;
        }
        Ok(())
    };
    let threads: Vec<_> = (0..64).map(|_| thread::spawn(again)).collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(())
}

/// Connects that nobody answers in time.
fn unanswered_connects() -> Result<()> {
    let (_listener, address) = full_listener()?;
    let _first = TcpStream::connect(address).context("cannot connect")?;
    let client = tcp_socket()?;
    setsockopt(&client, sockopt::TcpUserTimeout, &1500).context("cannot set the patience")?;
    let _timed_out = connect(client.as_raw_fd(), &wire_address(address)?);
    Ok(())
}

/// A listener that one waiting connection fills.
fn full_listener() -> Result<(TcpListener, SocketAddr)> {
    let socket = tcp_socket()?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).context("cannot bind")?;
    listen(&socket, Backlog::new(0).context("no backlog of zero")?).context("cannot listen")?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn tcp_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("no socket")
}

fn wire_address(address: SocketAddr) -> Result<impl SockaddrLike> {
    match address {
        SocketAddr::V4(v4) => Ok(SockaddrIn::from(v4)),
        SocketAddr::V6(_) => Err(anyhow!("{address} is not the loopback address of IPv4")),
    }
}
