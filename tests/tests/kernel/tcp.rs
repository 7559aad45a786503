//! Connects of a known number.

use std::net::TcpListener;
use std::thread;

use anyhow::{Result, ensure};
use holdfast_agent::catalogue::{
    HOST_RESETS_SENT, UNIT_CONNECT, UNIT_CONNECT_FAILED, UNIT_CONNECT_REFUSED, UNIT_CONNECT_SLOW,
    UNIT_CONNECT_TIMED_OUT, UNIT_RESETS_RECEIVED,
};
use holdfast_tests::Unit;

use crate::rig::{Rig, SLOT};
use crate::role;

const CONNECTS: usize = 200;

#[test]
fn refused_connects_are_the_units() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("refused")?;
    rig.watch_unit(&unit)?;
    // Closed again at once: a port that nobody listens to.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    rig.tick()?;
    let sent = rig.value(HOST_RESETS_SENT, 0);
    role::run(&unit, &format!("connect {CONNECTS} {address}"))?;
    rig.tick()?;

    let all = CONNECTS as f64;
    for (what, id, expected) in [
        ("failed", UNIT_CONNECT_FAILED, all),
        ("refused", UNIT_CONNECT_REFUSED, all),
        ("resets received", UNIT_RESETS_RECEIVED, all),
        ("timed out", UNIT_CONNECT_TIMED_OUT, 0.0),
        ("slow", UNIT_CONNECT_SLOW, 0.0),
    ] {
        let value = rig.value(id, SLOT);
        ensure!(value == expected, "{what}: {value} instead of {expected}");
    }
    ensure!(rig.histogram(UNIT_CONNECT, SLOT).total() == 0, "a refused connect has a latency");
    let sent = rig.value(HOST_RESETS_SENT, 0) - sent;
    ensure!(sent >= all, "{sent} resets sent");
    Ok(())
}

#[test]
fn connects_that_succeed_have_a_latency() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("connects")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || listener.incoming().take(CONNECTS).for_each(drop));
    role::run(&unit, &format!("connect {CONNECTS} {address}"))?;
    server.join().map_err(|_| anyhow::anyhow!("the server is lost"))?;
    rig.tick()?;

    let histogram = rig.histogram(UNIT_CONNECT, SLOT);
    ensure!(histogram.total() == CONNECTS as u64, "{} latencies", histogram.total());
    let mean = histogram.sum / CONNECTS as u64;
    ensure!((1_000..1_000_000_000).contains(&mean), "{mean} ns each");
    let failed = rig.value(UNIT_CONNECT_FAILED, SLOT);
    ensure!(failed == 0.0, "{failed} failed");
    Ok(())
}
