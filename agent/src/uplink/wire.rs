//! From the agent's own types to the wire, cut to the wire's limits.

use std::collections::BTreeSet;

use holdfast_proto::{limits, v1};

use crate::blame::Resource;
use crate::catalogue::{self, Kind, Owner, Signal};
use crate::doctor;
use crate::kernel::attest::{Check, Outcome, Verdict};
use crate::report::{
    AttestReport, BlameReport, Event, LinkState, Newest, ProbeStatus, ProgramStatus, Proof,
    Severity, State, Vitals, Window,
};
use crate::scorer::{self, Calibration, Detector, Episode, Feedback, Part, Reason};

/// Cuts `text` to what the wire allows, at a character's edge, without control characters.
pub(crate) fn text(text: &str) -> String {
    let clean =
        text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c });
    let mut cut = String::with_capacity(text.len().min(limits::TEXT_BYTES));
    for c in clean {
        if cut.len() + c.len_utf8() > limits::TEXT_BYTES {
            break;
        }
        cut.push(c);
    }
    cut
}

pub(crate) const fn owner(owner: Owner) -> v1::Owner {
    match owner {
        Owner::Host => v1::Owner::Host,
        Owner::Unit => v1::Owner::Unit,
        Owner::Device => v1::Owner::Device,
        Owner::Interface => v1::Owner::Interface,
        Owner::Label => v1::Owner::Label,
    }
}

const fn state(state: State) -> v1::ProbeState {
    match state {
        State::Active => v1::ProbeState::Active,
        State::Degraded => v1::ProbeState::Degraded,
        State::Off => v1::ProbeState::Off,
    }
}

const fn proof(proof: &Proof) -> v1::ProbeProof {
    match proof {
        Proof::Pending => v1::ProbeProof::Pending,
        Proof::Proven { .. } => v1::ProbeProof::Proven,
        Proof::Unproven { .. } => v1::ProbeProof::Unproven,
        Proof::Failed { .. } => v1::ProbeProof::Failed,
    }
}

/// What came out of proving the probes.
pub(crate) fn attest(report: &AttestReport) -> v1::AttestResponse {
    let check = |check: &Check| v1::ProofCheck {
        program: check.program.to_owned(),
        what: check.what.to_owned(),
        expected: text(&check.expected),
        seen: text(&check.seen),
        good: check.good,
    };
    let outcome = |outcome: &Outcome| {
        let (proof, reason) = match &outcome.verdict {
            Verdict::Proven => (v1::ProbeProof::Proven, ""),
            Verdict::Unproven(reason) => (v1::ProbeProof::Unproven, reason.as_str()),
            Verdict::Failed(reason) => (v1::ProbeProof::Failed, reason.as_str()),
        };
        v1::ProofReport {
            probe: outcome.probe.to_owned(),
            proof: proof.into(),
            reason: text(reason),
            provoked: outcome.provoked.to_owned(),
            check: outcome.checks.iter().map(check).collect(),
            attempts: outcome.attempts,
        }
    };
    v1::AttestResponse {
        proof: report.outcomes.iter().map(outcome).collect(),
        took_ms: u32::try_from(report.took.as_millis()).unwrap_or(u32::MAX),
        error: text(&report.error),
    }
}

/// Something unusual.
pub(crate) fn episode(episode: &Episode) -> v1::Episode {
    let leading = episode.leading();
    let leading = episode.parts.iter().position(|part| leading == Some(part)).unwrap_or(0);
    let judgement = match episode.feedback {
        None => v1::EpisodeJudgement::Unspecified,
        Some(Feedback::False) => v1::EpisodeJudgement::False,
        Some(Feedback::Real) => v1::EpisodeJudgement::Real,
    };
    v1::Episode {
        id: episode.id,
        began_unix_ms: episode.began_unix_ms,
        ended_unix_ms: episode.ended_unix_ms.unwrap_or(0),
        became_usual: episode.became_usual,
        severity: grade(episode.severity).into(),
        part: episode.parts.iter().map(part).collect(),
        more_parts: episode.more_parts,
        change: episode.changes.iter().map(|change| text(change)).collect(),
        judgement: judgement.into(),
        leading: u32::try_from(leading).unwrap_or(0),
    }
}

const fn grade(severity: scorer::Severity) -> v1::EpisodeSeverity {
    match severity {
        scorer::Severity::Minor => v1::EpisodeSeverity::Minor,
        scorer::Severity::Major => v1::EpisodeSeverity::Major,
        scorer::Severity::Severe => v1::EpisodeSeverity::Severe,
    }
}

fn part(part: &Part) -> v1::EpisodePart {
    let reason = |reason: &Reason| {
        let info = signal(reason.signal.signal());
        v1::EpisodeReason {
            signal: info.name,
            measure: info.measure,
            kind: info.kind,
            value: reason.value,
            usual: reason.usual,
            share: reason.share,
        }
    };
    v1::EpisodePart {
        owner: owner(part.owner).into(),
        instance: part.instance.to_string(),
        step_ms: u32::try_from(part.step.as_millis()).unwrap_or(u32::MAX),
        joined_unix_ms: part.joined_unix_ms,
        loudest_unix_ms: part.loudest_unix_ms,
        is_over: part.is_over,
        severity: grade(part.severity).into(),
        per_week: part.per_week,
        reason: part.reasons.iter().map(reason).collect(),
        course: part.course.clone(),
    }
}

/// What is promised of alarms and what was observed; `None` when nothing is scored.
pub(crate) fn calibration(calibration: Option<&Calibration>) -> v1::GetCalibrationResponse {
    let Some(known) = calibration else {
        return v1::GetCalibrationResponse { off: true, ..Default::default() };
    };
    let detector = |of: &Detector| v1::DetectorCalibration {
        owner: owner(of.owner).into(),
        step_ms: u32::try_from(of.step.as_millis()).unwrap_or(u32::MAX),
        group_weeks: of.group_weeks,
        expected: of.expected,
        observed: of.observed,
    };
    v1::GetCalibrationResponse {
        promised_per_week: known.promised_per_week,
        weeks: known.weeks,
        told: known.told,
        said_false: known.said_false,
        said_real: known.said_real,
        groups: known.groups,
        learning: known.learning,
        detector: known.detectors.iter().map(detector).collect(),
        off: false,
    }
}

/// The whole catalogue.
pub(crate) fn catalogue() -> Vec<v1::SignalInfo> {
    catalogue::SIGNALS.iter().map(signal).collect()
}

fn signal(signal: &Signal) -> v1::SignalInfo {
    let kind = match signal.kind {
        Kind::Counter => v1::SignalKind::Counter,
        Kind::Gauge => v1::SignalKind::Gauge,
        Kind::Histogram => v1::SignalKind::Histogram,
    };
    v1::SignalInfo {
        name: signal.name.to_owned(),
        kind: kind.into(),
        owner: owner(signal.owner).into(),
        measure: signal.measure.name().to_owned(),
        help: signal.help.to_owned(),
        probe: signal.probe.to_owned(),
    }
}

pub(crate) fn vitals(vitals: &Vitals) -> v1::AgentVitals {
    v1::AgentVitals {
        cpu_seconds: vitals.cpu_seconds,
        rss_bytes: vitals.rss_bytes,
        map_bytes: vitals.map_bytes,
        loss: vitals
            .losses
            .iter()
            .map(|&(cause, count)| v1::Loss { cause: cause.to_owned(), count })
            .collect(),
    }
}

pub(crate) fn event(event: &Event) -> v1::Event {
    let severity = match event.severity {
        Severity::Info => v1::Severity::Info,
        Severity::Warning => v1::Severity::Warning,
        Severity::Critical => v1::Severity::Critical,
    };
    v1::Event {
        sequence: event.sequence,
        unix_ms: event.unix_ms,
        kind: event.kind.to_owned(),
        severity: severity.into(),
        unit: event.unit.to_string(),
        message: text(&event.message),
        field: event
            .fields
            .iter()
            .take(limits::EVENT_FIELDS)
            .map(|(name, value)| v1::Field { name: (*name).to_owned(), value: text(value) })
            .collect(),
    }
}

pub(crate) fn blame(report: &BlameReport) -> v1::GetBlameResponse {
    let resource = |resource| match resource {
        Resource::Cpu => v1::Resource::Cpu,
        Resource::Disk => v1::Resource::Disk,
        Resource::Memory => v1::Resource::Memory,
    };
    let resources = report.resources.iter().map(|of| v1::ResourceBlame {
        resource: resource(of.resource).into(),
        covered_ms: u32::try_from(of.covered.as_millis()).unwrap_or(u32::MAX),
        reason: text(&of.reason),
        culprit: of
            .culprits
            .iter()
            .map(|culprit| v1::Culprit {
                unit: culprit.unit.to_string(),
                itself: culprit.itself,
                ns: culprit.ns,
            })
            .collect(),
    });
    v1::GetBlameResponse { unit: report.unit.to_string(), resource: resources.collect() }
}

pub(crate) fn probe(probe: &ProbeStatus) -> v1::ProbeReport {
    v1::ProbeReport {
        name: probe.name.to_owned(),
        state: state(probe.state).into(),
        reason: text(&probe.reason),
        level: probe.level.into(),
        depth: probe.depth.map(|depth| depth.name().to_owned()).unwrap_or_default(),
        cost: 0.0,
        program: probe.programs.iter().map(program).collect(),
        proof: proof(&probe.proof).into(),
        proof_reason: text(probe.proof.reason()),
        proven_unix_ms: match probe.proof {
            Proof::Proven { unix_ms } => unix_ms,
            _ => 0,
        },
    }
}

pub(crate) fn finding(finding: &doctor::Finding) -> v1::DoctorFinding {
    let state = match finding.state {
        doctor::State::Ok => v1::DoctorState::Ok,
        doctor::State::Warn => v1::DoctorState::Warn,
        doctor::State::Missing => v1::DoctorState::Missing,
    };
    v1::DoctorFinding {
        name: finding.name.to_owned(),
        state: state.into(),
        value: text(&finding.value),
        cost: text(&finding.cost),
        remedy: text(&finding.remedy),
    }
}

fn program(program: &ProgramStatus) -> v1::ProgramReport {
    v1::ProgramReport {
        name: program.name.to_owned(),
        variant: program.variant.to_owned(),
        state: state(program.state).into(),
        reason: text(&program.reason),
        events_per_second: program.events_per_second.unwrap_or_default(),
        ns_per_event: program.ns_per_event.unwrap_or_default(),
        map_bytes: program.map_bytes,
    }
}

/// A window, with definitions of the series that are not in `defined` yet.
pub(crate) fn window(window: &Window, defined: &mut BTreeSet<u32>) -> v1::SummaryBatch {
    let mut batch = v1::SummaryBatch {
        sequence: window.sequence,
        end_unix_ms: window.end_unix_ms,
        window_ms: window.window_ms,
        ..Default::default()
    };
    for point in window.points.iter().take(limits::SUMMARIES_PER_BATCH) {
        let series = &point.series;
        if defined.insert(series.number) {
            batch.define.push(v1::SeriesDef {
                series: series.number,
                signal: u32::try_from(series.signal.index()).unwrap_or(u32::MAX),
                instance: series.instance.to_string(),
            });
        }
        batch.summary.push(v1::Summary {
            series: series.number,
            count: point.stats.count,
            min: point.stats.min,
            mean: point.stats.mean,
            max: point.stats.max,
            last: point.stats.last,
            histogram: point.histogram.clone(),
        });
    }
    batch
}

/// Answer to `GetStatus`, without what only the caller knows.
pub(crate) fn status(
    uptime_seconds: f64,
    newest: &[Newest],
    link: &LinkState,
) -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        uptime_seconds,
        collector: link.collector.clone(),
        connected: link.connected,
        last_error: text(&link.last_error),
        value: newest
            .iter()
            .map(|newest| v1::LocalValue {
                signal: newest.signal.signal().name.to_owned(),
                owner: owner(newest.signal.signal().owner).into(),
                instance: newest.instance.to_string(),
                samples: newest.samples,
                last: newest.last,
            })
            .collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_a_characters_edge() {
        let long = "ä".repeat(limits::TEXT_BYTES);
        assert_eq!(text(&long).len(), limits::TEXT_BYTES);
        assert!(limits::is_text(&text(&format!("a{long}"))));
        assert_eq!(text("a\u{1b}[2Jb"), "a [2Jb");
    }

    #[test]
    fn the_catalogue_keeps_to_the_limits() {
        let catalogue = catalogue();
        assert!(catalogue.len() <= limits::CATALOGUE_SIGNALS);
        assert!(
            catalogue.iter().all(|s| limits::is_signal_name(&s.name) && limits::is_text(&s.help))
        );
    }
}
