//! Context switches of a known number.

use std::fs;

use anyhow::{Context, Result, ensure};
use holdfast_agent::catalogue::{
    HOST_ON_CPU, HOST_SWITCHES, UNIT_INVOLUNTARY, UNIT_ON_CPU, UNIT_RUN_QUEUE, UNIT_SWITCHES,
};
use holdfast_tests::Unit;
use nix::sys::resource::{UsageWho, getrusage};

use crate::rig::{Rig, SLOT};
use crate::role;

const ROUNDS: u32 = 50_000;
const FORM: &str = "sched_switch/sched_info";

#[test]
fn switches_of_a_ping_pong() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("ping-pong")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    let (stat, switches, on_cpu) =
        (Stat::read()?, rig.value(HOST_SWITCHES, 0), rig.value(HOST_ON_CPU, 0));
    let children = switches_of_children()?;
    role::run(&unit, &format!("ping-pong {ROUNDS}"))?;
    rig.tick()?;
    let stat = Stat::read()?.since(&stat);

    let expected = f64::from(2 * ROUNDS);
    let counted = rig.value(UNIT_SWITCHES, SLOT);
    ensure!((counted - expected).abs() <= 0.02 * expected, "{counted} of {expected} switches");
    // The kernel keeps its own count with the processes, once they are waited for.
    let (all, forced) = switches_of_children()?;
    let (all, forced) = (all - children.0, forced - children.1);
    ensure!((counted - all).abs() <= 0.01 * all, "{counted} switches, by the kernel {all}");
    let involuntary = rig.value(UNIT_INVOLUNTARY, SLOT);
    let room = 0.01 * forced + 50.0;
    ensure!((involuntary - forced).abs() <= room, "{involuntary} forced, by the kernel {forced}");
    let waits = rig.histogram(UNIT_RUN_QUEUE, SLOT).total() as f64;
    ensure!((waits - counted).abs() <= 0.01 * counted, "{waits} waits, {counted} switches");
    let ran = rig.value(UNIT_ON_CPU, SLOT);
    ensure!(ran > 0.0 && ran < 60e9, "the unit ran {ran} ns");

    // The idle task is charged to nobody: it has no stamp, the kernel counts
    // switches to it, and it would fill all time that is not spent.
    ensure!(rig.lost("ebpf.switch_unstamped") == 0, "unstamped: the idle task?");
    ensure!(rig.lost("ebpf.program_skipped") == 0, "a program was skipped");
    let switches = rig.value(HOST_SWITCHES, 0) - switches;
    ensure!(switches <= stat.switches * 1.001, "{switches} switches, kernel {}", stat.switches);
    let on_cpu = rig.value(HOST_ON_CPU, 0) - on_cpu;
    let (busy, all) = (stat.busy_ns, stat.busy_ns + stat.idle_ns);
    ensure!(on_cpu <= busy + 0.3 * all, "{on_cpu} ns on CPU, {busy} of {all} busy");
    Ok(())
}

#[test]
fn both_forms_count_the_same() -> Result<()> {
    let Some(mut stampless) = Rig::start()? else { return Ok(()) };
    let mut stamped = Rig::beside(&[FORM])?;
    let variant = |rig: &Rig| {
        let programs = rig.kernel.programs().iter();
        programs.filter(|p| p.name == "sched_switch").map(|p| p.variant).next()
    };
    ensure!(variant(&stampless) == Some("tp_btf sched_info"), "{:?}", variant(&stampless));
    ensure!(variant(&stamped) == Some("tp_btf task_storage"), "{:?}", variant(&stamped));

    let unit = Unit::create("forms")?;
    for rig in [&mut stampless, &mut stamped] {
        rig.watch_unit(&unit)?;
        rig.tick()?;
    }
    role::run(&unit, &format!("ping-pong {ROUNDS}"))?;
    let mut seen = Vec::new();
    for rig in [&mut stampless, &mut stamped] {
        rig.tick()?;
        let waits = rig.histogram(UNIT_RUN_QUEUE, SLOT).total() as f64;
        let (switches, ran) = (rig.value(UNIT_SWITCHES, SLOT), rig.value(UNIT_ON_CPU, SLOT));
        seen.push([switches, waits, ran]);
    }
    let [one, other] = seen.as_slice() else { anyhow::bail!("two rigs") };
    let limits = [("switches", 0.01), ("waits", 0.01), ("CPU time", 0.05)];
    for ((what, limit), (a, b)) in limits.into_iter().zip(one.iter().zip(other)) {
        ensure!((a - b).abs() <= limit * a, "{what}: {a} without stamps, {b} with");
    }
    Ok(())
}

/// Switches away from all children that have ended, and those of them that were forced.
fn switches_of_children() -> Result<(f64, f64)> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let forced = usage.involuntary_context_switches() as f64;
    Ok((usage.voluntary_context_switches() as f64 + forced, forced))
}

/// What the kernel itself says of all CPUs.
struct Stat {
    switches: f64,
    busy_ns: f64,
    idle_ns: f64,
}

impl Stat {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let numbers = line.context("an odd /proc/stat")?.split_whitespace();
            Ok::<Vec<f64>, anyhow::Error>(numbers.filter_map(|n| n.parse().ok()).collect())
        };
        // User, nice, system, idle, iowait, irq, softirq, steal; hundredths of a second.
        let cpu = line("cpu")?;
        let ticks = |places: &[usize]| places.iter().filter_map(|n| cpu.get(*n)).sum::<f64>() * 1e7;
        Ok(Self {
            switches: line("ctxt")?.first().copied().context("no switches")?,
            busy_ns: ticks(&[0, 1, 2, 5, 6, 7]),
            idle_ns: ticks(&[3, 4]),
        })
    }

    fn since(&self, start: &Self) -> Self {
        Self {
            switches: self.switches - start.switches,
            busy_ns: self.busy_ns - start.busy_ns,
            idle_ns: self.idle_ns - start.idle_ns,
        }
    }
}
