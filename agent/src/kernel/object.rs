//! Loading the object: sizes and globals first, then each program by itself,
//! best form first, each with the reason why it is not there.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Map, MapData};
use aya::programs::{Program as Loaded, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader, Endianness};
use holdfast_agent_ebpf::{globals, maps};

use super::layout::Layout;
use super::programs::{CHOICES, EMPTY, Form, Program, is_classic};
use super::size::Size;
use super::{Options, ProgramStatus, State, fdinfo, reason};
use crate::host::Root;

/// The object that is shipped with the sources.
static SHIPPED: &[u8] = aya::include_bytes_aligned!("../../../agent-ebpf/object/holdfast.bpf.o");

/// Names a file to load instead of the shipped object: one that was built just now.
const OBJECT_VARIABLE: &str = "HOLDFAST_EBPF_OBJECT";

/// The loaded object.
#[derive(Debug)]
pub(super) struct Object {
    ebpf: Ebpf,
    types: Btf,
    pub(super) statuses: Vec<ProgramStatus>,
    /// Function of each program that runs, by the name it is reported as.
    pub(super) running: Vec<(&'static str, &'static str)>,
    pub(super) map_bytes: u64,
}

impl Object {
    /// Creates the maps and loads what can be loaded.
    ///
    /// # Errors
    ///
    /// One sentence why nothing at all can be loaded.
    pub(super) fn load(options: &Options, size: Size, root: &Root) -> Result<Self, String> {
        let hooks: BTreeSet<_> = programs().map(|program| program.hook).collect();
        let mut layout = Layout::read(root, &hooks)?;
        layout.settings.unit_rows = size.unit_rows;
        layout.settings.device_rows = size.device_rows;
        let types = Btf::parse(&layout.tracepoint_types(), Endianness::default())
            .map_err(|error| format!("the kernel's tracepoint types cannot be used: {error}"))?;

        let mut object = Self {
            ebpf: create(&layout, size, root)?,
            types,
            statuses: Vec::new(),
            running: Vec::new(),
            map_bytes: 0,
        };
        for forms in CHOICES {
            object.choose(forms, &layout, options, root);
        }
        object.account();
        Ok(object)
    }

    /// Loads and attaches the program that does nothing.
    pub(super) fn attach_empty(&mut self, root: &Root) -> Result<(), String> {
        self.attach(&EMPTY, root)?;
        self.running.push((EMPTY.name, EMPTY.function));
        Ok(())
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
    fn choose(&mut self, forms: &[Form], layout: &Layout, options: &Options, root: &Root) {
        let mut refusals: Vec<String> = Vec::new();
        for form in forms.iter().filter(|form| (form.fits)(&layout.settings)) {
            match self.load_form(form, layout, options, root) {
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
        let best = forms.iter().find(|form| (form.fits)(&layout.settings)).or(forms.first());
        for program in best.map_or(&[][..], |form| form.programs) {
            let variant = best.map_or("", |form| form.variant);
            self.statuses.push(status(program, variant, State::Off, &refusals.join("; ")));
        }
    }

    fn load_form(
        &mut self,
        form: &Form,
        layout: &Layout,
        options: &Options,
        root: &Root,
    ) -> Result<(), String> {
        let short = form.variant.rsplit(' ').next().unwrap_or_default();
        for program in form.programs {
            let name = program.name;
            let is_off = |d: &String| {
                *d == name
                    || *d == format!("{name}/{short}")
                    || form.variant.split(' ').next() == Some(d)
            };
            if options.disabled.iter().any(is_off) {
                return Err(format!("{} is disabled in the configuration", form.variant));
            }
            let members: Vec<_> = program.members.concat();
            if let Some(missing) = layout.lacks(program.hook, &members) {
                return Err(missing);
            }
        }
        for (n, program) in form.programs.iter().enumerate() {
            if let Err(refusal) = self.attach(program, root) {
                // Half a form would count nonsense.
                for started in form.programs.iter().take(n) {
                    let _ = match self.ebpf.program_mut(started.function) {
                        Some(Loaded::BtfTracePoint(p)) => p.unload(),
                        Some(Loaded::TracePoint(p)) => p.unload(),
                        _ => Ok(()),
                    };
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn attach(&mut self, program: &Program, root: &Root) -> Result<(), String> {
        let run = |loaded: &mut Loaded, types| -> Result<(), ProgramError> {
            match (loaded, program.hook.split_once('/')) {
                (Loaded::BtfTracePoint(typed), None) => {
                    typed.load(program.hook, types)?;
                    typed.attach().map(drop)
                }
                (Loaded::TracePoint(classic), Some((group, name))) => {
                    classic.load()?;
                    classic.attach(group, name).map(drop)
                }
                _ => Err(ProgramError::UnexpectedProgramType),
            }
        };
        let Some(loaded) = self.ebpf.program_mut(program.function) else {
            return Err(format!("the eBPF object has no program {}", program.function));
        };
        run(loaded, &self.types).map_err(|error| match reason::perf_forbidden(&error, root) {
            Some(reason) if is_classic(program.hook) => reason,
            _ => reason::explain(&error, root),
        })
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

fn programs() -> impl Iterator<Item = &'static Program> {
    CHOICES.iter().flat_map(|forms| forms.iter()).flat_map(|form| form.programs)
}

fn status(program: &Program, variant: &'static str, state: State, reason: &str) -> ProgramStatus {
    ProgramStatus { name: program.name, variant, state, reason: reason.to_owned(), map_bytes: 0 }
}

fn create(layout: &Layout, size: Size, root: &Root) -> Result<Ebpf, String> {
    let object: Cow<'_, [u8]> = match std::env::var_os(OBJECT_VARIABLE) {
        Some(path) => std::fs::read(&path)
            .map_err(|error| {
                format!("{OBJECT_VARIABLE} names {}: {error}", path.to_string_lossy())
            })?
            .into(),
        None => SHIPPED.into(),
    };
    let per_unit = size.unit_rows;
    EbpfLoader::new()
        // The object has nothing to relocate: members come through the globals.
        .btf(None)
        .allow_unsupported_maps()
        .override_global(globals::OFFSETS, layout.offsets.as_slice(), true)
        .override_global(globals::FIELDS, layout.fields.as_slice(), true)
        .override_global(globals::SETTINGS, layout.settings.words().as_slice(), true)
        .map_max_entries(maps::CPUS, size.cpus)
        .map_max_entries(maps::SCHED, size.cpus * per_unit)
        .map_max_entries(maps::BLOCK, size.cpus * size.device_rows)
        .map_max_entries(maps::TCP, per_unit)
        .map_max_entries(maps::RECLAIM, per_unit)
        .map_max_entries(maps::PROCESS, per_unit)
        .load(&object)
        .map_err(|error| reason::explain(&error, root))
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
