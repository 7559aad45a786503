//! Which kernel members the programs read, by path.
//!
//! The agent looks each path up in the running kernel's BTF and hands the
//! offsets in; a program whose members are not all there is not loaded. The
//! members read at each context switch come first, to share a cache line.

/// A member of a kernel structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Structure and members, joined by dots; anonymous members are left out, and the
    /// element of an array is its number.
    pub path: &'static str,
    /// Its size. A member of another size is taken for missing.
    pub bytes: u32,
}

macro_rules! offsets {
    ($($field:ident = $path:literal, $bytes:literal;)+) => {
        /// Offset in bytes of each member; 0 when the kernel does not have it.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Offsets {
            $(#[doc = concat!("Of `", $path, "`.")] pub $field: u32,)+
        }

        impl Offsets {
            /// All offsets 0.
            pub const NONE: Self = Self { $($field: 0,)+ };
        }

        /// The members, in the order of [`Offsets`].
        pub const MEMBERS: &[Member] = &[$(Member { path: $path, bytes: $bytes },)+];
    };
}

offsets! {
    task_pid = "task_struct.pid", 4;
    task_cfs_rq = "task_struct.se.cfs_rq", 8;
    task_last_queued = "task_struct.sched_info.last_queued", 8;
    task_last_arrival = "task_struct.sched_info.last_arrival", 8;
    task_cgroups = "task_struct.cgroups", 8;
    css_set_cgroup = "css_set.dfl_cgrp", 8;
    cgroup_node = "cgroup.kn", 8;
    node_id = "kernfs_node.id", 8;
    cfs_rq_rq = "cfs_rq.rq", 8;
    rq_clock = "rq.clock", 8;
    task_underscored_state = "task_struct.__state", 4;
    task_plain_state = "task_struct.state", 8;

    task_tgid = "task_struct.tgid", 4;
    task_comm = "task_struct.comm", 16;
    task_leader = "task_struct.group_leader", 8;
    task_exit_code = "task_struct.exit_code", 4;
    task_signal = "task_struct.signal", 8;
    signal_live = "signal_struct.live.counter", 4;
    signal_flags = "signal_struct.flags", 4;
    signal_exit_code = "signal_struct.group_exit_code", 4;
    task_flags = "task_struct.flags", 4;
    task_major_faults = "task_struct.maj_flt", 8;
    signal_major_faults = "signal_struct.maj_flt", 8;
    task_memory = "task_struct.mm", 8;
    rss_file = "mm_struct.rss_stat.0.count", 8;
    rss_anonymous = "mm_struct.rss_stat.1.count", 8;
    rss_shared = "mm_struct.rss_stat.3.count", 8;
    rss_plain_file = "mm_struct.rss_stat.count.0.counter", 8;
    rss_plain_anonymous = "mm_struct.rss_stat.count.1.counter", 8;
    rss_plain_shared = "mm_struct.rss_stat.count.3.counter", 8;

    request_flags = "request.cmd_flags", 4;
    request_bytes = "request.__data_len", 4;
    request_start = "request.start_time_ns", 8;
    request_queue = "request.q", 8;
    request_disk = "request.rq_disk", 8;
    queue_disk = "request_queue.disk", 8;
    disk_major = "gendisk.major", 4;
    disk_minor = "gendisk.first_minor", 4;
    request_bio = "request.bio", 8;
    bio_group = "bio.bi_blkg", 8;
    group_controller = "blkcg_gq.blkcg", 8;
    controller_cgroup = "blkcg.css.cgroup", 8;
    cgroup_root = "cgroup.root", 8;
    root_hierarchy = "cgroup_root.hierarchy_id", 4;

    sock_protocol = "sock.sk_protocol", 2;
    sock_error = "sock.sk_err", 4;
    sock_state = "sock.__sk_common.skc_state", 1;
    sock_cgroup = "sock.sk_cgrp_data.cgroup", 8;
    skb_control = "sk_buff.cb", 48;
    control_segments = "tcp_skb_cb.tcp_gso_segs", 2;
}
