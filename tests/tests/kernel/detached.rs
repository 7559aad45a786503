//! Programs that are detached for a while, as the governor does.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use holdfast_agent::catalogue::{HOST_ON_CPU, UNIT_RUN_QUEUE, UNIT_SWITCHES};
use holdfast_agent::kernel::State;
use holdfast_core::clock::BootTime;
use holdfast_tests::Unit;

use crate::rig::{Rig, SLOT};
use crate::role;

const ROUNDS: u32 = 20_000;
const SCHED: [&str; 3] = ["sched_switch", "sched_wakeup", "sched_wakeup_new"];
/// Long enough to stand out in the CPU time of a short ping-pong.
const AWAY: Duration = Duration::from_secs(5);

#[test]
fn nothing_is_counted_while_away_and_nothing_invented_after() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("detached")?;
    rig.watch_unit(&unit)?;
    role::run(&unit, &format!("ping-pong {ROUNDS}"))?;
    rig.tick()?;
    let before = rig.value(UNIT_SWITCHES, SLOT);
    ensure!(before > f64::from(ROUNDS), "{before} switches");

    // Some task runs on each CPU at the moment they are detached, and has long ended
    // when they are back.
    let spin = "nice -n -20 sh -c 'while :; do :; done' &";
    let mut busy = unit.start(&format!("for n in $(seq $(nproc)); do {spin} done; wait"))?;
    unit.run("sleep 0.3")?;
    rig.kernel.shed(&SCHED, "shed by a test");
    let status = rig.kernel.programs().iter().find(|p| p.name == "sched_switch").cloned();
    let told = status.as_ref().map(|status| (status.state, status.reason.as_str()));
    ensure!(told == Some((State::Off, "shed by a test")), "{status:?}");
    ensure!(rig.kernel.shed_reason(&SCHED) == Some("shed by a test"), "it is not known as shed");
    fs::write(unit.folder().join("cgroup.kill"), "1")?;
    busy.wait()?;
    rig.tick()?;
    let (switches, ran) = (rig.value(UNIT_SWITCHES, SLOT), rig.value(HOST_ON_CPU, 0));
    let waits = rig.histogram(UNIT_RUN_QUEUE, SLOT);
    role::run(&unit, &format!("ping-pong {ROUNDS}"))?;
    rig.tick()?;
    ensure!(rig.value(UNIT_SWITCHES, SLOT) == switches, "it counts although it is detached");
    unit.run(&format!("sleep {}", AWAY.as_secs()))?;

    let back = BootTime::now();
    rig.kernel.regain(&SCHED).map_err(|reason| anyhow::anyhow!(reason))?;
    ensure!(rig.kernel.shed_reason(&SCHED).is_none(), "it is still known as shed");
    let status = rig.kernel.programs().iter().find(|p| p.name == "sched_switch").cloned();
    let told = status.as_ref().map(|status| (status.state, status.reason.is_empty()));
    ensure!(told == Some((State::Active, true)), "{status:?}");
    role::run(&unit, &format!("ping-pong {ROUNDS}"))?;
    rig.tick()?;
    let expected = f64::from(2 * ROUNDS);
    let counted = rig.value(UNIT_SWITCHES, SLOT) - switches;
    ensure!((counted - expected).abs() <= 0.03 * expected, "{counted} of {expected} switches");
    let ran = Duration::from_nanos((rig.value(HOST_ON_CPU, 0) - ran) as u64);
    let cpus = u32::try_from(thread::available_parallelism()?.get())?;
    let most = BootTime::now().since(back) * cpus;
    ensure!(ran <= most, "{ran:?} of CPU time in {most:?}, as if something had run all the time");
    let longest = rig.histogram(UNIT_RUN_QUEUE, SLOT).sum - waits.sum;
    ensure!(Duration::from_nanos(longest) < AWAY * 2, "{longest} ns of waits");
    Ok(())
}

#[test]
fn all_programs_can_be_detached_and_attached_again() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let programs = rig.kernel.programs().to_vec();
    let names: Vec<_> = programs.iter().map(|program| program.name).collect();
    for _ in 0..20 {
        rig.kernel.shed(&names, "shed by a test");
        rig.kernel.shed(&names, "shed twice");
        let off = rig.kernel.programs().iter().filter(|p| p.state == State::Off);
        ensure!(off.count() == programs.len(), "{:?}", rig.kernel.programs());
        rig.kernel.regain(&names).map_err(|reason| anyhow::anyhow!(reason))?;
        rig.kernel.regain(&names).map_err(|reason| anyhow::anyhow!(reason))?;
        ensure!(rig.kernel.programs() == programs, "{:?}", rig.kernel.programs());
    }
    Ok(())
}
