//! Tasks of a known number and size, against what /proc says of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use holdfast_agent::catalogue::{
    HOST_RSS, HOST_THREADS, UNIT_EXECS, UNIT_FORKS, UNIT_HUNG, UNIT_MEMORY_GROWTH, UNIT_RSS,
    UNIT_TASK_MAJOR_FAULTS, UNIT_THREADS, UNIT_THREADS_STARTED, UNIT_UNINTERRUPTIBLE,
};
use holdfast_agent::kernel::KernelEvent;
use holdfast_core::clock::BootTime;
use holdfast_tests::{Unit, need, wait};
use nix::sys::resource::{UsageWho, getrusage};

use crate::process::events_of;
use crate::rig::{Rig, SLOT};
use crate::role;
use crate::volume::{Volume, run};

const MIB: f64 = 1_048_576.0;
const THREADS: usize = 20;

#[test]
fn threads_memory_and_growth_are_those_of_proc() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("holds")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    let mut holder = role::start(&unit, None, &format!("hold 67108864 {THREADS}"))?;
    let mut seen = Vec::new();
    let held = watch(&mut rig, |rig| {
        let status = Status::read(holder.id())?;
        let found = (rig.value(UNIT_THREADS, SLOT), rig.value(UNIT_RSS, SLOT));
        seen.push(format!("{found:?} {status:?} {}", rig.value(UNIT_MEMORY_GROWTH, SLOT)));
        // The kernel keeps part of each counter with the CPUs: 32 pages or two for each
        // CPU, three counters.
        let near = (found.1 - status.rss).abs() <= 2.0 * MIB;
        Ok(status.threads > THREADS as f64
            && status.rss > 64.0 * MIB
            && found.0 == status.threads
            && near)
    })?;
    let started = rig.value(UNIT_THREADS_STARTED, SLOT);
    let host = (rig.value(HOST_THREADS, 0), rig.value(HOST_RSS, 0));
    let of_unit = (rig.value(UNIT_THREADS, SLOT), rig.value(UNIT_RSS, SLOT));
    end(&mut holder);
    ensure!(held, "never the same: {:?}", seen.iter().rev().take(3).collect::<Vec<_>>());
    ensure!(started == THREADS as f64, "{started} threads started");
    ensure!(host.0 > of_unit.0 && host.1 >= of_unit.1, "{host:?} on the host");
    let threads = fs::read_to_string("/proc/loadavg")?;
    let threads = threads.split(['/', ' ']).nth(4).context("an odd loadavg")?.parse::<f64>()?;
    // Others come and go meanwhile.
    let room = 100.0 + THREADS as f64;
    ensure!((host.0 - threads).abs() <= room, "{} threads, {threads} in /proc/loadavg", host.0);

    let gone = watch(&mut rig, |rig| Ok(rig.value(UNIT_THREADS, SLOT) == 0.0))?;
    ensure!(gone && rig.value(UNIT_RSS, SLOT) == 0.0, "something is left of the unit");
    Ok(())
}

#[test]
fn a_pass_costs_a_tenth_of_reading_proc() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("crowd")?;
    let mut holder = role::start(&unit, None, "hold 4096 400")?;
    let mut found = Vec::new();
    // All of the crowd has to be there: a pass costs something whoever is there.
    for _ in 0..200 {
        rig.kernel.count_tasks(&mut found)?;
        if found.iter().map(|sums| sums.threads).sum::<u64>() > 400 {
            break;
        }
        role::pause(10);
    }
    let (mut pass, mut threads) = (f64::INFINITY, 0);
    let (mut proc, mut read) = (f64::INFINITY, 0);
    // The best of each is what it takes when nobody interferes.
    for _ in 0..10 {
        let start = BootTime::now();
        rig.kernel.count_tasks(&mut found)?;
        let took = BootTime::now().since(start).as_nanos() as f64;
        threads = found.iter().map(|sums| sums.threads).sum();
        pass = pass.min(took / threads as f64);

        let processes = fs::read_dir("/proc")?.filter_map(Result::ok);
        let stats: Vec<_> = processes
            .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
            .map(|entry| entry.path().join("stat"))
            .collect();
        let start = BootTime::now();
        read = stats.iter().filter(|stat| fs::read(stat).is_ok()).count();
        proc = proc.min(BootTime::now().since(start).as_nanos() as f64 / read as f64);
    }
    end(&mut holder);
    ensure!(threads > 400, "{threads} threads: the crowd never came");
    eprintln!("{pass:.0} ns for each of {threads} threads, {proc:.0} ns for each of {read} files");
    ensure!(pass <= proc / 10.0, "{pass} ns for a thread, {proc} ns for a file of /proc");
    Ok(())
}

#[test]
fn starts_are_counted_exactly() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let unit = Unit::create("starts")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    unit.run("i=0; while [ $i -lt 10 ]; do /bin/true; i=$((i+1)); done; (exit 0); exit 0")?;
    rig.tick()?;
    let (forks, execs) = (rig.value(UNIT_FORKS, SLOT), rig.value(UNIT_EXECS, SLOT));
    ensure!((forks, execs) == (11.0, 10.0), "{forks} forks, {execs} execs");
    let threads = rig.value(UNIT_THREADS_STARTED, SLOT);
    ensure!(threads == 0.0, "{threads} threads");
    Ok(())
}

#[test]
fn major_faults_of_the_dead_are_kept() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let program = folder.path().join("sh");
    fs::copy("/bin/sh", &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::File::open(&program)?.sync_all()?;
    let unit = Unit::create("faults")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    let faults =
        || Ok::<_, anyhow::Error>(getrusage(UsageWho::RUSAGE_CHILDREN)?.major_page_faults());
    // Forgets what is cached of the copy, and only of that.
    run(Command::new("dd")
        .arg(format!("if={}", program.display()))
        .args(["iflag=nocache", "count=0"]))?;
    let before = faults()?;
    unit.run(&format!("{} -c 'exit 0'; exit 0", program.display()))?;
    let expected = (faults()? - before) as f64;
    if expected == 0.0 {
        need::skip("needs a build folder whose pages can be forgotten (not tmpfs)");
        return Ok(());
    }
    rig.tick()?;
    let (mut seen, mut last) = (Vec::new(), 0.0);
    let counted = watch(&mut rig, |rig| {
        let faults = rig.value(UNIT_TASK_MAJOR_FAULTS, SLOT);
        ensure!(faults >= last, "{faults} after {last}");
        last = faults;
        seen.push(faults);
        Ok(faults == expected)
    })?;
    ensure!(counted, "{seen:?} instead of {expected}");
    Ok(())
}

#[tokio::test]
async fn a_task_that_hangs_is_told_of() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    if !need::program("fsfreeze") {
        return Ok(());
    }
    let Some(volume) = Volume::create()? else { return Ok(()) };
    let Some(_patience) = Impatience::set()? else {
        need::skip("needs CONFIG_DETECT_HUNG_TASK, and that a hung task is no panic");
        return Ok(());
    };
    let mut events = rig.kernel.take_events().context("no events")?;
    let unit = Unit::create("hangs")?;
    let cgroup = rig.watch_unit(&unit)?;
    rig.tick()?;
    let frozen = Frozen::freeze(&volume)?;
    let mut stuck = unit.start(&format!("exec touch {}/new", volume.path().display()))?;
    let waits = watch(&mut rig, |rig| Ok(rig.value(UNIT_UNINTERRUPTIBLE, SLOT) == 1.0))?;
    let found = events_of(&mut events, cgroup, 1).await;
    rig.tick()?;
    let hung = rig.value(UNIT_HUNG, SLOT);
    drop(frozen);
    let status = stuck.wait()?;
    ensure!(waits, "nothing waits uninterruptibly");
    let found = found?;
    let told = found.iter().any(|event| {
        matches!(event, KernelEvent::Hung { command, pid, .. } if command == "touch" && *pid == stuck.id())
    });
    ensure!(told && hung >= 1.0, "{hung} counted, {found:?}");
    ensure!(status.success(), "it did not go on");
    let none = watch(&mut rig, |rig| Ok(rig.value(UNIT_UNINTERRUPTIBLE, SLOT) == 0.0))?;
    ensure!(none, "it still waits");
    Ok(())
}

/// Ticks until `reached`, for some seconds at most.
fn watch(rig: &mut Rig, mut reached: impl FnMut(&Rig) -> Result<bool>) -> Result<bool> {
    let start = BootTime::now();
    while BootTime::now().since(start) < wait::PATIENCE {
        rig.tick()?;
        if reached(rig)? {
            return Ok(true);
        }
        std::thread::yield_now();
    }
    Ok(false)
}

fn end(child: &mut Child) {
    let _killed = child.kill();
    let _status = child.wait();
}

/// What /proc says of a process.
#[derive(Debug)]
struct Status {
    threads: f64,
    rss: f64,
}

impl Status {
    fn read(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let number = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
        };
        let rss = number("VmRSS:").unwrap_or(0.0) * 1024.0;
        Ok(Self { threads: number("Threads:").context("no threads")?, rss })
    }
}

/// A frozen file system: who writes to it waits, uninterruptibly.
struct Frozen<'a>(&'a Volume);

impl<'a> Frozen<'a> {
    fn freeze(volume: &'a Volume) -> Result<Self> {
        run(Command::new("fsfreeze").arg("--freeze").arg(volume.path()))?;
        Ok(Self(volume))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let thaw = run(Command::new("fsfreeze").arg("--unfreeze").arg(self.0.path()));
        if let Err(error) = thaw {
            eprintln!("{error:#}");
        }
    }
}

/// The kernel's patience with tasks that hang, shortened, and what it was before.
struct Impatience(Vec<(String, String)>);

impl Impatience {
    fn set() -> Result<Option<Self>> {
        let path = |name: &str| format!("/proc/sys/kernel/hung_task_{name}");
        if fs::read_to_string(path("panic")).map_or(true, |panics| panics.trim() != "0") {
            return Ok(None);
        }
        let mut before = Vec::new();
        // No word in the kernel's log about what we provoke; restored last.
        for (name, value) in [("warnings", "0"), ("timeout_secs", "1")] {
            let path = path(name);
            before.push((path.clone(), fs::read_to_string(&path)?));
            fs::write(&path, value)?;
        }
        Ok(Some(Self(before)))
    }
}

impl Drop for Impatience {
    fn drop(&mut self) {
        for (path, value) in self.0.iter().rev() {
            if let Err(error) = fs::write(path, value.trim()) {
                eprintln!("{path} cannot be set back to {value}: {error}");
            }
        }
    }
}
