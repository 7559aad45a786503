//! What a program is, and the forms it comes in; the table is [`CHOICES`].

use holdfast_agent_ebpf::settings::Settings;

pub(super) use super::choices::CHOICES;

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To a tracepoint whose type the kernel describes.
    Typed,
    /// To a tracepoint by its name; its arguments have no types.
    Raw,
    /// To a tracepoint through its record, which tracefs describes.
    Classic,
    /// To the entry or the exit of a function of the kernel's, through a trampoline. There
    /// is one such function so far, and [`trial`](super::trial) knows how to call it.
    Function,
    /// To nothing: the agent runs it, once for each thing of a kind.
    Iterator,
}

/// One program of the object.
#[derive(Debug)]
pub(super) struct Program {
    /// What it is reported as.
    pub(super) name: &'static str,
    /// Its function in the object.
    pub(super) function: &'static str,
    /// The tracepoint it hangs on ("group/name" for a classic one), or the function, or
    /// what it is run for.
    pub(super) hook: &'static str,
    /// How it is attached.
    pub(super) kind: Kind,
    /// Groups of what it reads: members of kernel structures ("structure.member"), or
    /// fields of a classic tracepoint's record ("group/name:field").
    pub(super) members: &'static [&'static [&'static str]],
    /// Maps it uses.
    pub(super) maps: &'static [&'static str],
}

/// Programs that together yield something: all of them are loaded, or none.
#[derive(Debug)]
pub(super) struct Form {
    /// How they do it, as shown; its last word may be named in
    /// [`Options::disabled`](super::Options::disabled), after the program and a slash.
    pub(super) variant: &'static str,
    /// Whether it is made for such a kernel.
    pub(super) fits: fn(&Settings) -> bool,
    /// In the order they are attached: who writes a stamp before who reads it.
    pub(super) programs: &'static [Program],
    /// What is worse in this form than in the first; empty when nothing is.
    pub(super) drawback: &'static str,
}

/// The variant of forms that need no types, and so run at level 1.
pub(super) const CLASSIC: &str = "tracepoint";

impl Form {
    pub(super) const fn plain(programs: &'static [Program]) -> Self {
        Self { variant: "tp_btf", fits: |_| true, programs, drawback: "" }
    }

    pub(super) const fn classic(programs: &'static [Program], drawback: &'static str) -> Self {
        Self { variant: CLASSIC, fits: |_| true, programs, drawback }
    }
}

/// Whether `hook` is a classic tracepoint, whose record tracefs describes.
pub(super) fn is_classic(hook: &str) -> bool {
    hook.contains('/')
}

/// The program that does nothing, for benchmarks.
pub(super) const EMPTY: Program = Program {
    name: "empty",
    function: "empty",
    hook: "sched_switch",
    kind: Kind::Typed,
    members: &[],
    maps: &[],
};

/// Programs that read the kernel member of this path, each with the form that does.
#[must_use]
pub fn readers(path: &str) -> Vec<(&'static str, &'static str)> {
    let forms = CHOICES.iter().flat_map(|forms| forms.iter());
    let programs = forms.flat_map(|form| form.programs.iter().map(|p| (p, form.variant)));
    programs
        .filter(|(program, _)| program.members.iter().any(|group| group.contains(&path)))
        .map(|(program, variant)| (program.name, variant))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_agent_ebpf::fields::FIELDS;
    use holdfast_agent_ebpf::offsets::MEMBERS;

    use super::*;

    #[test]
    fn members_read_are_members_known_and_the_other_way_round() {
        let read: BTreeSet<_> = CHOICES
            .iter()
            .flat_map(|forms| forms.iter())
            .flat_map(|form| form.programs)
            .flat_map(|program| program.members.iter().flat_map(|group| group.iter().copied()))
            // Alternatives for the previous task's state: see `Layout::lacks`.
            .chain(["task_struct.__state", "task_struct.state"])
            .map(str::to_owned)
            // Those that a program does without where the kernel does not have them.
            .chain(
                ["tcp/tcp_retransmit_skb:err", "sched/sched_process_exit:group_dead"]
                    .map(Into::into),
            )
            .collect();
        let members = MEMBERS.iter().map(|member| member.path.to_owned());
        let fields = FIELDS.iter().map(|field| format!("{}:{}", field.event, field.name));
        assert_eq!(read, members.chain(fields).collect::<BTreeSet<_>>());
    }

    #[test]
    fn forms_are_told_apart() {
        for forms in CHOICES {
            let names: BTreeSet<_> = forms.iter().map(|form| form.variant).collect();
            assert_eq!(names.len(), forms.len(), "{names:?}");
            // Probes ask for programs by name, whatever the form.
            let last: BTreeSet<_> =
                forms.iter().filter_map(|form| Some(form.programs.last()?.name)).collect();
            assert_eq!(last.len(), 1, "{last:?}");
        }
    }
}
