//! What the agent found out about the running kernel besides offsets, and the
//! sizes it chose.

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident;)+) => {
        /// Read-only for the programs, so the verifier knows each value and drops the
        /// branches that this kernel does not need.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: u32,)+
        }

        impl Settings {
            /// All settings 0.
            pub const NONE: Self = Self { $($field: 0,)+ };

            /// The settings as they lie in memory.
            #[must_use]
            pub const fn words(&self) -> [u32; size_of::<Self>() / 4] {
                [$(self.$field,)+]
            }
        }

        /// Names of the settings, in the order of [`Settings`].
        pub const NAMES: &[&str] = &[$(stringify!($field),)+];
    };
}

settings! {
    /// Unit slots, slot 0 included.
    unit_rows;
    /// Device rows, row 0 included.
    device_rows;
    /// Units that the matrix of victims and culprits tells apart, slot 0 included.
    blame_rows;
    /// Device rows of the table that has units, too; devices beyond are in row 0.
    shared_devices;
    /// 1: `sched_switch` has the previous state before both tasks (5.18 only).
    state_before_tasks;
    /// Where the previous task's state is: one of [`state`].
    previous_state;
    /// 1: a request knows its disk itself (before 5.17); 0: through its queue.
    disk_in_request;
    /// 1: a request knows the cgroup it is charged to (`CONFIG_BLK_CGROUP`), and that may
    /// be one of version 2.
    request_has_cgroup;
    /// 1: `mark_victim` gives the task; 0: only its process id.
    victim_is_task;
    /// 1: a task's state is `__state` (from 5.14 on).
    state_underscored;
    /// Where a process' resident memory is: one of [`rss`].
    task_rss;
    /// 1: `sched_process_exit` says whether the whole process is dead.
    exit_says_dead;
    /// 1: `tcp_retransmit_skb` also fires for failures and gives the error.
    retransmit_has_error;
    /// 1: `kfree_skb` gives the reason of the drop.
    drop_has_reason;
    /// One more than the reason of a packet that was used up, not dropped; 0: there is none.
    drop_consumed;
    /// One more than the reason of a packet not yet dropped; 0: there is none.
    drop_not_yet;
    /// 1: `tcp_send_reset` gives the reason of the reset.
    reset_has_reason;
}

/// Values of [`Settings::previous_state`].
pub mod state {
    /// An argument of the tracepoint.
    pub const ARGUMENT: u32 = 0;
    /// `task_struct.__state`.
    pub const UNDERSCORED: u32 = 1;
    /// `task_struct.state` (before 5.14).
    pub const PLAIN: u32 = 2;
}

/// Values of [`Settings::task_rss`].
pub mod rss {
    /// Nowhere we know of.
    pub const NONE: u32 = 0;
    /// `mm_struct.rss_stat`, counters with a part for each CPU (from 6.2 on).
    pub const PER_CPU: u32 = 1;
    /// `mm_struct.rss_stat.count` (before 6.2).
    pub const PLAIN: u32 = 2;
}
