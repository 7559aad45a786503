//! Every program, the forms it comes in by preference, and what each form needs
//! of the kernel.

use holdfast_agent_ebpf::maps;
use holdfast_agent_ebpf::settings::Settings;

/// One program of the object.
#[derive(Debug)]
pub(super) struct Program {
    /// What it is reported as.
    pub(super) name: &'static str,
    /// Its function in the object.
    pub(super) function: &'static str,
    /// The tracepoint it hangs on: its name for a typed one (`tp_btf`), "group/name"
    /// for a classic one.
    pub(super) hook: &'static str,
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
    const fn plain(programs: &'static [Program]) -> Self {
        Self { variant: "tp_btf", fits: |_| true, programs, drawback: "" }
    }

    const fn classic(programs: &'static [Program], drawback: &'static str) -> Self {
        Self { variant: CLASSIC, fits: |_| true, programs, drawback }
    }
}

/// Whether `hook` is a classic tracepoint, whose record tracefs describes.
pub(super) fn is_classic(hook: &str) -> bool {
    hook.contains('/')
}

/// The program that does nothing, for benchmarks.
pub(super) const EMPTY: Program =
    Program { name: "empty", function: "empty", hook: "sched_switch", members: &[], maps: &[] };

const CGROUP: &[&str] = &["task_struct.cgroups", "css_set.dfl_cgrp", "cgroup.kn", "kernfs_node.id"];
const RUN_QUEUE: &[&str] =
    &["task_struct.se.cfs_rq", "cfs_rq.rq", "rq.clock", "task_struct.sched_info.last_queued"];
const NAME: &[&str] = &["task_struct.tgid", "task_struct.comm"];
const REQUEST: &[&str] = &[
    "request.cmd_flags",
    "request.__data_len",
    "request.start_time_ns",
    "gendisk.major",
    "gendisk.first_minor",
];
const STATUS: &[&str] = &[
    "task_struct.signal",
    "task_struct.group_leader",
    "task_struct.exit_code",
    "signal_struct.live.counter",
    "signal_struct.flags",
    "signal_struct.group_exit_code",
];
const SOCKET: &[&str] = &["sock.sk_cgrp_data.cgroup", "cgroup.kn", "kernfs_node.id"];

const COMPLETED: &[&str] = &[
    "block/block_rq_complete:dev",
    "block/block_rq_complete:sector",
    "block/block_rq_complete:nr_sector",
    "block/block_rq_complete:error",
    "block/block_rq_complete:rwbs",
];
const STATE: &[&str] = &[
    "sock/inet_sock_set_state:skaddr",
    "sock/inet_sock_set_state:oldstate",
    "sock/inet_sock_set_state:newstate",
    "sock/inet_sock_set_state:protocol",
];
const RESETS: &str = "without types, resets are counted for the host only";

const SWITCH_MAPS: &[&str] = &[maps::SCHED, maps::CPUS, maps::UNITS];
const SOCKET_MAPS: &[&str] = &[maps::TCP, maps::UNITS];
const PROCESS_MAPS: &[&str] = &[maps::PROCESS, maps::UNITS, maps::EVENTS];

/// A program whose function and report have the same name.
const fn on(
    hook: &'static str,
    name: &'static str,
    members: &'static [&'static [&'static str]],
    maps: &'static [&'static str],
) -> Program {
    Program { name, function: name, hook, members, maps }
}

/// For each thing to be had, its forms by preference.
pub(super) const CHOICES: &[&[Form]] = &[
    &[
        Form {
            variant: "tp_btf sched_info",
            fits: |_| true,
            programs: &[on(
                "sched_switch",
                "sched_switch",
                &[&["task_struct.pid"], RUN_QUEUE, CGROUP],
                SWITCH_MAPS,
            )],
            drawback: "",
        },
        Form {
            variant: "tp_btf task_storage",
            fits: |_| true,
            programs: &[
                on("sched_wakeup", "sched_wakeup", &[], &[maps::TASKS]),
                on("sched_wakeup_new", "sched_wakeup_new", &[], &[maps::TASKS]),
                Program {
                    name: "sched_switch",
                    function: "sched_switch_storage",
                    hook: "sched_switch",
                    members: &[&["task_struct.pid"], CGROUP],
                    maps: SWITCH_MAPS,
                },
            ],
            drawback: "it keeps its own stamps, which costs several times as much",
        },
    ],
    &[
        Form {
            variant: "tp_btf",
            fits: |kernel| kernel.disk_in_request == 0,
            programs: &[on(
                "block_rq_complete",
                "block_rq_complete",
                &[REQUEST, &["request.q", "request_queue.disk"]],
                &[maps::BLOCK, maps::DEVICES],
            )],
            drawback: "",
        },
        Form {
            variant: "tp_btf rq_disk",
            fits: |kernel| kernel.disk_in_request == 1,
            programs: &[on(
                "block_rq_complete",
                "block_rq_complete",
                &[REQUEST, &["request.rq_disk"]],
                &[maps::BLOCK, maps::DEVICES],
            )],
            drawback: "",
        },
        Form::classic(
            &[
                Program {
                    name: "block_rq_issue",
                    function: "classic_rq_issue",
                    hook: "block/block_rq_issue",
                    members: &[&["block/block_rq_issue:dev", "block/block_rq_issue:sector"]],
                    maps: &[maps::ISSUED],
                },
                Program {
                    name: "block_rq_complete",
                    function: "classic_rq_complete",
                    hook: "block/block_rq_complete",
                    members: &[COMPLETED],
                    maps: &[maps::BLOCK, maps::DEVICES, maps::ISSUED],
                },
            ],
            "without types, latency is that of the device alone, without the time in its queue",
        ),
    ],
    &[
        Form::plain(&[
            on("mm_vmscan_direct_reclaim_begin", "reclaim_begin", &[], &[maps::RECLAIMING]),
            on("mm_vmscan_direct_reclaim_end", "reclaim_end", &[], &[maps::RECLAIM, maps::UNITS]),
        ]),
        Form::classic(
            &[
                Program {
                    name: "reclaim_begin",
                    function: "classic_reclaim_begin",
                    hook: "vmscan/mm_vmscan_direct_reclaim_begin",
                    members: &[],
                    maps: &[maps::RECLAIMING],
                },
                Program {
                    name: "reclaim_end",
                    function: "classic_reclaim_end",
                    hook: "vmscan/mm_vmscan_direct_reclaim_end",
                    members: &[],
                    maps: &[maps::RECLAIM, maps::UNITS],
                },
            ],
            "",
        ),
    ],
    &[
        Form::plain(&[
            on("mm_vmscan_memcg_reclaim_begin", "cgroup_reclaim_begin", &[], &[maps::RECLAIMING]),
            on(
                "mm_vmscan_memcg_reclaim_end",
                "cgroup_reclaim_end",
                &[],
                &[maps::RECLAIM, maps::UNITS],
            ),
        ]),
        Form::classic(
            &[
                Program {
                    name: "cgroup_reclaim_begin",
                    function: "classic_cgroup_reclaim_begin",
                    hook: "vmscan/mm_vmscan_memcg_reclaim_begin",
                    members: &[],
                    maps: &[maps::RECLAIMING],
                },
                Program {
                    name: "cgroup_reclaim_end",
                    function: "classic_cgroup_reclaim_end",
                    hook: "vmscan/mm_vmscan_memcg_reclaim_end",
                    members: &[],
                    maps: &[maps::RECLAIM, maps::UNITS],
                },
            ],
            "",
        ),
    ],
    &[
        Form {
            variant: "tp_btf task",
            fits: |kernel| kernel.victim_is_task == 1,
            programs: &[on("mark_victim", "oom_mark_victim", &[CGROUP, NAME], PROCESS_MAPS)],
            drawback: "",
        },
        Form {
            variant: "tp_btf pid",
            fits: |kernel| kernel.victim_is_task == 0,
            programs: &[on("mark_victim", "oom_mark_victim", &[], PROCESS_MAPS)],
            drawback: "this kernel's hook gives the victim's process id only, so kills are counted for the host, not for units",
        },
        Form::classic(
            &[Program {
                name: "oom_mark_victim",
                function: "classic_mark_victim",
                hook: "oom/mark_victim",
                members: &[&["oom/mark_victim:pid"]],
                maps: PROCESS_MAPS,
            }],
            "without types, only the victim's process id is known, so kills are counted for the host, not for units",
        ),
    ],
    &[
        Form::plain(&[on(
            "tcp_retransmit_skb",
            "tcp_retransmit_skb",
            &[SOCKET, &["sk_buff.cb", "tcp_skb_cb.tcp_gso_segs"]],
            SOCKET_MAPS,
        )]),
        Form::classic(
            &[Program {
                name: "tcp_retransmit_skb",
                function: "classic_retransmit",
                hook: "tcp/tcp_retransmit_skb",
                members: &[],
                maps: SOCKET_MAPS,
            }],
            "without types, retransmits are counted for the host only, and several segments sent again at once as one",
        ),
    ],
    &[
        Form::plain(&[on(
            "tcp_send_reset",
            "tcp_send_reset",
            &[SOCKET, &["sock.__sk_common.skc_state"]],
            SOCKET_MAPS,
        )]),
        Form::classic(
            &[Program {
                name: "tcp_send_reset",
                function: "classic_send_reset",
                hook: "tcp/tcp_send_reset",
                members: &[],
                maps: SOCKET_MAPS,
            }],
            RESETS,
        ),
    ],
    &[
        Form::plain(&[on("tcp_receive_reset", "tcp_receive_reset", &[SOCKET], SOCKET_MAPS)]),
        Form::classic(
            &[Program {
                name: "tcp_receive_reset",
                function: "classic_receive_reset",
                hook: "tcp/tcp_receive_reset",
                members: &[],
                maps: SOCKET_MAPS,
            }],
            RESETS,
        ),
    ],
    &[
        Form::plain(&[on(
            "inet_sock_set_state",
            "inet_sock_set_state",
            &[SOCKET, &["sock.sk_protocol", "sock.sk_err"]],
            &[maps::TCP, maps::UNITS, maps::CONNECTS],
        )]),
        Form::classic(
            &[Program {
                name: "inet_sock_set_state",
                function: "classic_set_state",
                hook: "sock/inet_sock_set_state",
                members: &[STATE],
                maps: &[maps::TCP, maps::UNITS, maps::CONNECTING],
            }],
            "without types, it is not known why a connect failed, and one that its caller gave up counts as failed",
        ),
    ],
    &[
        Form::plain(&[on(
            "sched_process_exit",
            "sched_process_exit",
            &[STATUS, NAME, CGROUP],
            PROCESS_MAPS,
        )]),
        Form::classic(
            &[Program {
                name: "sched_process_exit",
                function: "classic_process_exit",
                hook: "sched/sched_process_exit",
                members: &[],
                maps: PROCESS_MAPS,
            }],
            "without types, ends of processes are counted, but not by what they ended",
        ),
    ],
];

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
