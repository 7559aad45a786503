//! What keeps repairs from making things worse, by name. Tests take each away and see what
//! goes wrong then; outside of tests all of it stands.

use crate::guard::Guard;

/// Something without which a known kind of bug is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safeguard {
    /// One of those that are asked about each action.
    Guard(Guard),
    /// An agent that starts acts on what it is told then, not on what the one before it knew.
    ToldAnew,
    /// What is reserved is asked about once more before it is carried out.
    AskedAgain,
    /// A check that comes to no result fails.
    StallsFail,
    /// How far a ladder was climbed is known after a restart.
    RungsStay,
    /// A journal that is damaged is not read up to the damage.
    DamageStops,
    /// What was under way when the agent ended is not taken for done, nor for not begun.
    UnknownStays,
    /// Nothing is wrong with a unit that is not there.
    GoneIsOver,
}

#[cfg(not(test))]
pub(crate) const fn stands(_: Safeguard) -> bool {
    true
}

#[cfg(test)]
pub(crate) use switch::{stands, without};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Safeguard;

    thread_local! {
        /// Each test has a thread of its own.
        static REMOVED: Cell<Option<Safeguard>> = const { Cell::new(None) };
    }

    pub(crate) fn stands(safeguard: Safeguard) -> bool {
        REMOVED.get() != Some(safeguard)
    }

    /// What comes of `then` without `safeguard`.
    pub(crate) fn without<T>(safeguard: Safeguard, then: impl FnOnce() -> T) -> T {
        REMOVED.set(Some(safeguard));
        let found = then();
        REMOVED.set(None);
        found
    }
}
