//! The proof of the TCP probe: connects that are refused and that stand, resets, and
//! segments that have to be sent again because a filter dropped them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use holdfast_agent_ebpf::reasons::error_row;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::spent::Spent;
use super::sys;
use super::{Check, Counts, Evidence, Facts, Place, Provoke, Spec, Watch};
use crate::kernel::cells::{load, total};

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "tcp",
    provokes: "connects that are refused, that stand and that are reset, and lost segments",
    disruptive: "",
    prepare,
    count,
    judge,
};

const STATES: &str = "inet_sock_set_state";
const SENT: &str = "tcp_send_reset";
const RECEIVED: &str = "tcp_receive_reset";
const AGAIN: &str = "tcp_retransmit_skb";

const REFUSED: u64 = 5;
const STANDING: u64 = 7;
const RESET: u64 = 3;
/// Small segments, so that a little data is many of them.
const SEGMENT: u32 = 536;
const SEGMENTS: usize = 16;
/// Longer than the kernel waits before it sends again what has got lost.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn prepare(_: &Place<'_>) -> Result<Provoke, String> {
    let failed = |error: io::Error| format!("no connection on the loopback interface: {error}");
    let listener = TcpListener::bind(SocketAddr::from(LOOPBACK)).map_err(failed)?;
    // Closed again at once: a port that nobody listens to.
    let closed = TcpListener::bind(SocketAddr::from(LOOPBACK)).and_then(|l| l.local_addr());
    let closed = closed.map_err(failed)?;
    setsockopt(&listener, sockopt::TcpMaxSeg, &SEGMENT).map_err(|error| failed(error.into()))?;
    Ok(Box::new(move || provoke(&listener, closed).map_err(failed)))
}

fn provoke(listener: &TcpListener, closed: SocketAddr) -> io::Result<Facts> {
    let mut facts = Facts::default();
    for _ in 0..REFUSED {
        match TcpStream::connect(closed) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(io::Error::other("somebody listens on a closed port")),
        }
    }
    let address = listener.local_addr()?;
    let mut spent = Spent::default();
    let mut pair = || -> io::Result<(TcpStream, TcpStream)> {
        let client = spent.on(|| TcpStream::connect(address))?;
        Ok((client, listener.accept()?.0))
    };
    for _ in 0..STANDING - 1 {
        pair()?;
    }
    for _ in 0..RESET {
        let (client, mut server) = pair()?;
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&client, sockopt::Linger, &at_once)?;
        drop(client);
        server.set_read_timeout(Some(PATIENCE))?;
        // Waits for the reset.
        let _ = server.read(&mut [0]);
    }
    let (client, server) = pair()?;
    lose(&client, server)?;
    facts.set("retransmits", sys::retransmits(&client)?.into());
    facts.set("spent", spent.most);
    facts.set("own", spent.own);
    Ok(facts)
}

/// Lets what `client` sends get lost once.
fn lose(mut client: &TcpStream, mut server: TcpStream) -> io::Result<()> {
    let mut data = [0; SEGMENT as usize * SEGMENTS];
    client.set_nodelay(true)?;
    server.set_read_timeout(Some(PATIENCE))?;
    // A round trip first, so that the kernel knows how long one takes.
    client.write_all(&[0])?;
    server.read_exact(&mut data[..1])?;
    server.write_all(&[0])?;
    client.read_exact(&mut [0])?;
    sys::drop_all(&server)?;
    client.write_all(&data)?;
    sys::pause(Duration::from_micros(500));
    sys::drop_none(&server)?;
    server.read_exact(&mut data)?;
    // An answer, so that everything is acknowledged.
    server.write_all(&[0])?;
    client.read_exact(&mut [0])
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let kernel = watch.kernel;
    let cell = kernel.tcp().get(kernel.attest_slot()).ok_or("no row to count in")?;
    let reasons = kernel.tcp_reasons().ok_or("no row for reasons")?;
    let refused = reasons.errors.get(error_row(libc::ECONNREFUSED.unsigned_abs()) as usize);
    Ok(Counts::from([
        ("by_errno", refused.map_or(0, load)),
        ("by_reason", reasons.resets.iter().map(load).fold(0, u64::wrapping_add)),
        ("retransmits", load(&cell.retransmits)),
        ("resets_sent", load(&cell.resets_sent)),
        ("resets_received", load(&cell.resets_received)),
        ("failed", load(&cell.connects_failed)),
        ("refused", load(&cell.connects_refused)),
        ("timed_out", load(&cell.connects_timed_out)),
        ("slow", load(&cell.connects_slow)),
        ("connects", total(&cell.connect)),
        ("latency", load(&cell.connect.sum)),
    ]))
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let gained = |name| evidence.gained(name);
    let spent = evidence.facts.get("spent");
    // What the caller waited holds the latency and a few system calls.
    let latency = evidence.facts.get("own") / 50..=spent;
    let again = evidence.facts.get("retransmits");
    let mut checks = vec![
        Check::exactly(STATES, "refused connects", REFUSED, gained("refused")),
        Check::exactly(STATES, "failed connects", REFUSED, gained("failed")),
        // All units share these.
        Check::at_least(STATES, "with ECONNREFUSED", REFUSED, gained("by_errno")),
        Check::exactly(STATES, "connects", STANDING + RESET, gained("connects")),
        Check::exactly(STATES, "connects timed out", 0, gained("timed_out")),
        Check::time(STATES, "latency of all connects", spent, &latency, gained("latency")),
        Check::exactly(SENT, "resets sent", RESET, gained("resets_sent")),
        Check::exactly(RECEIVED, "resets received", REFUSED + RESET, gained("resets_received")),
        Check::at_least(AGAIN, "segments sent again by the socket's own count", 1, again),
        Check::exactly(AGAIN, "segments sent again", again, gained("retransmits")),
    ];
    if (evidence.variant)(SENT).ends_with("reason") {
        // Those of closed ports belong to no unit, but have a reason, too.
        let told = REFUSED + RESET;
        checks.push(Check::at_least(SENT, "resets with a reason", told, gained("by_reason")));
    }
    checks
}
