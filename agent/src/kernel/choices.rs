//! Every program, the forms it comes in by preference, and what each form needs of the
//! kernel.

use holdfast_agent_ebpf::maps;
use holdfast_agent_ebpf::settings::{Settings, rss};

use super::programs::{Form, Kind, Program};

const CGROUP: &[&str] = &["task_struct.cgroups", "css_set.dfl_cgrp", "cgroup.kn", "kernfs_node.id"];
const RUN_QUEUE: &[&str] =
    &["task_struct.se.cfs_rq", "cfs_rq.rq", "rq.clock", "task_struct.sched_info.last_queued"];
const ARRIVAL: &[&str] = &["task_struct.sched_info.last_arrival"];
const NAME: &[&str] = &["task_struct.tgid", "task_struct.comm"];
const REQUEST: &[&str] = &[
    "request.cmd_flags",
    "request.__data_len",
    "request.start_time_ns",
    "gendisk.major",
    "gendisk.first_minor",
];
const REQUEST_CGROUP: &[&str] = &[
    "request.bio",
    "bio.bi_blkg",
    "blkcg_gq.blkcg",
    "blkcg.css.cgroup",
    "cgroup.root",
    "cgroup_root.hierarchy_id",
    "cgroup.kn",
    "kernfs_node.id",
];
const STATUS: &[&str] = &[
    "task_struct.signal",
    "task_struct.group_leader",
    "task_struct.exit_code",
    "signal_struct.live.counter",
    "signal_struct.flags",
    "signal_struct.group_exit_code",
];
const FAULTS: &[&str] = &["task_struct.maj_flt", "signal_struct.maj_flt"];
const TASK: &[&str] =
    &["task_struct.pid", "task_struct.tgid", "task_struct.signal", "signal_struct.live.counter"];
const SOCKET: &[&str] = &["sock.sk_cgrp_data.cgroup", "cgroup.kn", "kernfs_node.id"];

const EXT4_ONLY: &str = "so syncs are seen on ext4 only";

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

const SWITCH_MAPS: &[&str] = &[maps::SCHED, maps::CPUS, maps::UNITS, maps::PREEMPT];
const BLOCK_MAPS: &[&str] = &[maps::BLOCK, maps::DEVICES, maps::UNIT_DISK, maps::UNIT_BLOCK];
const ISSUE_MAPS: &[&str] = &[maps::REQUESTS, maps::UNITS];
const SOCKET_MAPS: &[&str] = &[maps::TCP, maps::UNITS];
const PROCESS_MAPS: &[&str] = &[maps::PROCESS, maps::UNITS, maps::EVENTS];

const SYNC_MAPS: &[&str] = &[maps::SYNC, maps::SYNCING, maps::UNITS];
const FORK_MAPS: &[&str] = &[maps::PROCESS, maps::UNITS];

/// A program that is attached by the tracepoint's name.
const fn raw(
    hook: &'static str,
    name: &'static str,
    function: &'static str,
    maps: &'static [&'static str],
) -> Program {
    Program { name, function, hook, kind: Kind::Raw, members: &[], maps }
}

/// A program at the entry or the exit of a function.
const fn at(
    hook: &'static str,
    name: &'static str,
    function: &'static str,
    maps: &'static [&'static str],
) -> Program {
    Program { name, function, hook, kind: Kind::Function, members: &[], maps }
}

/// The pass over all tasks, in one of its forms.
const fn pass(
    variant: &'static str,
    fits: fn(&Settings) -> bool,
    programs: &'static [Program],
) -> Form {
    Form { variant, fits, programs, drawback: "" }
}

/// The program of a pass that reads `members` besides what it always reads.
const fn task_iterator(members: &'static [&'static [&'static str]]) -> Program {
    Program {
        name: "task_iterator",
        function: "count_task",
        hook: "task",
        kind: Kind::Iterator,
        members,
        maps: &[maps::TASK_SUMS, maps::UNITS],
    }
}

/// A program whose function and report have the same name.
const fn on(
    hook: &'static str,
    name: &'static str,
    members: &'static [&'static [&'static str]],
    maps: &'static [&'static str],
) -> Program {
    Program { name, function: name, hook, kind: Kind::Typed, members, maps }
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
                &[&["task_struct.pid"], RUN_QUEUE, ARRIVAL, CGROUP],
                SWITCH_MAPS,
            )],
            drawback: "",
        },
        Form {
            variant: "tp_btf task_storage",
            fits: |_| true,
            programs: &[
                on("sched_wakeup", "sched_wakeup", &[], &[maps::TASKS, maps::CPUS]),
                on("sched_wakeup_new", "sched_wakeup_new", &[], &[maps::TASKS, maps::CPUS]),
                Program {
                    name: "sched_switch",
                    function: "sched_switch_storage",
                    hook: "sched_switch",
                    kind: Kind::Typed,
                    members: &[&["task_struct.pid"], CGROUP],
                    maps: SWITCH_MAPS,
                },
            ],
            drawback: "it keeps its own stamps, which costs several times as much, and tells no time off the CPU",
        },
    ],
    &[Form::plain(&[
        on("softirq_entry", "softirq_entry", &[], &[maps::IRQS]),
        on("softirq_exit", "softirq_exit", &[], &[maps::IRQS]),
    ])],
    &[Form::plain(&[
        on("irq_handler_entry", "irq_handler_entry", &[], &[maps::IRQS]),
        on("irq_handler_exit", "irq_handler_exit", &[], &[maps::IRQS]),
    ])],
    &[
        Form {
            variant: "tp_btf",
            fits: |kernel| kernel.disk_in_request == 0,
            programs: &[on(
                "block_rq_complete",
                "block_rq_complete",
                &[REQUEST, &["request.q", "request_queue.disk"]],
                BLOCK_MAPS,
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
                BLOCK_MAPS,
            )],
            drawback: "",
        },
        Form::classic(
            &[
                Program {
                    name: "block_rq_issue",
                    function: "classic_rq_issue",
                    hook: "block/block_rq_issue",
                    kind: Kind::Classic,
                    members: &[&["block/block_rq_issue:dev", "block/block_rq_issue:sector"]],
                    maps: &[maps::ISSUED],
                },
                Program {
                    name: "block_rq_complete",
                    function: "classic_rq_complete",
                    hook: "block/block_rq_complete",
                    kind: Kind::Classic,
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
                    kind: Kind::Classic,
                    members: &[],
                    maps: &[maps::RECLAIMING],
                },
                Program {
                    name: "reclaim_end",
                    function: "classic_reclaim_end",
                    hook: "vmscan/mm_vmscan_direct_reclaim_end",
                    kind: Kind::Classic,
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
                    kind: Kind::Classic,
                    members: &[],
                    maps: &[maps::RECLAIMING],
                },
                Program {
                    name: "cgroup_reclaim_end",
                    function: "classic_cgroup_reclaim_end",
                    hook: "vmscan/mm_vmscan_memcg_reclaim_end",
                    kind: Kind::Classic,
                    members: &[],
                    maps: &[maps::RECLAIM, maps::UNITS],
                },
            ],
            "",
        ),
    ],
    &[
        Form {
            variant: "tp_btf request",
            fits: |kernel| kernel.request_has_cgroup == 1,
            programs: &[on(
                "block_rq_issue",
                "block_rq_issue",
                &[&["request.start_time_ns"], REQUEST_CGROUP],
                ISSUE_MAPS,
            )],
            drawback: "",
        },
        Form {
            variant: "tp_btf current",
            fits: |kernel| kernel.request_has_cgroup == 0,
            programs: &[
                on("block_rq_insert", "block_rq_insert", &[&["request.start_time_ns"]], ISSUE_MAPS),
                on("block_rq_issue", "block_rq_issue", &[&["request.start_time_ns"]], ISSUE_MAPS),
            ],
            drawback: "requests are not charged to cgroups of version 2 here (it takes CONFIG_BLK_CGROUP and the io controller there), so what is written back later is charged to no unit",
        },
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
            programs: &[on(
                "mark_victim",
                "oom_mark_victim",
                &[],
                &[maps::PROCESS, maps::UNITS, maps::EVENTS, maps::VICTIMS],
            )],
            drawback: "this kernel's hook gives the victim's process id only, so kills are counted once the process has ended, by sched_process_exit",
        },
        Form::classic(
            &[Program {
                name: "oom_mark_victim",
                function: "classic_mark_victim",
                hook: "oom/mark_victim",
                kind: Kind::Classic,
                members: &[&["oom/mark_victim:pid"]],
                maps: PROCESS_MAPS,
            }],
            "without types, only the victim's process id is known, so kills are counted for the host, not for units",
        ),
    ],
    &[Form::plain(&[
        on(
            "mm_compaction_begin",
            "compaction_begin",
            &[&["task_struct.flags"]],
            &[maps::RECLAIMING],
        ),
        on(
            "mm_compaction_end",
            "compaction_end",
            &[&["task_struct.flags"]],
            &[maps::COMPACTION, maps::UNITS],
        ),
    ])],
    &[
        Form {
            variant: "fentry",
            fits: |_| true,
            programs: &[
                at("vfs_fsync_range", "sync_enter", "sync_enter_any", &[maps::SYNCING]),
                at("vfs_fsync_range", "sync_exit", "sync_exit_any", SYNC_MAPS),
            ],
            drawback: "",
        },
        Form {
            variant: "tp_btf",
            fits: |_| true,
            programs: &[
                on("ext4_sync_file_enter", "sync_enter", &[], &[maps::SYNCING]),
                on("ext4_sync_file_exit", "sync_exit", &[], SYNC_MAPS),
            ],
            drawback: EXT4_ONLY,
        },
        Form {
            variant: "raw_tp",
            fits: |_| true,
            programs: &[
                raw("ext4_sync_file_enter", "sync_enter", "sync_enter_raw", &[maps::SYNCING]),
                raw("ext4_sync_file_exit", "sync_exit", "sync_exit_raw", SYNC_MAPS),
            ],
            drawback: EXT4_ONLY,
        },
    ],
    &[
        pass(
            "iter task rss_per_cpu",
            |kernel| kernel.task_rss == rss::PER_CPU,
            &[task_iterator(&[
                TASK,
                FAULTS,
                CGROUP,
                &[
                    "task_struct.mm",
                    "mm_struct.rss_stat.0.count",
                    "mm_struct.rss_stat.1.count",
                    "mm_struct.rss_stat.3.count",
                ],
            ])],
        ),
        pass(
            "iter task rss_plain",
            |kernel| kernel.task_rss == rss::PLAIN,
            &[task_iterator(&[
                TASK,
                FAULTS,
                CGROUP,
                &[
                    "task_struct.mm",
                    "mm_struct.rss_stat.count.0.counter",
                    "mm_struct.rss_stat.count.1.counter",
                    "mm_struct.rss_stat.count.3.counter",
                ],
            ])],
        ),
        Form {
            drawback: "this kernel does not tell where processes' resident memory is counted, so it reads 0",
            ..pass(
                "iter task no_rss",
                |kernel| kernel.task_rss == rss::NONE,
                &[task_iterator(&[TASK, FAULTS, CGROUP, &["task_struct.mm"]])],
            )
        },
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
                kind: Kind::Classic,
                members: &[],
                maps: SOCKET_MAPS,
            }],
            "without types, retransmits are counted for the host only, and several segments sent again at once as one",
        ),
    ],
    &[
        Form {
            variant: "tp_btf reason",
            fits: |kernel| kernel.reset_has_reason == 1,
            programs: &[on(
                "tcp_send_reset",
                "tcp_send_reset",
                &[SOCKET, &["sock.__sk_common.skc_state"]],
                &[maps::TCP, maps::UNITS, maps::TCP_REASONS],
            )],
            drawback: "",
        },
        Form {
            variant: "tp_btf",
            fits: |kernel| kernel.reset_has_reason == 0,
            programs: &[on(
                "tcp_send_reset",
                "tcp_send_reset",
                &[SOCKET, &["sock.__sk_common.skc_state"]],
                SOCKET_MAPS,
            )],
            drawback: "this kernel gives no reason for the resets it sends",
        },
        Form::classic(
            &[Program {
                name: "tcp_send_reset",
                function: "classic_send_reset",
                hook: "tcp/tcp_send_reset",
                kind: Kind::Classic,
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
                kind: Kind::Classic,
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
            &[maps::TCP, maps::UNITS, maps::CONNECTS, maps::TCP_REASONS],
        )]),
        Form::classic(
            &[Program {
                name: "inet_sock_set_state",
                function: "classic_set_state",
                hook: "sock/inet_sock_set_state",
                kind: Kind::Classic,
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
            &[STATUS, NAME, FAULTS, &["task_struct.pid"], CGROUP],
            PROCESS_MAPS,
        )]),
        Form::classic(
            &[Program {
                name: "sched_process_exit",
                function: "classic_process_exit",
                hook: "sched/sched_process_exit",
                kind: Kind::Classic,
                members: &[],
                maps: PROCESS_MAPS,
            }],
            "without types, ends of processes are counted, but not by what they ended",
        ),
    ],
    &[Form::plain(&[on("sock_exceed_buf_limit", "sock_exceed_buf_limit", &[SOCKET], SOCKET_MAPS)])],
    &[Form::plain(&[on("sock_rcvqueue_full", "sock_rcvqueue_full", &[SOCKET], SOCKET_MAPS)])],
    &[Form::plain(&[on(
        "udp_fail_queue_rcv_skb",
        "udp_fail_queue_rcv_skb",
        &[SOCKET],
        SOCKET_MAPS,
    )])],
    &[
        Form {
            variant: "tp_btf reason",
            fits: |kernel| kernel.drop_has_reason == 1,
            programs: &[on("kfree_skb", "kfree_skb", &[], &[maps::DROPS])],
            drawback: "",
        },
        Form {
            variant: "tp_btf",
            fits: |kernel| kernel.drop_has_reason == 0,
            programs: &[on("kfree_skb", "kfree_skb", &[], &[maps::DROPS])],
            drawback: "this kernel gives no reason for the packets it drops, so they are counted for the host only",
        },
    ],
    &[Form::plain(&[on("sched_process_exec", "sched_process_exec", &[CGROUP], FORK_MAPS)])],
    &[Form::plain(&[on(
        "sched_process_fork",
        "sched_process_fork",
        &[&["task_struct.pid", "task_struct.tgid"], CGROUP],
        FORK_MAPS,
    )])],
    &[Form::plain(&[on(
        "sched_process_hang",
        "sched_process_hang",
        &[NAME, CGROUP],
        PROCESS_MAPS,
    )])],
];
