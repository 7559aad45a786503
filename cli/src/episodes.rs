//! `holdfast episodes` and `holdfast explain EPISODE`: what was unusual on this host, and
//! why it was found so.

use std::time::Duration;

use holdfast_proto::v1::{self, ListEpisodesRequest};
use serde::Serialize;

use crate::{
    catalogue::{Kind, Meaning, Owner},
    cli,
    connection::Agent,
    error::Error,
    healing, measure,
    output::{Look, Output},
    sparkline,
    table::{Table, Tone, left, pairs, right},
    text::clean,
};

/// No episode has a smaller number than this.
const FIRST_EPISODE: u64 = 1_000_000_000;

/// How rare what happened is, against what is told at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Minor,
    Major,
    Severe,
}

impl Severity {
    fn from_wire(severity: i32) -> Self {
        match v1::EpisodeSeverity::try_from(severity) {
            Ok(v1::EpisodeSeverity::Severe) => Self::Severe,
            Ok(v1::EpisodeSeverity::Major) => Self::Major,
            _ => Self::Minor,
        }
    }

    fn cell(self) -> (String, Tone) {
        let (name, tone) = match self {
            Self::Minor => ("minor", Tone::Plain),
            Self::Major => ("major", Tone::Warning),
            Self::Severe => ("severe", Tone::Bad),
        };
        (name.to_owned(), tone)
    }
}

/// A signal's share in what is unusual.
#[derive(Debug, Serialize)]
struct Reason {
    signal: String,
    #[serde(flatten)]
    meaning: Meaning,
    value: f64,
    usual: f64,
    /// Of all that made the score; 1 is the whole.
    share: f64,
}

impl Reason {
    fn from_wire(reason: &v1::EpisodeReason) -> Self {
        Self {
            signal: clean(&reason.signal),
            meaning: Meaning {
                kind: Kind::from_wire(reason.kind),
                measure: clean(&reason.measure),
            },
            value: reason.value,
            usual: reason.usual,
            share: reason.share,
        }
    }

    /// "14 × its usual", or which way it went where that is no number.
    fn against_usual(&self) -> String {
        let times = self.value / self.usual;
        match times {
            _ if self.value.is_nan() => "is read no more".to_owned(),
            _ if self.value == self.usual => "as usual".to_owned(),
            times if times.is_finite() && (1.05..10_000.0).contains(&times) => {
                format!("{times:.1} × its usual")
            }
            _ if self.value > self.usual => "above its usual".to_owned(),
            _ => "below its usual".to_owned(),
        }
    }
}

/// A host, unit, device or interface that takes part, at one time scale.
#[derive(Debug, Serialize)]
struct Part {
    owner: Owner,
    /// Null for the host.
    instance: Option<String>,
    step_seconds: f64,
    joined_unix_ms: u64,
    loudest_unix_ms: u64,
    is_over: bool,
    severity: Severity,
    /// How many times a week it is as loud as at its loudest.
    per_week: f64,
    /// The largest share first.
    reasons: Vec<Reason>,
    /// Scores, a step apart, up to the newest.
    course: Vec<f32>,
}

impl Part {
    fn from_wire(part: &v1::EpisodePart) -> Self {
        Self {
            owner: Owner::from_wire(part.owner),
            instance: Some(clean(&part.instance)).filter(|name| !name.is_empty()),
            step_seconds: f64::from(part.step_ms) / 1e3,
            joined_unix_ms: part.joined_unix_ms,
            loudest_unix_ms: part.loudest_unix_ms,
            is_over: part.is_over,
            severity: Severity::from_wire(part.severity),
            per_week: part.per_week,
            reasons: part.reason.iter().map(Reason::from_wire).collect(),
            course: part.course.clone(),
        }
    }

    fn name(&self) -> &str {
        self.instance.as_deref().unwrap_or("the host")
    }
}

/// Something unusual, from its beginning to its end.
#[derive(Debug, Serialize)]
struct Episode {
    id: u64,
    began_unix_ms: u64,
    /// Null while it goes on.
    ended_unix_ms: Option<u64>,
    /// It ended because it lasted so long that it is usual now.
    became_usual: bool,
    severity: Severity,
    /// "false" or "real"; null when nobody said so.
    judgement: Option<&'static str>,
    changes: Vec<String>,
    /// The one that explains it best first.
    parts: Vec<Part>,
    more_parts: u32,
}

impl Episode {
    fn from_wire(episode: &v1::Episode) -> Self {
        let mut parts: Vec<Part> = episode.part.iter().map(Part::from_wire).collect();
        if let Ok(leading) = usize::try_from(episode.leading)
            && leading < parts.len()
        {
            let part = parts.remove(leading);
            parts.insert(0, part);
        }
        let judgement = match v1::EpisodeJudgement::try_from(episode.judgement) {
            Ok(v1::EpisodeJudgement::False) => Some("false"),
            Ok(v1::EpisodeJudgement::Real) => Some("real"),
            _ => None,
        };
        Self {
            id: episode.id,
            began_unix_ms: episode.began_unix_ms,
            ended_unix_ms: Some(episode.ended_unix_ms).filter(|ended| *ended > 0),
            became_usual: episode.became_usual,
            severity: Severity::from_wire(episode.severity),
            judgement,
            changes: episode.change.iter().map(|change| clean(change)).collect(),
            parts,
            more_parts: episode.more_parts,
        }
    }

    /// How long it lasted, or "goes on".
    fn length(&self) -> String {
        self.ended_unix_ms.map_or_else(
            || "goes on".to_owned(),
            |ended| measure::span(Duration::from_millis(ended.saturating_sub(self.began_unix_ms))),
        )
    }
}

/// All episodes, or why there are none.
async fn ask(agent: &mut Agent) -> Result<Vec<Episode>, Error> {
    let answer =
        agent.call(async |client| client.list_episodes(ListEpisodesRequest {}).await).await?;
    if answer.off {
        return Err(Error::ScoringOff);
    }
    Ok(answer.episode.iter().map(Episode::from_wire).collect())
}

pub(crate) async fn list(agent: &mut Agent, output: &mut Output) -> Result<(), Error> {
    let episodes = ask(agent).await?;
    output.show(episodes.as_slice(), table)
}

pub(crate) async fn explain(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::Explain,
) -> Result<(), Error> {
    // Episodes are numbered by the second they began in: no operation has such a number.
    if let Some(id) = options.number.filter(|number| *number < FIRST_EPISODE) {
        return healing::explain(agent, output, id).await;
    }
    let episodes = ask(agent).await?;
    let newest = || episodes.last().map(|episode| episode.id);
    let id = options.number.or_else(newest).ok_or(Error::NoEpisode(None))?;
    let episode = episodes.iter().find(|episode| episode.id == id);
    output.show(episode.ok_or(Error::NoEpisode(Some(id)))?, text)
}

fn table(episodes: &[Episode], look: &Look) -> String {
    let columns = [
        left("EPISODE"),
        left("BEGAN"),
        right("LASTED"),
        left("SEVERITY"),
        left("WHERE"),
        left("WHAT"),
    ];
    let mut table = Table::new(look, &columns);
    for episode in episodes {
        let plain = |text: String| (text, Tone::Plain);
        let leading = episode.parts.first();
        let others = episode.parts.len().saturating_sub(1) + episode.more_parts as usize;
        let mut place = leading.map_or("-", Part::name).to_owned();
        if others > 0 {
            place = format!("{place} and {others} more");
        }
        let what = leading.and_then(|part| part.reasons.first());
        let what = what.map(|reason| format!("{} {}", reason.signal, reason.against_usual()));
        let mut severity = episode.severity.cell();
        if let Some(judgement) = episode.judgement {
            severity.0 = format!("{} (said {judgement})", severity.0);
        }
        table.toned([
            plain(episode.id.to_string()),
            (look.time(episode.began_unix_ms), Tone::Faint),
            plain(episode.length()),
            severity,
            plain(place),
            plain(what.unwrap_or_default()),
        ]);
    }
    table.finish("Nothing unusual is remembered.")
}

/// Columns of the chart.
const CHART: usize = 60;

fn text(episode: &Episode, look: &Look) -> String {
    let mut text = pairs(&[
        ("episode", episode.id.to_string()),
        ("began", look.time(episode.began_unix_ms)),
        ("lasted", episode.length()),
        ("severity", episode.severity.cell().0),
        ("ended", if episode.became_usual { "it became usual".into() } else { String::new() }),
        ("judged", episode.judgement.unwrap_or_default().to_owned()),
        ("changes before", episode.changes.join("; ")),
    ]);
    for part in &episode.parts {
        let rate = match part.per_week {
            rate if rate >= 0.01 => format!("{rate:.2} times a week"),
            _ => "less than once in two years".to_owned(),
        };
        let step = measure::span(Duration::from_secs_f64(part.step_seconds.max(0.0)));
        text.push_str(&format!("\n{} ({step} steps): as loud as this {rate}\n", part.name()));
        let scores: Vec<f64> = part.course.iter().map(|score| f64::from(*score)).collect();
        text.push_str(&format!("  score  {}\n", sparkline::draw(&scores, CHART)));
        let columns = [left("  SIGNAL"), right("SHARE"), right("WAS"), right("USUALLY"), left("")];
        let mut table = Table::new(look, &columns);
        for reason in &part.reasons {
            table.row([
                format!("  {}", reason.signal),
                measure::share(reason.share),
                measure::value(&reason.meaning, reason.value),
                measure::value(&reason.meaning, reason.usual),
                reason.against_usual(),
            ]);
        }
        text.push_str(&table.finish("  No signal stands out."));
    }
    if episode.more_parts > 0 {
        text.push_str(&format!("\nand {} parts more\n", episode.more_parts));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{capture, field_names, plain};

    fn episode() -> Episode {
        let reason = v1::EpisodeReason {
            signal: "disk.write.latency".into(),
            measure: "ns".into(),
            kind: v1::SignalKind::Histogram.into(),
            value: 14e6,
            usual: 1e6,
            share: 0.75,
        };
        let part = |instance: &str, owner: v1::Owner| v1::EpisodePart {
            owner: owner.into(),
            instance: instance.into(),
            step_ms: 10_000,
            joined_unix_ms: 60_000,
            loudest_unix_ms: 61_000,
            is_over: true,
            severity: v1::EpisodeSeverity::Severe.into(),
            per_week: 1e-5,
            reason: vec![reason.clone()],
            course: vec![0.1, 0.2, 0.9],
        };
        Episode::from_wire(&v1::Episode {
            id: 60,
            began_unix_ms: 60_000,
            ended_unix_ms: 400_000,
            became_usual: false,
            severity: v1::EpisodeSeverity::Severe.into(),
            part: vec![part("", v1::Owner::Host), part("vda", v1::Owner::Device)],
            more_parts: 0,
            change: vec!["db.service was started".into()],
            judgement: v1::EpisodeJudgement::Real.into(),
            leading: 1,
        })
    }

    #[test]
    fn golden_table() {
        assert_eq!(
            table(&[episode()], &plain()),
            "\
EPISODE  BEGAN                      LASTED  SEVERITY            WHERE           WHAT
60       1970-01-01T00:01:00+00:00  5m 40s  severe (said real)  vda and 1 more  disk.write.latency 14.0 × its usual
"
        );
        assert_eq!(table(&[], &plain()), "Nothing unusual is remembered.\n");
    }

    #[test]
    fn golden_explanation() {
        let shown = text(&episode(), &plain());
        let expected = "\
episode         60
began           1970-01-01T00:01:00+00:00
lasted          5m 40s
severity        severe
judged          real
changes before  db.service was started

vda (10s steps): as loud as this less than once in two years
  score  ▂▃█
  SIGNAL               SHARE    WAS  USUALLY
  disk.write.latency  75.0 %  14 ms     1 ms  14.0 × its usual
";
        assert!(shown.starts_with(expected), "{shown}");
    }

    #[test]
    fn field_names_are_stable() {
        let json = capture(true, |output| output.show(&episode(), text).unwrap());
        assert_eq!(
            field_names(&json).join(" "),
            "became_usual began_unix_ms changes ended_unix_ms id judgement more_parts parts \
             parts.course parts.instance parts.is_over parts.joined_unix_ms \
             parts.loudest_unix_ms parts.owner parts.per_week parts.reasons parts.reasons.kind parts.reasons.measure \
             parts.reasons.share parts.reasons.signal parts.reasons.usual parts.reasons.value \
             parts.severity parts.step_seconds severity"
        );
    }

    #[test]
    fn which_way_it_went_is_said_where_times_are_no_number() {
        let of = |value: f64, usual: f64| {
            let meaning = Meaning { kind: Kind::Gauge, measure: "bytes".into() };
            Reason { signal: "m".into(), meaning, value, usual, share: 1.0 }.against_usual()
        };
        assert_eq!(
            (of(1.0, 2.0), of(2.0, 0.0)),
            ("below its usual".into(), "above its usual".into())
        );
        assert_eq!((of(0.0, 0.0), of(-1.0, -3.0)), ("as usual".into(), "above its usual".into()));
    }
}
