//! What began together is told together: what units, devices and the host itself begin
//! within a few minutes of each other is one episode, because one cause shows in many
//! places.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_scorer::episode::Severity;

use crate::catalogue::{Owner, SignalId};

/// A part joins an episode that another joined so recently.
const JOIN: Duration = Duration::from_secs(300);
/// Episodes remembered, and parts told of each.
const REMEMBERED: usize = 64;
const PARTS: usize = 24;
/// Points of a part's course.
pub(super) const COURSE: usize = 60;

/// One signal's share in what is unusual.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    /// The signal.
    pub signal: SignalId,
    /// What it was, in its own measure; of a histogram the 99 % quantile. `NaN` when it used
    /// to be read and is read no more.
    pub value: f64,
    /// What is usual at that hour.
    pub usual: f64,
    /// Its part of what made the score, from 0 to 1.
    pub share: f64,
}

/// The part of one host, unit, device or interface, as seen at one time scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What it is.
    pub owner: Owner,
    /// Its name; empty for the host.
    pub instance: Arc<str>,
    /// The time scale.
    pub step: Duration,
    /// When it joined.
    pub joined_unix_ms: u64,
    /// When it was at its loudest.
    pub loudest_unix_ms: u64,
    /// Whether it is over.
    pub is_over: bool,
    /// How bad it got.
    pub severity: Severity,
    /// How many times a week it is as loud as at its loudest.
    pub per_week: f64,
    /// What explains its loudest moment, the largest share first.
    pub reasons: Vec<Reason>,
    /// Scores up to its newest row, oldest first; at most sixty.
    pub course: Vec<f32>,
}

/// What somebody said of an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// Nothing was wrong.
    False,
    /// Something was.
    Real,
}

/// Something unusual, from its beginning to its end; all parts that began together.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// When it began, in seconds since 1970, or a little more: unique on this host.
    pub id: u64,
    /// When it began, in wall time.
    pub began_unix_ms: u64,
    /// When it ended, in wall time; `None` while it goes on.
    pub ended_unix_ms: Option<u64>,
    /// It ended because it lasted so long that it is usual now.
    pub became_usual: bool,
    /// How bad it got.
    pub severity: Severity,
    /// What takes part, in the order they joined.
    pub parts: Vec<Part>,
    /// What takes part beyond those.
    pub more_parts: u32,
    /// What changed on the host shortly before, in a few words each.
    pub changes: Vec<String>,
    /// What somebody said of it.
    pub feedback: Option<Feedback>,
}

impl Episode {
    /// The part that explains it best: the rarest, a unit before the host.
    #[must_use]
    pub fn leading(&self) -> Option<&Part> {
        let rank = |part: &&Part| (part.severity, part.owner == Owner::Unit);
        let better =
            |a: &&Part, b: &&Part| rank(a).cmp(&rank(b)).then(b.per_week.total_cmp(&a.per_week));
        // The first of equals.
        self.parts.iter().rev().max_by(better)
    }

    /// Takes in a part. Where there are too many, what is over makes room, or what is less
    /// bad.
    fn join(&mut self, part: Part) {
        if self.parts.len() >= PARTS {
            self.more_parts += 1;
            let over = self.parts.iter().position(|known| known.is_over);
            let least = || {
                let parts = self.parts.iter().enumerate();
                let (least, known) = parts.min_by_key(|(_, known)| known.severity)?;
                (known.severity < part.severity).then_some(least)
            };
            let Some(place) = over.or_else(least) else { return };
            self.parts.remove(place);
        }
        self.parts.push(part);
    }
}

/// What is new about an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It began.
    Began,
    /// It is worse than before.
    Worse,
    /// All of it is over.
    Ended,
}

/// The episodes of one host.
#[derive(Debug, Default)]
pub(super) struct Book {
    all: VecDeque<Episode>,
    /// When the newest one was last joined.
    joined: Option<BootTime>,
    last_id: u64,
}

impl Book {
    /// A part began: its episode, and what is new about that.
    pub(super) fn begin(
        &mut self,
        part: Part,
        changes: impl FnOnce() -> Vec<String>,
        now: BootTime,
    ) -> (u64, Option<News>) {
        let fresh = self.joined.is_some_and(|joined| now.since(joined) <= JOIN);
        self.joined = Some(now);
        let newest = self.all.back_mut();
        if let Some(episode) = newest.filter(|i| fresh && i.ended_unix_ms.is_none()) {
            let worse = part.severity > episode.severity;
            episode.severity = episode.severity.max(part.severity);
            episode.join(part);
            return (episode.id, worse.then_some(News::Worse));
        }
        self.last_id = (part.joined_unix_ms / 1_000).max(self.last_id + 1);
        if self.all.len() >= REMEMBERED {
            self.all.pop_front();
        }
        self.all.push_back(Episode {
            id: self.last_id,
            began_unix_ms: part.joined_unix_ms,
            ended_unix_ms: None,
            became_usual: false,
            severity: part.severity,
            parts: vec![part],
            more_parts: 0,
            changes: changes(),
            feedback: None,
        });
        (self.last_id, Some(News::Began))
    }

    /// The part of episode `id` that is of this owner, instance and step.
    pub(super) fn part(&mut self, id: u64, of: &Part) -> Option<&mut Part> {
        let episode = self.all.iter_mut().find(|episode| episode.id == id)?;
        episode.parts.iter_mut().find(|part| part.is_same(of))
    }

    /// A part became worse.
    pub(super) fn worsen(&mut self, id: u64, severity: Severity) -> Option<News> {
        let episode = self.all.iter_mut().find(|episode| episode.id == id)?;
        let worse = severity > episode.severity;
        episode.severity = episode.severity.max(severity);
        worse.then_some(News::Worse)
    }

    /// A part of episode `id` lasted so long that it is usual now.
    pub(super) fn become_usual(&mut self, id: u64) {
        if let Some(episode) = self.get_mut(id) {
            episode.became_usual = true;
        }
    }

    /// `open` parts of episode `id` go on; it ends when there is none.
    pub(super) fn end(&mut self, id: u64, open: usize, unix_ms: u64) -> Option<News> {
        let goes_on = |episode: &&mut Episode| open == 0 && episode.ended_unix_ms.is_none();
        let episode = self.get_mut(id).filter(goes_on)?;
        episode.ended_unix_ms = Some(unix_ms.max(episode.began_unix_ms));
        Some(News::Ended)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Episode> {
        self.all.iter().find(|episode| episode.id == id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Episode> {
        self.all.iter_mut().find(|episode| episode.id == id)
    }

    /// All that are remembered, the oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Episode> {
        self.all.iter()
    }

    /// Episodes under way.
    pub(super) fn open(&self) -> usize {
        self.all.iter().filter(|episode| episode.ended_unix_ms.is_none()).count()
    }
}

impl Part {
    fn is_same(&self, other: &Self) -> bool {
        (self.owner, &self.instance, self.step) == (other.owner, &other.instance, other.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(instance: &str, severity: Severity, per_week: f64) -> Part {
        Part {
            owner: if instance.is_empty() { Owner::Host } else { Owner::Unit },
            instance: instance.into(),
            step: Duration::from_secs(10),
            joined_unix_ms: 5_000,
            loudest_unix_ms: 5_000,
            is_over: false,
            severity,
            per_week,
            reasons: Vec::new(),
            course: Vec::new(),
        }
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn what_begins_together_is_one_and_what_comes_later_another() {
        let mut episodes = Book::default();
        let begin = |episodes: &mut Book, part: Part, now| episodes.begin(part, Vec::new, at(now));
        let host = part("", Severity::Minor, 0.5);
        let (first, news) = begin(&mut episodes, host.clone(), 100);
        assert_eq!((first, news), (5, Some(News::Began)));
        let (same, news) = begin(&mut episodes, part("a.service", Severity::Severe, 1e-9), 200);
        assert_eq!((same, news), (first, Some(News::Worse)));
        assert_eq!(
            episodes.get(first).and_then(Episode::leading).map(|p| &*p.instance),
            Some("a.service")
        );
        assert!(episodes.part(first, &host).is_some());
        let (other, news) = begin(&mut episodes, part("b.service", Severity::Minor, 0.5), 600);
        assert_eq!((other, news), (6, Some(News::Began)));
        assert_eq!(episodes.end(first, 1, 9_000), None);
        assert_eq!(episodes.end(first, 0, 9_000), Some(News::Ended));
        assert_eq!((episodes.end(first, 0, 9_000), episodes.open()), (None, 1));
        // Nothing joins what is over.
        episodes.become_usual(other);
        episodes.end(other, 0, 9_000);
        let (third, _) = begin(&mut episodes, part("c.service", Severity::Minor, 0.5), 610);
        assert_eq!(third, 7);
    }

    #[test]
    fn memory_is_bounded() {
        let mut episodes = Book::default();
        for n in 0..1_000 {
            episodes.begin(part("a.service", Severity::Minor, 1.0), Vec::new, at(n * 1_000));
        }
        assert_eq!(episodes.iter().count(), REMEMBERED);
        for n in 0..100 {
            let name = format!("{n}.service");
            episodes.begin(part(&name, Severity::Minor, 1.0), Vec::new, at(999_000));
        }
        let newest = episodes.iter().next_back().unwrap();
        assert_eq!((newest.parts.len(), newest.more_parts), (PARTS, 77));
        // What is worse is still told.
        episodes.begin(part("worse.service", Severity::Severe, 1e-9), Vec::new, at(999_000));
        let newest = episodes.iter().next_back().unwrap();
        assert_eq!((newest.parts.len(), newest.more_parts), (PARTS, 78));
        assert_eq!(newest.leading().map(|part| &*part.instance), Some("worse.service"));
    }
}
