//! Datagrams of a known number that cannot be delivered.

use std::fs;
use std::net::UdpSocket;

use anyhow::{Result, ensure};
use holdfast_agent::catalogue::{HOST_DROPS, HOST_RECEIVE_FULL, LABEL_DROPS, UNIT_RECEIVE_FULL};
use holdfast_tests::Unit;

use crate::rig::{Rig, SLOT};
use crate::role;

const DATAGRAMS: u32 = 500;

#[test]
fn datagrams_that_find_no_room_are_the_units_and_have_their_reason() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("overflow")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("taken");
    let (all, host) = (rig.value(HOST_DROPS, 0), rig.value(HOST_RECEIVE_FULL, 0));
    let before = rig.label(LABEL_DROPS, "SOCKET_RCVBUFF");
    role::run(&unit, &format!("overflow {DATAGRAMS} {}", report.display()))?;
    rig.tick()?;

    let taken: u32 = fs::read_to_string(report)?.parse()?;
    ensure!((1..DATAGRAMS).contains(&taken), "{taken} of {DATAGRAMS} found room");
    let lost = f64::from(DATAGRAMS - taken);
    let reason = rig.label(LABEL_DROPS, "SOCKET_RCVBUFF") - before;
    ensure!(reason == lost, "{reason} drops for want of room instead of {lost}");
    let of_unit = rig.value(UNIT_RECEIVE_FULL, SLOT);
    ensure!(of_unit == lost, "{of_unit} of the unit instead of {lost}");
    let of_host = rig.value(HOST_RECEIVE_FULL, 0) - host;
    ensure!(of_host >= lost, "{of_host} of the host instead of {lost}");
    let drops = rig.value(HOST_DROPS, 0) - all;
    ensure!(drops >= lost, "{drops} drops of the host");
    ensure!(rig.labels(LABEL_DROPS) == rig.value(HOST_DROPS, 0), "drops without a label");
    Ok(())
}

#[test]
fn datagrams_to_nobody_have_their_reason_and_delivered_ones_none() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    // Closed again at once: a port that nobody has.
    let closed = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let open = UdpSocket::bind("127.0.0.1:0")?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    let drops = |rig: &mut Rig| -> Result<f64> {
        rig.tick()?;
        rig.tick()?;
        Ok(rig.label(LABEL_DROPS, "NO_SOCKET"))
    };
    let before = drops(&mut rig)?;
    for _ in 0..DATAGRAMS {
        sender.send_to(&[1], closed)?;
    }
    let to_nobody = drops(&mut rig)? - before;
    ensure!(to_nobody >= DATAGRAMS.into(), "{to_nobody} of {DATAGRAMS} drops");

    // Delivered datagrams are freed as well, but that is no drop.
    let before = rig.value(HOST_DROPS, 0);
    let mut byte = [0];
    for _ in 0..DATAGRAMS {
        sender.send_to(&[1], open.local_addr()?)?;
        open.recv(&mut byte)?;
    }
    rig.tick()?;
    let harmless = rig.value(HOST_DROPS, 0) - before;
    ensure!(harmless < f64::from(DATAGRAMS) / 10.0, "{harmless} drops of nothing");
    ensure!(rig.label(LABEL_DROPS, "SKB_CONSUMED") == 0.0, "what was used up is counted");
    Ok(())
}
