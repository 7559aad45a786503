//! Is what this host does unusual? Windows go in, episodes come out.
//!
//! Pure: time is an argument, and what is learnt leaves and comes as bytes. The arithmetic
//! is that of the crate `holdfast_scorer`; here it is given the catalogue's signals. Each
//! host, unit, device and interface is a group of metrics that is scored at several
//! time scales. How rare a group must find itself for an alarm follows from what is promised
//! for the whole host, shared out over all groups, and from what changed lately.

mod book;
mod calibration;
mod change;
mod judge;
mod scale;
mod state;
mod subject;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_proto::histogram;
use holdfast_scorer::episode;
use holdfast_scorer::forest::{Forest, Reservoir};

use crate::catalogue::{Owner, Scoring, SignalId};
use crate::report::{Point, Window};
use book::Book;
use judge::{Judged, Records};
use scale::Scale;
use subject::{Caution, Subject, Tier};

pub use book::{Episode, Feedback, News, Part, Reason};
pub use calibration::{Calibration, Detector};
pub use change::Change;
pub use holdfast_scorer::episode::Severity;

/// Most hosts, units, devices and interfaces together that are scored.
const SUBJECTS: usize = 384;
/// Who is there for less than this is not scored: sessions, jobs, what is started by hand.
const STAYS: Duration = Duration::from_secs(120);
/// Most of those that may stay.
const NEWCOMERS: usize = 2_048;
/// One that was not seen for so long makes room for others, and for so long is forgotten.
const ABSENT: Duration = Duration::from_secs(3_600);
const FORGET: Duration = Duration::from_secs(14 * 86_400);
/// Changes remembered.
const CHANGES: usize = 32;

/// What to promise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Length of a window.
    pub window: Duration,
    /// How many false alarms a week the host may raise.
    pub promised_per_week: f64,
    /// History before anything is scored; two hundred rows at least, whatever this says,
    /// and 350 before an episode.
    pub learning: Duration,
}

/// Why what somebody says of an episode cannot be taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JudgeError {
    /// There is none.
    #[error("no episode {0} is remembered; `holdfast episodes` lists them")]
    Unknown(u64),
    /// It was said before.
    #[error("episode {0} was judged before")]
    Judged(u64),
    /// Nothing is scored.
    #[error("scoring is switched off (`scoring.enabled`)")]
    Off,
}

/// Scores the windows of one host.
#[derive(Debug)]
pub struct Scorer {
    options: Options,
    /// Scored signals of each owner, in catalogue order: the metrics of its groups.
    signals: [Vec<SignalId>; Owner::ALL.len()],
    /// Place of each signal among those of its owner.
    places: Vec<Option<u16>>,
    subjects: Vec<Subject>,
    /// Who is seen, but not for long yet: in how many windows, and in which one last.
    newcomers: HashMap<(Owner, Arc<str>), (u64, u64)>,
    index: [HashMap<Arc<str>, usize>; Owner::ALL.len()],
    episodes: Book,
    changes: VecDeque<(BootTime, Change)>,
    calibration: Calibration,
    windows: u64,
    refused: u64,
    odd: f64,
}

/// A forest to be grown: where it is to be planted, what it grows from, and its version.
pub type Seed = (usize, usize, Reservoir, u32);

impl Scorer {
    /// Knows nothing.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let of = |owner| {
            let scored = |id: &SignalId| {
                id.signal().owner == owner && id.signal().scoring == Scoring::Scored
            };
            SignalId::all().filter(scored).collect()
        };
        let signals: [Vec<SignalId>; Owner::ALL.len()] = Owner::ALL.map(of);
        let place = |id: SignalId| {
            let of_owner = signals.get(id.signal().owner as usize)?;
            of_owner.iter().position(|scored| *scored == id)?.try_into().ok()
        };
        let places = SignalId::all().map(place).collect();
        let calibration =
            Calibration { promised_per_week: options.promised_per_week, ..Calibration::default() };
        Self {
            options,
            signals,
            places,
            subjects: Vec::new(),
            newcomers: HashMap::new(),
            index: Default::default(),
            episodes: Book::default(),
            changes: VecDeque::new(),
            calibration,
            windows: 0,
            refused: 0,
            odd: 0.0,
        }
    }

    /// Takes in a window; what is new of which episode.
    pub fn window(&mut self, window: &Window, now: BootTime) -> Vec<(News, u64)> {
        self.windows += 1;
        for point in &window.points {
            self.gather(point);
        }
        let mut news = Vec::new();
        let (groups, open) = (self.groups(), self.episodes.open());
        let level = episode::level(self.options.promised_per_week, groups, open);
        let seconds = window.end_unix_ms as f64 / 1e3;
        let (mut odd, mut read) = (0, 0);
        let mut subjects = std::mem::take(&mut self.subjects);
        let mut records = Records {
            episodes: &mut self.episodes,
            calibration: &mut self.calibration,
            changes: &self.changes,
        };
        for subject in subjects.iter_mut().filter(|subject| subject.seen == self.windows) {
            let signals = self.signals.get(subject.owner as usize).map_or(&[][..], Vec::as_slice);
            let doubt = subject.doubt(now);
            for (n, tier) in subject.tiers.iter_mut().enumerate() {
                let Some(verdict) = tier.push(seconds, &subject.values) else { continue };
                if n == 0 {
                    let (of_it, of_all) = tier.odd(&subject.values);
                    (odd, read) = (odd + of_it, read + of_all);
                }
                let judged = Judged {
                    owner: subject.owner,
                    instance: &subject.instance,
                    signals,
                    values: &subject.values,
                };
                news.extend(judged.judge(
                    tier,
                    &verdict,
                    (level, doubt),
                    &mut records,
                    (now, window.end_unix_ms),
                ));
            }
            subject.values.fill(f64::NAN);
            subject.forgive(self.options.window);
        }
        self.subjects = subjects;
        self.odd = if read == 0 { 0.0 } else { odd as f64 / read as f64 };
        if groups > 0 {
            self.calibration.weeks += self.options.window.as_secs_f64() / (7.0 * 86_400.0);
        }
        self.end_episodes(window.end_unix_ms, &mut news);
        self.forget();
        news
    }

    /// Puts a point where it belongs.
    fn gather(&mut self, point: &Point) {
        let id = point.series.signal;
        let Some(place) = self.places.get(id.index()).copied().flatten() else { return };
        let owner = id.signal().owner;
        let known = self.index.get(owner as usize).and_then(|of| of.get(&point.series.instance));
        let at = match known {
            Some(at) => *at,
            None => match self.meet(owner, &point.series.instance) {
                Some(at) => at,
                None => return,
            },
        };
        let Some(subject) = self.subjects.get_mut(at) else { return };
        let value = match &point.histogram {
            Some(counted) => {
                let buckets = counted.bucket.iter().map(|n| *n as usize);
                histogram::quantile(buckets.zip(counted.count.iter().copied()), 0.99)
            }
            None => Some(point.stats.mean),
        };
        if let (Some(slot), Some(value)) = (subject.values.get_mut(usize::from(place)), value) {
            *slot = Scale::of(id.signal()).forth(value);
        }
        subject.seen = self.windows;
    }

    /// A place for somebody who is here to stay; `None` for who is new, or when there is no
    /// room.
    fn meet(&mut self, owner: Owner, instance: &Arc<str>) -> Option<usize> {
        if owner != Owner::Host && !self.stays(owner, instance) {
            return None;
        }
        if self.subjects.len() >= SUBJECTS && !self.make_room() {
            self.refused += 1;
            return None;
        }
        self.newcomers.remove(&(owner, Arc::clone(instance)));
        let metrics = self.signals.get(owner as usize)?.len();
        let at = self.subjects.len();
        self.subjects.push(Subject::new(owner, Arc::clone(instance), metrics, &self.options));
        self.index.get_mut(owner as usize)?.insert(Arc::clone(instance), at);
        Some(at)
    }

    /// Whether it has been there for long enough.
    fn stays(&mut self, owner: Owner, instance: &Arc<str>) -> bool {
        let now = self.windows;
        if self.newcomers.len() >= NEWCOMERS {
            self.newcomers.retain(|_, (_, last)| *last + 1 >= now);
        }
        if self.newcomers.len() >= NEWCOMERS {
            self.refused += 1;
            return false;
        }
        let (seen, last) =
            self.newcomers.entry((owner, Arc::clone(instance))).or_insert((0, now.wrapping_sub(1)));
        if *last < now {
            // Who was away begins again.
            *seen = if *last + 1 == now { *seen + 1 } else { 1 };
            *last = now;
        }
        *seen >= self.windows_of(STAYS)
    }

    /// Forgets who has been away and is known least; false when nobody is.
    fn make_room(&mut self) -> bool {
        let absent = self.windows.saturating_sub(self.windows_of(ABSENT));
        let rows = |subject: &Subject| subject.tiers.first().map_or(0, |tier| tier.group.rows());
        let away = |subject: &Subject| subject.owner != Owner::Host && subject.seen < absent;
        let known = self.subjects.iter().enumerate().filter(|(_, subject)| away(subject));
        let Some((at, _)) = known.min_by_key(|(_, subject)| rows(subject)) else { return false };
        self.subjects.remove(at);
        self.rebuild_index();
        true
    }

    fn windows_of(&self, time: Duration) -> u64 {
        let windows = time.as_millis() / self.options.window.as_millis().max(1);
        u64::try_from(windows).unwrap_or(u64::MAX)
    }

    /// Groups that score.
    fn groups(&self) -> usize {
        self.tiers().filter(|tier| tier.verdict.is_some_and(|verdict| !verdict.learning)).count()
    }

    fn tiers(&self) -> impl Iterator<Item = &Tier> {
        let recent = self.windows.saturating_sub(6);
        let seen = self.subjects.iter().filter(move |subject| subject.seen >= recent);
        seen.flat_map(|subject| &subject.tiers)
    }

    /// Ends the episodes of which nothing goes on; a unit that is gone goes on no more.
    fn end_episodes(&mut self, unix_ms: u64, news: &mut Vec<(News, u64)>) {
        let gone = self.windows.saturating_sub(30);
        for subject in self.subjects.iter_mut().filter(|subject| subject.seen < gone) {
            for tier in subject.tiers.iter_mut().filter(|tier| tier.episode.is_some()) {
                tier.follower.dismiss();
                tier.episode = None;
            }
        }
        let open: Vec<u64> = self
            .episodes
            .iter()
            .filter(|episode| episode.ended_unix_ms.is_none())
            .map(|episode| episode.id)
            .collect();
        for id in open {
            let tiers = self.subjects.iter().flat_map(|subject| &subject.tiers);
            let left = tiers.filter(|tier| tier.episode == Some(id)).count();
            news.extend(self.episodes.end(id, left, unix_ms).map(|ended| (ended, id)));
        }
    }

    fn forget(&mut self) {
        let oldest = self.windows.saturating_sub(self.windows_of(FORGET));
        if self.subjects.iter().any(|subject| subject.seen < oldest) {
            self.subjects.retain(|subject| subject.seen >= oldest);
            self.rebuild_index();
        }
    }

    fn rebuild_index(&mut self) {
        self.index.iter_mut().for_each(HashMap::clear);
        for (at, subject) in self.subjects.iter().enumerate() {
            if let Some(of) = self.index.get_mut(subject.owner as usize) {
                of.insert(Arc::clone(&subject.instance), at);
            }
        }
    }

    /// Takes in that something changed: for a while only what is rarer alarms.
    pub fn change(&mut self, change: Change, now: BootTime) {
        let (length, decades) = change.caution();
        let caution = Caution::new(now, length, decades);
        let of = change.unit().cloned();
        for subject in &mut self.subjects {
            let concerned = match &of {
                Some(unit) => subject.owner == Owner::Unit && subject.instance == *unit,
                None => true,
            };
            if concerned {
                subject.be_careful(caution, now);
            }
        }
        if self.changes.len() >= CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((now, change));
    }

    /// The agent looks less or more deeply: what it reads no more is not missing.
    pub fn change_depth(&mut self) {
        let tiers = self.subjects.iter_mut().flat_map(|subject| &mut subject.tiers);
        tiers.for_each(|tier| tier.group.excuse_gaps());
    }

    /// Takes in what somebody says of episode `id`. What was false must be rarer to be
    /// told again, for some weeks.
    ///
    /// # Errors
    ///
    /// When there is no such episode, or something was said of it before.
    pub fn feedback(&mut self, id: u64, feedback: Feedback) -> Result<(), JudgeError> {
        let episode = self.episodes.get_mut(id).ok_or(JudgeError::Unknown(id))?;
        if episode.feedback.is_some() {
            return Err(JudgeError::Judged(id));
        }
        episode.feedback = Some(feedback);
        match feedback {
            Feedback::Real => self.calibration.said_real += 1,
            Feedback::False => {
                self.calibration.said_false += 1;
                let of = |subject: &&mut Subject| {
                    let same = |part: &Part| {
                        (part.owner, &part.instance) == (subject.owner, &subject.instance)
                    };
                    episode.parts.iter().any(same)
                };
                self.subjects.iter_mut().filter(of).for_each(Subject::distrust);
            }
        }
        Ok(())
    }

    /// The episodes that are remembered, the oldest first.
    pub fn episodes(&self) -> impl DoubleEndedIterator<Item = &Episode> {
        self.episodes.iter()
    }

    /// Episode `id`.
    #[must_use]
    pub fn episode(&self, id: u64) -> Option<&Episode> {
        self.episodes.get(id)
    }

    /// What is promised and what was observed.
    #[must_use]
    pub fn calibration(&self) -> Calibration {
        let count = |learning: bool| {
            let tiers = self.tiers().filter_map(|tier| tier.verdict);
            let of = tiers.filter(|verdict| verdict.learning == learning).count();
            u32::try_from(of).unwrap_or(u32::MAX)
        };
        let (groups, learning) = (count(false), count(true));
        Calibration { groups, learning, ..self.calibration.clone() }
    }

    /// The newest score of somebody; `None` while it learns.
    #[must_use]
    pub fn score(&self, owner: Owner, instance: &str) -> Option<f64> {
        let at = *self.index.get(owner as usize)?.get(instance)?;
        let verdict = self.subjects.get(at)?.tiers.first()?.verdict?;
        (!verdict.learning).then_some(verdict.score)
    }

    /// Share of the scored signals that were odd in the last window.
    #[must_use]
    pub const fn odd(&self) -> f64 {
        self.odd
    }

    /// Hosts, units, devices and interfaces that were not scored because there were too
    /// many, counted for each signal and window.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// A forest that is due, to be grown in the background.
    #[must_use]
    pub fn seed(&self) -> Option<Seed> {
        self.subjects.iter().enumerate().find_map(|(at, subject)| {
            subject.tiers.iter().enumerate().find_map(|(n, tier)| {
                let (past, version) = tier.group.forest_due()?;
                Some((at, n, past.clone(), version))
            })
        })
    }

    /// Takes over a forest that was grown for the place it was asked for at.
    pub fn plant(&mut self, at: usize, tier: usize, forest: Forest) {
        let subject = self.subjects.get_mut(at).filter(|subject| subject.owner == Owner::Host);
        if let Some(tier) = subject.and_then(|subject| subject.tiers.get_mut(tier)) {
            tier.group.plant(forest);
        }
    }
}

#[cfg(test)]
mod tests;
