//! Context switches of a known number.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow, ensure};
use holdfast_agent::catalogue::{
    HOST_OFF_CPU, HOST_ON_CPU, HOST_SWITCHES, UNIT_INVOLUNTARY, UNIT_OFF_CPU, UNIT_ON_CPU,
    UNIT_RUN_QUEUE, UNIT_SWITCHES,
};
use holdfast_agent::kernel::cells::load;
use holdfast_core::clock::BootTime;
use holdfast_tests::{Unit, need};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;

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

#[test]
fn every_switch_is_to_a_task_or_to_the_idle_task() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("idle")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    let (idle_before, switches) = (idle(&rig), rig.value(HOST_SWITCHES, 0));
    let stat = Stat::read()?;
    // Sleepers leave the CPU to the idle task, which is no unit's, unless the machine
    // is busy with something else.
    role::run(&unit, "nap 200 1 4")?;
    let stat = Stat::read()?.since(&stat);
    rig.tick()?;
    let (idle, switches) = (idle(&rig) - idle_before, rig.value(HOST_SWITCHES, 0) - switches);
    ensure!(idle > 0.0 || stat.idle_ns == 0.0, "no switch to the idle task in {}", stat.idle_ns);
    let (seen, all) = (idle + switches, stat.switches);
    let room = 0.002 * all + 20.0;
    ensure!((seen - all).abs() <= room, "{switches} to tasks, {idle} to none, kernel {all}");
    Ok(())
}

/// Switches to the idle task, all CPUs.
fn idle(rig: &Rig) -> f64 {
    let cpus = rig.kernel.cpus();
    let counts = (0..cpus.len()).filter_map(|cpu| Some(load(&cpus.get(cpu)?.idle)));
    counts.sum::<u64>() as f64
}

#[test]
fn time_off_the_cpu_is_what_work_leaves() -> Result<()> {
    const SLEEPERS: usize = 4;
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("sleepers")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    let cpu = cpu_of_children()?;
    let life = || -> Result<f64> {
        let mut sleeper = role::start_within(&unit, "nap 60 5 20")?;
        let start = BootTime::now();
        ensure!(sleeper.wait()?.success(), "a sleeper failed");
        Ok(BootTime::now().since(start).as_nanos() as f64)
    };
    let lives = thread::scope(|scope| -> Result<f64> {
        let sleepers = [(); SLEEPERS].map(|()| scope.spawn(life));
        // What is told while some sleep is not taken back later.
        while !sleepers.iter().all(ScopedJoinHandle::is_finished) {
            rig.tick()?;
            role::pause(50);
        }
        let lives = sleepers.map(|life| life.join().map_err(|_| anyhow!("a sleeper is lost"))?);
        lives.into_iter().sum()
    })?;
    rig.tick()?;
    let cpu = cpu_of_children()? - cpu;
    // Two threads: one does as told, the other waits for it.
    let expected = 2.0 * lives - cpu;
    let off = rig.value(UNIT_OFF_CPU, SLOT);
    eprintln!("{off} ns off the CPU, expected {expected}, beside {cpu} on it");
    // The start of a program is a part of its life before it is in the unit, longer on
    // a busy machine. Nothing makes it more: work that is not taken off would.
    ensure!(off <= 1.01 * expected, "{off} ns off the CPU, expected {expected}");
    ensure!(off >= 0.92 * expected, "{off} ns off the CPU, expected {expected}");
    let host = rig.value(HOST_OFF_CPU, 0);
    ensure!(host >= off, "{host} ns off the CPU on the host, {off} in the unit");
    Ok(())
}

#[test]
fn time_off_the_cpu_is_what_bpftrace_sees() -> Result<()> {
    if !need::program("bpftrace") || !need::program("unshare") {
        return Ok(());
    }
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("traced")?;
    let cgroup_id = rig.watch_unit(&unit)?;
    rig.tick()?;
    let tool = Traced::start(cgroup_id)?;
    let sleepers = ["nap 100 3 10", "nap 30 10 40", "nap 300 1 4"];
    let sleepers = sleepers.map(|role| role::start_within(&unit, role));
    for sleeper in sleepers {
        ensure!(sleeper?.wait()?.success(), "a sleeper failed");
    }
    rig.tick()?;
    let (ours, theirs) = (rig.value(UNIT_OFF_CPU, SLOT), tool.finish()?);
    eprintln!("{ours} ns off the CPU, {theirs} by bpftrace");
    ensure!((ours - theirs).abs() <= 0.02 * theirs, "{ours} ns off the CPU, bpftrace {theirs}");
    Ok(())
}

/// bpftrace, adding up the time that a cgroup's tasks are off the CPU.
struct Traced {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Traced {
    fn start(cgroup_id: u64) -> Result<Self> {
        let script = format!(
            r#"tracepoint:sched:sched_switch {{
                if (!@on) {{ @on = 1; printf("ready\n"); }}
                if (cgroup == {cgroup_id}) {{ @gone[args->prev_pid] = nsecs; }}
                $since = @gone[args->next_pid];
                if ($since) {{ @off = sum(nsecs - $since); delete(@gone[args->next_pid]); }}
            }}
            END {{ clear(@gone); clear(@on); }}"#
        );
        // It wants the tracepoints' formats, which not every host shows.
        let mounted =
            "mount -t tracefs tracefs /sys/kernel/tracing; exec stdbuf -oL bpftrace -e \"$0\"";
        let mut process = Command::new("unshare")
            .args(["--mount", "sh", "-c", mounted, &script])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start bpftrace")?;
        let mut said = BufReader::new(process.stdout.take().context("no pipe")?);
        let mut line = String::new();
        while line.trim() != "ready" {
            line.clear();
            ensure!(said.read_line(&mut line)? > 0, "bpftrace does not trace");
        }
        Ok(Self { process, said })
    }

    /// Ends it; the sum in nanoseconds.
    fn finish(mut self) -> Result<f64> {
        kill(Pid::from_raw(self.process.id().try_into()?), Signal::SIGINT)?;
        let mut text = String::new();
        self.said.read_to_string(&mut text)?;
        self.process.wait()?;
        let sum = text.lines().find_map(|line| line.strip_prefix("@off: ")?.parse().ok());
        sum.with_context(|| format!("bpftrace told no sum: {text}"))
    }
}

#[test]
fn a_form_without_cycles_tells_no_time_off_the_cpu() -> Result<()> {
    let Some(alone) = Rig::start()? else { return Ok(()) };
    let mut stamped = Rig::beside(&[FORM])?;
    stamped.tick()?;
    ensure!(stamped.value(HOST_OFF_CPU, 0).is_nan(), "{}", stamped.value(HOST_OFF_CPU, 0));
    let health = stamped.kernel.health(&["sched_switch"]).map_err(anyhow::Error::msg)?;
    ensure!(health.as_ref().is_some_and(|h| h.contains("no time off the CPU")), "{health:?}");
    drop(alone);
    Ok(())
}

/// CPU time of all children that have ended, in nanoseconds.
fn cpu_of_children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 * 1e3)
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
