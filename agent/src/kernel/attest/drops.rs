//! The proof of the probe of dropped packets: packets that a filter throws away.

use std::io;
use std::net::UdpSocket;

use super::sys;
use super::{Check, Counts, Evidence, Facts, Place, Provoke, Spec, Watch};
use crate::kernel::cells::load;

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "drops",
    provokes: "packets that a socket's filter drops",
    disruptive: "",
    prepare,
    count,
    judge,
};

const PROGRAM: &str = "kfree_skb";
const PACKETS: u64 = 25;

fn prepare(_: &Place<'_>) -> Result<Provoke, String> {
    let failed = |error: io::Error| format!("no packet on the loopback interface: {error}");
    let receiver = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    let sender = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    sender.connect(receiver.local_addr().map_err(failed)?).map_err(failed)?;
    sys::drop_all(&receiver).map_err(failed)?;
    Ok(Box::new(move || {
        for _ in 0..PACKETS {
            sender.send(&[0]).map_err(failed)?;
        }
        // Open until everything has come.
        receiver.local_addr().map_err(failed)?;
        Ok(Facts::default())
    }))
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let kernel = watch.kernel;
    let of_row = |row| kernel.drops().of_row(row).map(load).fold(0u64, u64::wrapping_add);
    let all = (0..kernel.drops().rows()).map(of_row).fold(0u64, u64::wrapping_add);
    let mut counts = Counts::from([("drops", all)]);
    // Which number the reason has differs between kernels.
    let named = |name: &Option<Box<str>>| name.as_deref().is_some_and(is_the_reason);
    if let Some(row) = kernel.names().drops.iter().position(named) {
        counts.insert("by_filter", of_row(row));
    }
    Ok(counts)
}

fn is_the_reason(name: &str) -> bool {
    name.eq_ignore_ascii_case("socket_filter")
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    // The host's own come on top.
    let all = Check::at_least(PROGRAM, "packets dropped", PACKETS, evidence.gained("drops"));
    let mut checks = vec![all];
    if (evidence.variant)(PROGRAM).ends_with("reason") {
        let seen = evidence.gained("by_filter");
        checks.push(Check::at_least(PROGRAM, "for the reason SOCKET_FILTER", PACKETS, seen));
    }
    checks
}
