//! The clocks, and the only place that reads them.
//!
//! Every interval and deadline is taken on the boot-time clock, which runs
//! during suspend and never jumps. Wall time is for display only.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A point on the host's boot-time clock (`CLOCK_BOOTTIME`): time since boot,
/// suspend included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// A point `since_boot` after boot.
    #[must_use]
    pub const fn new(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self(clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default())
    }

    /// Time since boot.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to this point; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall time in milliseconds since 1970, for display and history.
#[must_use]
pub fn unix_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME)
        .map(|t| u64::try_from(Duration::from(t).as_millis()).unwrap_or_default())
        .unwrap_or_default()
}

/// `CLOCK_MONOTONIC` in nanoseconds, only to be compared with what the kernel's
/// programs read from the same clock.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|t| u64::try_from(Duration::from(t).as_nanos()).unwrap_or_default())
        .unwrap_or_default()
}

/// CPU time this process has used, user and system.
#[must_use]
pub fn process_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
