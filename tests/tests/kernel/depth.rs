//! Less detail costs detail only: at each depth the same load is counted by a rig at
//! that depth and by one beside it that keeps everything.

use anyhow::{Result, ensure};
use holdfast_agent::catalogue::{
    HOST_ON_CPU, HOST_RUN_QUEUE, HOST_SWITCHES, UNIT_ON_CPU, UNIT_RUN_QUEUE, UNIT_SWITCHES,
};
use holdfast_agent_ebpf::depth::{COUNTERS, FULL, GATED, HOST, SAMPLED};
use holdfast_core::clock::BootTime;
use holdfast_proto::histogram::lower_bound;
use holdfast_tests::Unit;

use crate::rig::{Rig, SLOT};
use crate::role;

/// So many that starting the program, one long slice, is a small part of it.
const ROUNDS: u32 = 160_000;
const FORM: &str = "sched_switch/sched_info";

/// What a rig counted so far.
#[derive(Debug, Clone, Copy)]
struct Seen {
    host: [f64; 2],
    unit: [f64; 2],
    host_waits: f64,
    host_waited: f64,
    unit_waits: f64,
    longest_wait_ns: u64,
}

impl Seen {
    fn read(rig: &mut Rig) -> Result<Self> {
        rig.tick()?;
        let host_waits = rig.histogram(HOST_RUN_QUEUE, 0);
        let longest = host_waits.counts.iter().rposition(|count| *count > 0);
        Ok(Self {
            host: [HOST_SWITCHES, HOST_ON_CPU].map(|id| rig.value(id, 0)),
            unit: [UNIT_SWITCHES, UNIT_ON_CPU].map(|id| rig.value(id, SLOT)),
            host_waits: host_waits.total() as f64,
            host_waited: host_waits.sum as f64,
            unit_waits: rig.histogram(UNIT_RUN_QUEUE, SLOT).total() as f64,
            longest_wait_ns: longest.map_or(0, lower_bound),
        })
    }

    fn since(self, start: Self) -> Self {
        let minus = |a: [f64; 2], b: [f64; 2]| [a[0] - b[0], a[1] - b[1]];
        Self {
            host: minus(self.host, start.host),
            unit: minus(self.unit, start.unit),
            host_waits: self.host_waits - start.host_waits,
            host_waited: self.host_waited - start.host_waited,
            unit_waits: self.unit_waits - start.unit_waits,
            longest_wait_ns: self.longest_wait_ns,
        }
    }
}

/// Two rigs that watch the same unit: the one whose depth changes, and the measure.
struct Pair {
    tested: Rig,
    measure: Rig,
    unit: Unit,
    cgroup_id: u64,
}

impl Pair {
    fn start(disabled: &[&str]) -> Result<Option<Self>> {
        let Some(mut measure) = Rig::start()? else { return Ok(None) };
        let mut tested = Rig::beside(disabled)?;
        let unit = Unit::create("depth")?;
        let cgroup_id = tested.watch_unit(&unit)?;
        measure.watch_unit(&unit)?;
        // Loading the second took this thread a long slice of CPU time, of which only the
        // first knows the beginning: it shall have ended before anything is compared.
        role::pause(20);
        Ok(Some(Self { tested, measure, unit, cgroup_id }))
    }

    /// What both count, the tested one first, while `work` is done.
    fn count(&mut self, work: impl FnOnce(&Self) -> Result<()>) -> Result<[Seen; 2]> {
        let before = [Seen::read(&mut self.tested)?, Seen::read(&mut self.measure)?];
        work(self)?;
        let after = [Seen::read(&mut self.tested)?, Seen::read(&mut self.measure)?];
        Ok([after[0].since(before[0]), after[1].since(before[1])])
    }

    fn ping_pong(&self) -> Result<()> {
        role::run(&self.unit, &format!("ping-pong {ROUNDS}"))
    }
}

fn near(what: &str, seen: f64, expected: f64, limit: f64) -> Result<()> {
    let room = limit * expected;
    ensure!((seen - expected).abs() <= room, "{what}: {seen}, at full depth {expected}");
    Ok(())
}

#[test]
fn each_depth_keeps_what_it_promises() -> Result<()> {
    let Some(mut pair) = Pair::start(&[])? else { return Ok(()) };
    let cases = [
        ("full", FULL, false, true),
        ("gated, no pressure", GATED, false, false),
        ("gated, under pressure", GATED, true, true),
        ("host", HOST, true, false),
        ("sampled", SAMPLED, true, false),
        ("counters", COUNTERS, true, false),
        ("full again", FULL, true, true),
    ];
    for (name, depth, detail, unit_waits) in cases {
        ensure!(pair.tested.kernel.set_detail(pair.cgroup_id, detail), "the unit has no slot");
        pair.tested.kernel.set_sched_depth(depth);
        // The slice of CPU time that this thread is in began at another depth.
        role::pause(20);
        let [seen, all] = pair.count(Pair::ping_pong)?;
        eprintln!("{name}: {seen:?}");
        let limit = if depth >= SAMPLED { 0.15 } else { 0.02 };
        for n in 0..2 {
            near(&format!("{name}: of the host, {n}"), seen.host[n], all.host[n], limit)?;
            near(&format!("{name}: of the unit, {n}"), seen.unit[n], all.unit[n], limit)?;
        }
        let host_waits = if depth == COUNTERS { 0.0 } else { all.host_waits };
        near(&format!("{name}: waits of the host"), seen.host_waits, host_waits, limit)?;
        let kept = if unit_waits { all.unit_waits } else { 0.0 };
        near(&format!("{name}: waits of the unit"), seen.unit_waits, kept, limit)?;
    }
    ensure!(pair.tested.lost("ebpf.interval_negative") == 0, "intervals below nothing");
    Ok(())
}

#[test]
fn a_slot_given_again_keeps_its_pressure_until_it_is_released() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    // Far from any real cgroup's number.
    let id = 1 << 40;
    ensure!(!rig.kernel.set_detail(id, true), "a cgroup without a slot");
    rig.kernel.assign_unit(id, 1)?;
    ensure!(rig.kernel.set_detail(id, true), "a cgroup with a slot");
    ensure!(rig.kernel.assign_unit(id, 2).is_ok(), "the same cgroup again");
    rig.kernel.release_unit(id);
    ensure!(!rig.kernel.set_detail(id, false), "a released cgroup");
    Ok(())
}

/// Changes of depth while the load runs, for both forms: nothing that was remembered
/// at one depth may turn into nonsense at another.
fn changes(disabled: &[&str]) -> Result<()> {
    let Some(mut pair) = Pair::start(disabled)? else { return Ok(()) };
    let start = BootTime::now();
    let [seen, all] = pair.count(|pair| {
        let mut load = role::start(&pair.unit, None, &format!("ping-pong {ROUNDS}"))?;
        let ladder = [FULL, GATED, HOST, SAMPLED, COUNTERS, SAMPLED, HOST, GATED];
        for depth in ladder.iter().cycle() {
            pair.tested.kernel.set_sched_depth(*depth);
            if let Some(status) = load.try_wait()? {
                ensure!(status.success(), "the load failed");
                return Ok(());
            }
            role::pause(7);
        }
        Ok(())
    })?;
    let life = BootTime::now().since(start);
    for n in 0..2 {
        near(&format!("of the host, {n}"), seen.host[n], all.host[n], 0.1)?;
        near(&format!("of the unit, {n}"), seen.unit[n], all.unit[n], 0.1)?;
    }
    // Some depths count no wait; none makes one up.
    ensure!(seen.host_waits <= 1.1 * all.host_waits, "{seen:?} of {all:?}");
    ensure!(seen.host_waited <= 1.5 * all.host_waited, "{seen:?} of {all:?}");
    ensure!(u128::from(seen.longest_wait_ns) < life.as_nanos(), "{seen:?} in {life:?}");
    ensure!(pair.tested.lost("ebpf.interval_negative") == 0, "intervals below nothing");
    Ok(())
}

#[test]
fn changes_of_depth_make_up_nothing() -> Result<()> {
    changes(&[])
}

#[test]
fn changes_of_depth_make_up_nothing_with_stamps_of_our_own() -> Result<()> {
    changes(&[FORM])
}
