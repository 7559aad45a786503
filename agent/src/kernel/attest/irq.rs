//! The proof of the probe of interrupts: packets on the loopback interface and timers
//! make the kernel work in deferred interrupts, which it counts itself, too.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use holdfast_agent_ebpf::cells::SOFTIRQS;

use super::sys::pause;
use super::{Check, Counts, Evidence, Facts, Place, Provoke, Spec, Watch};
use crate::kernel::cells::load;

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "irq",
    provokes: "packets on the loopback interface, and sleeps",
    disruptive: "",
    prepare,
    count,
    judge,
};

const PROGRAM: &str = "softirq_exit";
const PACKETS: u64 = 50;
/// The kinds that are provoked, and compared: their names here and in /proc/softirqs.
const KINDS: [(&str, &str); 2] = [("net_rx", "NET_RX:"), ("timer", "TIMER:")];

fn prepare(_: &Place<'_>) -> Result<Provoke, String> {
    let failed = |error: io::Error| format!("no packet on the loopback interface: {error}");
    let receiver = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    let sender = UdpSocket::bind("127.0.0.1:0").map_err(failed)?;
    sender.connect(receiver.local_addr().map_err(failed)?).map_err(failed)?;
    receiver.set_read_timeout(Some(Duration::from_secs(1))).map_err(failed)?;
    Ok(Box::new(move || {
        for _ in 0..PACKETS {
            sender.send(&[0]).and_then(|_| receiver.recv(&mut [0])).map_err(failed)?;
        }
        pause(Duration::from_millis(10));
        Ok(Facts::default())
    }))
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let text = fs::read_to_string("/proc/softirqs")
        .map_err(|error| format!("/proc/softirqs cannot be read: {error}"))?;
    let cells = watch.kernel.irqs();
    let (mut told, mut seen, mut packets, mut ns) = (0u64, 0u64, 0u64, 0u64);
    for (name, title) in KINDS {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(title));
        let line = line.ok_or_else(|| format!("/proc/softirqs has no {title}"))?;
        // The kernel's counts have 32 bits and wrap, each by itself.
        let of_kind = line.split_whitespace().filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
        told = told.wrapping_add(of_kind);
        let place = SOFTIRQS.iter().position(|kind| *kind == name);
        for cell in (0..cells.len()).filter_map(|cpu| cells.get(cpu)) {
            let Some(handled) = place.and_then(|place| cell.soft.get(place)) else { continue };
            seen = seen.wrapping_add(load(&handled.count));
            ns = ns.wrapping_add(load(&handled.ns));
            if name == "net_rx" {
                packets = packets.wrapping_add(load(&handled.count));
            }
        }
    }
    Ok(Counts::from([
        ("kernel", told),
        ("seen", seen),
        ("packets", packets),
        ("ns", ns),
        ("cpus.clock", holdfast_core::clock::monotonic_ns().wrapping_mul(cells.len() as u64)),
    ]))
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let gained = |name| evidence.gained(name);
    // Counted at the begin there and at the end here, and not read at the same moment.
    let (told, seen) = (gained("kernel"), gained("seen"));
    let room = 4 + told / 50;
    vec![
        Check::at_least(PROGRAM, "rounds of received packets", PACKETS / 2, gained("packets")),
        Check::at_least(PROGRAM, "by the kernel's count", told.saturating_sub(room), seen),
        Check::at_most(PROGRAM, "by the kernel's count, no more", told + room, seen),
        Check::between(PROGRAM, "time in them", &(1..=gained("cpus.clock")), gained("ns")),
    ]
}
