//! Counters of everything the agent itself had to drop, shared by all its stages.
//!
//! What the eBPF programs dropped is counted in the kernel; the sampler brings its
//! newest counts here once a tick.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

macro_rules! causes {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal;)+) => {
        /// Why something was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Cause { $($(#[$doc])+ $variant,)+ }

        impl Cause {
            /// All causes.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its stable name on the wire and in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

causes! {
    /// Seconds without a sample: the agent was late, stopped or suspended.
    Ticks = "sampler.ticks";
    /// Units that found no slot and count as "other".
    Units = "units.slots";
    /// cgroup directories beyond the limit of the watcher.
    Directories = "units.directories";
    /// cgroup ids the kernel's table could not take.
    Assignments = "units.assignments";
    /// Devices that found no row, or that the kernel's table could not take.
    Devices = "devices.rows";
    /// cgroups whose files are not read because there are too many.
    CgroupFiles = "cgroup.files";
    /// Sockets beyond those that are looked at in one poll, and polls cut short.
    Sockets = "sockets.unread";
    /// Messages about sockets that were not as they should be.
    SocketMessages = "sockets.malformed";
    /// Records of the kernel's log that were overwritten before they were read (one
    /// for each gap), too long, or more than can be taken in at once.
    KernelLog = "kmsg.records";
    /// Evidence of conditions ignored because too many conditions stood.
    Conditions = "conditions.full";
    /// Units under pressure that are not looked at in detail because there are too many.
    Detail = "units.detail";
    /// Signals and windows of units, devices and interfaces beyond those that are scored.
    Scored = "scorer.subjects";
    /// What the healer was not told because it did not keep up.
    HealerFacts = "healer.facts";
    /// Events above the rate limit of their kind.
    EventRate = "events.rate";
    /// Events that the collector did not take before newer ones needed the room.
    Events = "uplink.events";
    /// Summary windows that grew too old, or too many, before they could be sent.
    Summaries = "uplink.summaries";
    /// Series beyond what one stream may define.
    Series = "uplink.series";
    /// Requests refused because the sampler was busy, or the caller not allowed.
    Requests = "local.requests";
}

/// The counters; clones share them.
#[derive(Debug, Clone)]
pub struct Losses {
    own: Arc<[AtomicU64]>,
    in_kernel: Arc<Mutex<Vec<(&'static str, u64)>>>,
}

impl Default for Losses {
    fn default() -> Self {
        let own = Cause::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self { own, in_kernel: Arc::default() }
    }
}

impl Losses {
    /// Counts `n` things lost for `cause`.
    pub fn add(&self, cause: Cause, n: u64) {
        if let Some(counter) = self.own.get(cause as usize) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Takes over what the eBPF programs counted, in all since they were loaded.
    pub fn set_in_kernel(&self, counts: Vec<(&'static str, u64)>) {
        *self.in_kernel.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// Every cause with its count, zeros included.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let own = Cause::ALL.iter().zip(&*self.own);
        let own = own.map(|(cause, n)| (cause.name(), n.load(Ordering::Relaxed)));
        let in_kernel = self.in_kernel.lock().unwrap_or_else(PoisonError::into_inner);
        own.chain(in_kernel.iter().copied()).collect()
    }

    /// Everything lost, of whatever cause.
    #[must_use]
    pub fn total(&self) -> u64 {
        let in_kernel = self.in_kernel.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.own.iter().map(|n| n.load(Ordering::Relaxed));
        own.chain(in_kernel.iter().map(|(_, n)| *n)).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shared_and_named() {
        let losses = Losses::default();
        losses.clone().add(Cause::Events, 2);
        losses.add(Cause::Requests, 1);
        assert_eq!(losses.total(), 3);
        losses.set_in_kernel(vec![("ebpf.ring_full", 4)]);
        assert_eq!(losses.total(), 7);
        let counts = losses.counts();
        assert!(counts.contains(&("uplink.events", 2)) && counts.contains(&("ebpf.ring_full", 4)));
        assert_eq!(counts.len(), Cause::ALL.len() + 1);
    }
}
