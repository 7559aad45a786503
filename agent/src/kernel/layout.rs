//! What the running kernel says about the members, tracepoints and records that the
//! programs use: its BTF for typed tracepoints, tracefs for classic ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use holdfast_agent_ebpf::fields::FIELDS;
use holdfast_agent_ebpf::offsets::MEMBERS;
use holdfast_agent_ebpf::settings::{Settings, state};

use super::btf::{self, Argument, Btf, Prototype};
use super::programs::is_classic;
use super::tracefs::{Field, Holds, Tracefs};
use crate::host::Root;

/// Where the kernel describes its types, from the root.
const TYPES: &str = "sys/kernel/btf/vmlinux";

/// Tracepoints whose arguments are looked at.
const SWITCH: &str = "sched_switch";
const EXIT: &str = "sched_process_exit";
const VICTIM: &str = "mark_victim";
const RETRANSMIT: &str = "tcp_retransmit_skb";

/// Offsets, settings, and what is missing.
#[derive(Debug)]
pub(super) struct Layout {
    /// Offset of each of [`MEMBERS`]; 0 where it is missing.
    pub(super) offsets: [u32; MEMBERS.len()],
    /// Settings that follow from the kernel; sizes are not filled in.
    pub(super) settings: Settings,
    /// Offset of each of [`FIELDS`]; 0 where it is missing.
    pub(super) fields: [u32; FIELDS.len()],
    present: [bool; MEMBERS.len()],
    tracepoints: Vec<(&'static str, Prototype)>,
    /// Why there are no types, where there are none: typed tracepoints need them.
    untyped: Option<String>,
    /// Classic tracepoints: `Err` with the reason where the record is not known.
    records: BTreeMap<&'static str, Result<(), String>>,
}

impl Layout {
    /// Reads what the host below `root` says; `hooks` are the tracepoints that programs
    /// use. Without types, classic tracepoints are left.
    ///
    /// # Errors
    ///
    /// One sentence why there is neither types nor records to be had.
    pub(super) fn read(root: &Root, hooks: &BTreeSet<&'static str>) -> Result<Self, String> {
        let mut layout = Self::typed(&root.path(TYPES), hooks).unwrap_or_else(Self::untyped);
        layout.read_records(&Tracefs::new(root), hooks);
        match &layout.untyped {
            Some(reason) if layout.records.values().all(Result::is_err) => {
                let records = layout.records.into_values().find_map(Result::err);
                Err([Some(reason.clone()), records]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join("; "))
            }
            _ => Ok(layout),
        }
    }

    fn typed(path: &Path, hooks: &BTreeSet<&'static str>) -> Result<Self, String> {
        let data = std::fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "this kernel does not describe its types ({} is missing): it needs CONFIG_DEBUG_INFO_BTF=y",
                path.display()
            ),
            _ => format!("the kernel's type description {} cannot be read: {error}", path.display()),
        })?;
        Self::parse(data, hooks).map_err(|error| {
            format!("the kernel's type description {} cannot be used: {error}", path.display())
        })
    }

    fn untyped(reason: String) -> Self {
        Self {
            offsets: [0; MEMBERS.len()],
            settings: Settings::default(),
            fields: [0; FIELDS.len()],
            present: [false; MEMBERS.len()],
            tracepoints: Vec::new(),
            untyped: Some(reason),
            records: BTreeMap::new(),
        }
    }

    fn parse(data: Vec<u8>, hooks: &BTreeSet<&'static str>) -> Result<Self, btf::Error> {
        let hooks = hooks.iter().filter(|hook| !is_classic(hook));
        let definitions: Vec<String> = hooks.clone().map(|hook| type_of(hook)).collect();
        let structures = MEMBERS.iter().filter_map(|m| m.path.split('.').next());
        let btf = Btf::parse(data, definitions.iter().map(String::as_str).chain(structures))?;

        let mut layout = Self {
            tracepoints: hooks.filter_map(|hook| Some((*hook, btf.tracepoint(hook)?))).collect(),
            untyped: None,
            ..Self::untyped(String::new())
        };
        let slots = layout.offsets.iter_mut().zip(&mut layout.present);
        for (member, (offset, present)) in MEMBERS.iter().zip(slots) {
            if let Some(place) = btf.member(member.path).filter(|p| p.bytes == member.bytes) {
                (*offset, *present) = (place.offset, true);
            }
        }
        layout.settings = layout.choose();
        Ok(layout)
    }

    /// Finds the fields of the classic tracepoints among `hooks`.
    fn read_records(&mut self, tracefs: &Tracefs, hooks: &BTreeSet<&'static str>) {
        for event in hooks.iter().filter(|hook| is_classic(hook)) {
            let fields = tracefs.fields(event);
            if let Ok(fields) = &fields {
                for (slot, wanted) in self.fields.iter_mut().zip(FIELDS) {
                    let is_it = |field: &&Field| {
                        field.name == wanted.name
                            && field.holds == Holds::Value
                            && (wanted.bytes == 0 || field.bytes == wanted.bytes)
                    };
                    if wanted.event == *event {
                        *slot = fields.iter().find(is_it).map_or(0, |field| field.offset);
                    }
                }
            }
            self.records.insert(event, fields.map(drop));
        }
    }

    /// Whether the kernel has the member of `path`, of the expected size.
    #[must_use]
    pub(super) fn has(&self, path: &str) -> bool {
        MEMBERS.iter().zip(self.present).any(|(member, present)| present && member.path == path)
    }

    /// The type id of a tracepoint; `None` when the kernel does not have it.
    #[must_use]
    pub(super) fn tracepoint(&self, hook: &str) -> Option<u32> {
        self.prototype(hook).map(|prototype| prototype.id)
    }

    /// What a program on `hook` that reads `members` would miss: one sentence, or
    /// `None` when nothing.
    #[must_use]
    pub(super) fn lacks(&self, hook: &str, members: &[&str]) -> Option<String> {
        if is_classic(hook) {
            return self.lacks_record(hook, members);
        }
        if let Some(reason) = &self.untyped {
            return Some(reason.clone());
        }
        if self.tracepoint(hook).is_none() {
            return Some(format!("this kernel has no tracepoint {hook}"));
        }
        if let Some(member) = members.iter().find(|path| !self.has(path)) {
            return Some(format!("this kernel's {member} is missing or of another size"));
        }
        if hook == SWITCH && self.previous_state().is_none() {
            return Some("this kernel does not tell the state of the task switched from".into());
        }
        if hook == RETRANSMIT && self.arguments(hook).len() < 2 {
            return Some(format!("this kernel's tracepoint {hook} has unknown arguments"));
        }
        None
    }

    fn lacks_record(&self, event: &str, fields: &[&str]) -> Option<String> {
        match self.records.get(event) {
            Some(Ok(())) => {}
            Some(Err(reason)) => return Some(reason.clone()),
            None => return Some(format!("this kernel has no tracepoint {event}")),
        }
        let has = |path: &str| {
            FIELDS.iter().zip(self.fields).any(|(field, offset)| {
                offset > 0 && path.split_once(':') == Some((field.event, field.name))
            })
        };
        let missing = fields.iter().find(|path| !has(path))?;
        Some(format!("this kernel's record field {missing} is missing or of another size"))
    }

    /// BTF data for a loader that has to look up the tracepoints, and no more.
    #[must_use]
    pub(super) fn tracepoint_types(&self) -> Vec<u8> {
        let types: Vec<_> =
            self.tracepoints.iter().map(|(hook, p)| (p.id, type_of(hook))).collect();
        btf::sparse(&types)
    }

    pub(super) fn prototype(&self, hook: &str) -> Option<&Prototype> {
        self.tracepoints.iter().find(|(name, _)| *name == hook).map(|(_, p)| p)
    }

    fn arguments(&self, hook: &str) -> &[Argument] {
        self.prototype(hook).map_or(&[], |p| &p.arguments)
    }

    fn previous_state(&self) -> Option<u32> {
        if self.arguments(SWITCH).len() >= 4 {
            Some(state::ARGUMENT)
        } else if self.has("task_struct.__state") {
            Some(state::UNDERSCORED)
        } else {
            self.has("task_struct.state").then_some(state::PLAIN)
        }
    }

    /// Tells kernels apart by what they hand over, never by their version.
    fn choose(&self) -> Settings {
        let task = Argument::Pointer("task_struct".to_owned());
        let switch = self.arguments(SWITCH);
        Settings {
            state_before_tasks: u32::from(switch.get(1) != Some(&task) && switch.len() >= 4),
            previous_state: self.previous_state().unwrap_or(state::ARGUMENT),
            disk_in_request: u32::from(!self.has("request_queue.disk")),
            victim_is_task: u32::from(self.arguments(VICTIM).first() == Some(&task)),
            exit_says_dead: u32::from(self.arguments(EXIT).get(1) == Some(&Argument::Bool)),
            retransmit_has_error: u32::from(self.arguments(RETRANSMIT).len() >= 3),
            ..Settings::default()
        }
    }
}

fn type_of(hook: &str) -> String {
    format!("btf_trace_{hook}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(tracepoints: Vec<(&'static str, Vec<Argument>)>, present: &[&str]) -> Layout {
        let tracepoints = tracepoints
            .into_iter()
            .map(|(hook, arguments)| (hook, Prototype { id: 1, arguments }))
            .collect();
        let mut layout = Layout { tracepoints, untyped: None, ..Layout::untyped(String::new()) };
        for (slot, member) in layout.present.iter_mut().zip(MEMBERS) {
            *slot = present.contains(&member.path);
        }
        layout.settings = layout.choose();
        layout
    }

    fn task() -> Argument {
        Argument::Pointer("task_struct".to_owned())
    }

    #[test]
    fn the_three_forms_of_a_switch() {
        let (b, o) = (Argument::Bool, Argument::Other);
        let before_5_18 = vec![(SWITCH, vec![b.clone(), task(), task()])];
        let early = layout(before_5_18.clone(), &["task_struct.state"]).settings;
        assert_eq!((early.state_before_tasks, early.previous_state), (0, state::PLAIN));
        let later = layout(before_5_18.clone(), &["task_struct.__state"]).settings;
        assert_eq!(later.previous_state, state::UNDERSCORED);
        let of_5_18 = layout(vec![(SWITCH, vec![b.clone(), o.clone(), task(), task()])], &[]);
        assert_eq!(of_5_18.settings.state_before_tasks, 1);
        let now = layout(vec![(SWITCH, vec![b, task(), task(), o])], &[]).settings;
        assert_eq!((now.state_before_tasks, now.previous_state), (0, state::ARGUMENT));
        assert!(layout(before_5_18, &[]).lacks(SWITCH, &[]).unwrap().contains("state"));
    }

    #[test]
    fn arguments_by_type() {
        let old = layout(vec![(VICTIM, vec![Argument::Other]), (EXIT, vec![task()])], &[]);
        assert_eq!((old.settings.victim_is_task, old.settings.exit_says_dead), (0, 0));
        let new = vec![(VICTIM, vec![task()]), (EXIT, vec![task(), Argument::Bool])];
        let new = layout(new, &["request_queue.disk"]).settings;
        assert_eq!((new.victim_is_task, new.exit_says_dead, new.disk_in_request), (1, 1, 0));
    }

    #[test]
    fn what_is_missing_is_said() {
        let layout = layout(vec![(EXIT, vec![task()])], &["task_struct.pid"]);
        assert_eq!(layout.lacks(EXIT, &["task_struct.pid"]), None);
        assert!(layout.lacks(EXIT, &["rq.clock"]).unwrap().contains("rq.clock"));
        assert!(layout.lacks("none", &[]).unwrap().contains("no tracepoint none"));
    }
}
