//! What came out of a proof: pure data and its wording.

use std::fmt;
use std::ops::RangeInclusive;

/// What came out of proving one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The probe.
    pub probe: &'static str,
    /// What was provoked, in a few words.
    pub provoked: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// Every number that was compared.
    pub checks: Vec<Check>,
    /// How often it was tried: a failed proof is made once more.
    pub attempts: u32,
}

/// How a proof ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The probe saw exactly what was provoked.
    Proven,
    /// Nothing could be provoked here: why.
    Unproven(String),
    /// The probe saw something else: what.
    Failed(String),
}

/// One number that was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The program that counts it.
    pub program: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
    /// What was to be seen.
    pub expected: String,
    /// What was seen.
    pub seen: String,
    /// Whether that agrees.
    pub good: bool,
}

impl Check {
    /// A number that must be met exactly.
    pub(super) fn exactly(
        program: &'static str,
        what: &'static str,
        expected: u64,
        seen: u64,
    ) -> Self {
        let good = expected == seen;
        Self { program, what, expected: expected.to_string(), seen: seen.to_string(), good }
    }

    /// A number that others may add to.
    pub(super) fn at_least(
        program: &'static str,
        what: &'static str,
        expected: u64,
        seen: u64,
    ) -> Self {
        let (good, expected) = (seen >= expected, format!("{expected} or more"));
        Self { program, what, expected, seen: seen.to_string(), good }
    }

    /// A number that may be so large and no larger.
    pub(super) fn at_most(
        program: &'static str,
        what: &'static str,
        expected: u64,
        seen: u64,
    ) -> Self {
        let (good, expected) = (seen <= expected, format!("{expected} or fewer"));
        Self { program, what, expected, seen: seen.to_string(), good }
    }

    /// A time in nanoseconds, of which the kernel or the worker says how long it was.
    pub(super) fn time(
        program: &'static str,
        what: &'static str,
        told: u64,
        range: &RangeInclusive<u64>,
        seen: u64,
    ) -> Self {
        let good = range.contains(&seen);
        Self { program, what, expected: ns(told), seen: ns(seen), good }
    }

    /// A time in nanoseconds that must lie between two others.
    pub(super) fn between(
        program: &'static str,
        what: &'static str,
        range: &RangeInclusive<u64>,
        seen: u64,
    ) -> Self {
        let expected = match *range.end() {
            u64::MAX => format!("{} or more", ns(*range.start())),
            end => format!("{} to {}", ns(*range.start()), ns(end)),
        };
        Self { program, what, expected, seen: ns(seen), good: range.contains(&seen) }
    }

    /// Something told in words.
    pub(super) fn same(
        program: &'static str,
        what: &'static str,
        expected: String,
        seen: String,
    ) -> Self {
        let good = expected == seen;
        Self { program, what, expected, seen, good }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, expected, seen, .. } = self;
        write!(f, "{what}: {expected} expected, {seen} seen")
    }
}

/// The verdict that follows from the checks of programs that run.
pub(super) fn of(checks: &[Check]) -> Verdict {
    let bad: Vec<String> = checks.iter().filter(|c| !c.good).map(ToString::to_string).collect();
    if checks.is_empty() {
        Verdict::Unproven("none of its programs runs".to_owned())
    } else if bad.is_empty() {
        Verdict::Proven
    } else {
        Verdict::Failed(bad.join("; "))
    }
}

/// A time for people.
fn ns(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.2} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_check_fails_the_proof_and_says_which() {
        let good = Check::exactly("p", "switches", 400, 400);
        assert_eq!(of(std::slice::from_ref(&good)), Verdict::Proven);
        assert_eq!(good.to_string(), "switches: 400 expected, 400 seen");
        let late = Check::time("p", "wait", 1_230_000, &(1_200_000..=1_300_000), 2_000_000_000);
        let Verdict::Failed(reason) = of(&[good, late]) else { panic!("not failed") };
        assert_eq!(reason, "wait: 1.23 ms expected, 2.00 s seen");
        assert!(matches!(of(&[]), Verdict::Unproven(_)));
    }

    #[test]
    fn bounds_hold() {
        assert!(Check::at_least("p", "x", 3, 3).good && !Check::at_least("p", "x", 3, 2).good);
        assert!(Check::at_most("p", "x", 3, 3).good && !Check::at_most("p", "x", 3, 4).good);
        assert!(!Check::exactly("p", "x", 3, 4).good);
        assert!(!Check::between("p", "x", &(1..=2), 3).good);
        assert!(!Check::same("p", "x", "a".to_owned(), "b".to_owned()).good);
    }
}
