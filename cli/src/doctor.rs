//! `holdfast local doctor`: what this host gives its agent, and what is missing.

use holdfast_proto::v1::{self, GetDoctorRequest};
use serde::Serialize;

use crate::{
    connection::Agent,
    error::Error,
    output::{Look, Output},
    table::{Table, Tone, left},
    text::clean,
};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Costs something, but no signal.
    Warn,
    /// Costs signals.
    Missing,
    Unknown,
}

impl State {
    fn from_wire(state: i32) -> Self {
        match v1::DoctorState::try_from(state) {
            Ok(v1::DoctorState::Ok) => Self::Ok,
            Ok(v1::DoctorState::Warn) => Self::Warn,
            Ok(v1::DoctorState::Missing) => Self::Missing,
            _ => Self::Unknown,
        }
    }

    fn cell(self) -> (String, Tone) {
        let (name, tone) = match self {
            Self::Ok => ("ok", Tone::Good),
            Self::Warn => ("warn", Tone::Warning),
            Self::Missing => ("missing", Tone::Bad),
            Self::Unknown => ("unknown", Tone::Warning),
        };
        (name.to_owned(), tone)
    }
}

/// One line of the page.
#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    state: State,
    value: String,
    /// What it costs that it is so; null when nothing.
    cost: Option<String>,
    /// How to get it; null when nothing is to be done.
    remedy: Option<String>,
}

fn from_wire(answer: &v1::GetDoctorResponse) -> Vec<Finding> {
    let given = |text: &str| Some(clean(text)).filter(|text| !text.is_empty());
    let finding = |finding: &v1::DoctorFinding| Finding {
        name: clean(&finding.name),
        state: State::from_wire(finding.state),
        value: clean(&finding.value),
        cost: given(&finding.cost),
        remedy: given(&finding.remedy),
    };
    answer.finding.iter().map(finding).collect()
}

pub(crate) async fn run(agent: &mut Agent, output: &mut Output) -> Result<(), Error> {
    let answer = agent.call(async |client| client.get_doctor(GetDoctorRequest {}).await).await?;
    let findings = from_wire(&answer);
    output.show(&findings, |findings, look| text(findings, look))?;
    let missing = findings.iter().filter(|finding| finding.state == State::Missing).count();
    if missing == 0 { Ok(()) } else { Err(Error::Missing(missing)) }
}

fn text(findings: &[Finding], look: &Look) -> String {
    let mut table = Table::new(look, &[left("CHECK"), left("STATE"), left("FOUND")]);
    let plain = |text: String| (text, Tone::Plain);
    for finding in findings {
        table.toned([
            plain(finding.name.clone()),
            finding.state.cell(),
            plain(finding.value.clone()),
        ]);
        for (word, more) in [("cost", &finding.cost), ("remedy", &finding.remedy)] {
            if let Some(more) = more {
                let more = format!("{word}: {more}");
                table.toned([plain(String::new()), plain(String::new()), (more, Tone::Faint)]);
            }
        }
    }
    table.finish("The agent looked at nothing.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{capture, field_names};

    fn shown(json: bool) -> String {
        let answer = v1::GetDoctorResponse {
            finding: vec![
                v1::DoctorFinding {
                    name: "kernel".into(),
                    state: v1::DoctorState::Ok.into(),
                    value: "6.18.5, level 2 of 3".into(),
                    ..Default::default()
                },
                v1::DoctorFinding {
                    name: "pressure".into(),
                    state: v1::DoctorState::Missing.into(),
                    value: "off\u{1b}[2J".into(),
                    cost: "cpu.pressure.*".into(),
                    remedy: "boot with psi=1".into(),
                },
                v1::DoctorFinding { name: "new".into(), state: 99, ..Default::default() },
            ],
        };
        capture(json, |output| {
            output.show(&from_wire(&answer), |findings, look| text(findings, look)).unwrap();
        })
    }

    #[test]
    fn golden_text() {
        assert_eq!(
            shown(false),
            "\
CHECK     STATE    FOUND
kernel    ok       6.18.5, level 2 of 3
pressure  missing  off\u{fffd}[2J
                   cost: cpu.pressure.*
                   remedy: boot with psi=1
new       unknown
"
        );
    }

    #[test]
    fn field_names_are_stable() {
        assert_eq!(field_names(&shown(true)).join(" "), "cost name remedy state value");
    }
}
