//! From what a row says to what is new of which episode.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_scorer::episode::{Severity, Turn};
use holdfast_scorer::group::Verdict;

use super::book::{Book, News, Part};
use super::calibration::{CHECKED_PER_WEEK, Calibration};
use super::change::Change;
use super::subject::Tier;
use crate::catalogue::{Owner, SignalId};

/// How old a change may be to be told with an episode.
const RECENT: Duration = Duration::from_secs(900);
/// What is less loud is told by nobody, however rare it is: a unit that never does anything
/// has never seen as much as a second thread.
const LEAST_DEVIATIONS: f64 = 12.0;
/// What is read no more has no rarity. It is told as the least of what is told at all, and
/// where there is any doubt it is not.
const MISSING: f64 = 0.5;

/// A row of somebody, with what it takes to explain it.
pub(super) struct Judged<'a> {
    pub(super) owner: Owner,
    pub(super) instance: &'a Arc<str>,
    pub(super) signals: &'a [SignalId],
    pub(super) values: &'a [f64],
}

/// What is known beside the row.
pub(super) struct Records<'a> {
    pub(super) episodes: &'a mut Book,
    pub(super) calibration: &'a mut Calibration,
    pub(super) changes: &'a VecDeque<(BootTime, Change)>,
}

impl Judged<'_> {
    /// Follows the episodes of `tier`, which is `doubt`ed, where `level` times a week is rare
    /// enough; what is new of which episode.
    pub(super) fn judge(
        &self,
        tier: &mut Tier,
        verdict: &Verdict,
        (level, doubt): (f64, f64),
        Records { episodes, calibration, changes }: &mut Records<'_>,
        (now, unix_ms): (BootTime, u64),
    ) -> Option<(News, u64)> {
        let mut per_week = verdict.per_week;
        if per_week.is_finite() {
            let loud = tier.check.push(per_week, CHECKED_PER_WEEK) == Turn::Begins;
            calibration.watch(self.owner, tier.step, loud);
        }
        if verdict.deviations < LEAST_DEVIATIONS {
            per_week = f64::INFINITY;
        }
        if verdict.missing > 0 && tier.misses(self.signals) {
            per_week = per_week.min(MISSING * level);
        }
        match tier.follower.push(per_week, level * doubt * tier.trust()) {
            Turn::Begins => {
                let recent = || {
                    let recent = changes.iter().filter(|(at, _)| now.since(*at) <= RECENT);
                    recent.map(|(_, change)| change.text()).collect()
                };
                let (id, news) = episodes.begin(self.part(tier, unix_ms)?, recent, now);
                tier.episode = Some(id);
                calibration.told += u64::from(news == Some(News::Began));
                Some((news?, id))
            }
            Turn::Same => {
                self.keep_loudest(tier, episodes, unix_ms);
                None
            }
            Turn::Worsens => {
                self.keep_loudest(tier, episodes, unix_ms);
                let (id, severity) = (tier.episode?, tier.follower.open()?.severity());
                episodes.worsen(id, severity).map(|news| (news, id))
            }
            turn @ (Turn::Ends | Turn::BecomesUsual) => {
                let id = tier.episode.take()?;
                let part = Part { course: tier.course(), ..self.named(tier, unix_ms) };
                if let Some(known) = episodes.part(id, &part) {
                    (known.is_over, known.course) = (true, part.course);
                }
                if turn == Turn::BecomesUsual {
                    episodes.become_usual(id);
                }
                // It is over when no part goes on, which the scorer sees to.
                None
            }
        }
    }

    /// What is told of an episode is how it was at its loudest.
    fn keep_loudest(&self, tier: &Tier, episodes: &mut Book, unix_ms: u64) {
        let (Some(id), Some(open)) = (tier.episode, tier.follower.open()) else { return };
        let now = self.named(tier, unix_ms);
        let Some(part) = episodes.part(id, &now) else { return };
        part.course = tier.course();
        if open.rarest < part.per_week {
            part.per_week = open.rarest;
            part.loudest_unix_ms = unix_ms;
            part.severity = open.severity();
            part.reasons = tier.reasons(self.signals, self.values);
        }
    }

    fn part(&self, tier: &Tier, unix_ms: u64) -> Option<Part> {
        let open = tier.follower.open()?;
        Some(Part {
            severity: open.severity(),
            per_week: open.rarest,
            reasons: tier.reasons(self.signals, self.values),
            course: tier.course(),
            ..self.named(tier, unix_ms)
        })
    }

    fn named(&self, tier: &Tier, unix_ms: u64) -> Part {
        Part {
            owner: self.owner,
            instance: Arc::clone(self.instance),
            step: tier.step,
            joined_unix_ms: unix_ms,
            loudest_unix_ms: unix_ms,
            is_over: false,
            severity: Severity::Minor,
            per_week: f64::INFINITY,
            reasons: Vec::new(),
            course: Vec::new(),
        }
    }
}
