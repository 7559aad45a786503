//! Every program loads here, in its best form, within the limits promised.

use anyhow::{Result, ensure};
use holdfast_agent::host::Root;
use holdfast_agent::kernel::{Kernel, Options, State};
use holdfast_tests::need;

use crate::rig::Rig;

#[test]
fn every_program_runs_within_the_limit_and_loses_nothing() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    for program in rig.kernel.programs() {
        ensure!(program.state == State::Active, "{} is off: {}", program.name, program.reason);
    }
    ensure!(rig.kernel.unit_slots() == 256, "{} slots", rig.kernel.unit_slots());
    let limit = Options::default().map_limit_bytes;
    let bytes = rig.kernel.map_bytes();
    ensure!(bytes > 0 && bytes < limit, "{bytes} bytes of maps, limit {limit}");
    let charged: u64 = rig.kernel.programs().iter().map(|program| program.map_bytes).sum();
    ensure!(charged <= bytes && charged > bytes / 2, "{charged} of {bytes} bytes are charged");
    Ok(())
}

#[test]
fn a_small_limit_costs_rows_and_a_disabled_program_says_so() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let options = Options {
        unit_slots: 4096,
        map_limit_bytes: 1 << 20,
        disabled: vec!["sched_process_exit".to_owned()],
        ..Options::default()
    };
    let kernel = Kernel::start(&options, &Root::default()).map_err(anyhow::Error::msg)?;
    ensure!(kernel.map_bytes() <= 1 << 20, "{} bytes", kernel.map_bytes());
    ensure!((2..4096).contains(&kernel.unit_slots()), "{} slots", kernel.unit_slots());
    ensure!(kernel.assign_unit(1, kernel.unit_slots()).is_err(), "a slot beyond the last");
    let health = kernel.health(&["sched_process_exit"]);
    let reason = health.err().unwrap_or_default();
    ensure!(reason.contains("disabled in the configuration"), "{reason:?}");
    Ok(())
}

#[test]
fn a_missing_type_description_is_one_sentence() -> Result<()> {
    if !need::ebpf() {
        return Ok(());
    }
    let root = tempfile::tempdir()?;
    let cpus = root.path().join("sys/devices/system/cpu");
    std::fs::create_dir_all(&cpus)?;
    std::fs::write(cpus.join("possible"), "0-1\n")?;
    let refused = Kernel::start(&Options::default(), &Root::new(root.path()));
    let reason = refused.err().unwrap_or_default();
    ensure!(reason.contains("CONFIG_DEBUG_INFO_BTF"), "{reason:?}");
    Ok(())
}

#[test]
fn the_table_of_units_says_when_it_is_full() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let all = 4 * u64::from(holdfast_agent_ebpf::slots::UNIT_SETS);
    // Dense numbers fill every entry; the next one finds no room.
    for id in 1..=all {
        rig.kernel.assign_unit(id, 1)?;
    }
    ensure!(rig.kernel.assign_unit(all + 1, 1).is_err(), "one more than there is room for");
    rig.kernel.release_unit(1);
    rig.kernel.assign_unit(1, 2)?;
    Ok(())
}
