//! The facts that hold now: what was told once is told again only when it is otherwise, and
//! all of it to a healer that goes on elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_healer::{Fact, Sign, UnitState};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Unit(Arc<str>),
    Check(Arc<str>, Arc<str>),
    Sign(Arc<str>, Sign),
    Packages,
    Systemd,
    Permit(Arc<str>),
}

impl About {
    /// `None` for what happens, and does not hold.
    fn of(fact: &Fact) -> Option<Self> {
        Some(match fact {
            Fact::Unit { unit, .. } | Fact::Gone { unit } => Self::Unit(Arc::clone(unit)),
            Fact::Check { unit, check, .. } => Self::Check(Arc::clone(unit), Arc::clone(check)),
            Fact::Sign { unit, sign, .. } => Self::Sign(Arc::clone(unit), *sign),
            Fact::Packages { .. } => Self::Packages,
            Fact::Systemd { .. } => Self::Systemd,
            Fact::Permit { unit, .. } => Self::Permit(Arc::clone(unit)),
            Fact::OutOfMemory { .. } | Fact::Finished { .. } | Fact::Order(_) => return None,
        })
    }
}

/// Whether it is what everybody assumes.
const fn is_usual(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Sign { stands: false, .. }
            | Fact::Packages { busy: false }
            | Fact::Systemd { reachable: true }
    )
}

/// What holds.
#[derive(Debug, Default)]
pub(super) struct Known {
    facts: BTreeMap<About, Fact>,
}

impl Known {
    /// Takes in a fact; whether it is news. What everybody assumes is none as long as nothing
    /// else was said.
    pub(super) fn note(&mut self, fact: &Fact) -> bool {
        let Some(about) = About::of(fact) else { return true };
        if is_usual(fact) && !self.facts.contains_key(&about) {
            return false;
        }
        self.facts.insert(about, fact.clone()).as_ref() != Some(fact)
    }

    /// How systemd saw `unit` last.
    pub(super) fn state(&self, unit: &Arc<str>) -> Option<&UnitState> {
        match self.facts.get(&About::Unit(Arc::clone(unit)))? {
            Fact::Unit { state, .. } => Some(state),
            _ => None,
        }
    }

    /// Forgets what is about units, or checks, that are not wanted any more.
    pub(super) fn retain(&mut self, wanted: impl Fn(&str, Option<&str>) -> bool) {
        self.facts.retain(|about, _| match about {
            About::Unit(unit) | About::Sign(unit, _) | About::Permit(unit) => wanted(unit, None),
            About::Check(unit, check) => wanted(unit, Some(check)),
            About::Packages | About::Systemd => true,
        });
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Fact> {
        self.facts.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_no_news() {
        let mut known = Known::default();
        assert!(!known.note(&Fact::Packages { busy: false }), "everybody assumes that");
        let sign = |stands| Fact::Sign { unit: "a.service".into(), sign: Sign::Leaking, stands };
        let news: Vec<bool> =
            [true, true, false, false].map(|stands| known.note(&sign(stands))).into();
        assert_eq!(news, [true, false, true, false]);
        let kill = Fact::OutOfMemory { unit: "a.service".into() };
        assert!(known.note(&kill) && known.note(&kill));
        assert_eq!(known.all().collect::<Vec<_>>(), [&sign(false)]);
        known.retain(|unit, _| unit != "a.service");
        assert_eq!(known.all().count(), 0);
    }
}
