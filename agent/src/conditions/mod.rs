//! Conditions: what is wrong with the host and stays wrong until it is seen to be
//! right again. Pure, but for [`keep`]: evidence and time come in, changes come out.
//!
//! A condition is raised by evidence (a line of the kernel's log, a file system
//! that turned read-only) and has an instance (a device, a CPU, a task). Each kind
//! says by what it ends: its opposite was seen, its present state says so, or no
//! further evidence came for a while. It is told twice, when it is raised and when
//! it is cleared, however much evidence comes between.
//!
//! What stands is [`Saved`] so that a restart of the agent neither tells a
//! condition again nor forgets to tell its end.

pub mod keep;
mod kinds;

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use serde::{Deserialize, Serialize};

pub use kinds::{
    Check, DISK_CONTROLLER, DISK_IO_ERROR, FILESYSTEM_ERROR, FILESYSTEM_READ_ONLY, HARD_LOCKUP,
    HARDWARE_ERROR, HUNG_TASK, KINDS, Kind, LINK_DOWN, MACHINE_CHECK, MEMORY_ERROR, OUT_OF_MEMORY,
    OVERHEATING, RCU_STALL, SOFT_LOCKUP,
};

/// Most conditions that stand at once; the rest is counted.
pub const STANDING: usize = 128;
/// Longest instance, in bytes.
pub const INSTANCE_BYTES: usize = 255;
/// Longest detail, in bytes.
pub const DETAIL_BYTES: usize = 300;

/// Nobody listened for so long: the host was suspended, or the agent stopped.
const DEAF: Duration = Duration::from_secs(30);
/// How often more evidence for what stands already is kept.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What a probe found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Of which kind.
    pub kind: &'static Kind,
    /// Of what: a device, a CPU, a task; empty for the host.
    pub instance: String,
    /// Whether it speaks for the condition; against it otherwise.
    pub stands: bool,
    /// What was found, for people.
    pub detail: String,
    /// When.
    pub at: BootTime,
    /// Whether it is from before the agent looked. What began and ended in the past is not told.
    pub history: bool,
}

/// A condition that began or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of which kind.
    pub kind: &'static Kind,
    /// Of what; empty for the host.
    pub instance: String,
    /// What raised it, or why it is cleared.
    pub detail: String,
    /// When.
    pub at: BootTime,
    /// For an end: how long it stood, and how much evidence there was.
    pub ended: Option<(Duration, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    detail: String,
    first: BootTime,
    last: BootTime,
    /// Since when there was silence. Later than the newest evidence when the host was
    /// suspended since: silence while nothing could be heard tells nothing.
    silent: BootTime,
    count: u64,
    told: bool,
}

/// A condition as it is kept over a restart of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Name of its kind.
    pub kind: String,
    /// Of what.
    pub instance: String,
    /// What raised it.
    pub detail: String,
    /// First evidence, nanoseconds since boot.
    pub first_ns: u64,
    /// Newest evidence, nanoseconds since boot.
    pub last_ns: u64,
    /// How much evidence there was.
    pub count: u64,
}

/// Everything that is wrong now.
#[derive(Debug, Default)]
pub struct Conditions {
    standing: BTreeMap<(&'static str, String), (&'static Kind, Standing)>,
    changes: Vec<Change>,
    refused: u64,
    /// Whether other conditions stand than were last [`saved`](Self::save).
    dirty: bool,
    /// Whether there was more evidence since then.
    renewed: bool,
    saved: BootTime,
    told: Option<BootTime>,
}

impl Conditions {
    /// Takes over what stood when the agent last ran. Of an earlier boot, all of it
    /// has ended with that boot.
    pub fn restore(&mut self, saved: Vec<Saved>, same_boot: bool, now: BootTime) {
        for saved in saved.into_iter().take(STANDING) {
            let Some(kind) = KINDS.iter().find(|kind| kind.name == saved.kind) else { continue };
            let at = |ns| BootTime::new(Duration::from_nanos(ns)).min(now);
            let instance = clean(&saved.instance, INSTANCE_BYTES);
            if same_boot {
                let last = at(saved.last_ns.max(saved.first_ns));
                let standing = Standing {
                    detail: clean(&saved.detail, DETAIL_BYTES),
                    first: at(saved.first_ns),
                    last,
                    silent: last,
                    count: saved.count.max(1),
                    told: true,
                };
                self.standing.insert((kind.name, instance), (*kind, standing));
            } else {
                let lasted = saved.last_ns.saturating_sub(saved.first_ns);
                self.changes.push(Change {
                    kind,
                    instance,
                    detail: "the host was started anew".to_owned(),
                    at: now,
                    ended: Some((Duration::from_nanos(lasted), saved.count.max(1))),
                });
                self.dirty = true;
            }
        }
    }

    /// Takes in evidence.
    pub fn take(&mut self, evidence: Evidence, now: BootTime) {
        let Evidence { kind, instance, stands, detail, at, history } = evidence;
        let instance = clean(&instance, INSTANCE_BYTES);
        let key = (kind.name, instance);
        let at = at.min(now);
        if !stands {
            let newer = self.standing.get(&key).is_none_or(|(_, standing)| standing.last <= at);
            if newer {
                self.end(&key, &clean(&detail, DETAIL_BYTES), at);
            }
            return;
        }
        // Old evidence for what would have been cleared by now.
        if kind.quiet.is_some_and(|quiet| now.since(at) >= quiet) {
            return;
        }
        if let Some((_, standing)) = self.standing.get_mut(&key) {
            // Read again after a restart: known already.
            if at > standing.last {
                (standing.last, standing.silent) = (at, at);
                standing.count += 1;
                self.renewed = true;
            }
            return;
        }
        if self.standing.len() >= STANDING {
            self.refused += 1;
            return;
        }
        let detail = clean(&detail, DETAIL_BYTES);
        let told = !history;
        if told {
            self.changes.push(raised(kind, &key.1, &detail, at));
        }
        let standing = Standing { detail, first: at, last: at, silent: at, count: 1, told };
        self.standing.insert(key, (kind, standing));
        self.dirty = true;
    }

    /// What must be looked at to know whether it still stands.
    pub fn to_check(&self) -> Vec<(&'static Kind, String)> {
        let checked = self.standing.values().zip(self.standing.keys());
        let checked = checked.filter(|((kind, _), _)| kind.check.is_some());
        checked.map(|((kind, _), (_, instance))| (*kind, instance.clone())).collect()
    }

    /// Whether something began that is not told yet.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.standing.values().any(|(_, standing)| !standing.told)
    }

    /// Clears what has not been heard of for long enough, and appends every change
    /// since the last call.
    pub fn tell(&mut self, now: BootTime, out: &mut Vec<Change>) {
        let gap = self.told.map_or(Duration::ZERO, |told| now.since(told));
        self.told = Some(now);
        if gap >= DEAF {
            for (_, standing) in self.standing.values_mut() {
                let silent = standing.silent.since_boot().saturating_add(gap);
                standing.silent = BootTime::new(silent).min(now);
            }
        }
        let over: Vec<_> = self
            .standing
            .iter()
            .filter_map(|(key, (kind, standing))| {
                let quiet = kind.quiet.filter(|&quiet| now.since(standing.silent) >= quiet)?;
                Some((key.clone(), quiet))
            })
            .collect();
        for (key, quiet) in over {
            self.end(&key, &format!("not seen again for {} s", quiet.as_secs()), now);
        }
        for ((_, instance), (kind, standing)) in &mut self.standing {
            if !standing.told {
                standing.told = true;
                self.changes.push(raised(kind, instance, &standing.detail, standing.first));
            }
        }
        out.append(&mut self.changes);
    }

    fn end(&mut self, key: &(&'static str, String), why: &str, at: BootTime) {
        let Some((kind, standing)) = self.standing.remove(key) else { return };
        self.dirty = true;
        if standing.told {
            self.changes.push(Change {
                kind,
                instance: key.1.clone(),
                detail: why.to_owned(),
                at,
                ended: Some((at.since(standing.first), standing.count)),
            });
        }
    }

    /// How many stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.standing.len()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// How often evidence was ignored because too many conditions stood.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// What stands, for keeping; `None` when it is what was given last. That there
    /// is more evidence for the same is worth it now and then only.
    pub fn save(&mut self, now: BootTime) -> Option<Vec<Saved>> {
        let due = self.dirty || self.renewed && now.since(self.saved) >= SAVE_EVERY;
        if !due {
            return None;
        }
        (self.dirty, self.renewed, self.saved) = (false, false, now);
        let ns = |at: BootTime| u64::try_from(at.since_boot().as_nanos()).unwrap_or(u64::MAX);
        let saved = |(key, (_, standing)): (&(&str, String), &(&Kind, Standing))| Saved {
            kind: key.0.to_owned(),
            instance: key.1.clone(),
            detail: standing.detail.clone(),
            first_ns: ns(standing.first),
            last_ns: ns(standing.last),
            count: standing.count,
        };
        Some(self.standing.iter().map(saved).collect())
    }
}

fn raised(kind: &'static Kind, instance: &str, detail: &str, at: BootTime) -> Change {
    Change { kind, instance: instance.to_owned(), detail: detail.to_owned(), at, ended: None }
}

/// `text` without control characters (they become `\x..`, as the kernel writes
/// them), at most `most` bytes long.
#[must_use]
pub fn clean(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let before = out.len();
        if c.is_control() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                out.push_str(&format!("\\x{byte:02x}"));
            }
        } else {
            out.push(c);
        }
        if out.len() > most {
            out.truncate(before);
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn evidence(kind: &'static Kind, instance: &str, stands: bool, seconds: u64) -> Evidence {
        Evidence {
            kind,
            instance: instance.to_owned(),
            stands,
            detail: format!("line at {seconds}"),
            at: at(seconds),
            history: false,
        }
    }

    /// What is told when the conditions are looked at each ten seconds until then.
    fn told(conditions: &mut Conditions, seconds: u64) -> Vec<(String, bool)> {
        let mut out = Vec::new();
        let begin = conditions.told.map_or(seconds, |told| told.since_boot().as_secs());
        (begin..seconds).step_by(10).for_each(|second| conditions.tell(at(second), &mut out));
        conditions.tell(at(seconds), &mut out);
        out.into_iter().map(|change| (change.instance, change.ended.is_none())).collect()
    }

    fn told_at_once(conditions: &mut Conditions, seconds: u64) -> Vec<(String, bool)> {
        let mut out = Vec::new();
        conditions.tell(at(seconds), &mut out);
        out.into_iter().map(|change| (change.instance, change.ended.is_none())).collect()
    }

    #[test]
    fn it_is_told_when_raised_and_when_quiet_for_long_enough() {
        let mut conditions = Conditions::default();
        let quiet = DISK_IO_ERROR.quiet.unwrap().as_secs();
        for second in 100..200 {
            conditions.take(evidence(&DISK_IO_ERROR, "sda", true, second), at(second));
        }
        conditions.take(evidence(&DISK_IO_ERROR, "sdb", true, 150), at(200));
        assert_eq!(told(&mut conditions, 200), [("sda".into(), true), ("sdb".into(), true)]);
        assert_eq!((told(&mut conditions, 150 + quiet - 1).len(), conditions.len()), (0, 2));
        assert_eq!(told(&mut conditions, 150 + quiet), [("sdb".into(), false)]);
        let mut out = Vec::new();
        (151..=199).for_each(|second| conditions.tell(at(second + quiet), &mut out));
        assert_eq!(out[0].ended, Some((Duration::from_secs(99 + quiet), 100)));
        assert!(conditions.is_empty());
    }

    #[test]
    fn silence_while_the_host_sleeps_tells_nothing() {
        let mut conditions = Conditions::default();
        conditions.take(evidence(&DISK_IO_ERROR, "sda", true, 100), at(100));
        assert_eq!(told(&mut conditions, 101).len(), 1);
        assert!(told_at_once(&mut conditions, 8 * 3600).is_empty(), "it slept for hours");
        assert!(told(&mut conditions, 8 * 3600 + 590).is_empty());
        assert_eq!(told(&mut conditions, 8 * 3600 + 600), [("sda".into(), false)]);
    }

    #[test]
    fn the_opposite_clears_it_at_once_and_only_it() {
        let mut conditions = Conditions::default();
        conditions.take(evidence(&LINK_DOWN, "eth0", true, 5), at(5));
        conditions.take(evidence(&LINK_DOWN, "eth1", true, 5), at(5));
        conditions.take(evidence(&LINK_DOWN, "eth0", false, 6), at(6));
        conditions.take(evidence(&LINK_DOWN, "eth9", false, 6), at(6));
        conditions.take(evidence(&LINK_DOWN, "eth1", false, 4), at(6));
        assert_eq!(
            told(&mut conditions, 6),
            [("eth0".into(), true), ("eth1".into(), true), ("eth0".into(), false)]
        );
        // It has no time to live: it stands until its opposite is seen.
        assert!(told(&mut conditions, 1_000_000).is_empty() && conditions.len() == 1);
    }

    #[test]
    fn the_past_is_told_only_where_it_lasts() {
        let mut conditions = Conditions::default();
        let history = |kind, instance, stands, seconds| Evidence {
            history: true,
            ..evidence(kind, instance, stands, seconds)
        };
        conditions.take(history(&DISK_IO_ERROR, "sda", true, 10), at(10_000));
        conditions.take(history(&LINK_DOWN, "eth0", true, 20), at(10_000));
        conditions.take(history(&LINK_DOWN, "eth0", false, 30), at(10_000));
        conditions.take(history(&LINK_DOWN, "eth1", true, 40), at(10_000));
        conditions.take(history(&DISK_IO_ERROR, "sdb", true, 9_990), at(10_000));
        assert_eq!(told(&mut conditions, 10_000), [("sdb".into(), true), ("eth1".into(), true)]);
    }

    #[test]
    fn a_restart_neither_forgets_nor_invents() {
        let mut first = Conditions::default();
        first.take(evidence(&LINK_DOWN, "eth0", true, 40), at(40));
        first.take(evidence(&LINK_DOWN, "eth1", true, 41), at(41));
        assert_eq!(told(&mut first, 42).len(), 2);
        let saved = first.save(at(42)).unwrap();
        assert_eq!(first.save(at(42)), None, "nothing new");
        let text = serde_json::to_string(&saved).unwrap();

        let mut second = Conditions::default();
        second.restore(serde_json::from_str(&text).unwrap(), true, at(60));
        // The log is read again from its beginning, and has gone on meanwhile.
        for (instance, stands, seconds) in
            [("eth0", false, 30), ("eth0", true, 40), ("eth1", true, 41), ("eth1", false, 50)]
        {
            let evidence = evidence(&LINK_DOWN, instance, stands, seconds);
            second.take(Evidence { history: true, ..evidence }, at(60));
        }
        assert_eq!(told(&mut second, 60), [("eth1".into(), false)]);
        assert_eq!(second.save(at(60)).map(|saved| (saved.len(), saved[0].count)), Some((1, 1)));

        let mut other_boot = Conditions::default();
        other_boot.restore(saved, false, at(5));
        assert_eq!(told(&mut other_boot, 5), [("eth0".into(), false), ("eth1".into(), false)]);
        assert!(other_boot.is_empty());
    }

    #[test]
    fn odd_input_is_bounded_and_clean() {
        let mut conditions = Conditions::default();
        for n in 0..10 * STANDING {
            conditions.take(evidence(&DISK_IO_ERROR, &format!("d{n}"), true, 5), at(5));
        }
        assert_eq!((conditions.len(), conditions.refused()), (STANDING, 9 * STANDING as u64));
        let mut conditions = Conditions::default();
        let long = format!("\u{1b}[2J{}", "é".repeat(4096));
        let mut odd = evidence(&DISK_IO_ERROR, &long, true, 900);
        odd.detail = long.clone();
        conditions.take(odd, at(5));
        let mut out = Vec::new();
        conditions.tell(at(5), &mut out);
        assert!(out[0].instance.starts_with("\\x1b[2J") && out[0].instance.len() <= INSTANCE_BYTES);
        assert!(out[0].detail.len() <= DETAIL_BYTES && out[0].at == at(5), "not from the future");
        let saved = Saved {
            kind: "no.such".into(),
            instance: long,
            detail: String::new(),
            first_ns: u64::MAX,
            last_ns: 0,
            count: 0,
        };
        let known = Saved { kind: DISK_IO_ERROR.name.into(), ..saved.clone() };
        let mut conditions = Conditions::default();
        conditions.restore(vec![saved, known], true, at(5));
        assert_eq!(conditions.len(), 1);
        assert!(told(&mut conditions, 5).is_empty());
    }
}
