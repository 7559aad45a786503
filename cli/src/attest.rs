//! `holdfast local attest`: each probe held against events that were provoked for it.

use std::time::Duration;

use holdfast_proto::v1::{self, AttestRequest};
use serde::Serialize;

use crate::{
    cli,
    connection::Agent,
    error::Error,
    output::{Look, Output},
    probes::{Proof, reason},
    table::{Table, Tone, left},
    text::clean,
};

/// Longer than all proofs may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    /// Why nothing could be provoked at all; null when something could.
    error: Option<String>,
    took_ms: u32,
    proofs: Vec<ProofOf>,
}

/// What came out of proving one probe.
#[derive(Debug, Serialize)]
struct ProofOf {
    probe: String,
    proof: Proof,
    /// Why it is not proven; null when it is.
    reason: Option<String>,
    provoked: String,
    /// How often it was tried.
    attempts: u32,
    checks: Vec<Check>,
}

/// One number that was compared.
#[derive(Debug, Serialize)]
struct Check {
    program: String,
    what: String,
    expected: String,
    seen: String,
    good: bool,
}

impl Report {
    fn from_wire(answer: &v1::AttestResponse) -> Self {
        let check = |check: &v1::ProofCheck| Check {
            program: clean(&check.program),
            what: clean(&check.what),
            expected: clean(&check.expected),
            seen: clean(&check.seen),
            good: check.good,
        };
        let proof = |proof: &v1::ProofReport| ProofOf {
            probe: clean(&proof.probe),
            proof: Proof::from_wire(proof.proof),
            reason: reason(&proof.reason),
            provoked: clean(&proof.provoked),
            attempts: proof.attempts,
            checks: proof.check.iter().map(check).collect(),
        };
        Self {
            error: reason(&answer.error),
            took_ms: answer.took_ms,
            proofs: answer.proof.iter().map(proof).collect(),
        }
    }

    /// An error when a probe is not to be trusted, or nothing could be tried.
    fn verdict(&self) -> Result<(), Error> {
        let failed = self.proofs.iter().filter(|proof| proof.proof == Proof::Failed);
        let failed: Vec<_> = failed.map(|proof| proof.probe.as_str()).collect();
        match &self.error {
            Some(error) => Err(Error::NotProven(format!("no probe could be proven: {error}"))),
            None if !failed.is_empty() => Err(Error::NotProven(failed.join(", "))),
            None => Ok(()),
        }
    }
}

pub(crate) async fn run(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::Attest,
) -> Result<(), Error> {
    agent.extend_timeout(PATIENCE);
    let request = AttestRequest { disruptive: options.disruptive };
    let answer = agent.call(async |client| client.attest(request).await).await?;
    let report = Report::from_wire(&answer);
    output.show(&report, text)?;
    report.verdict()
}

fn text(report: &Report, look: &Look) -> String {
    let mut table = Table::new(look, &[left("PROBE"), left("PROOF"), left("SEEN")]);
    for proof in &report.proofs {
        let mut first = [(proof.probe.clone(), Tone::Plain), proof.proof.cell()];
        let mut line = |text: String, tone: Tone| {
            table.toned(first.clone().into_iter().chain([(text, tone)]));
            first = [(String::new(), Tone::Plain), (String::new(), Tone::Plain)];
        };
        line(proof.provoked.clone(), Tone::Faint);
        if proof.proof == Proof::Unproven {
            line(proof.reason.clone().unwrap_or_default(), Tone::Plain);
        }
        for Check { what, expected, seen, good, .. } in &proof.checks {
            let tone = if *good { Tone::Plain } else { Tone::Bad };
            line(format!("{what}: {expected} expected, {seen} seen"), tone);
        }
    }
    let mut text = table.finish("No probe could be proven.");
    text += &format!("\nIt took {} ms.\n", report.took_ms);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{capture, field_names};

    fn answer(proof: v1::ProbeProof, good: bool) -> v1::AttestResponse {
        v1::AttestResponse {
            proof: vec![
                v1::ProofReport {
                    probe: "sched".into(),
                    proof: proof.into(),
                    reason: String::new(),
                    provoked: "a ping-pong".into(),
                    check: vec![v1::ProofCheck {
                        program: "sched_switch".into(),
                        what: "switches".into(),
                        expected: "400".into(),
                        seen: "400".into(),
                        good,
                    }],
                    attempts: 1,
                },
                v1::ProofReport {
                    probe: "oom".into(),
                    proof: v1::ProbeProof::Unproven.into(),
                    reason: "a kill is written to the log".into(),
                    provoked: "a kill".into(),
                    ..Default::default()
                },
            ],
            took_ms: 120,
            error: String::new(),
        }
    }

    #[test]
    fn golden_table() {
        let report = Report::from_wire(&answer(v1::ProbeProof::Proven, true));
        assert_eq!(
            text(&report, &crate::output::plain()),
            "\
PROBE  PROOF       SEEN
sched  proven      a ping-pong
                   switches: 400 expected, 400 seen
oom    not proven  a kill
                   a kill is written to the log

It took 120 ms.
"
        );
        assert!(report.verdict().is_ok(), "what cannot be proven is no failure");
    }

    #[test]
    fn a_failed_proof_is_an_exit_code() {
        let report = Report::from_wire(&answer(v1::ProbeProof::Failed, false));
        let error = report.verdict().unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().contains("sched")), (1, true));
        let error = "no cgroup can be made".to_owned();
        let nothing = v1::AttestResponse { error, ..Default::default() };
        assert!(Report::from_wire(&nothing).verdict().is_err());
    }

    #[test]
    fn field_names_are_stable() {
        let report = Report::from_wire(&answer(v1::ProbeProof::Proven, true));
        let json = capture(true, |output| output.show(&report, text).unwrap());
        assert_eq!(
            field_names(&json).join(" "),
            "error proofs proofs.attempts proofs.checks proofs.checks.expected proofs.checks.good \
             proofs.checks.program proofs.checks.seen proofs.checks.what proofs.probe proofs.proof \
             proofs.provoked proofs.reason took_ms"
        );
    }
}
