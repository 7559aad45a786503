//! Which events were taken before. An agent sends again what was not
//! acknowledged, so the same event may arrive twice, over restarts of both sides.

use std::collections::{BTreeMap, VecDeque};

use crate::{model::Name, store::Progress};

/// How many incarnations of a host are remembered.
const INCARNATIONS: usize = 4;

/// Which events were taken before: per host the newest sequence of its last few
/// incarnations. Bounded by the number of hosts the fleet allows.
#[derive(Debug, Default)]
pub(super) struct Seen {
    by_host: BTreeMap<Name, VecDeque<(u64, u64)>>,
}

/// Changes to [`Seen`] that count only once they are durable.
pub(super) struct Pending<'a> {
    seen: &'a Seen,
    changed: BTreeMap<Name, VecDeque<(u64, u64)>>,
}

impl Seen {
    pub(super) fn new(progress: Vec<(Name, Progress)>) -> Self {
        let rows = progress.into_iter().map(|(host, pairs)| (host, pairs.into()));
        Self { by_host: rows.collect() }
    }

    pub(super) fn begin(&self) -> Pending<'_> {
        Pending { seen: self, changed: BTreeMap::new() }
    }

    pub(super) fn commit(&mut self, changed: BTreeMap<Name, VecDeque<(u64, u64)>>) {
        self.by_host.extend(changed);
    }
}

impl Pending<'_> {
    /// Whether the event is new; notes it if so.
    pub(super) fn take(&mut self, host: &Name, incarnation: u64, sequence: u64) -> bool {
        let known = self.changed.get(host).or_else(|| self.seen.by_host.get(host));
        let known_sequence = known
            .and_then(|pairs| pairs.iter().find(|(i, _)| *i == incarnation))
            .map(|(_, sequence)| *sequence);
        if known_sequence.is_some_and(|known| sequence <= known) {
            return false;
        }
        let mut pairs = known.cloned().unwrap_or_default();
        pairs.retain(|(i, _)| *i != incarnation);
        pairs.push_front((incarnation, sequence));
        pairs.truncate(INCARNATIONS);
        self.changed.insert(host.clone(), pairs);
        true
    }

    pub(super) fn changed(&self) -> Vec<(Name, Progress)> {
        let rows = self.changed.iter();
        rows.map(|(host, pairs)| (host.clone(), pairs.iter().copied().collect())).collect()
    }

    pub(super) fn finish(self) -> BTreeMap<Name, VecDeque<(u64, u64)>> {
        self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_events_are_seen_and_nothing_counts_before_it_is_durable() {
        let mut seen = Seen::new(vec![("a".into(), vec![(1, 5)])]);
        let host = Name::from("a");
        let mut pending = seen.begin();
        let takes = [(1, 5), (1, 6), (1, 6), (2, 1), (1, 7), (2, 1)];
        let taken = takes.map(|(incarnation, n)| pending.take(&host, incarnation, n));
        assert_eq!(taken, [false, true, false, true, true, false]);
        drop(pending);
        assert!(seen.begin().take(&host, 1, 6));

        let mut pending = seen.begin();
        for incarnation in 2..9 {
            pending.take(&host, incarnation, 1);
        }
        let changed = pending.finish();
        seen.commit(changed);
        assert_eq!(seen.by_host[&host].len(), INCARNATIONS);
    }
}
