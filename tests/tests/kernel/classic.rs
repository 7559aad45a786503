//! The forms for kernels without type information, beside the typed ones on the same
//! load: both must have seen the same.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use holdfast_agent::catalogue::{
    DISK_WRITE_LATENCY, DISK_WRITE_SIZE, HOST_OOM_KILLS, HOST_RESETS_RECEIVED, HOST_RESETS_SENT,
    SignalId, UNIT_CONNECT, UNIT_CONNECT_FAILED, UNIT_CONNECT_REFUSED, UNIT_EXITS, UNIT_RECLAIM,
};
use holdfast_agent::host::Root;
use holdfast_agent::kernel::{Kernel, Options, State};
use holdfast_tests::{Unit, need};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::block::{Loop, WRITES, filled, write};
use crate::memory::Limit;
use crate::rig::{ROW, Rig, SLOT};
use crate::role;

const TRACEFS: &str = "/sys/kernel/tracing";
const PROBES: &[&str] = &["block", "reclaim", "oom", "tcp", "exit"];
const CONNECTS: usize = 100;
/// Events of others between the readings of the two rigs.
const BACKGROUND: f64 = 8.0;

#[test]
fn both_forms_see_the_same_connects_and_exits() -> Result<()> {
    let Some((mut typed, mut classic)) = rigs()? else { return Ok(()) };
    let unit = Unit::create("classic")?;
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let open = listener.local_addr()?;
    for rig in [&mut typed, &mut classic] {
        rig.watch_unit(&unit)?;
        rig.tick()?;
    }
    let before = hosts(&typed, &classic, HOST_RESETS_SENT);
    let before_received = hosts(&typed, &classic, HOST_RESETS_RECEIVED);
    let server = thread::spawn(move || listener.incoming().take(CONNECTS).for_each(drop));
    role::run(&unit, &format!("connect {CONNECTS} {closed}"))?;
    role::run(&unit, &format!("connect {CONNECTS} {open}"))?;
    server.join().map_err(|_| anyhow::anyhow!("the server is lost"))?;
    unit.run("exit 7")?;
    unit.run("exit 0")?;
    for rig in [&mut typed, &mut classic] {
        rig.tick()?;
    }

    for (what, id, expected) in
        [("failed", UNIT_CONNECT_FAILED, CONNECTS as f64), ("exits", UNIT_EXITS, 4.0)]
    {
        let (of_types, without) = (typed.value(id, SLOT), classic.value(id, SLOT));
        ensure!(of_types == without, "{what}: {of_types} with types, {without} without");
        ensure!(without >= expected, "{what}: {without}, expected {expected}");
    }
    ensure!(typed.value(UNIT_CONNECT_REFUSED, SLOT) == CONNECTS as f64, "not refused");
    let (of_types, without) =
        (typed.histogram(UNIT_CONNECT, SLOT), classic.histogram(UNIT_CONNECT, SLOT));
    ensure!(of_types.total() == CONNECTS as u64 && without.total() == CONNECTS as u64, "latencies");
    let ratio = without.sum as f64 / of_types.sum as f64;
    ensure!((0.5..2.0).contains(&ratio), "connects took {ratio} times as long without types");
    for (what, id, before) in
        [("sent", HOST_RESETS_SENT, before), ("received", HOST_RESETS_RECEIVED, before_received)]
    {
        let now = hosts(&typed, &classic, id);
        let (of_types, without) = (now.0 - before.0, now.1 - before.1);
        ensure!(without >= CONNECTS as f64, "{without} resets {what}");
        ensure!((of_types - without).abs() <= BACKGROUND, "{what}: {of_types} and {without}");
    }
    Ok(())
}

#[test]
fn both_forms_see_the_same_writes() -> Result<()> {
    let Some((mut typed, mut classic)) = rigs()? else { return Ok(()) };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let Some(device) = Loop::attach(&filled(folder.path())?)? else {
        need::skip("needs loop devices");
        return Ok(());
    };
    let number = device.number()?;
    for rig in [&mut typed, &mut classic] {
        rig.watch_device(&number)?;
        rig.tick()?;
    }
    write(device.path())?;
    for rig in [&mut typed, &mut classic] {
        rig.tick()?;
    }
    for id in [DISK_WRITE_LATENCY, DISK_WRITE_SIZE] {
        let (of_types, without) = (typed.histogram(id, ROW), classic.histogram(id, ROW));
        let name = id.signal().name;
        let apart = of_types.total().abs_diff(without.total());
        ensure!(apart <= 2, "{name}: {} and {}", of_types.total(), without.total());
        ensure!(without.total() + 2 >= WRITES, "{name}: only {}", without.total());
        // The device's time is a part of the request's; the two programs read the clock one
        // after the other, so up to a tenth may be the other way round.
        let most = of_types.sum + of_types.sum / 10;
        ensure!(without.sum > 0 && without.sum <= most, "{name}: {} of {most}", without.sum);
    }
    ensure!(classic.lost("ebpf.request_map_full") == 0, "the map of requests is full");
    Ok(())
}

#[test]
fn both_forms_see_the_same_victim() -> Result<()> {
    let Some((mut typed, mut classic)) = rigs()? else { return Ok(()) };
    let unit = Unit::create("classic-victim")?;
    let Some(limit) = Limit::set(&unit)? else {
        need::skip("needs the memory controller of cgroups");
        return Ok(());
    };
    for rig in [&mut typed, &mut classic] {
        rig.watch_unit(&unit)?;
        rig.tick()?;
    }
    let before = hosts(&typed, &classic, HOST_OOM_KILLS);
    let status = role::start(&unit, limit.beside(), "outgrow 268435456")?.wait()?;
    ensure!(!status.success(), "it was not stopped");
    for rig in [&mut typed, &mut classic] {
        rig.tick()?;
    }
    let now = hosts(&typed, &classic, HOST_OOM_KILLS);
    ensure!((now.0 - before.0, now.1 - before.1) == (1.0, 1.0), "{before:?} before, {now:?} after");
    let (of_types, without) =
        (typed.histogram(UNIT_RECLAIM, SLOT), classic.histogram(UNIT_RECLAIM, SLOT));
    ensure!(without.total() > 0, "no stall was counted");
    ensure!(of_types.total() == without.total(), "{} and {}", of_types.total(), without.total());
    Ok(())
}

#[test]
fn a_kind_of_forms_can_be_switched_off() -> Result<()> {
    if !need::ebpf() || !has_tracefs()? {
        return Ok(());
    }
    let options = Options { disabled: vec!["tp_btf".to_owned()], ..Options::default() };
    let kernel = Kernel::start(&options, &Root::default()).map_err(anyhow::Error::msg)?;
    let status = |name| kernel.programs().iter().find(move |program| program.name == name);
    let exit = status("sched_process_exit").context("no program for exits")?;
    ensure!((exit.state, exit.variant) == (State::Active, "tracepoint"), "{exit:?}");
    ensure!(exit.reason.contains("tp_btf is disabled in the configuration"), "{exit:?}");
    let switch = status("sched_switch").context("no program for switches")?;
    ensure!(switch.state == State::Off, "{switch:?}");
    Ok(())
}

/// The programs that have a form without types.
const CLASSIC: &[&str] = &[
    "block_rq_issue",
    "block_rq_complete",
    "reclaim_begin",
    "reclaim_end",
    "cgroup_reclaim_begin",
    "cgroup_reclaim_end",
    "oom_mark_victim",
    "tcp_retransmit_skb",
    "tcp_send_reset",
    "tcp_receive_reset",
    "inet_sock_set_state",
    "sched_process_exit",
];

/// The typed forms, and beside them those of a host that describes no types.
fn rigs() -> Result<Option<(Rig, Rig)>> {
    let Some(typed) = Rig::start()? else { return Ok(None) };
    if !has_tracefs()? {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let cpus = folder.path().join("sys/devices/system");
    fs::create_dir_all(&cpus)?;
    symlink("/sys/devices/system/cpu", cpus.join("cpu"))?;
    fs::create_dir_all(folder.path().join("sys/kernel"))?;
    symlink(TRACEFS, folder.path().join("sys/kernel/tracing"))?;
    symlink("/proc", folder.path().join("proc"))?;
    let classic = Rig::load(&Options::default(), &Root::new(folder.path()), PROBES)?;
    for name in CLASSIC {
        let mut programs = classic.kernel.programs().iter();
        let program = programs.find(|program| program.name == *name);
        let program = program.with_context(|| format!("no program {name}"))?;
        ensure!(program.state == State::Active, "{} is off: {}", program.name, program.reason);
        ensure!(program.variant == "tracepoint", "{} is {}", program.name, program.variant);
        ensure!(program.reason.contains("CONFIG_DEBUG_INFO_BTF"), "{}", program.reason);
    }
    Ok(Some((typed, classic)))
}

/// Mounts tracefs for this thread alone where the machine has not.
fn has_tracefs() -> Result<bool> {
    if Path::new(TRACEFS).join("events").is_dir() {
        return Ok(true);
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let mounted = mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), none);
    Ok(mounted.is_ok() || need::skip("needs tracefs"))
}

fn hosts(typed: &Rig, classic: &Rig, id: SignalId) -> (f64, f64) {
    (typed.value(id, 0), classic.value(id, 0))
}
