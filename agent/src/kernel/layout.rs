//! What the running kernel says about the members, tracepoints and records that the
//! programs use: its BTF for typed tracepoints, tracefs for classic ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use holdfast_agent_ebpf::fields::FIELDS;
use holdfast_agent_ebpf::offsets::MEMBERS;
use holdfast_agent_ebpf::settings::{Settings, rss, state};

use super::btf::{self, Argument, Btf, Prototype};
use super::names::Names;
use super::programs::{Kind, Program, is_classic};
use super::tracefs::{Field, Holds, Tracefs};
use crate::host::Root;

/// Where the kernel describes its types, from the root.
const TYPES: &str = "sys/kernel/btf/vmlinux";

/// Tracepoints whose arguments are looked at.
const SWITCH: &str = "sched_switch";
const EXIT: &str = "sched_process_exit";
const VICTIM: &str = "mark_victim";
const RETRANSMIT: &str = "tcp_retransmit_skb";
const DROP: &str = "kfree_skb";
const RESET: &str = "tcp_send_reset";
const INSERT: &str = "block_rq_insert";
const ISSUE: &str = "block_rq_issue";
const COMPLETE: &str = "block_rq_complete";
/// What a program can be run for by the agent.
const ITERATORS: [&str; 1] = ["task"];
/// Functions of the kernel's at whose entry and exit programs hang.
pub(super) const FUNCTIONS: [&str; 1] = ["vfs_fsync_range"];

/// Offsets, settings, and what is missing.
#[derive(Debug)]
pub(super) struct Layout {
    /// Offset of each of [`MEMBERS`]; 0 where it is missing.
    pub(super) offsets: [u32; MEMBERS.len()],
    /// Settings that follow from the kernel; sizes are not filled in.
    pub(super) settings: Settings,
    /// Offset of each of [`FIELDS`]; 0 where it is missing.
    pub(super) fields: [u32; FIELDS.len()],
    /// What the kernel calls its reasons.
    pub(super) names: Names,
    present: [bool; MEMBERS.len()],
    tracepoints: Vec<(&'static str, Prototype)>,
    /// Ids of the functions that stand for iterators.
    iterators: Vec<(&'static str, u32)>,
    /// Ids of the functions that can be hung on.
    functions: Vec<(&'static str, u32)>,
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
            names: Names::default(),
            present: [false; MEMBERS.len()],
            tracepoints: Vec::new(),
            iterators: Vec::new(),
            functions: Vec::new(),
            untyped: Some(reason),
            records: BTreeMap::new(),
        }
    }

    fn parse(data: Vec<u8>, hooks: &BTreeSet<&'static str>) -> Result<Self, btf::Error> {
        let hooks = hooks.iter().filter(|hook| !is_classic(hook));
        let definitions: Vec<String> = hooks.clone().map(|hook| type_of(hook)).collect();
        let structures = MEMBERS.iter().filter_map(|m| m.path.split('.').next());
        let iterators = ITERATORS.map(function_of);
        let names = definitions.iter().chain(&iterators).map(String::as_str);
        let names = names.chain(structures).chain(Names::TYPES).chain(FUNCTIONS);
        let btf = Btf::parse(data, names)?;

        let mut layout = Self {
            names: Names::read(&btf),
            tracepoints: hooks.filter_map(|hook| Some((*hook, btf.tracepoint(hook)?))).collect(),
            iterators: ITERATORS
                .iter()
                .filter_map(|name| Some((*name, btf.function(&function_of(name))?)))
                .collect(),
            functions: FUNCTIONS
                .iter()
                .filter_map(|name| Some((*name, btf.function(name)?)))
                .collect(),
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
        layout
            .names
            .keep(layout.settings.drop_has_reason == 1, layout.settings.reset_has_reason == 1);
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

    /// What `program` would miss: one sentence, or `None` when nothing.
    #[must_use]
    pub(super) fn program_lacks(&self, program: &Program) -> Option<String> {
        let hook = program.hook;
        let members = program.members.concat();
        match program.kind {
            Kind::Typed => self.lacks(hook, &members),
            Kind::Classic => self.lacks_record(hook, &members),
            Kind::Raw => self.lacks_member(&members),
            Kind::Iterator if self.iterators.iter().any(|(name, _)| *name == hook) => {
                self.lacks_member(&members).or_else(|| self.lacks_state())
            }
            Kind::Function if self.functions.iter().any(|(name, _)| *name == hook) => {
                self.lacks_member(&members)
            }
            Kind::Function => Some(match &self.untyped {
                Some(reason) => reason.clone(),
                None => format!("this kernel has no function {hook} to hang on"),
            }),
            Kind::Iterator => Some(format!("this kernel has no eBPF iterator over {hook}s")),
        }
    }

    fn lacks_member(&self, members: &[&str]) -> Option<String> {
        let member = members.iter().find(|path| !self.has(path))?;
        Some(format!("this kernel's {member} is missing or of another size"))
    }

    fn lacks_state(&self) -> Option<String> {
        let known = self.has("task_struct.__state") || self.has("task_struct.state");
        (!known).then(|| "this kernel does not tell the state of a task".to_owned())
    }

    /// What a typed program on `hook` that reads `members` would miss: one sentence, or
    /// `None` when nothing.
    #[must_use]
    pub(super) fn lacks(&self, hook: &str, members: &[&str]) -> Option<String> {
        if let Some(reason) = &self.untyped {
            return Some(reason.clone());
        }
        if self.tracepoint(hook).is_none() {
            return Some(format!("this kernel has no tracepoint {hook}"));
        }
        if let Some(missing) = self.lacks_member(members) {
            return Some(missing);
        }
        if hook == SWITCH && self.previous_state().is_none() {
            return Some("this kernel does not tell the state of the task switched from".into());
        }
        if hook == RETRANSMIT && self.arguments(hook).len() < 2 {
            return Some(format!("this kernel's tracepoint {hook} has unknown arguments"));
        }
        let request = Argument::Pointer("request".to_owned());
        if [INSERT, ISSUE, COMPLETE].contains(&hook)
            && self.arguments(hook).first() != Some(&request)
        {
            return Some(format!(
                "this kernel's tracepoint {hook} does not begin with the request"
            ));
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

    /// BTF data for a loader that has to look up the tracepoints, iterators and functions,
    /// and no more.
    #[must_use]
    pub(super) fn tracepoint_types(&self) -> Vec<u8> {
        let types: Vec<_> =
            self.tracepoints.iter().map(|(hook, p)| (p.id, type_of(hook))).collect();
        let iterators = self.iterators.iter().map(|(name, id)| (*id, function_of(name)));
        let functions = self.functions.iter().map(|(name, id)| (*id, (*name).to_owned()));
        let functions: Vec<_> = iterators.chain(functions).collect();
        btf::sparse(&types, &functions)
    }

    pub(super) fn prototype(&self, hook: &str) -> Option<&Prototype> {
        self.tracepoints.iter().find(|(name, _)| *name == hook).map(|(_, p)| p)
    }

    fn arguments(&self, hook: &str) -> &[Argument] {
        self.prototype(hook).map_or(&[], |p| &p.arguments)
    }

    /// Whether the third argument of `hook` is a value of the enumeration `reason`.
    fn gives(&self, hook: &str, reason: &str) -> bool {
        matches!(self.arguments(hook).get(2), Some(Argument::Enum(name)) if name == reason)
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
            request_has_cgroup: u32::from(
                ["request.bio", "bio.bi_blkg", "blkcg_gq.blkcg", "blkcg.css.cgroup"]
                    .iter()
                    .chain(&["cgroup.root", "cgroup_root.hierarchy_id"])
                    .all(|path| self.has(path)),
            ),
            victim_is_task: u32::from(self.arguments(VICTIM).first() == Some(&task)),
            state_underscored: u32::from(self.has("task_struct.__state")),
            task_rss: if self.has("mm_struct.rss_stat.0.count") {
                rss::PER_CPU
            } else if self.has("mm_struct.rss_stat.count.0.counter") {
                rss::PLAIN
            } else {
                rss::NONE
            },
            exit_says_dead: u32::from(self.arguments(EXIT).get(1) == Some(&Argument::Bool)),
            retransmit_has_error: u32::from(self.arguments(RETRANSMIT).len() >= 3),
            drop_has_reason: u32::from(self.gives(DROP, Names::DROP)),
            drop_consumed: self.names.after("SKB_CONSUMED"),
            drop_not_yet: self.names.after("SKB_NOT_DROPPED_YET"),
            reset_has_reason: u32::from(self.gives(RESET, Names::RESET)),
            ..Settings::default()
        }
    }
}

fn type_of(hook: &str) -> String {
    format!("btf_trace_{hook}")
}

fn function_of(iterator: &str) -> String {
    format!("bpf_iter_{iterator}")
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
    fn reasons_by_type() {
        let reason = |name: &str| Argument::Enum(name.to_owned());
        let (o, sock) = (Argument::Other, Argument::Pointer("sock".to_owned()));
        let before_5_17 = layout(vec![(DROP, vec![o.clone(), o.clone()])], &[]).settings;
        assert_eq!((before_5_17.drop_has_reason, before_5_17.drop_consumed), (0, 0));
        let now = vec![
            (DROP, vec![o.clone(), o.clone(), reason(Names::DROP), sock.clone()]),
            (RESET, vec![sock.clone(), o.clone(), reason(Names::RESET)]),
        ];
        let now = layout(now, &[]).settings;
        assert_eq!((now.drop_has_reason, now.reset_has_reason), (1, 1));
        let swapped = vec![(DROP, vec![o.clone(), o, sock, reason(Names::DROP)])];
        assert_eq!(layout(swapped, &[]).settings.drop_has_reason, 0);
    }

    #[test]
    fn what_is_missing_is_said() {
        let layout = layout(vec![(EXIT, vec![task()])], &["task_struct.pid"]);
        assert_eq!(layout.lacks(EXIT, &["task_struct.pid"]), None);
        assert!(layout.lacks(EXIT, &["rq.clock"]).unwrap().contains("rq.clock"));
        assert!(layout.lacks("none", &[]).unwrap().contains("no tracepoint none"));
    }
}
