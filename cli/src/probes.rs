//! `holdfast local probes`, and the record of a probe that `holdfast host` shows too.

use holdfast_proto::v1::{self, GetProbesRequest};
use serde::Serialize;

use crate::{
    cli,
    connection::Agent,
    error::Error,
    measure,
    output::{Look, Output},
    table::{Table, Tone, left, right},
    text::clean,
};

/// Whether a probe or program works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Active,
    Degraded,
    Off,
    #[default]
    Unknown,
}

impl State {
    fn from_wire(state: i32) -> Self {
        match v1::ProbeState::try_from(state) {
            Ok(v1::ProbeState::Active) => Self::Active,
            Ok(v1::ProbeState::Degraded) => Self::Degraded,
            Ok(v1::ProbeState::Off) => Self::Off,
            _ => Self::Unknown,
        }
    }

    fn cell(self) -> (String, Tone) {
        let (name, tone) = match self {
            Self::Active => ("active", Tone::Good),
            Self::Degraded => ("degraded", Tone::Warning),
            Self::Off => ("off", Tone::Bad),
            Self::Unknown => ("unknown", Tone::Warning),
        };
        (name.to_owned(), tone)
    }
}

/// Whether a probe has seen exactly what was provoked for it to see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proof {
    Pending,
    Proven,
    Unproven,
    Failed,
    #[default]
    Unknown,
}

impl Proof {
    pub(crate) fn from_wire(proof: i32) -> Self {
        match v1::ProbeProof::try_from(proof) {
            Ok(v1::ProbeProof::Pending) => Self::Pending,
            Ok(v1::ProbeProof::Proven) => Self::Proven,
            Ok(v1::ProbeProof::Unproven) => Self::Unproven,
            Ok(v1::ProbeProof::Failed) => Self::Failed,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn cell(self) -> (String, Tone) {
        let (name, tone) = match self {
            Self::Pending => ("pending", Tone::Faint),
            Self::Proven => ("proven", Tone::Good),
            Self::Unproven => ("not proven", Tone::Plain),
            Self::Failed => ("failed", Tone::Bad),
            Self::Unknown => ("unknown", Tone::Warning),
        };
        (name.to_owned(), tone)
    }
}

/// A set of signals with one way of getting them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Probe {
    pub(crate) name: String,
    pub(crate) state: State,
    /// What is missing and why; null when nothing is.
    pub(crate) reason: Option<String>,
    /// 0 reads files only, 2 needs eBPF with the kernel's type information.
    pub(crate) level: u32,
    /// How deep it looks; null for one that is not governed.
    pub(crate) depth: Option<String>,
    /// What its programs cost, as a share of one core; null where that is not known.
    pub(crate) cost: Option<f64>,
    pub(crate) programs: Vec<Program>,
    pub(crate) proof: Proof,
    /// Why it is not proven; null when it is.
    pub(crate) proof_reason: Option<String>,
    /// When it was proven; null when it is not.
    pub(crate) proven_unix_ms: Option<u64>,
}

impl Probe {
    /// "proven" says more than "active", and "off" all there is to say.
    fn state_cell(&self) -> (String, Tone) {
        match (self.state, self.proof) {
            (State::Active, Proof::Proven) => self.proof.cell(),
            _ => self.state.cell(),
        }
    }

    /// What is missing; where nothing is, why it is not proven.
    fn remark(&self) -> Option<String> {
        let unproven = || self.proof_reason.as_ref().map(|why| format!("not proven: {why}"));
        self.reason.clone().or_else(|| match (self.state, self.proof) {
            (State::Active, Proof::Unproven | Proof::Pending) => unproven(),
            _ => None,
        })
    }
}

/// One eBPF program.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) variant: String,
    pub(crate) state: State,
    pub(crate) reason: Option<String>,
    /// Null when not measured.
    pub(crate) events_per_second: Option<f64>,
    /// Null when not measured, or when no event came meanwhile.
    pub(crate) ns_per_event: Option<f64>,
    pub(crate) map_bytes: u64,
}

/// Text of the wire, clean; `None` when there is none.
pub(crate) fn reason(text: &str) -> Option<String> {
    Some(clean(text)).filter(|text| !text.is_empty())
}

/// Of the wire, as a collector knows it.
pub(crate) fn from_wire(probes: &[v1::ProbeReport]) -> Vec<Probe> {
    with_costs(probes, false, false)
}

/// Of the wire. `measured` says whether events and their time were asked for, `costed`
/// whether the agent knows what its probes cost.
fn with_costs(probes: &[v1::ProbeReport], measured: bool, costed: bool) -> Vec<Probe> {
    let program = |program: &v1::ProgramReport| Program {
        name: clean(&program.name),
        variant: clean(&program.variant),
        state: State::from_wire(program.state),
        reason: reason(&program.reason),
        events_per_second: measured.then_some(program.events_per_second),
        ns_per_event: Some(program.ns_per_event).filter(|&ns| measured && ns > 0.0),
        map_bytes: program.map_bytes,
    };
    let probe = |probe: &v1::ProbeReport| Probe {
        name: clean(&probe.name),
        state: State::from_wire(probe.state),
        reason: reason(&probe.reason),
        level: probe.level,
        depth: reason(&probe.depth),
        cost: Some(probe.cost).filter(|_| costed && !probe.depth.is_empty()),
        programs: probe.program.iter().map(program).collect(),
        proof: Proof::from_wire(probe.proof),
        proof_reason: reason(&probe.proof_reason),
        proven_unix_ms: Some(probe.proven_unix_ms).filter(|&ms| ms > 0),
    };
    probes.iter().map(probe).collect()
}

/// What all programs cost by themselves, and may.
#[derive(Debug, Serialize)]
struct Cost {
    /// As a share of one core.
    ratio: f64,
    budget: f64,
    /// `measured` by the kernel's accounting, or `estimated` from counts of events.
    basis: String,
    /// How long ago what an event costs was measured; null when it was not.
    age_seconds: Option<f64>,
    /// Why it is not measured; null when it is.
    note: Option<String>,
}

/// All probes, and what their maps take.
#[derive(Debug, Serialize)]
struct Report {
    /// Null when nothing is known yet, or no program is loaded.
    cost: Option<Cost>,
    /// Whether cost was asked for and could be measured.
    measured: bool,
    /// Why not, when it was asked for.
    measure_error: Option<String>,
    probes: Vec<Probe>,
    map_bytes: u64,
    map_limit_bytes: u64,
    slots_used: u32,
    slots: u32,
}

pub(crate) async fn run(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::Probes,
) -> Result<(), Error> {
    let measure = options.measure.unwrap_or_default();
    agent.extend_timeout(measure);
    let measure_ms = u32::try_from(measure.as_millis()).unwrap_or(u32::MAX);
    let answer =
        agent.call(async |client| client.get_probes(GetProbesRequest { measure_ms }).await).await?;
    output.show(&report(&answer, measure_ms > 0), text)
}

fn report(answer: &v1::GetProbesResponse, asked: bool) -> Report {
    let measure_error = reason(&answer.measure_error);
    let measured = asked && measure_error.is_none();
    let basis = clean(&answer.cost_basis);
    let known = answer.cost_budget > 0.0 && matches!(basis.as_str(), "measured" | "estimated");
    let age_seconds = Some(answer.cost_age_seconds).filter(|_| basis == "measured");
    Report {
        cost: known.then(|| Cost {
            ratio: answer.cost,
            budget: answer.cost_budget,
            basis,
            age_seconds,
            note: reason(&answer.cost_note),
        }),
        measured,
        measure_error,
        probes: with_costs(&answer.probe, measured, known),
        map_bytes: answer.map_bytes,
        map_limit_bytes: answer.map_limit_bytes,
        slots_used: answer.slots_used,
        slots: answer.slots,
    }
}

fn text(report: &Report, look: &Look) -> String {
    let mut text = table(&report.probes, look);
    if let Some(error) = &report.measure_error {
        text += &format!("\nThe programs were not measured: {error}.\n");
    }
    if let Some(cost) = &report.cost {
        let when = match cost.age_seconds {
            Some(age) => format!("measured {age:.0} s ago"),
            None => cost.basis.clone(),
        };
        let (ratio, budget) = (measure::small_share(cost.ratio), measure::small_share(cost.budget));
        text += &format!("\nThe programs cost {ratio} of one core, budget {budget} ({when}).\n");
        if let Some(note) = &cost.note {
            text += &format!("They are not measured: {note}.\n");
        }
    }
    if report.map_limit_bytes > 0 {
        text += &format!(
            "\nMaps take {} of at most {}; {} of {} unit slots are in use.\n",
            measure::bytes(report.map_bytes as f64),
            measure::bytes(report.map_limit_bytes as f64),
            report.slots_used,
            report.slots
        );
    }
    text
}

/// A line for each probe, and below it one for each of its programs. Depth and cost
/// are shown where they are known: on the host itself.
pub(crate) fn table(probes: &[Probe], look: &Look) -> String {
    let governed = probes.iter().any(|probe| probe.depth.is_some());
    let shown_column = |column: usize| governed || !(3..=4).contains(&column);
    let columns = [
        left("PROBE"),
        left("VARIANT"),
        left("STATE"),
        left("DEPTH"),
        right("COST"),
        right("EVENTS/S"),
        right("NS/EVENT"),
        right("MAPS"),
        left("REASON"),
    ];
    let columns = columns.into_iter().enumerate().filter(|(n, _)| shown_column(*n));
    let mut table = Table::new(look, &columns.map(|(_, column)| column).collect::<Vec<_>>());
    let mut line = |cells: [(String, Tone); 9]| {
        let cells = cells.into_iter().enumerate().filter(|(n, _)| shown_column(*n));
        table.toned(cells.map(|(_, cell)| cell));
    };
    let nothing = || (String::new(), Tone::Plain);
    let plain = |text: String| (text, Tone::Plain);
    let number = |value: Option<f64>| plain(value.map_or_else(String::new, measure::count));
    let text = |text: &Option<String>| plain(text.clone().unwrap_or_default());
    for probe in probes {
        let variant = if probe.level == 0 { "files" } else { "eBPF" };
        line([
            plain(probe.name.clone()),
            (variant.to_owned(), Tone::Faint),
            probe.state_cell(),
            text(&probe.depth),
            plain(probe.cost.map_or_else(String::new, measure::small_share)),
            nothing(),
            nothing(),
            nothing(),
            text(&probe.remark()),
        ]);
        for program in &probe.programs {
            let maps = if program.map_bytes == 0 {
                String::new()
            } else {
                measure::bytes(program.map_bytes as f64)
            };
            line([
                plain(format!("  {}", program.name)),
                (program.variant.clone(), Tone::Faint),
                program.state.cell(),
                nothing(),
                nothing(),
                number(program.events_per_second),
                number(program.ns_per_event.map(f64::round)),
                plain(maps),
                text(&program.reason),
            ]);
        }
    }
    table.finish("The agent has reported no probe yet.")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::{capture, field_names};

    /// One probe from files and one with two programs.
    pub(crate) fn wire() -> Vec<v1::ProbeReport> {
        let program = |name: &str, state: v1::ProbeState, reason: &str| v1::ProgramReport {
            name: name.into(),
            variant: "tp_btf".into(),
            state: state.into(),
            reason: reason.into(),
            events_per_second: 15_300.0,
            ns_per_event: 231.4,
            map_bytes: 1 << 20,
        };
        vec![
            v1::ProbeReport {
                name: "procfs".into(),
                state: v1::ProbeState::Active.into(),
                proof: v1::ProbeProof::Unproven.into(),
                proof_reason: "it reads files".into(),
                ..Default::default()
            },
            v1::ProbeReport {
                name: "exit".into(),
                state: v1::ProbeState::Active.into(),
                level: 2,
                proof: v1::ProbeProof::Proven.into(),
                proven_unix_ms: 1_000,
                ..Default::default()
            },
            v1::ProbeReport {
                name: "sched".into(),
                state: v1::ProbeState::Degraded.into(),
                reason: "forks are not counted".into(),
                level: 2,
                depth: "gated".into(),
                cost: 0.0123,
                proof: v1::ProbeProof::Pending.into(),
                program: vec![
                    program("sched_switch", v1::ProbeState::Active, ""),
                    v1::ProgramReport {
                        events_per_second: 0.0,
                        ns_per_event: 0.0,
                        map_bytes: 0,
                        ..program("sched_fork", v1::ProbeState::Off, "no such tracepoint")
                    },
                ],
                ..Default::default()
            },
        ]
    }

    fn shown(measured: bool, json: bool) -> String {
        let answer = v1::GetProbesResponse {
            probe: wire(),
            map_bytes: 1 << 20,
            map_limit_bytes: 4 << 20,
            slots_used: 12,
            slots: 256,
            measure_error: String::new(),
            cost: 0.0124,
            cost_budget: 0.01,
            cost_basis: "measured".to_owned(),
            cost_age_seconds: 3.2,
            cost_note: String::new(),
        };
        capture(json, |output| output.show(&report(&answer, measured), text).unwrap())
    }

    #[test]
    fn golden_table() {
        assert_eq!(
            shown(true, false),
            "\
PROBE           VARIANT  STATE     DEPTH   COST  EVENTS/S  NS/EVENT   MAPS  REASON
procfs          files    active                                             not proven: it reads files
exit            eBPF     proven
sched           eBPF     degraded  gated  1.2 %                             forks are not counted
  sched_switch  tp_btf   active                     15.3k       231  1 MiB
  sched_fork    tp_btf   off                            0                   no such tracepoint

The programs cost 1.2 % of one core, budget 1.0 % (measured 3 s ago).

Maps take 1 MiB of at most 4 MiB; 12 of 256 unit slots are in use.
"
        );
        assert!(!shown(false, false).contains("15.3k"));
    }

    #[test]
    fn a_refused_measurement_says_why() {
        let refused = v1::GetProbesResponse {
            probe: wire(),
            measure_error: "it needs CAP_SYS_ADMIN".to_owned(),
            ..Default::default()
        };
        let report = report(&refused, true);
        assert!(!report.measured && report.probes[2].programs[0].events_per_second.is_none());
        assert!(text(&report, &crate::output::plain()).contains("CAP_SYS_ADMIN"));
    }

    #[test]
    fn an_estimate_says_so_and_why() {
        let answer = v1::GetProbesResponse {
            probe: wire(),
            cost: 0.0005,
            cost_budget: 0.01,
            cost_basis: "estimated".to_owned(),
            cost_note: "it needs CAP_SYS_ADMIN".to_owned(),
            ..Default::default()
        };
        let shown = text(&report(&answer, false), &crate::output::plain());
        let line = "The programs cost 0.050 % of one core, budget 1.0 % (estimated).";
        assert!(shown.contains(line) && shown.contains("CAP_SYS_ADMIN"), "{shown}");
        let unknown = v1::GetProbesResponse { cost_basis: "unknown".to_owned(), ..answer };
        let shown = text(&report(&unknown, false), &crate::output::plain());
        assert!(!shown.contains("cost ") && !shown.contains("1.2 %"), "{shown}");
    }

    #[test]
    fn a_collector_knows_nothing_of_depth_and_cost() {
        let mut probes = wire();
        probes.iter_mut().for_each(|probe| probe.depth.clear());
        let shown = table(&from_wire(&probes), &crate::output::plain());
        assert!(!shown.contains("DEPTH") && !shown.contains("COST"), "{shown}");
    }

    #[test]
    fn field_names_are_stable() {
        assert_eq!(
            field_names(&shown(true, true)).join(" "),
            "cost cost.age_seconds cost.basis cost.budget cost.note cost.ratio \
             map_bytes map_limit_bytes measure_error measured probes probes.cost probes.depth \
             probes.level probes.name probes.programs \
             probes.programs.events_per_second probes.programs.map_bytes probes.programs.name \
             probes.programs.ns_per_event probes.programs.reason probes.programs.state \
             probes.programs.variant probes.proof probes.proof_reason probes.proven_unix_ms probes.reason \
             probes.state slots slots_used"
        );
    }
}
