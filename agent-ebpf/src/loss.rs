//! Everything the programs may have to drop, each with its own counter.

macro_rules! losses {
    ($($(#[doc = $doc:literal])+ $id:ident = $name:literal;)+) => {
        /// Why something was not counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Loss { $($(#[doc = $doc])+ $id,)+ }

        /// Names of the causes, in the order of [`Loss`].
        pub const NAMES: &[&str] = &[$($name,)+];
    };
}

losses! {
    /// An interval that ended before it began: clocks of two CPUs apart.
    NegativeInterval = "ebpf.interval_negative";
    /// A task switched to without a stamp of when it became runnable.
    SwitchUnstamped = "ebpf.switch_unstamped";
    /// Task storage that could not be had: no memory, or busy.
    TaskStorage = "ebpf.task_storage_refused";
    /// A request without the time it was made: the device's `iostats` is off.
    RequestUnstamped = "ebpf.request_unstamped";
    /// A request whose stamp of issue had to make room for that of another: its unit
    /// and its queue and service times are not known.
    RequestOverwritten = "ebpf.request_stamp_overwritten";
    /// More tasks in direct reclaim or compaction at once than the map holds.
    ReclaimMapFull = "ebpf.reclaim_map_full";
    /// The end of a reclaim or compaction whose begin was not seen.
    ReclaimUnmatched = "ebpf.reclaim_unmatched";
    /// More tasks in a sync of a file at once than the map holds.
    SyncMapFull = "ebpf.sync_map_full";
    /// The end of a sync whose begin was not seen.
    SyncUnmatched = "ebpf.sync_unmatched";
    /// More processes chosen to be killed at once than the map holds: their units are
    /// not known.
    VictimMapFull = "ebpf.victim_map_full";
    /// Socket storage that could not be had: no memory, or busy.
    SocketStorage = "ebpf.socket_storage_refused";
    /// The end of a connect whose begin was not seen.
    ConnectUnmatched = "ebpf.connect_unmatched";
    /// More events of one kind and unit in a second than are let through.
    EventRate = "ebpf.event_rate_limited";
    /// An event for which the ring buffer had no room.
    EventRing = "ebpf.event_ring_full";
    /// A row or CPU beyond its map. Never happens unless the agent sized a map wrongly.
    OutOfRange = "ebpf.row_out_of_range";
}
