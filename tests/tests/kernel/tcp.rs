//! Connects of a known number.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use anyhow::{Result, ensure};
use holdfast_agent::catalogue::{
    HOST_CONNECT_FAILED, HOST_CONNECT_REFUSED, HOST_MEMORY_REFUSED, HOST_RESETS_SENT,
    LABEL_CONNECT_FAILED, LABEL_RESETS_SENT, UNIT_CONNECT, UNIT_CONNECT_FAILED,
    UNIT_CONNECT_REFUSED, UNIT_CONNECT_SLOW, UNIT_CONNECT_TIMED_OUT, UNIT_MEMORY_REFUSED,
    UNIT_RESETS_RECEIVED,
};
use holdfast_tests::{Unit, need};

use crate::memory::Limit;
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
    let before = Labelled::of(&rig);
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

    // A label that other signals know already begins a tick late. Others may connect
    // meanwhile, but whatever is counted is counted in both places.
    rig.tick()?;
    let now = Labelled::of(&rig);
    let refused = now.refused - before.refused;
    ensure!(refused >= all, "{refused} of {all} under ECONNREFUSED");
    ensure!(now.refused == rig.value(HOST_CONNECT_REFUSED, 0), "not all refused connects");
    ensure!(now.errors == rig.value(HOST_CONNECT_FAILED, 0), "not all failed connects");
    let no_socket = now.no_socket - before.no_socket;
    ensure!(no_socket >= all, "{no_socket} of {all} resets because there is no socket");
    ensure!(now.resets == rig.value(HOST_RESETS_SENT, 0), "not all resets");
    Ok(())
}

/// What is counted by label.
struct Labelled {
    refused: f64,
    errors: f64,
    no_socket: f64,
    resets: f64,
}

impl Labelled {
    fn of(rig: &Rig) -> Self {
        Self {
            refused: rig.label(LABEL_CONNECT_FAILED, "ECONNREFUSED"),
            errors: rig.labels(LABEL_CONNECT_FAILED),
            no_socket: rig.label(LABEL_RESETS_SENT, "NO_SOCKET"),
            resets: rig.labels(LABEL_RESETS_SENT),
        }
    }
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

#[test]
fn sockets_beyond_their_memory_limit_are_refused_more() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("hoards")?;
    let limit = Limit::set(&unit)?;
    let Some(folder) = limit.as_ref().and_then(Limit::beside) else {
        need::skip("needs the memory controller of cgroups of version 1, which limits sockets");
        return Ok(());
    };
    rig.watch_unit(&unit)?;
    rig.tick()?;
    let before = rig.value(UNIT_MEMORY_REFUSED, SLOT);
    role::start(&unit, Some(folder), "hoard 8")?.wait()?;
    rig.tick()?;
    let unlimited = rig.value(UNIT_MEMORY_REFUSED, SLOT) - before;
    ensure!(unlimited == 0.0, "{unlimited} refusals without a limit");

    fs::write(Path::new(folder).join("memory.kmem.tcp.limit_in_bytes"), "131072")?;
    role::start(&unit, Some(folder), "hoard 64")?.wait()?;
    rig.tick()?;
    let refused = rig.value(UNIT_MEMORY_REFUSED, SLOT);
    ensure!(refused > 0.0, "none was refused");
    let host = rig.value(HOST_MEMORY_REFUSED, 0);
    ensure!(host >= refused, "{host} of the host, {refused} of the unit");
    Ok(())
}
