//! Who kept whom waiting, summed up over the last minutes in memory that never grows.
//!
//! Sums are kept in pages: of ten seconds for questions about the last minute, of a
//! minute for those about the last five. On a page, each victim has an account with
//! its largest culprits by name and the rest in one sum.

use std::time::Duration;

use holdfast_core::clock::BootTime;

/// Culprits that an account tells apart; "other" comes on top.
const CULPRITS: usize = 12;
/// Longest question that the short pages answer, and longest of all.
const SHORT: Duration = Duration::from_secs(60);
/// Longest time that can be asked about.
pub const LONGEST: Duration = Duration::from_secs(300);
const SHORT_PAGE: Duration = Duration::from_secs(10);
const LONG_PAGE: Duration = Duration::from_secs(60);

/// What one unit waited for, on one page. Slots and nanoseconds; an entry without
/// nanoseconds is free.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Account {
    other: f32,
    culprit: [u16; CULPRITS],
    ns: [f32; CULPRITS],
}

impl Account {
    fn entries(&self) -> impl Iterator<Item = (usize, f32)> {
        let named = self.culprit.iter().map(|slot| usize::from(*slot)).zip(self.ns);
        named.chain([(0, self.other)]).filter(|(_, ns)| *ns > 0.0)
    }

    /// When there is no room the smallest goes to "other": the entry, or the newcomer.
    fn add(&mut self, culprit: usize, ns: f32) {
        let slot = u16::try_from(culprit).unwrap_or(0);
        if slot == 0 {
            self.other += ns;
            return;
        }
        let known = self.culprit.iter().zip(self.ns).position(|(c, ns)| *c == slot && ns > 0.0);
        let place = known.or_else(|| self.ns.iter().position(|ns| *ns <= 0.0));
        let smallest = || {
            let order = |a: &(usize, &f32), b: &(usize, &f32)| a.1.total_cmp(b.1);
            self.ns.iter().enumerate().min_by(order).map_or(0, |(place, _)| place)
        };
        let place = place.unwrap_or_else(smallest);
        let (Some(name), Some(sum)) = (self.culprit.get_mut(place), self.ns.get_mut(place)) else {
            return;
        };
        if *name == slot || *sum <= 0.0 {
            (*name, *sum) = (slot, sum.max(0.0) + ns);
        } else if *sum < ns {
            self.other += *sum;
            (*name, *sum) = (slot, ns);
        } else {
            self.other += ns;
        }
    }

    /// What `culprit` caused stays, but without its name.
    fn unname(&mut self, culprit: usize) {
        for (name, ns) in self.culprit.iter().zip(&mut self.ns) {
            if usize::from(*name) == culprit && *ns > 0.0 {
                self.other += std::mem::take(ns);
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Page {
    /// Since the clock began; `None` when it was never used.
    number: Option<u64>,
    begun: BootTime,
    accounts: Vec<Account>,
}

#[derive(Debug)]
struct Ring {
    length: Duration,
    pages: Vec<Page>,
    newest: u64,
}

impl Ring {
    /// Pages for questions about `longest`, and one more: the newest is never full.
    fn new(units: usize, length: Duration, longest: Duration, now: BootTime) -> Self {
        let count = longest.as_secs().div_ceil(length.as_secs().max(1)) + 1;
        let page =
            Page { number: None, begun: now, accounts: vec![Account::default(); units.max(1)] };
        Self { length, pages: vec![page; usize::try_from(count).unwrap_or(1)], newest: 0 }
    }

    fn place(&self, number: u64) -> usize {
        usize::try_from(number % self.pages.len().max(1) as u64).unwrap_or(0)
    }

    fn advance(&mut self, last: BootTime, now: BootTime) {
        let number = now.since_boot().as_secs() / self.length.as_secs().max(1);
        self.newest = number;
        let place = self.place(number);
        let Some(page) = self.pages.get_mut(place) else { return };
        if page.number != Some(number) {
            (page.number, page.begun) = (Some(number), last);
            page.accounts.fill(Account::default());
        }
    }

    fn account(&mut self, victim: usize) -> Option<&mut Account> {
        let place = self.place(self.newest);
        self.pages.get_mut(place)?.accounts.get_mut(victim)
    }

    /// The pages that `last` reaches into.
    fn since(&self, last: Duration) -> impl Iterator<Item = &Page> {
        let count = last.as_secs().div_ceil(self.length.as_secs().max(1)) + 1;
        let oldest = (self.newest + 1).saturating_sub(count);
        let wanted = oldest..=self.newest;
        self.pages.iter().filter(move |page| page.number.is_some_and(|n| wanted.contains(&n)))
    }
}

/// What one unit waited for.
#[derive(Debug, Clone, PartialEq)]
pub struct Sum {
    /// The time it is about: at least what was asked for, once that has passed.
    pub covered: Duration,
    /// Slots and nanoseconds, the largest first. Slot 0 is everything without a name.
    pub culprits: Vec<(usize, f64)>,
}

/// The sums of one resource.
#[derive(Debug)]
pub(super) struct Ledger {
    short: Ring,
    long: Ring,
    at: BootTime,
}

impl Ledger {
    /// For `units` slots.
    #[must_use]
    pub(super) fn new(units: usize, now: BootTime) -> Self {
        Self {
            short: Ring::new(units, SHORT_PAGE, SHORT, now),
            long: Ring::new(units, LONG_PAGE, LONGEST, now),
            at: now,
        }
    }

    /// Turns to the pages of `now`. Once a tick, before anything is charged.
    pub(super) fn advance(&mut self, now: BootTime) {
        self.short.advance(self.at, now);
        self.long.advance(self.at, now);
        self.at = now;
    }

    /// Adds nanoseconds that the unit in slot `victim` waited, by slot of the culprit.
    pub(super) fn charge(&mut self, victim: usize, by_culprit: &[f64]) {
        let (largest, rest) = largest(by_culprit);
        for ring in [&mut self.short, &mut self.long] {
            let Some(account) = ring.account(victim) else { continue };
            account.other += rest as f32;
            for (culprit, ns) in largest.iter().take_while(|(_, ns)| *ns > 0.0) {
                account.add(*culprit, *ns as f32);
            }
        }
    }

    /// Slot `unit` is another unit's from now on.
    pub(super) fn forget(&mut self, unit: usize) {
        for page in self.short.pages.iter_mut().chain(&mut self.long.pages) {
            for (victim, account) in page.accounts.iter_mut().enumerate() {
                if victim == unit {
                    *account = Account::default();
                } else {
                    account.unname(unit);
                }
            }
        }
    }

    /// What the unit in slot `victim` waited for in the time `last`, which is cut to
    /// [`LONGEST`].
    #[must_use]
    pub(super) fn sum(&self, victim: usize, last: Duration) -> Sum {
        let ring = if last <= SHORT { &self.short } else { &self.long };
        let mut covered = Duration::ZERO;
        let mut culprits: Vec<(usize, f64)> = Vec::new();
        for page in ring.since(last.min(LONGEST)) {
            covered = covered.max(self.at.since(page.begun));
            for (slot, ns) in page.accounts.get(victim).into_iter().flat_map(Account::entries) {
                match culprits.iter_mut().find(|(known, _)| *known == slot) {
                    Some((_, sum)) => *sum += f64::from(ns),
                    None => culprits.push((slot, f64::from(ns))),
                }
            }
        }
        // By slot where they are equal, so that the same facts give the same answer.
        culprits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        Sum { covered, culprits }
    }
}

/// The largest entries with their places, largest first, and the sum of all others.
fn largest(values: &[f64]) -> ([(usize, f64); CULPRITS], f64) {
    let mut top = [(0, 0.0); CULPRITS];
    let mut rest = 0.0;
    for (slot, &ns) in values.iter().enumerate().filter(|(_, ns)| **ns > 0.0) {
        // Where it belongs; whoever falls off the end is part of the rest.
        let place = top.iter().position(|(_, other)| *other < ns).unwrap_or(CULPRITS);
        rest += if place < CULPRITS { top.last().map_or(0.0, |(_, ns)| *ns) } else { ns };
        // A value too small for any place leaves nothing to move.
        if let Some(tail @ [_, ..]) = top.get_mut(place..) {
            tail.rotate_right(1);
            if let Some(first) = tail.first_mut() {
                *first = (slot, ns);
            }
        }
    }
    (top, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn ledger(from: u64) -> Ledger {
        let mut ledger = Ledger::new(32, at(from));
        ledger.advance(at(from + 1));
        ledger
    }

    fn shares(of: &[(usize, f64)]) -> Vec<f64> {
        let mut shares = vec![0.0; 32];
        of.iter().for_each(|(slot, ns)| shares[*slot] = *ns);
        shares
    }

    #[test]
    fn sums_are_by_victim_and_sorted() {
        let mut ledger = ledger(1000);
        ledger.charge(3, &shares(&[(5, 10.0), (7, 30.0)]));
        ledger.charge(3, &shares(&[(5, 30.0), (3, 1.0)]));
        ledger.charge(4, &shares(&[(9, 99.0)]));
        let sum = ledger.sum(3, MINUTE);
        assert_eq!(sum.culprits, [(5, 40.0), (7, 30.0), (3, 1.0)]);
        assert_eq!(sum.covered, Duration::from_secs(1));
        assert!(
            ledger.sum(5, MINUTE).culprits.is_empty() && ledger.sum(99, MINUTE).culprits.is_empty()
        );
    }

    #[test]
    fn what_is_old_is_gone_from_the_short_question_first() {
        let mut ledger = ledger(1200);
        ledger.charge(3, &shares(&[(5, 10.0)]));
        for second in 1202..=1300 {
            ledger.advance(at(second));
        }
        assert!(ledger.sum(3, MINUTE).culprits.is_empty());
        assert_eq!(ledger.sum(3, LONGEST).culprits, [(5, 10.0)]);
        assert!(ledger.sum(3, Duration::from_secs(10)).covered <= Duration::from_secs(21));
        for second in 1301..=1700 {
            ledger.advance(at(second));
        }
        assert!(ledger.sum(3, LONGEST).culprits.is_empty());
        let covered = ledger.sum(3, LONGEST).covered;
        assert!((LONGEST..=LONGEST + MINUTE).contains(&covered), "{covered:?}");
    }

    #[test]
    fn a_slot_that_changes_hands_forgets_and_is_forgotten() {
        let mut ledger = ledger(0);
        ledger.charge(3, &shares(&[(5, 10.0), (6, 4.0)]));
        ledger.charge(5, &shares(&[(3, 7.0)]));
        ledger.forget(5);
        assert!(ledger.sum(5, MINUTE).culprits.is_empty());
        assert_eq!(ledger.sum(3, MINUTE).culprits, [(0, 10.0), (6, 4.0)], "kept, without a name");
    }

    #[test]
    fn a_crowd_of_culprits_leaves_the_largest_named() {
        let mut ledger = ledger(0);
        for _ in 0..10 {
            let crowd: Vec<_> = (1..31).map(|slot| (slot, 1.0 + slot as f64)).collect();
            ledger.charge(1, &shares(&crowd));
        }
        let sum = ledger.sum(1, MINUTE);
        let named: Vec<_> = sum.culprits.iter().map(|(slot, _)| *slot).filter(|s| *s > 0).collect();
        assert_eq!(named, (19..31).rev().collect::<Vec<_>>());
        let total: f64 = sum.culprits.iter().map(|(_, ns)| ns).sum();
        assert_eq!(total, 10.0 * (1..31).map(|slot| 1.0 + f64::from(slot)).sum::<f64>());
    }

    proptest! {
        #[test]
        fn the_largest_are_the_largest(values in prop::collection::vec(0u32..1000, 0..64)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let (top, rest) = largest(&values);
            let mut sorted = values.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted.resize(64, 0.0);
            let found: Vec<f64> = top.iter().map(|(_, ns)| *ns).collect();
            prop_assert_eq!(&found[..], &sorted[..CULPRITS]);
            prop_assert_eq!(rest, sorted[CULPRITS..].iter().sum::<f64>());
            prop_assert!(top.iter().all(|(slot, ns)| *ns <= 0.0 || values[*slot] == *ns));
        }

        #[test]
        fn nothing_is_lost_or_made_up(
            charges in prop::collection::vec((0usize..32, 0usize..32, 0u32..1 << 20), 0..200),
            forgotten in prop::collection::vec(0usize..32, 0..4),
        ) {
            let mut ledger = ledger(0);
            let mut expected = [0.0; 32];
            for (victim, culprit, ns) in charges {
                ledger.charge(victim, &shares(&[(culprit, f64::from(ns))]));
                expected[victim] += f64::from(ns);
            }
            for unit in forgotten {
                ledger.forget(unit);
                expected[unit] = 0.0;
            }
            for (victim, expected) in expected.into_iter().enumerate() {
                for last in [MINUTE, LONGEST] {
                    let sum: f64 = ledger.sum(victim, last).culprits.iter().map(|(_, ns)| ns).sum();
                    prop_assert!((sum - expected).abs() <= 1e-5 * expected + 1.0, "{sum} of {expected}");
                }
            }
        }
    }
}
