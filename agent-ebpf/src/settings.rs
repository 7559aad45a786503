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
    /// 1: `sched_switch` has the previous state before both tasks (5.18 only).
    state_before_tasks;
    /// Where the previous task's state is: one of [`state`].
    previous_state;
    /// 1: a request knows its disk itself (before 5.17); 0: through its queue.
    disk_in_request;
    /// 1: `mark_victim` gives the task; 0: only its process id.
    victim_is_task;
    /// 1: `sched_process_exit` says whether the whole process is dead.
    exit_says_dead;
    /// 1: `tcp_retransmit_skb` also fires for failures and gives the error.
    retransmit_has_error;
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
