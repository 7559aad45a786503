//! How long something took, for a caller who is not alone on its CPU.

use std::path::Path;
use std::time::Duration;

use holdfast_core::clock::BootTime;

use super::sched::Account;

/// What a thread knows of the time something took, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    /// All of it.
    pub(super) most: u64,
    /// Without the time the thread ran, or waited for a CPU.
    pub(super) least: u64,
    /// Without the time the thread waited for a CPU.
    pub(super) own: u64,
}

impl Spent {
    /// Adds up what `act` takes.
    pub(super) fn on<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let of_me = || Account::of(Path::new("/proc/thread-self"));
        let (before, start) = (of_me(), BootTime::now());
        let done = act();
        let (all, after) = (ns(BootTime::now().since(start)), of_me());
        let gained = |of: fn(&Account) -> u64| match (&before, &after) {
            (Some(before), Some(after)) => of(after).saturating_sub(of(before)),
            _ => 0,
        };
        let (ran, waited) = (gained(|a| a.ran_ns), gained(|a| a.waited_ns));
        self.most = self.most.saturating_add(all);
        self.own = self.own.saturating_add(all.saturating_sub(waited));
        self.least = self.least.saturating_add(all.saturating_sub(waited + ran));
        done
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_spent_but_not_run() {
        let mut spent = Spent::default();
        spent.on(|| super::super::sys::pause(Duration::from_millis(5)));
        assert!(spent.most >= 5_000_000 && spent.least <= spent.own && spent.own <= spent.most);
    }
}
