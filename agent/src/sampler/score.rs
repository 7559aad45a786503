//! Scoring by the tick: feeds the scorer with windows and with what changes, tells what
//! it finds, and hands what it learnt to whoever keeps it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holdfast_core::clock::BootTime;
use holdfast_scorer::forest::Forest;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::Sampler;
use crate::catalogue::{
    HOST_ANOMALY_RATE, HOST_ANOMALY_SCORE, Kind, Measure, Owner, Signal, UNIT_ANOMALY_SCORE,
};
use crate::host::Root;
use crate::losses::Cause;
use crate::report::{self, Window};
use crate::scorer::{
    Calibration, Change, Episode, Feedback, JudgeError, News, Reason, Scorer, Severity,
};
use crate::teller::Fact;

/// How often what was learnt is kept.
const SAVE_EVERY: Duration = Duration::from_secs(900);
/// A host that runs for less than this has just booted.
const JUST_BOOTED: Duration = Duration::from_secs(600);
/// Where package managers write that something changed.
const PACKAGES: [&str; 4] = [
    "var/lib/dpkg/status",
    "var/lib/rpm/rpmdb.sqlite",
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/pacman/local",
];
/// Signals named in an event.
const NAMED: usize = 3;

/// The scorer, and what the sampler needs to know to feed it.
pub(super) struct Scoring {
    scorer: Scorer,
    growing: Option<(usize, usize, oneshot::Receiver<Forest>)>,
    saved: BootTime,
    packages: [Option<SystemTime>; PACKAGES.len()],
    /// Units of which the healer knows that they are unusual.
    unusual: BTreeSet<Arc<str>>,
    refused: u64,
}

impl Scoring {
    /// `now` is when the agent starts.
    pub(super) fn new(mut scorer: Scorer, root: &Root, now: BootTime) -> Self {
        if now.since_boot() < JUST_BOOTED {
            scorer.change(Change::Boot, now);
        }
        Self {
            scorer,
            growing: None,
            saved: now,
            packages: packages(root),
            unusual: BTreeSet::new(),
            refused: 0,
        }
    }

    /// The governor changed how deep a probe looks.
    pub(super) fn change_depth(&mut self) {
        self.scorer.change_depth();
    }
}

fn packages(root: &Root) -> [Option<SystemTime>; PACKAGES.len()] {
    PACKAGES.map(|path| std::fs::metadata(root.path(path)).and_then(|of| of.modified()).ok())
}

impl Sampler {
    /// Lets the scorer look at a window, and tells what is new.
    pub(super) fn score(&mut self, window: &Window, now: BootTime) {
        let Some(scoring) = &mut self.scoring else { return };
        let installed = packages(&self.root);
        if installed != scoring.packages {
            scoring.packages = installed;
            scoring.scorer.change(Change::Packages, now);
        }
        let news = scoring.scorer.window(window, now);
        let facts: Vec<Fact> = news
            .into_iter()
            .filter_map(|(news, id)| Some(fact(news, scoring.scorer.episode(id)?)))
            .collect();
        let signs = scoring.signs();
        let refused = scoring.scorer.refused();
        self.losses.add(Cause::Scored, refused - scoring.refused);
        scoring.refused = refused;
        scoring.tend();
        if now.since(scoring.saved) >= SAVE_EVERY {
            scoring.saved = now;
            self.keep_scorer();
        }
        facts.into_iter().for_each(|fact| self.tell(fact));
        signs.into_iter().for_each(|sign| self.tell_healer(sign));
    }

    /// Sends what was learnt to whoever keeps it.
    pub(super) fn keep_scorer(&self) {
        if let Some(scoring) = &self.scoring {
            self.channels.learnt.send_replace(Some(Arc::new(scoring.scorer.save())));
        }
    }

    /// Writes the newest scores into the frame.
    pub(super) fn put_scores(&mut self) {
        let Some(Scoring { scorer, .. }) = &self.scoring else { return };
        let Some(host) = scorer.score(Owner::Host, "") else { return };
        self.current.set(HOST_ANOMALY_SCORE, 0, host);
        self.current.set(HOST_ANOMALY_RATE, 0, scorer.odd());
        for row in 0..self.current.rows(Owner::Unit).len() {
            let Some(owner) = self.current.rows(Owner::Unit).get(row).filter(|row| row.live) else {
                continue;
            };
            if let Some(score) = scorer.score(Owner::Unit, &owner.name) {
                self.current.set(UNIT_ANOMALY_SCORE, row, score);
            }
        }
    }

    /// A unit was started: what it does next is judged with care.
    pub(super) fn note_start(&mut self, unit: &Arc<str>, now: BootTime) {
        // At the agent's own start all units are seen for the first time.
        if let Some(scoring) = self.scoring.as_mut().filter(|_| self.ticks > 0) {
            scoring.scorer.change(Change::Started(Arc::clone(unit)), now);
        }
    }

    pub(super) fn episodes(&self) -> Option<Vec<Episode>> {
        Some(self.scoring.as_ref()?.scorer.episodes().cloned().collect())
    }

    pub(super) fn calibration(&self) -> Option<Calibration> {
        Some(self.scoring.as_ref()?.scorer.calibration())
    }

    pub(super) fn judge(&mut self, id: u64, feedback: Feedback) -> Result<(), JudgeError> {
        let scoring = self.scoring.as_mut().ok_or(JudgeError::Off)?;
        scoring.scorer.feedback(id, feedback)
    }

    /// Whether anything is scored at all.
    pub(super) fn note_change(&mut self, change: Change) -> bool {
        let Some(scoring) = &mut self.scoring else { return false };
        scoring.scorer.change(change, BootTime::now());
        true
    }
}

impl Scoring {
    /// What the healer does not know yet of units that take part in an episode, and are bad.
    fn signs(&mut self) -> Vec<holdfast_healer::Fact> {
        let open = self.scorer.episodes().filter(|episode| episode.ended_unix_ms.is_none());
        let bad = open.flat_map(|episode| &episode.parts).filter(|part| {
            part.owner == Owner::Unit && !part.is_over && part.severity >= Severity::Major
        });
        let unusual: BTreeSet<Arc<str>> = bad.map(|part| Arc::clone(&part.instance)).collect();
        let sign = |unit: &Arc<str>, stands| holdfast_healer::Fact::Sign {
            unit: Arc::clone(unit),
            sign: holdfast_healer::Sign::Unusual,
            stands,
        };
        let began = unusual.difference(&self.unusual).map(|unit| sign(unit, true));
        let over = self.unusual.difference(&unusual).map(|unit| sign(unit, false));
        let signs = began.chain(over).collect();
        self.unusual = unusual;
        signs
    }

    /// Plants a forest that has grown, and lets the next one grow, one at a time, in a
    /// thread that is not the sampler's.
    fn tend(&mut self) {
        if let Some((at, tier, mut growing)) = self.growing.take() {
            match growing.try_recv() {
                Ok(forest) => self.scorer.plant(at, tier, forest),
                Err(TryRecvError::Empty) => {
                    self.growing = Some((at, tier, growing));
                    return;
                }
                // It will be due again.
                Err(TryRecvError::Closed) => {}
            }
        }
        if let Some((at, tier, past, version)) = self.scorer.seed() {
            let (grown, growing) = oneshot::channel();
            // Nobody waits for it at the end.
            let grow = move || drop(grown.send(Forest::grow(&past, version)));
            drop(tokio::task::spawn_blocking(grow));
            self.growing = Some((at, tier, growing));
        }
    }
}

/// What is told of an episode.
fn fact(news: News, episode: &Episode) -> Fact {
    let (kind, severity) = match (news, episode.severity) {
        (News::Ended, _) => ("anomaly.ended", report::Severity::Info),
        (News::Began, Severity::Minor) => ("anomaly.began", report::Severity::Info),
        (News::Began, Severity::Major) => ("anomaly.began", report::Severity::Warning),
        (News::Began, Severity::Severe) => ("anomaly.began", report::Severity::Critical),
        (News::Worse, Severity::Severe) => ("anomaly.worse", report::Severity::Critical),
        (News::Worse, _) => ("anomaly.worse", report::Severity::Warning),
    };
    let leading = episode.leading();
    let who = leading.map_or("the host", |part| match part.owner {
        Owner::Host => "the host",
        _ => &part.instance,
    });
    let why = leading.and_then(|part| part.reasons.first()).map(describe).unwrap_or_default();
    let message = match news {
        News::Ended if episode.became_usual => {
            format!("{who} has been unusual for so long that it is usual now")
        }
        News::Ended => format!("{who} is as usual again"),
        News::Began => format!("{who} is unusual: {why}"),
        News::Worse => format!("{who} is more unusual still: {why}"),
    };
    let mut fields = vec![("episode", episode.id.to_string())];
    if let Some(part) = leading {
        fields.push(("per_week", format!("{:.2e}", part.per_week)));
        let signals: Vec<String> = part.reasons.iter().take(NAMED).map(describe).collect();
        fields.push(("signals", signals.join("; ")));
    }
    if !episode.changes.is_empty() {
        fields.push(("changes", episode.changes.join("; ")));
    }
    let others = episode.parts.len().saturating_sub(1) + episode.more_parts as usize;
    if others > 0 {
        fields.push(("parts", (others + 1).to_string()));
    }
    let unit = leading.filter(|part| part.owner == Owner::Unit);
    let unit = unit.map(|part| Arc::clone(&part.instance)).unwrap_or_default();
    Fact { unit, fields, ..Fact::new(kind, severity, message) }
}

/// "disk.write.latency is 14 times its usual at this hour (2.1 ms)".
fn describe(reason: &Reason) -> String {
    let signal = reason.signal.signal();
    let (value, usually) = (amount(reason.value, signal), amount(reason.usual, signal));
    let (now, usual) = (reason.value, reason.usual);
    let name = signal.name;
    if now.is_nan() {
        format!("{name} is read no more, usually {usually}")
    } else if usual > 0.0 && now >= 1.1 * usual && now / usual < 1e4 {
        format!("{name} is {:.1} times its usual at this hour ({value})", now / usual)
    } else if now > usual {
        format!("{name} is {value}, usually {usually}")
    } else {
        format!("{name} is only {value}, usually {usually}")
    }
}

/// A value of a signal, for people; counters are rates.
fn amount(value: f64, signal: &Signal) -> String {
    let rate = if signal.kind == Kind::Counter { "/s" } else { "" };
    let scaled = |units: &[(&str, f64)]| {
        let found = units.iter().rev().find(|(_, unit)| value.abs() >= *unit).or(units.first());
        found.map_or(String::new(), |(name, unit)| format!("{:.1} {name}{rate}", value / unit))
    };
    match (signal.measure, signal.kind) {
        // Time by time.
        (Measure::Nanoseconds, Kind::Counter) => format!("{:.1} %", value / 1e7),
        (Measure::Nanoseconds, _) => scaled(&[("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)]),
        (Measure::Bytes, _) => {
            let (mib, gib) = (1_048_576.0, 1_073_741_824.0);
            scaled(&[("B", 1.0), ("KiB", 1_024.0), ("MiB", mib), ("GiB", gib)])
        }
        (Measure::Ratio, _) => format!("{:.1} %", 100.0 * value),
        (Measure::Count, _) => format!("{value:.1}{rate}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{DISK_WRITE_LATENCY, MEMORY_AVAILABLE};
    use crate::scorer::Part;

    fn episode(severity: Severity) -> Episode {
        let reason = Reason { signal: DISK_WRITE_LATENCY, value: 14e6, usual: 1e6, share: 0.8 };
        let part = Part {
            owner: Owner::Device,
            instance: "vda".into(),
            step: Duration::from_secs(10),
            joined_unix_ms: 1,
            loudest_unix_ms: 1,
            is_over: false,
            severity,
            per_week: 1e-4,
            reasons: vec![reason],
            course: Vec::new(),
        };
        Episode {
            id: 7,
            began_unix_ms: 1,
            ended_unix_ms: None,
            became_usual: false,
            severity,
            parts: vec![part],
            more_parts: 0,
            changes: vec!["the host booted".into()],
            feedback: None,
        }
    }

    #[test]
    fn an_episode_is_told_in_plain_words() {
        let fact = fact(News::Began, &episode(Severity::Severe));
        assert_eq!((fact.kind, fact.severity), ("anomaly.began", report::Severity::Critical));
        let told =
            "vda is unusual: disk.write.latency is 14.0 times its usual at this hour (14.0 ms)";
        assert_eq!(fact.message, told);
        assert_eq!(fact.fields[0], ("episode", "7".to_owned()));
        assert!(fact.fields.contains(&("changes", "the host booted".to_owned())));
        let over =
            super::fact(News::Ended, &Episode { became_usual: true, ..episode(Severity::Minor) });
        assert!(over.message.ends_with("usual now"), "{}", over.message);
    }

    #[test]
    fn what_falls_and_what_comes_from_nothing_is_told_as_that() {
        let of =
            |value, usual| describe(&Reason { signal: MEMORY_AVAILABLE, value, usual, share: 1.0 });
        assert_eq!(
            of(1_048_576.0, 2.0 * 1_048_576.0),
            "memory.available is only 1.0 MiB, usually 2.0 MiB"
        );
        assert_eq!(of(2_048.0, 0.0), "memory.available is 2.0 KiB, usually 0.0 B");
        assert_eq!(of(f64::NAN, 2_048.0), "memory.available is read no more, usually 2.0 KiB");
    }
}
