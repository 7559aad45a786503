//! `holdfast replay`: what was decided on this host, decided again, under the same services or
//! others.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use holdfast_core::config;
use holdfast_healer::config::{Found, SERVICES};
use holdfast_healer::{Decision, Settings, journal};
use serde::Serialize;

use crate::{
    cli,
    error::Error,
    output::{Look, Output},
    text::clean,
};

/// Longest journal that is read.
const JOURNAL_BYTES: u64 = 64 << 20;

#[derive(Debug, Serialize)]
struct Replay {
    /// Entries of the journal.
    entries: usize,
    /// How often something was decided.
    decisions: usize,
    differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct Difference {
    /// Since the host's boot.
    seconds: f64,
    was: Vec<Decision>,
    is: Vec<Decision>,
}

pub(crate) fn run(output: &mut Output, options: &cli::Replay) -> Result<(), Error> {
    let failed = |text: String| Error::Replay(text);
    let bytes = read(&options.journal)
        .map_err(|error| failed(format!("cannot read {}: {error}", options.journal.display())))?;
    let (entries, whole) = journal::read(&bytes)
        .map_err(|damage| failed(format!("{}: {damage}", options.journal.display())))?;
    if whole < bytes.len() {
        eprintln!("holdfast: the last line of the journal has no end, and is left out");
    }
    let Found { services, problems } =
        holdfast_healer::config::read(config::folder(&options.services, SERVICES));
    if let Some(problem) = problems.first() {
        return Err(failed(problem.clone()));
    }
    let mut settings = Settings::default();
    for service in services {
        settings.services.insert(Arc::clone(&service.unit), service.policy);
    }
    settings.protected.extend(options.protected.iter().cloned());
    if let Some(per_10m) = options.per_10m {
        settings.budget.per_10m = per_10m;
    }
    if let Some(per_24h) = options.per_24h {
        settings.budget.per_24h = per_24h;
    }
    if let Some(grace) = options.grace {
        settings.grace = grace;
    }
    let decided = |entry: &&journal::Entry| matches!(entry, journal::Entry::Decided { .. });
    let differences = journal::replay(&entries, &settings);
    let replay = Replay {
        entries: entries.len(),
        decisions: entries.iter().filter(decided).count(),
        differences: differences
            .into_iter()
            .map(|of| Difference {
                seconds: of.at.since_boot().as_secs_f64(),
                was: of.was,
                is: of.is,
            })
            .collect(),
    };
    output.show(&replay, text)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(JOURNAL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(replay: &Replay, _: &Look) -> String {
    let Replay { entries, decisions, differences } = replay;
    let mut text = format!("{entries} entries, {decisions} decisions");
    if differences.is_empty() {
        return text + ": all would be decided alike";
    }
    text.push_str(&format!("; at {} times it would be decided otherwise:", differences.len()));
    for difference in differences {
        text.push_str(&format!("\n{:>12.3} s since boot", difference.seconds));
        for (what, decisions) in [("was", &difference.was), ("is", &difference.is)] {
            let said: Vec<String> = decisions.iter().map(said).collect();
            let said = if said.is_empty() { "nothing".to_owned() } else { said.join("; ") };
            text.push_str(&format!("\n{what:>16}: {said}"));
        }
    }
    text
}

fn said(decision: &Decision) -> String {
    clean(&match decision {
        Decision::Begin { unit, operation } => format!("{} of {unit}", operation.action),
        Decision::Would { unit, action, .. } => format!("{action} of {unit} is only told"),
        Decision::Ask { unit, action, .. } => format!("{action} of {unit} waits for a word"),
        Decision::Held { unit, action, why, .. } => format!("{action} of {unit} held back: {why}"),
        Decision::Judged { unit, operation, verdict } => {
            format!("{} of {unit}: {}", operation.action, verdict.name())
        }
        Decision::Lost { unit, why, .. } => format!("an operation for {unit} is lost: {why}"),
    })
}
