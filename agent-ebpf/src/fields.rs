//! Which fields of classic tracepoints' records the programs read.
//!
//! The agent looks each up in the running kernel's tracefs and hands the offsets in.
//! Records change between kernels more often than structures do, and vendors move
//! all their fields at once.

/// A field of a tracepoint's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Group and name of the tracepoint, joined by a slash.
    pub event: &'static str,
    /// Name of the field.
    pub name: &'static str,
    /// Its size; 0 where any will do. A field of another size is taken for missing.
    pub bytes: u32,
}

macro_rules! fields {
    ($($field:ident = $event:literal, $name:literal, $bytes:literal;)+) => {
        /// Offset in bytes of each field; 0, where no field can be, when the kernel
        /// does not have it.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Fields {
            $(#[doc = concat!("Of `", $event, ":", $name, "`.")] pub $field: u32,)+
        }

        impl Fields {
            /// All offsets 0.
            pub const NONE: Self = Self { $($field: 0,)+ };
        }

        /// The fields, in the order of [`Fields`].
        pub const FIELDS: &[Field] =
            &[$(Field { event: $event, name: $name, bytes: $bytes },)+];
    };
}

fields! {
    issue_device = "block/block_rq_issue", "dev", 4;
    issue_sector = "block/block_rq_issue", "sector", 8;
    complete_device = "block/block_rq_complete", "dev", 4;
    complete_sector = "block/block_rq_complete", "sector", 8;
    complete_sectors = "block/block_rq_complete", "nr_sector", 4;
    complete_error = "block/block_rq_complete", "error", 4;
    complete_kind = "block/block_rq_complete", "rwbs", 0;

    retransmit_error = "tcp/tcp_retransmit_skb", "err", 4;
    state_socket = "sock/inet_sock_set_state", "skaddr", 8;
    state_old = "sock/inet_sock_set_state", "oldstate", 4;
    state_new = "sock/inet_sock_set_state", "newstate", 4;
    state_protocol = "sock/inet_sock_set_state", "protocol", 2;

    victim_pid = "oom/mark_victim", "pid", 4;
    exit_group_dead = "sched/sched_process_exit", "group_dead", 1;
}
