//! What the agent found out about the running kernel besides offsets, and the
//! sizes it chose.

/// Read-only for the programs, so the verifier knows each value and drops the
/// branches that this kernel does not need.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// Unit slots, slot 0 included.
    pub unit_rows: u32,
    /// Device rows, row 0 included.
    pub device_rows: u32,
    /// 1: `sched_switch` has the previous state before both tasks (5.18 only).
    pub state_before_tasks: u32,
    /// Where the previous task's state is: one of [`state`].
    pub previous_state: u32,
    /// 1: a request knows its disk itself (before 5.17); 0: through its queue.
    pub disk_in_request: u32,
    /// 1: `mark_victim` gives the task; 0: only its process id.
    pub victim_is_task: u32,
    /// 1: `sched_process_exit` says whether the whole process is dead.
    pub exit_says_dead: u32,
    /// 1: `tcp_retransmit_skb` also fires for failures and gives the error.
    pub retransmit_has_error: u32,
}

impl Settings {
    /// The settings as they lie in memory.
    #[must_use]
    pub const fn words(&self) -> [u32; 8] {
        [
            self.unit_rows,
            self.device_rows,
            self.state_before_tasks,
            self.previous_state,
            self.disk_in_request,
            self.victim_is_task,
            self.exit_says_dead,
            self.retransmit_has_error,
        ]
    }
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
