//! `holdfast local calibration`: is what was promised of alarms kept? And what people tell
//! the agent about them: `holdfast local feedback` and `holdfast local note`.

use std::time::Duration;

use holdfast_proto::v1::{self, GetCalibrationRequest, JudgeEpisodeRequest, NoteChangeRequest};
use serde::Serialize;

use crate::{
    catalogue::Owner,
    cli,
    connection::Agent,
    error::Error,
    measure,
    output::{Look, Output},
    table::{Table, left, pairs, right},
};

/// All groups of one kind of owner at one time scale.
#[derive(Debug, Serialize)]
struct Detector {
    owner: Owner,
    step_seconds: f64,
    group_weeks: f64,
    /// How often the groups should have been loud enough for ten times a week each.
    expected: f64,
    /// How often they were.
    observed: u64,
}

/// What is promised and what was observed.
#[derive(Debug, Serialize)]
struct Calibration {
    promised_per_week: f64,
    weeks: f64,
    told: u64,
    said_false: u64,
    said_real: u64,
    /// Null before there is a week to speak of.
    false_per_week: Option<f64>,
    groups: u32,
    learning: u32,
    detectors: Vec<Detector>,
}

impl Calibration {
    fn from_wire(answer: &v1::GetCalibrationResponse) -> Self {
        let detector = |of: &v1::DetectorCalibration| Detector {
            owner: Owner::from_wire(of.owner),
            step_seconds: f64::from(of.step_ms) / 1e3,
            group_weeks: of.group_weeks,
            expected: of.expected,
            observed: of.observed,
        };
        let rate = answer.said_false as f64 / answer.weeks;
        Self {
            promised_per_week: answer.promised_per_week,
            weeks: answer.weeks,
            told: answer.told,
            said_false: answer.said_false,
            said_real: answer.said_real,
            false_per_week: Some(rate).filter(|_| answer.weeks >= 1.0 / 7.0),
            groups: answer.groups,
            learning: answer.learning,
            detectors: answer.detector.iter().map(detector).collect(),
        }
    }
}

pub(crate) async fn show(agent: &mut Agent, output: &mut Output) -> Result<(), Error> {
    let request = GetCalibrationRequest {};
    let answer = agent.call(async |client| client.get_calibration(request).await).await?;
    if answer.off {
        return Err(Error::ScoringOff);
    }
    output.show(&Calibration::from_wire(&answer), text)
}

fn text(known: &Calibration, look: &Look) -> String {
    let open = known.told.saturating_sub(known.said_false + known.said_real);
    let told = format!(
        "{}: {} said to be false, {} to be real, {open} not judged",
        known.told, known.said_false, known.said_real
    );
    let rate = known.false_per_week.map(|rate| format!("{rate:.2} a week"));
    let mut text = pairs(&[
        ("promised", format!("at most {} false alarms a week", known.promised_per_week)),
        (
            "watched",
            measure::span(Duration::from_secs_f64((known.weeks * 604_800.0).clamp(0.0, 1e12))),
        ),
        ("episodes", told),
        ("known to be false", rate.unwrap_or_default()),
        ("groups of signals", format!("{} scored, {} learning", known.groups, known.learning)),
    ]);
    let columns = [
        left("DETECTOR"),
        right("STEP"),
        right("GROUP WEEKS"),
        right("EXPECTED"),
        right("OBSERVED"),
        right("RATIO"),
    ];
    let mut table = Table::new(look, &columns);
    for of in &known.detectors {
        let ratio = of.observed as f64 / of.expected;
        // Of fewer than that the ratio says nothing.
        let ratio = if of.expected >= 3.0 { format!("{ratio:.2}") } else { "-".to_owned() };
        table.row([
            format!("{}s", of.owner.name()),
            measure::span(Duration::from_secs_f64(of.step_seconds.max(0.0))),
            format!("{:.2}", of.group_weeks),
            format!("{:.1}", of.expected),
            of.observed.to_string(),
            ratio,
        ]);
    }
    text.push_str(
        "\nHow often groups were as loud as they should be ten times a week each (alarms are too\n\
         rare to count; real trouble counts, too):\n\n",
    );
    text.push_str(&table.finish("Nothing is scored yet."));
    text
}

/// What was done, for scripts.
#[derive(Debug, Serialize)]
struct Done {
    done: String,
}

pub(crate) async fn judge(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::Feedback,
) -> Result<(), Error> {
    let judgement = match options.judgement {
        cli::Judgement::False => v1::EpisodeJudgement::False,
        cli::Judgement::Real => v1::EpisodeJudgement::Real,
    };
    let request = JudgeEpisodeRequest { id: options.episode, judgement: judgement.into() };
    agent.call(async |client| client.judge_episode(request).await).await?;
    let done = match options.judgement {
        cli::Judgement::False => "it must be ten times as rare to be told again, for some weeks",
        cli::Judgement::Real => "it counts as a real one",
    };
    output.show(&Done { done: done.to_owned() }, |done, _| format!("noted: {}\n", done.done))
}

pub(crate) async fn note(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::Note,
) -> Result<(), Error> {
    let unit = options.unit.clone().unwrap_or_default();
    let request = NoteChangeRequest { unit, text: options.text.clone() };
    agent.call(async |client| client.note_change(request).await).await?;
    let done = "for 15 minutes only what is a good deal rarer is told".to_owned();
    output.show(&Done { done }, |done, _| format!("noted: {}\n", done.done))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{capture, field_names, plain};

    fn known() -> Calibration {
        Calibration::from_wire(&v1::GetCalibrationResponse {
            promised_per_week: 1.0,
            weeks: 2.0,
            told: 5,
            said_false: 1,
            said_real: 3,
            groups: 40,
            learning: 2,
            detector: vec![v1::DetectorCalibration {
                owner: v1::Owner::Unit.into(),
                step_ms: 10_000,
                group_weeks: 40.0,
                expected: 400.0,
                observed: 380,
            }],
            off: false,
        })
    }

    #[test]
    fn golden_text() {
        let shown = text(&known(), &plain());
        let expected = "\
promised           at most 1 false alarms a week
watched            14d 00h
episodes           5: 1 said to be false, 3 to be real, 1 not judged
known to be false  0.50 a week
groups of signals  40 scored, 2 learning
";
        assert!(shown.starts_with(expected), "{shown}");
        assert!(
            shown.contains("units      10s        40.00     400.0       380   0.95"),
            "{shown}"
        );
    }

    #[test]
    fn field_names_are_stable() {
        let json = capture(true, |output| output.show(&known(), text).unwrap());
        assert_eq!(
            field_names(&json).join(" "),
            "detectors detectors.expected detectors.group_weeks detectors.observed \
             detectors.owner detectors.step_seconds false_per_week groups learning \
             promised_per_week said_false said_real told weeks"
        );
    }
}
