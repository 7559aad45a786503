//! Processes that end badly, one by one.

use anyhow::{Context, Result, bail, ensure};
use holdfast_agent::catalogue::{UNIT_EXITS, UNIT_EXITS_ERROR, UNIT_EXITS_SIGNAL};
use holdfast_agent::kernel::{Events, KernelEvent};
use holdfast_tests::{Unit, wait};

use crate::rig::{Rig, SLOT};

/// The events of `cgroup`, once there are `count` of them.
pub(crate) async fn events_of(
    events: &mut Events,
    cgroup: u64,
    count: usize,
) -> Result<Vec<KernelEvent>> {
    let mut found = Vec::new();
    let taking = async {
        while found.len() < count {
            let mut batch = Vec::new();
            events.next(&mut batch).await?;
            found.extend(batch.into_iter().filter(|event| match event {
                KernelEvent::Exit { cgroup_id, .. }
                | KernelEvent::OomKill { cgroup_id, .. }
                | KernelEvent::Hung { cgroup_id, .. } => *cgroup_id == cgroup,
            }));
        }
        Ok::<_, anyhow::Error>(())
    };
    match tokio::time::timeout(wait::PATIENCE, taking).await {
        Ok(taken) => taken?,
        Err(_) => bail!("of {count} events came only {found:?}"),
    }
    Ok(found)
}

#[tokio::test]
async fn a_crash_and_an_error_are_one_event_each() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let mut events = rig.kernel.take_events().context("no events")?;
    ensure!(rig.kernel.take_events().is_none(), "two streams of events");
    let unit = Unit::create("exits")?;
    let cgroup = rig.watch_unit(&unit)?;
    rig.tick()?;
    unit.crash()?;
    unit.run("exit 7")?;
    unit.run("exit 0")?;
    // Marks the end: whatever else came from the unit came before it.
    unit.run("exit 99")?;
    rig.tick()?;

    let found = events_of(&mut events, cgroup, 3).await?;
    let codes: Vec<_> = found
        .iter()
        .filter_map(|event| match event {
            KernelEvent::Exit { code, signal, core_dumped: false, command, pid, at_ns, .. } => {
                (*pid > 0 && *at_ns > 0 && command == "sh").then_some((*code, *signal))
            }
            _ => None,
        })
        .collect();
    ensure!(codes == [(0, 11), (7, 0), (99, 0)], "{found:?}");
    for (what, id, expected) in [
        ("exits", UNIT_EXITS, 4.0),
        ("by signal", UNIT_EXITS_SIGNAL, 1.0),
        ("by error", UNIT_EXITS_ERROR, 2.0),
    ] {
        let value = rig.value(id, SLOT);
        ensure!(value == expected, "{what}: {value} instead of {expected}");
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_is_limited_and_counted() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("flood")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    unit.run("i=0; while [ $i -lt 1000 ]; do (exit 3); i=$((i+1)); done")?;
    rig.tick()?;
    let errors = rig.value(UNIT_EXITS_ERROR, SLOT);
    ensure!(errors == 1000.0, "{errors} ended with an error");
    ensure!(rig.lost("ebpf.event_rate_limited") > 0, "a thousand events were let through");
    Ok(())
}
