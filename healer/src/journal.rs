//! The journal: every fact that mattered, every decision, in the order they came, one line
//! each, with its checksum. It is what a healer goes on from after a restart, what explains a
//! decision later, and what is run again to see what another policy would have done.
//!
//! A last line that was not written to its end is what a power cut leaves, and is cut off.
//! Anything else that is wrong is damage, and whoever meets it must not act: what was done
//! before is not known.

use serde::{Deserialize, Serialize};

use holdfast_core::clock::BootTime;

use crate::safeguard::{Safeguard, stands};
use crate::{Decision, Fact, Healer, Kept, Settings};

/// Longest line that is read.
pub const LINE_BYTES: usize = 1 << 20;
/// Hexadecimal digits of the checksum, and the space after it.
const FRONT: usize = 9;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "entry")]
pub enum Entry {
    /// An agent goes on from here.
    Start {
        /// When, on the clock of `boot`.
        #[serde(with = "crate::kept::time")]
        at: BootTime,
        /// Which boot of the host that is.
        boot: String,
        /// Version of the agent.
        version: String,
        /// It is the agent that wrote what is before this: with other settings, or because it
        /// could not write for a while.
        resumed: bool,
        /// What it knew.
        kept: Kept,
    },
    /// Something was learnt.
    Fact {
        /// When.
        #[serde(with = "crate::kept::time")]
        at: BootTime,
        /// What.
        fact: Fact,
    },
    /// It was asked what is to be done, and something came of it.
    Asked {
        /// When.
        #[serde(with = "crate::kept::time")]
        at: BootTime,
    },
    /// Something was decided.
    Decided {
        /// When.
        #[serde(with = "crate::kept::time")]
        at: BootTime,
        /// When, in milliseconds since 1970, for people.
        unix_ms: u64,
        /// What.
        decision: Decision,
    },
}

/// What cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A line is not what was written, or was never a line of a journal.
    #[error("line {line} of the journal is damaged: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// It does not begin with a start.
    #[error("the journal does not begin with a start")]
    NoStart,
}

impl Entry {
    /// As a line.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        // What it is made of has no maps but those with plain keys, and no number that JSON
        // lacks.
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut line = format!("{:08x} ", crc32fast::hash(&body)).into_bytes();
        line.extend(body);
        line.push(b'\n');
        line
    }

    fn from_line(line: &[u8]) -> Result<Self, String> {
        let (front, body) = line.split_at_checked(FRONT).ok_or("it is too short")?;
        let digits = front.strip_suffix(b" ").and_then(|digits| str::from_utf8(digits).ok());
        let sum = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if sum.ok_or("it has no checksum")? != crc32fast::hash(body) {
            return Err("its checksum does not fit".into());
        }
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }
}

/// What was written, and how many bytes of `bytes` that is: what comes after was not written to
/// its end.
///
/// # Errors
///
/// [`Damage`] for anything else that is wrong.
pub fn read(bytes: &[u8]) -> Result<(Vec<Entry>, usize), Damage> {
    let mut entries = Vec::new();
    let mut whole = 0;
    for (n, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let damaged = |problem| Damage::Line { line: n + 1, problem };
        if line.len() > LINE_BYTES {
            return Err(damaged("it is too long".to_owned()));
        }
        match Entry::from_line(line) {
            Err(_) if !stands(Safeguard::DamageStops) => break,
            found => entries.push(found.map_err(damaged)?),
        }
        whole += line.len() + 1;
    }
    match entries.first() {
        None | Some(Entry::Start { .. }) => Ok((entries, whole)),
        Some(_) => Err(Damage::NoStart),
    }
}

/// A healer that goes on where the journal ends; and the boot that was in. `None` when nothing
/// is in it.
#[must_use]
pub fn recover(entries: &[Entry], settings: &Settings) -> Option<(Healer, String)> {
    let is_start = |entry: &Entry| matches!(entry, Entry::Start { .. });
    let from = entries.iter().rposition(is_start)?;
    let (start @ Entry::Start { boot, .. }, rest) = entries.get(from..)?.split_first()? else {
        return None;
    };
    let mut healer = begin(start, settings)?;
    for entry in rest {
        step(&mut healer, entry);
    }
    Some((healer, boot.clone()))
}

/// The seed of chance in this boot of a host: the same for the same host, another for others.
#[must_use]
pub fn seed(boot: &str) -> u64 {
    u64::from(crc32fast::hash(boot.as_bytes()))
}

/// A healer as of a start.
fn begin(start: &Entry, settings: &Settings) -> Option<Healer> {
    let Entry::Start { at, boot, kept, resumed, .. } = start else { return None };
    let (settings, kept) = (Settings { seed: seed(boot), ..settings.clone() }, kept.clone());
    Some(match resumed {
        true => Healer::resume(settings, kept),
        // What was of a former boot was written down as that already.
        false => Healer::new(settings, kept, true, *at),
    })
}

/// What comes of an entry.
fn step(healer: &mut Healer, entry: &Entry) -> Vec<Decision> {
    match entry {
        Entry::Fact { at, fact } => healer.learn(fact.clone(), *at),
        Entry::Asked { at } => healer.decide(*at),
        Entry::Start { .. } | Entry::Decided { .. } => Vec::new(),
    }
}

/// What was decided and what is decided when the same is learnt again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// When.
    pub at: BootTime,
    /// What was decided then.
    pub was: Vec<Decision>,
    /// What is decided now.
    pub is: Vec<Decision>,
}

/// Runs the facts of a journal again, under `settings`: where it would be decided otherwise.
/// Under the settings of then that is nowhere. What was decided last before an agent ended may
/// be missing, and is no difference.
#[must_use]
pub fn replay(entries: &[Entry], settings: &Settings) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut healer: Option<Healer> = None;
    let mut ahead = entries.iter().peekable();
    while let Some(entry) = ahead.next() {
        let at = match entry {
            Entry::Start { .. } => {
                healer = begin(entry, settings);
                continue;
            }
            Entry::Fact { at, .. } | Entry::Asked { at } => *at,
            Entry::Decided { .. } => continue,
        };
        let Some(healer) = &mut healer else { continue };
        let is = step(healer, entry);
        let mut was = Vec::new();
        while let Some(Entry::Decided { decision, .. }) =
            ahead.next_if(|entry| matches!(entry, Entry::Decided { .. }))
        {
            was.push(decision.clone());
        }
        // An agent that was killed there had not written down all that it decided.
        let ended = matches!(ahead.peek(), None | Some(Entry::Start { resumed: false, .. }));
        if was != is && !(ended && is.starts_with(&was)) {
            differences.push(Difference { at, was, is });
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Active, Ended, Invocation, Policy, UnitState};

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn settings() -> Settings {
        let services = [("db.service".into(), Policy::default())].into();
        Settings { services, seed: seed("b"), ..Settings::default() }
    }

    /// A healer and what an agent writes down about it.
    fn recorded() -> (Healer, Vec<Entry>) {
        let mut healer = Healer::new(settings(), Kept::default(), true, at(0));
        let (boot, version) = ("b".to_owned(), "0".to_owned());
        let kept = healer.kept();
        let mut entries = vec![Entry::Start { at: at(0), boot, version, resumed: false, kept }];
        for now in 0..3_000 {
            let state = |active, run| UnitState {
                active,
                ended: if active == Active::Failed { Ended::StartLimit } else { Ended::Well },
                job: false,
                masked: false,
                can_reload: false,
                invocation: Invocation::new([run; 16]),
                up_since: at(now),
            };
            let fact = match now {
                10 | 250 => Some(state(Active::Active, 1)),
                200 | 1_000 | 1_500 | 1_501 => Some(state(Active::Failed, 2)),
                _ => None,
            };
            if let Some(state) = fact {
                let fact = Fact::Unit { unit: "db.service".into(), state };
                entries.push(Entry::Fact { at: at(now), fact: fact.clone() });
                healer.learn(fact, at(now));
            }
            let before = healer.revision();
            let decisions = healer.decide(at(now));
            if healer.revision() != before {
                entries.push(Entry::Asked { at: at(now) });
            }
            let decided = |decision| Entry::Decided { at: at(now), unix_ms: now, decision };
            entries.extend(decisions.into_iter().map(decided));
        }
        (healer, entries)
    }

    fn bytes(entries: &[Entry]) -> Vec<u8> {
        entries.iter().flat_map(Entry::to_line).collect()
    }

    #[test]
    fn a_healer_goes_on_from_its_journal_as_if_nothing_had_been() {
        let (healer, entries) = recorded();
        let began = |entry: &&Entry| {
            matches!(entry, Entry::Decided { decision: Decision::Begin { .. }, .. })
        };
        assert!(entries.iter().filter(began).count() > 1);
        let (read, whole) = read(&bytes(&entries)).expect("it was just written");
        assert_eq!((read.len(), whole), (entries.len(), bytes(&entries).len()));
        let (recovered, boot) = recover(&read, &settings()).expect("it begins with a start");
        assert_eq!((recovered.kept(), boot.as_str()), (healer.kept(), "b"));
    }

    #[test]
    fn the_same_settings_decide_the_same_and_others_differ() {
        let (_, entries) = recorded();
        assert_eq!(replay(&entries, &settings()), []);
        let mut strict = settings();
        for policy in strict.services.values_mut() {
            policy.budget.per_10m = 0;
        }
        let differences = replay(&entries, &strict);
        let first = differences.first().expect("nothing may be done");
        assert!(matches!(&*first.is, [Decision::Held { .. }]), "{first:?}");
    }

    #[test]
    fn what_was_not_written_to_its_end_is_cut_off_and_nothing_else_is() {
        let (_, entries) = recorded();
        let whole = bytes(&entries);
        let last = entries.last().map(Entry::to_line).unwrap_or_default().len();
        for cut in 1..=last {
            let (read, length) = read(&whole[..whole.len() - cut]).expect("a power cut");
            assert_eq!((read.len(), length), (entries.len() - 1, whole.len() - last));
        }
        for place in (0..whole.len() - last).step_by(37) {
            let mut flipped = whole.clone();
            flipped[place] ^= 4;
            assert!(read(&flipped).is_err(), "byte {place}");
        }
        let missing = whole.split_inclusive(|b| *b == b'\n').skip(1).flatten().copied();
        assert_eq!(read(&missing.collect::<Vec<_>>()), Err(Damage::NoStart));
        assert_eq!(read(b""), Ok((Vec::new(), 0)));
        assert!(read(b"\n").is_err() && read(&[0; 100]).is_ok_and(|(all, _)| all.is_empty()));
    }
}
