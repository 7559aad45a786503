//! Units from the files of their cgroups.
//!
//! The kernel counts hierarchically: a unit's numbers include the units nested in
//! it, as systemd's own accounting does. A unit that has several cgroups (the same
//! name in two places) is their sum. The root is not read: its numbers are the
//! host's. Files stay open, because opening costs more than reading.

use std::collections::BTreeSet;
use std::io;

use super::{Context, Probe, pressure};
use crate::catalogue::{
    Kind, SignalId, UNIT_CPU_FULL, UNIT_CPU_PERIODS, UNIT_CPU_SOME, UNIT_CPU_THROTTLED,
    UNIT_CPU_THROTTLED_PERIODS, UNIT_CPU_USAGE, UNIT_IO_FULL, UNIT_IO_READ, UNIT_IO_SOME,
    UNIT_IO_WRITE, UNIT_MAJOR_FAULTS, UNIT_MEMORY, UNIT_MEMORY_FULL, UNIT_MEMORY_HIGH,
    UNIT_MEMORY_MAX, UNIT_MEMORY_OOM, UNIT_MEMORY_OOM_KILLS, UNIT_MEMORY_SOME, UNIT_TASKS,
};
use crate::frame::Frame;
use crate::host::file::{Buffer, Source, number};
use crate::kernel::Kernel;
use crate::losses::{Cause, Losses};
use crate::units::{Member, SharedMembers};

/// Most cgroups whose files are kept open, at up to nine descriptors each.
const CGROUPS: usize = 1024;
/// Ticks between two readings of the memory counters of a unit without memory
/// pressure. memory.stat is long and has the kernel gather what each CPU counted:
/// reading it each second for every unit would cost as much as all the rest.
const ROTATION: usize = 8;
const NS_PER_US: f64 = 1e3;

/// The files, in the order of [`Cgroup::files`].
const FILES: [&str; 7] = [
    "cpu.stat",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
    "memory.current",
    "io.stat",
    "pids.current",
];
/// Position of memory.pressure.
const MEMORY_PRESSURE: usize = 2;
/// Controller without which a file does not exist; none for those every cgroup has.
const CONTROLLER: [Option<&str>; FILES.len()] =
    [None, None, None, None, Some("memory"), Some("io"), Some("pids")];

/// The files that are read in rotation; they are the memory controller's.
const RARE: [&str; 2] = ["memory.stat", "memory.events"];

/// Which of [`RARE`], key, signal.
const RARE_COUNTERS: [(usize, &str, SignalId); 5] = [
    (0, "pgmajfault", UNIT_MAJOR_FAULTS),
    (1, "high", UNIT_MEMORY_HIGH),
    (1, "max", UNIT_MEMORY_MAX),
    (1, "oom", UNIT_MEMORY_OOM),
    (1, "oom_kill", UNIT_MEMORY_OOM_KILLS),
];

struct Cgroup {
    id: u64,
    slot: usize,
    /// `None` once a file turned out not to exist.
    files: [Option<Source>; FILES.len()],
    rare: [Option<Source>; RARE.len()],
    /// What the rare files said last: told again until they are read again, so that
    /// a counter has no gaps.
    counters: [f64; RARE_COUNTERS.len()],
    /// The unit's memory stall time at the last tick.
    stalled: f64,
}

impl Cgroup {
    fn new(member: &Member) -> Self {
        let source = |name| Some(Source::new(member.directory.join(name)));
        Self {
            id: member.id,
            slot: member.slot,
            files: FILES.map(source),
            rare: RARE.map(source),
            counters: [f64::NAN; RARE_COUNTERS.len()],
            stalled: f64::NAN,
        }
    }

    /// Reads what the unit's memory controller counts, when it is `due` or the unit
    /// stalled for memory since the last tick.
    fn read_rare(&mut self, stalled: f64, due: bool, buffer: &mut Buffer, frame: &mut Frame) {
        let pressed = stalled > self.stalled;
        self.stalled = stalled;
        let never = self.counters.iter().all(|value| value.is_nan());
        if due || pressed || never {
            for (kind, file) in self.rare.iter_mut().enumerate() {
                let Some(source) = file else { continue };
                match source.read(buffer) {
                    Ok(text) => {
                        for ((of, key, _), value) in RARE_COUNTERS.iter().zip(&mut self.counters) {
                            if *of == kind {
                                *value = flat(text, key);
                            }
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => *file = None,
                    Err(_) => {}
                }
            }
        }
        for ((_, _, signal), value) in RARE_COUNTERS.iter().zip(self.counters) {
            add(frame, *signal, self.slot, value);
        }
    }
}

struct Units {
    buffer: Buffer,
    members: SharedMembers,
    version: Option<u64>,
    cgroups: Vec<Cgroup>,
    /// Slots of units that are the sum of other cgroups than at the last tick.
    changed: Vec<usize>,
    tick: usize,
    losses: Losses,
    unwatched: bool,
    degraded: Option<String>,
}

pub(super) fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let members = context.members?.clone();
    let controllers = members.borrow().controllers.clone();
    Ok(Box::new(Units {
        buffer: Buffer::default(),
        members,
        version: None,
        cgroups: Vec::new(),
        changed: Vec::new(),
        tick: 0,
        losses: context.losses.clone(),
        unwatched: false,
        degraded: sentence(&controllers, false),
    }))
}

/// Everything that is missing.
fn sentence(controllers: &str, unwatched: bool) -> Option<String> {
    let late = unwatched.then_some(
        "some cgroups cannot be watched and are looked for every 10 s only; raise fs.inotify.max_user_watches",
    );
    match (missing_controllers(controllers), late) {
        (Some(missing), Some(late)) => Some(format!("{missing}; {late}")),
        (missing, late) => missing.or_else(|| late.map(str::to_owned)),
    }
}

/// What the kernel's list of controllers leaves out, in one sentence.
fn missing_controllers(controllers: &str) -> Option<String> {
    let has = |wanted: &str| controllers.split_ascii_whitespace().any(|name| name == wanted);
    let (names, files): (Vec<_>, Vec<_>) = CONTROLLER
        .iter()
        .zip(FILES)
        .filter_map(|(controller, file)| {
            controller.filter(|name| !has(name)).map(|name| (name, file))
        })
        .unzip();
    (!names.is_empty()).then(|| {
        format!(
            "the controllers {} are not on the unified cgroup hierarchy, so units lack {}; \
             boot with systemd.unified_cgroup_hierarchy=1 to move them there",
            names.join(", "),
            files.join(", ")
        )
    })
}

impl Units {
    /// Follows births and deaths, keeping the files of those that stay.
    fn follow(&mut self) {
        let members = self.members.borrow();
        if self.unwatched != members.unwatched {
            self.unwatched = members.unwatched;
            self.degraded = sentence(&members.controllers, members.unwatched);
        }
        if self.version == Some(members.version) {
            return;
        }
        self.version = Some(members.version);
        self.cgroups.retain(|cgroup| {
            members.list.get(&cgroup.id).is_some_and(|member| member.slot == cgroup.slot)
        });
        let mut known: Vec<u64> = self.cgroups.iter().map(|cgroup| cgroup.id).collect();
        known.sort_unstable();
        let summed: BTreeSet<usize> = self.cgroups.iter().map(|cgroup| cgroup.slot).collect();
        for member in members.list.values() {
            if known.binary_search(&member.id).is_ok() {
                continue;
            }
            if self.cgroups.len() >= CGROUPS {
                self.losses.add(Cause::CgroupFiles, 1);
                continue;
            }
            if summed.contains(&member.slot) {
                self.changed.push(member.slot);
            }
            self.cgroups.push(Cgroup::new(member));
        }
    }
}

impl Probe for Units {
    fn read(&mut self, _: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        self.follow();
        self.tick = self.tick.wrapping_add(1);
        for (position, cgroup) in self.cgroups.iter_mut().enumerate() {
            let mut stalled = f64::NAN;
            for (kind, file) in cgroup.files.iter_mut().enumerate() {
                let Some(source) = file else { continue };
                match source.read(&mut self.buffer) {
                    Ok(text) => {
                        record(kind, text, cgroup.slot, frame);
                        if kind == MEMORY_PRESSURE {
                            stalled = pressure::totals(text).0;
                        }
                    }
                    // Without its controller a file never appears: do not ask again.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => *file = None,
                    // The cgroup is just being removed; its death is on the way.
                    Err(_) => self.changed.push(cgroup.slot),
                }
            }
            let due = position % ROTATION == self.tick % ROTATION;
            cgroup.read_rare(stalled, due, &mut self.buffer, frame);
        }
        // All that a cgroup counted before it joined would look like counted in this
        // second: such a sum is not comparable with the last one.
        for slot in self.changed.drain(..) {
            for id in SignalId::all().filter(is_sum) {
                frame.set(id, slot, f64::NAN);
            }
        }
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

/// Whether a signal is a counter that this probe sums up.
fn is_sum(id: &SignalId) -> bool {
    let signal = id.signal();
    signal.probe == "cgroup" && signal.kind == Kind::Counter
}

/// Adds `value`, if there is one, to the unit's row.
fn add(frame: &mut Frame, signal: SignalId, slot: usize, value: f64) {
    if !value.is_nan() {
        let before = frame.get(signal, slot);
        frame.set(signal, slot, if before.is_nan() { value } else { before + value });
    }
}

/// Adds what file number `kind` says to the unit's row.
fn record(kind: usize, text: &str, slot: usize, frame: &mut Frame) {
    let mut add = |signal, value: f64| add(frame, signal, slot, value);
    match kind {
        0 => {
            add(UNIT_CPU_USAGE, flat(text, "usage_usec") * NS_PER_US);
            add(UNIT_CPU_THROTTLED, flat(text, "throttled_usec") * NS_PER_US);
            add(UNIT_CPU_PERIODS, flat(text, "nr_periods"));
            add(UNIT_CPU_THROTTLED_PERIODS, flat(text, "nr_throttled"));
        }
        1 => {
            let (some, full) = pressure::totals(text);
            add(UNIT_CPU_SOME, some);
            add(UNIT_CPU_FULL, full);
        }
        MEMORY_PRESSURE => {
            let (some, full) = pressure::totals(text);
            add(UNIT_MEMORY_SOME, some);
            add(UNIT_MEMORY_FULL, full);
        }
        3 => {
            let (some, full) = pressure::totals(text);
            add(UNIT_IO_SOME, some);
            add(UNIT_IO_FULL, full);
        }
        4 => add(UNIT_MEMORY, number(Some(text.trim_end()))),
        5 => {
            let (read, written) = io_bytes(text);
            add(UNIT_IO_READ, read);
            add(UNIT_IO_WRITE, written);
        }
        _ => add(UNIT_TASKS, number(Some(text.trim_end()))),
    }
}

/// The value of `key` in lines of key and value.
fn flat(text: &str, key: &str) -> f64 {
    number(text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')))
}

/// Bytes read and written over all devices of an io.stat: lines as
/// `254:0 rbytes=1 wbytes=2 rios=…`.
fn io_bytes(text: &str) -> (f64, f64) {
    let sum = |key: &str| {
        let fields = text.split_ascii_whitespace().filter_map(|field| field.strip_prefix(key));
        fields.map(|value| number(Some(value))).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::path::Path;
    use std::rc::Rc;

    use super::*;
    use crate::frame::Shape;
    use crate::host::Root;
    use crate::units::Members;

    fn member(id: u64, slot: usize, directory: &Path) -> (u64, Member) {
        fs::create_dir_all(directory).unwrap();
        (id, Member { id, slot, directory: directory.to_owned() })
    }

    #[test]
    fn a_unit_is_the_sum_of_its_cgroups_and_follows_them() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let members: SharedMembers = Rc::new(RefCell::new(Members::default()));
        members.borrow_mut().list.extend([member(1, 2, &a), member(2, 2, &b)]);
        fs::write(a.join("cpu.stat"), "usage_usec 10\nuser_usec 1\nthrottled_usec 2\n").unwrap();
        fs::write(b.join("cpu.stat"), "usage_usec 5\n").unwrap();
        fs::write(a.join("memory.current"), "4096\n").unwrap();
        fs::write(a.join("io.stat"), "254:0 rbytes=1 wbytes=2 rios=3\n8:0 rbytes=10 wbytes=20\n")
            .unwrap();
        fs::write(a.join("memory.pressure"), "some total=3\nfull total=1\n").unwrap();

        let (root, losses) = (Root::new(dir.path()), Losses::default());
        let context =
            Context { root: &root, kernel: Err("-"), members: Ok(&members), losses: &losses };
        let mut probe = open(&context).ok().unwrap();
        assert!(probe.degraded().is_some_and(|reason| reason.contains("memory, io, pids")));
        let mut frame = Frame::new(Shape { units: 4, devices: 1, interfaces: 1 });
        probe.read(None, &mut frame).unwrap();
        assert_eq!((frame.get(UNIT_CPU_USAGE, 2), frame.get(UNIT_MEMORY, 2)), (15e3, 4096.0));
        assert_eq!((frame.get(UNIT_IO_READ, 2), frame.get(UNIT_IO_WRITE, 2)), (11.0, 22.0));
        assert_eq!((frame.get(UNIT_MEMORY_SOME, 2), frame.get(UNIT_MEMORY_FULL, 2)), (3e3, 1e3));
        assert!(frame.get(UNIT_TASKS, 2).is_nan());

        // One more cgroup with a past: not a second's worth of it.
        let c = dir.path().join("c");
        members.borrow_mut().list.extend([member(3, 2, &c)]);
        members.borrow_mut().version += 1;
        fs::write(c.join("cpu.stat"), "usage_usec 1000000\n").unwrap();
        fs::write(c.join("memory.current"), "1\n").unwrap();
        for usage in [f64::NAN, 1_000_015e3] {
            frame.begin(frame.at);
            probe.read(None, &mut frame).unwrap();
            let found = frame.get(UNIT_CPU_USAGE, 2);
            assert!(found == usage || found.is_nan() && usage.is_nan(), "{found}");
            assert_eq!(frame.get(UNIT_MEMORY, 2), 4097.0);
        }
        members.borrow_mut().list.remove(&3);

        members.borrow_mut().list.remove(&1);
        members.borrow_mut().version += 1;
        frame.begin(frame.at);
        probe.read(None, &mut frame).unwrap();
        assert_eq!(frame.get(UNIT_CPU_USAGE, 2), 5e3);
    }

    #[test]
    fn memory_counters_are_read_in_rotation_and_at_once_under_pressure() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let members: SharedMembers = Rc::new(RefCell::new(Members::default()));
        members.borrow_mut().list.extend([member(1, 2, &a), member(2, 3, &b)]);
        let write = |faults: u32, stalled: u32| {
            for directory in [&a, &b] {
                let stat = format!("anon 1\npgfault 9\npgmajfault {faults}\n");
                fs::write(directory.join("memory.stat"), stat).unwrap();
                let events =
                    format!("low 0\nhigh 4\nmax {faults}\noom 1\noom_kill 2\noom_group_kill 0\n");
                fs::write(directory.join("memory.events"), events).unwrap();
            }
            fs::write(a.join("memory.pressure"), format!("some total={stalled}\nfull total=0\n"))
                .unwrap();
            let cpu = "usage_usec 10\nnr_periods 7\nnr_throttled 3\nthrottled_usec 2\n";
            fs::write(a.join("cpu.stat"), cpu).unwrap();
            fs::write(a.join("cpu.pressure"), "some total=3\nfull total=1\n").unwrap();
        };
        let (root, losses) = (Root::new(dir.path()), Losses::default());
        let context =
            Context { root: &root, kernel: Err("-"), members: Ok(&members), losses: &losses };
        let mut probe = open(&context).ok().unwrap();
        let mut frame = Frame::new(Shape { units: 4, devices: 1, interfaces: 1 });
        let mut read = || {
            frame.begin(frame.at);
            probe.read(None, &mut frame).unwrap();
            (frame.get(UNIT_MAJOR_FAULTS, 2), frame.get(UNIT_MAJOR_FAULTS, 3))
        };
        write(5, 10);
        assert_eq!(read(), (5.0, 5.0), "at first sight");
        write(6, 20);
        assert_eq!(read(), (6.0, 5.0), "only a is under pressure");
        write(7, 20);
        let seen: Vec<_> = (0..ROTATION).map(|_| read()).collect();
        let told = |value| seen.iter().filter(|(a, b)| *a == value || *b == value).count();
        assert!(told(6.0) > 0 && told(5.0) > 0, "not all in one tick: {seen:?}");
        assert_eq!(seen.last(), Some(&(7.0, 7.0)), "all of them in a round");
        for (signal, value) in [
            (UNIT_MEMORY_HIGH, 4.0),
            (UNIT_MEMORY_MAX, 7.0),
            (UNIT_MEMORY_OOM, 1.0),
            (UNIT_MEMORY_OOM_KILLS, 2.0),
            (UNIT_CPU_PERIODS, 7.0),
            (UNIT_CPU_THROTTLED_PERIODS, 3.0),
            (UNIT_CPU_FULL, 1e3),
        ] {
            assert_eq!(frame.get(signal, 2), value, "{}", signal.signal().name);
        }
    }

    #[test]
    fn the_sentence_names_what_is_missing() {
        assert_eq!(missing_controllers("cpu io memory pids"), None);
        let reason = missing_controllers("cpu io pids").unwrap();
        assert!(reason.contains("memory.current") && !reason.contains("io.stat"), "{reason}");
    }

    #[test]
    fn odd_text_leaves_signals_unread() {
        assert!(flat("usage_usec\n", "usage_usec").is_nan() && flat("", "x").is_nan());
        assert!(flat("usage_usec -5", "usage_usec").is_nan());
        assert_eq!(io_bytes(""), (0.0, 0.0));
        assert!(io_bytes("8:0 rbytes=x wbytes=1").0.is_nan());
    }
}
