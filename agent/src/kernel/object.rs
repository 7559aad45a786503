//! Loading the object: sizes and globals first, then each program by itself,
//! best form first, each with the reason why it is not there.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{HashMap, Map, MapData};
use aya::programs::fentry::FEntryLinkId;
use aya::programs::fexit::FExitLinkId;
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::trace_point::TracePointLinkId;
use aya::programs::{Program as Loaded, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader, Endianness, Pod};
use holdfast_agent_ebpf::offsets::MEMBERS;
use holdfast_agent_ebpf::reasons::DROP_ROWS;
use holdfast_agent_ebpf::settings::NAMES as SETTING_NAMES;
use holdfast_agent_ebpf::{globals, maps};

use super::layout::Layout;
use super::names::Names;
use super::pass::Pass;
use super::programs::{CHOICES, EMPTY, Form, Kind, Program};
use super::size::Size;
use super::{Mutation, Options, ProgramStatus, State, fdinfo, reason, trial};
use crate::host::Root;

/// The object that is shipped with the sources.
static SHIPPED: &[u8] = aya::include_bytes_aligned!("../../../agent-ebpf/object/holdfast.bpf.o");

/// Names a file to load instead of the shipped object: one that was built just now.
const OBJECT_VARIABLE: &str = "HOLDFAST_EBPF_OBJECT";

/// What detaches a program.
#[derive(Debug)]
enum Link {
    Typed(BtfTracePointLinkId),
    Raw(RawTracePointLinkId),
    Classic(TracePointLinkId),
    Entry(FEntryLinkId),
    Exit(FExitLinkId),
    /// Nothing calls it but our own passes.
    Pass,
}

/// What programs are loaded with.
struct Ground<'a> {
    layout: &'a Layout,
    options: &'a Options,
    /// The kernel's types of its tracepoints.
    types: &'a Btf,
    root: &'a Root,
}

/// The loaded object.
#[derive(Debug)]
pub(super) struct Object {
    ebpf: Ebpf,
    pub(super) statuses: Vec<ProgramStatus>,
    /// Function of each program that runs, by the name it is reported as.
    pub(super) running: Vec<(&'static str, &'static str)>,
    /// Programs that are loaded but detached for now, with the reason each had while
    /// it ran.
    parked: Vec<(&'static Program, String)>,
    /// What detaches a program, by its function.
    links: Vec<(&'static str, Link)>,
    pub(super) map_bytes: u64,
    /// What the kernel calls its reasons.
    pub(super) names: Names,
    /// `None` when its program is off.
    pub(super) task_pass: Option<Pass>,
}

impl Object {
    /// Creates the maps and loads what can be loaded.
    ///
    /// # Errors
    ///
    /// One sentence why nothing at all can be loaded.
    pub(super) fn load(options: &Options, size: Size, root: &Root) -> Result<Self, String> {
        let hooked = |program: &&Program| matches!(program.kind, Kind::Typed | Kind::Classic);
        let hooks: BTreeSet<_> = programs().filter(hooked).map(|program| program.hook).collect();
        let mut layout = Layout::read(root, &hooks)?;
        layout.settings.unit_rows = size.unit_rows;
        layout.settings.device_rows = size.device_rows;
        layout.settings.blame_rows = size.blame_rows;
        if io_is_charged_elsewhere(root) {
            layout.settings.request_has_cgroup = 0;
        }
        layout.settings.shared_devices = size.shared_devices;
        // Some megabytes, needed for nothing but loading.
        let types = Btf::parse(&layout.tracepoint_types(), Endianness::default())
            .map_err(|error| format!("the kernel's tracepoint types cannot be used: {error}"))?;

        let mut object = Self {
            ebpf: create(&layout, options, size, root)?,
            statuses: Vec::new(),
            running: Vec::new(),
            parked: Vec::new(),
            links: Vec::new(),
            map_bytes: 0,
            names: std::mem::take(&mut layout.names),
            task_pass: None,
        };
        let ground = Ground { layout: &layout, options, types: &types, root };
        for forms in CHOICES {
            object.choose(forms, &ground);
        }
        if let Err(refusal) = object.load_program(&EMPTY, &ground) {
            tracing::debug!(refusal, "the kernel's accounting will count as our own cost");
        }
        object.account();
        Ok(object)
    }

    /// Attaches the program that does nothing.
    pub(super) fn attach_empty(&mut self, root: &Root) -> Result<(), String> {
        self.attach_loaded(&EMPTY).map_err(|error| reason::explain_attach(&error, &EMPTY, root))?;
        self.running.push((EMPTY.name, EMPTY.function));
        Ok(())
    }

    /// Takes the program that does nothing away again.
    pub(super) fn detach_empty(&mut self) {
        self.running.retain(|(name, _)| *name != EMPTY.name);
        self.detach(EMPTY.function);
    }

    /// Detaches those of the programs `names` that run, and says so in their statuses.
    /// They stay loaded.
    pub(super) fn park(&mut self, names: &[&str], reason: &str) {
        let running = std::mem::take(&mut self.running);
        let (parked, running): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|(name, _)| names.contains(name));
        self.running = running;
        for (name, function) in parked {
            self.detach(function);
            let Some(program) = programs().find(|p| p.name == name && p.function == function)
            else {
                continue;
            };
            let was = self.statuses.iter_mut().find(|status| status.name == name);
            let was = was.map(|status| {
                status.state = State::Off;
                std::mem::replace(&mut status.reason, reason.to_owned())
            });
            self.parked.push((program, was.unwrap_or_default()));
        }
    }

    /// The parked ones of the programs `names`.
    pub(super) fn parked(&self, names: &[&str]) -> impl Iterator<Item = &'static Program> {
        let of = |name: &str| names.contains(&name);
        self.parked.iter().filter(move |(p, _)| of(p.name)).map(|(program, _)| *program)
    }

    /// Attaches the parked ones of the programs `names` again, in the order they were
    /// attached first.
    ///
    /// # Errors
    ///
    /// One sentence why the kernel refuses one. Then they all stay parked.
    pub(super) fn unpark(&mut self, names: &[&str], root: &Root) -> Result<(), String> {
        let waiting: Vec<_> = self.parked(names).collect();
        for (n, program) in waiting.iter().enumerate() {
            if let Err(error) = self.attach_loaded(program) {
                waiting.iter().take(n).for_each(|started| self.detach(started.function));
                return Err(reason::explain(&error, root));
            }
        }
        let parked = std::mem::take(&mut self.parked);
        let (back, parked): (Vec<_>, Vec<_>) =
            parked.into_iter().partition(|(program, _)| names.contains(&program.name));
        self.parked = parked;
        for (program, was) in back {
            self.running.push((program.name, program.function));
            if let Some(status) = self.statuses.iter_mut().find(|s| s.name == program.name) {
                (status.state, status.reason) = (State::Active, was);
            }
        }
        Ok(())
    }

    /// Removes the entries of hash `name` whose keys are `gone`.
    pub(super) fn forget<K: Pod, V: Pod>(&mut self, name: &str, gone: impl Fn(K) -> bool) {
        let map = self.ebpf.map_mut(name).map(HashMap::<_, K, V>::try_from);
        let Some(Ok(mut entries)) = map else { return };
        let keys: Vec<K> = entries.keys().filter_map(Result::ok).filter(|key| gone(*key)).collect();
        for key in keys {
            // One that has gone meanwhile is forgotten just as well.
            let _ = entries.remove(&key);
        }
    }

    /// The descriptor of map `name`.
    pub(super) fn map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        data(self.ebpf.map(name)?).map(|map| map.fd().as_fd())
    }

    /// Hands map `name` over to somebody who owns it from now on.
    pub(super) fn take_map(&mut self, name: &str) -> Option<Map> {
        self.ebpf.take_map(name)
    }

    /// The loaded program with this function.
    pub(super) fn program(&self, function: &str) -> Option<&Loaded> {
        self.ebpf.program(function)
    }

    /// Takes the first form that works, or says why each does not.
    fn choose(&mut self, forms: &[Form], ground: &Ground<'_>) {
        let runs = |name| self.running.iter().any(|(running, _)| *running == name);
        if forms.iter().flat_map(|form| form.programs).all(|program| runs(program.name)) {
            // A form of something else has brought it along.
            return;
        }
        let mut refusals: Vec<String> = Vec::new();
        let settings = &ground.layout.settings;
        for form in forms.iter().filter(|form| (form.fits)(settings)) {
            match self.load_form(form, ground) {
                Ok(()) => {
                    let mut reasons = refusals;
                    if !form.drawback.is_empty() {
                        reasons.push(form.drawback.to_owned());
                    }
                    let reason = reasons.join("; ");
                    for program in form.programs {
                        self.running.push((program.name, program.function));
                        self.statuses.push(status(program, form.variant, State::Active, &reason));
                    }
                    return;
                }
                // Forms often share what they lack.
                Err(refusal) if refusals.contains(&refusal) => {}
                Err(refusal) => refusals.push(refusal),
            }
        }
        let best = forms.iter().find(|form| (form.fits)(settings)).or(forms.first());
        for program in best.map_or(&[][..], |form| form.programs) {
            let variant = best.map_or("", |form| form.variant);
            self.statuses.push(status(program, variant, State::Off, &refusals.join("; ")));
        }
    }

    fn load_form(&mut self, form: &Form, ground: &Ground<'_>) -> Result<(), String> {
        let short = form.variant.rsplit(' ').next().unwrap_or_default();
        for program in form.programs {
            let name = program.name;
            let is_off = |d: &String| {
                *d == name
                    || *d == format!("{name}/{short}")
                    || form.variant.split(' ').next() == Some(d)
            };
            if ground.options.disabled.iter().any(is_off) {
                return Err(format!("{} is disabled in the configuration", form.variant));
            }
            if let Some(missing) = ground.layout.program_lacks(program) {
                return Err(missing);
            }
        }
        for (n, program) in form.programs.iter().enumerate() {
            let attached = self.attach(program, ground);
            let seen = attached.and_then(|()| match program.kind {
                Kind::Function if n == 0 => trial::sync(&mut self.ebpf),
                _ => Ok(()),
            });
            if let Err(refusal) = seen {
                // Half a form would count nonsense.
                for started in form.programs.iter().take(n + 1) {
                    let _ = match self.ebpf.program_mut(started.function) {
                        Some(Loaded::BtfTracePoint(program)) => program.unload(),
                        Some(Loaded::RawTracePoint(program)) => program.unload(),
                        Some(Loaded::TracePoint(program)) => program.unload(),
                        Some(Loaded::FEntry(program)) => program.unload(),
                        Some(Loaded::FExit(program)) => program.unload(),
                        _ => Ok(()),
                    };
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn attach(&mut self, program: &Program, ground: &Ground<'_>) -> Result<(), String> {
        self.load_program(program, ground)?;
        self.attach_loaded(program)
            .map_err(|error| reason::explain_attach(&error, program, ground.root))
    }

    fn load_program(&mut self, program: &Program, ground: &Ground<'_>) -> Result<(), String> {
        let loaded = self
            .ebpf
            .program_mut(program.function)
            .ok_or_else(|| format!("the eBPF object has no program {}", program.function))?;
        match loaded {
            Loaded::BtfTracePoint(loaded) => loaded.load(program.hook, ground.types),
            Loaded::RawTracePoint(loaded) => loaded.load(),
            Loaded::TracePoint(loaded) => loaded.load(),
            Loaded::FEntry(loaded) => loaded.load(program.hook, ground.types),
            Loaded::FExit(loaded) => loaded.load(program.hook, ground.types),
            Loaded::Iter(loaded) => loaded.load(program.hook, ground.types),
            _ => Err(ProgramError::UnexpectedProgramType),
        }
        .map_err(|error| reason::explain_attach(&error, program, ground.root))
    }

    /// Attaches a program that is loaded.
    fn attach_loaded(&mut self, program: &Program) -> Result<(), ProgramError> {
        let loaded = self.ebpf.program_mut(program.function).ok_or(ProgramError::NotLoaded)?;
        let link = match loaded {
            Loaded::BtfTracePoint(loaded) => Link::Typed(loaded.attach()?),
            Loaded::RawTracePoint(loaded) => Link::Raw(loaded.attach(program.hook)?),
            Loaded::TracePoint(loaded) => {
                let (group, name) =
                    program.hook.split_once('/').ok_or(ProgramError::UnexpectedProgramType)?;
                Link::Classic(loaded.attach(group, name)?)
            }
            Loaded::FEntry(loaded) => Link::Entry(loaded.attach()?),
            Loaded::FExit(loaded) => Link::Exit(loaded.attach()?),
            Loaded::Iter(loaded) => {
                self.task_pass = Some(Pass::attach(loaded.fd()?.as_fd())?);
                Link::Pass
            }
            _ => return Err(ProgramError::UnexpectedProgramType),
        };
        self.links.push((program.function, link));
        Ok(())
    }

    fn detach(&mut self, function: &str) {
        let Some(place) = self.links.iter().position(|(of, _)| *of == function) else { return };
        let (_, link) = self.links.swap_remove(place);
        // It fails only for a link that is gone.
        let _ = match (self.ebpf.program_mut(function), link) {
            (Some(Loaded::BtfTracePoint(program)), Link::Typed(link)) => program.detach(link),
            (Some(Loaded::RawTracePoint(program)), Link::Raw(link)) => program.detach(link),
            (Some(Loaded::TracePoint(program)), Link::Classic(link)) => program.detach(link),
            (Some(Loaded::FEntry(program)), Link::Entry(link)) => program.detach(link),
            (Some(Loaded::FExit(program)), Link::Exit(link)) => program.detach(link),
            (_, Link::Pass) => {
                self.task_pass = None;
                Ok(())
            }
            _ => Ok(()),
        };
    }

    /// Asks the kernel what each map really takes, and charges it to the first
    /// program that uses it.
    fn account(&mut self) {
        let mut bytes: BTreeMap<&str, u64> = self
            .ebpf
            .maps()
            .filter_map(|(name, map)| {
                let memory = fdinfo::number(data(map)?.fd().as_fd(), "memlock")?;
                Some((name, memory))
            })
            .collect();
        self.map_bytes = bytes.values().sum();
        for status in self.statuses.iter_mut().filter(|s| s.state == State::Active) {
            let uses = programs().find(|p| {
                p.name == status.name
                    && self.running.iter().any(|(_, function)| *function == p.function)
            });
            status.map_bytes =
                uses.map_or(&[][..], |p| p.maps).iter().filter_map(|map| bytes.remove(map)).sum();
        }
    }
}

/// Whether block I/O is charged to cgroups of version 1, which are not the units'.
fn io_is_charged_elsewhere(root: &Root) -> bool {
    let controllers = std::fs::read_to_string(root.path("proc/cgroups")).unwrap_or_default();
    let hierarchy = controllers.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|name| *name == "blkio").and(words.next())
    });
    hierarchy.is_some_and(|hierarchy| hierarchy != "0")
}

fn programs() -> impl Iterator<Item = &'static Program> {
    CHOICES.iter().flat_map(|forms| forms.iter()).flat_map(|form| form.programs)
}

fn status(program: &Program, variant: &'static str, state: State, reason: &str) -> ProgramStatus {
    ProgramStatus { name: program.name, variant, state, reason: reason.to_owned(), map_bytes: 0 }
}

fn create(layout: &Layout, options: &Options, size: Size, root: &Root) -> Result<Ebpf, String> {
    let object: Cow<'_, [u8]> = match std::env::var_os(OBJECT_VARIABLE) {
        Some(path) => std::fs::read(&path)
            .map_err(|error| {
                format!("{OBJECT_VARIABLE} names {}: {error}", path.to_string_lossy())
            })?
            .into(),
        None => SHIPPED.into(),
    };
    let per_unit = size.unit_rows;
    let (offsets, settings) = lied(layout, &options.mutate);
    EbpfLoader::new()
        // The object has nothing to relocate: members come through the globals.
        .btf(None)
        .allow_unsupported_maps()
        .override_global(globals::OFFSETS, offsets.as_slice(), true)
        .override_global(globals::FIELDS, layout.fields.as_slice(), true)
        .override_global(globals::SETTINGS, settings.as_slice(), true)
        .map_max_entries(maps::CPUS, size.cpus)
        .map_max_entries(maps::IRQS, size.cpus)
        .map_max_entries(maps::PREEMPT, size.blame_cells())
        .map_max_entries(maps::SCHED, size.cpus * per_unit)
        .map_max_entries(maps::BLOCK, size.cpus * size.device_rows)
        .map_max_entries(maps::UNIT_DISK, per_unit)
        .map_max_entries(maps::UNIT_BLOCK, size.shared_devices * per_unit)
        .map_max_entries(maps::TCP, per_unit)
        .map_max_entries(maps::DROPS, size.cpus * DROP_ROWS)
        .map_max_entries(maps::RECLAIM, per_unit)
        .map_max_entries(maps::COMPACTION, per_unit)
        .map_max_entries(maps::SYNC, per_unit)
        .map_max_entries(maps::TASK_SUMS, per_unit)
        .map_max_entries(maps::PROCESS, per_unit)
        .load(&object)
        .map_err(|error| reason::explain(&error, root))
}

/// What the programs are told: the truth, but for the lies of a test.
fn lied(layout: &Layout, lies: &[Mutation]) -> ([u32; MEMBERS.len()], [u32; SETTING_NAMES.len()]) {
    let (mut offsets, mut settings) = (layout.offsets, layout.settings.words());
    for lie in lies {
        match *lie {
            Mutation::Offset(path, by) => {
                for (offset, _) in
                    offsets.iter_mut().zip(MEMBERS).filter(|(_, member)| member.path == path)
                {
                    *offset = offset.wrapping_add_signed(by);
                }
            }
            Mutation::Setting(name, value) => {
                for (setting, _) in
                    settings.iter_mut().zip(SETTING_NAMES).filter(|(_, known)| **known == name)
                {
                    *setting = value;
                }
            }
        }
    }
    (offsets, settings)
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::Unsupported(data) => Some(data),
        _ => None,
    }
}
