//! The signal catalogues of all agents. Agents of one version send the same, so
//! each is kept once and shared.

use std::sync::Arc;

use crate::model::{Catalogue, Signal};

/// Catalogues in use.
#[derive(Debug, Default)]
pub(super) struct Catalogues {
    known: Vec<Catalogue>,
    bytes: usize,
}

impl Catalogues {
    /// The shared form of `catalogue`; `None` when all catalogues together would
    /// take more than `room` bytes.
    pub(super) fn intern(&mut self, catalogue: Vec<Signal>, room: usize) -> Option<Catalogue> {
        let same = |known: &&Catalogue| known.iter().map(|s| &**s).eq(&catalogue);
        if let Some(known) = self.known.iter().find(same) {
            return Some(known.clone());
        }
        // Those of agents that were upgraded since.
        self.known.retain(|known| Arc::strong_count(known) > 1);
        self.bytes = self.known.iter().map(|known| bytes(known.iter().map(|s| &**s))).sum();

        let more = bytes(catalogue.iter());
        if self.bytes + more > room {
            return None;
        }
        self.bytes += more;
        let shared: Catalogue = catalogue.into_iter().map(Arc::new).collect();
        self.known.push(shared.clone());
        Some(shared)
    }

    /// Every signal once, by name and owner.
    pub(super) fn signals(&self) -> Vec<Arc<Signal>> {
        let mut all: Vec<_> = self.known.iter().flat_map(|known| known.iter().cloned()).collect();
        all.sort_by(|a, b| (&a.name, a.owner).cmp(&(&b.name, b.owner)));
        all.dedup_by(|a, b| a.name == b.name && a.owner == b.owner);
        all
    }

    /// Memory of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn bytes<'a>(signals: impl Iterator<Item = &'a Signal>) -> usize {
    let text = |s: &Signal| s.name.len() + s.measure.len() + s.help.len() + s.probe.len();
    signals.map(|signal| size_of::<Signal>() + 64 + text(signal)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Owner};

    fn signals(name: &str) -> Vec<Signal> {
        let text = String::new;
        let (kind, owner) = (Kind::Gauge, Owner::Host);
        vec![Signal {
            name: name.into(),
            kind,
            owner,
            measure: text(),
            help: text(),
            probe: text(),
        }]
    }

    #[test]
    fn the_same_is_shared_and_the_unused_forgotten() {
        let mut catalogues = Catalogues::default();
        let first = catalogues.intern(signals("a"), 1000).unwrap();
        assert!(Arc::ptr_eq(&first, &catalogues.intern(signals("a"), 0).unwrap()));
        assert!(catalogues.intern(signals("b"), 200).is_none());
        assert_eq!(catalogues.signals().len(), 1);
        drop(first);
        let _second = catalogues.intern(signals("b"), 200).unwrap();
        assert_eq!(&*catalogues.signals()[0].name, "b");
    }
}
