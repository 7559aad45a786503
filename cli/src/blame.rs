//! `holdfast blame UNIT`: who keeps a unit of this host waiting.

use std::time::Duration;

use holdfast_proto::v1::{self, GetBlameRequest};
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

/// What units wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Resource {
    Cpu,
    Disk,
    Memory,
}

impl Resource {
    fn from_wire(resource: i32) -> Option<Self> {
        match v1::Resource::try_from(resource) {
            Ok(v1::Resource::Cpu) => Some(Self::Cpu),
            Ok(v1::Resource::Disk) => Some(Self::Disk),
            Ok(v1::Resource::Memory) => Some(Self::Memory),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }

    /// After "waited for".
    fn wanted(self) -> &'static str {
        match self {
            Self::Cpu => "a CPU",
            Self::Disk => "a disk",
            Self::Memory => "memory",
        }
    }
}

/// A unit that caused a part of the wait.
#[derive(Debug, Serialize)]
struct Culprit {
    /// "other" is everything that is told apart no further.
    unit: String,
    /// Whether it is the victim.
    itself: bool,
    ns: f64,
    /// Of all that the victim waited for this resource; 1 is the whole.
    share: f64,
}

/// Who kept the unit waiting for one resource.
#[derive(Debug, Serialize)]
struct Waits {
    resource: Resource,
    covered_seconds: f64,
    waited_ns: f64,
    /// Why this cannot be told; null when it can.
    reason: Option<String>,
    /// The largest first.
    culprits: Vec<Culprit>,
}

/// Who kept a unit waiting.
#[derive(Debug, Serialize)]
struct Blame {
    unit: String,
    resources: Vec<Waits>,
}

impl Blame {
    fn from_wire(answer: &v1::GetBlameResponse, wanted: Option<cli::Resource>) -> Self {
        let wanted = wanted.map(|wanted| match wanted {
            cli::Resource::Cpu => Resource::Cpu,
            cli::Resource::Disk => Resource::Disk,
            cli::Resource::Memory => Resource::Memory,
        });
        let waits = |of: &v1::ResourceBlame| {
            let resource = Resource::from_wire(of.resource)?;
            // The sum of nothing is negative zero, which looks odd.
            let waited_ns = of.culprit.iter().map(|culprit| culprit.ns).sum::<f64>() + 0.0;
            let culprit = |culprit: &v1::Culprit| Culprit {
                unit: clean(&culprit.unit),
                itself: culprit.itself,
                ns: culprit.ns,
                share: if waited_ns > 0.0 { culprit.ns / waited_ns } else { 0.0 },
            };
            Some(Waits {
                resource,
                covered_seconds: Duration::from_millis(of.covered_ms.into()).as_secs_f64(),
                waited_ns,
                reason: Some(clean(&of.reason)).filter(|reason| !reason.is_empty()),
                culprits: of.culprit.iter().map(culprit).collect(),
            })
        };
        let resources = answer.resource.iter().filter_map(waits);
        Self {
            unit: clean(&answer.unit),
            resources: resources
                .filter(|waits| wanted.is_none_or(|wanted| waits.resource == wanted))
                .collect(),
        }
    }
}

pub(crate) async fn run(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::Blame,
) -> Result<(), Error> {
    let last_ms = u32::try_from(options.last.as_millis()).unwrap_or(u32::MAX);
    let request = GetBlameRequest { unit: options.unit.clone(), last_ms };
    let answer = agent.call(async |client| client.get_blame(request).await).await?;
    output.show(&Blame::from_wire(&answer, options.resource), text)
}

/// Most culprits in the table; JSON has all of them.
const SHOWN: usize = 10;

fn text(blame: &Blame, look: &Look) -> String {
    let mut text: String =
        blame.resources.iter().map(|waits| sentence(&blame.unit, waits) + "\n").collect();
    let columns = [left("RESOURCE"), left("CULPRIT"), right("SHARE"), right("WAITED")];
    let mut table = Table::new(look, &columns);
    let mut empty = true;
    for waits in &blame.resources {
        for culprit in waits.culprits.iter().take(SHOWN) {
            let itself = (format!("{} (itself)", culprit.unit), Tone::Faint);
            table.toned([
                (waits.resource.name().to_owned(), Tone::Plain),
                if culprit.itself { itself } else { (culprit.unit.clone(), Tone::Plain) },
                (measure::share(culprit.share), Tone::Plain),
                (measure::time(culprit.ns), Tone::Plain),
            ]);
            empty = false;
        }
    }
    if !empty {
        text += "\n";
        text += &table.finish("");
    }
    text
}

/// What the numbers say, in words.
fn sentence(unit: &str, waits: &Waits) -> String {
    let (wanted, time) = (waits.resource.wanted(), measure::time(waits.waited_ns));
    let span = Duration::try_from_secs_f64(waits.covered_seconds).unwrap_or_default();
    let span = measure::span(span);
    if let Some(reason) = &waits.reason {
        return format!("Who kept {unit} waiting for {wanted} is not known: {reason}.");
    }
    let neighbour = waits.culprits.iter().find(|culprit| !culprit.itself);
    let share = |culprit: &Culprit| format!("{:.0} %", culprit.share * 100.0);
    match (waits.culprits.first(), neighbour) {
        (None, _) => format!("{unit} did not wait for {wanted} in the last {span}."),
        (Some(first), None) => {
            format!(
                "{unit} itself caused {} of the {time} that it waited for {wanted} in the last {span}.",
                share(first)
            )
        }
        (Some(first), Some(next)) if first.itself => format!(
            "{unit} itself caused {} of the {time} that it waited for {wanted} in the last {span}; next is {} with {}.",
            share(first),
            next.unit,
            share(next)
        ),
        (Some(first), _) => format!(
            "{} caused {} of the {time} that {unit} waited for {wanted} in the last {span}.",
            first.unit,
            share(first)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{capture, field_names};

    fn answer() -> v1::GetBlameResponse {
        let culprit = |unit: &str, itself, ns| v1::Culprit { unit: unit.into(), itself, ns };
        let of = |resource: v1::Resource, reason: &str, culprit| v1::ResourceBlame {
            resource: resource.into(),
            covered_ms: 62_000,
            reason: reason.into(),
            culprit,
        };
        v1::GetBlameResponse {
            unit: "a.service".into(),
            resource: vec![
                of(
                    v1::Resource::Cpu,
                    "",
                    vec![culprit("b.service", false, 1e9), culprit("a.service", true, 2e8)],
                ),
                of(v1::Resource::Disk, "no \u{1b}reason", vec![]),
                of(
                    v1::Resource::Memory,
                    "",
                    vec![culprit("a.service", true, 3e6), culprit("other", false, 1e6)],
                ),
            ],
        }
    }

    fn shown(wanted: Option<cli::Resource>, json: bool) -> String {
        let blame = Blame::from_wire(&answer(), wanted);
        capture(json, |output| output.show(&blame, text).unwrap())
    }

    #[test]
    fn golden_text() {
        assert_eq!(
            shown(None, false),
            "\
b.service caused 83 % of the 1.20 s that a.service waited for a CPU in the last 1m 02s.
Who kept a.service waiting for a disk is not known: no \u{fffd}reason.
a.service itself caused 75 % of the 4 ms that it waited for memory in the last 1m 02s; next is other with 25 %.

RESOURCE  CULPRIT              SHARE  WAITED
CPU       b.service           83.3 %     1 s
CPU       a.service (itself)  16.7 %  200 ms
memory    a.service (itself)  75.0 %    3 ms
memory    other               25.0 %    1 ms
"
        );
    }

    #[test]
    fn one_resource_and_no_wait() {
        let disk = shown(Some(cli::Resource::Disk), false);
        assert_eq!(disk.lines().count(), 1, "{disk}");
        let nothing = v1::ResourceBlame {
            resource: v1::Resource::Cpu.into(),
            covered_ms: 5_000,
            ..Default::default()
        };
        let answer = v1::GetBlameResponse { unit: "a.service".into(), resource: vec![nothing] };
        let text = text(&Blame::from_wire(&answer, None), &crate::output::plain());
        assert_eq!(text, "a.service did not wait for a CPU in the last 5s.\n");
        assert!(Blame::from_wire(&answer, None).resources[0].waited_ns.is_sign_positive());
    }

    #[test]
    fn field_names_are_stable() {
        assert_eq!(
            field_names(&shown(None, true)).join(" "),
            "resources resources.covered_seconds resources.culprits resources.culprits.itself \
             resources.culprits.ns resources.culprits.share resources.culprits.unit \
             resources.reason resources.resource resources.waited_ns unit"
        );
    }
}
