//! Proving the probes, at the start and when somebody asks: starts the proofs, keeps
//! them going between ticks, and tells what came out.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_core::clock::{self, BootTime};
use tokio::sync::oneshot;

use super::Sampler;
use crate::kernel::KernelEvent;
use crate::kernel::attest::{Attestation, Options, Outcome, Verdict, proven_probes};
use crate::local_api::LONGEST_ATTEST;
use crate::losses::Cause;
use crate::report::{AttestReport, Proof, Severity};
use crate::teller::Fact;

/// The running program, even where its file was replaced meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The proofs under way, and whose cgroup they use.
#[derive(Debug, Default)]
pub(super) struct Attestor {
    running: Option<Running>,
    /// The newest worker's cgroup; its last events may come when it is gone.
    cgroup: u64,
}

#[derive(Debug)]
struct Running {
    attestation: Attestation,
    since: BootTime,
    disruptive: bool,
    askers: Vec<oneshot::Sender<AttestReport>>,
}

impl Attestor {
    /// Waits until the proofs can go on; for ever where there are none.
    pub(super) async fn ready(&self) {
        match &self.running {
            Some(running) => running.attestation.ready().await,
            None => std::future::pending().await,
        }
    }

    /// Keeps an event that the proofs provoked; gives back all others.
    pub(super) fn sift(&mut self, event: KernelEvent) -> Option<KernelEvent> {
        let (KernelEvent::Exit { cgroup_id, .. }
        | KernelEvent::OomKill { cgroup_id, .. }
        | KernelEvent::Hung { cgroup_id, .. }) = &event;
        if *cgroup_id != self.cgroup || self.cgroup == 0 {
            return Some(event);
        }
        if let Some(running) = &mut self.running {
            running.attestation.take(event);
        }
        None
    }
}

impl Sampler {
    /// Proves the probes for the first time.
    pub(super) fn attest_at_start(&mut self) {
        if !self.options.attest {
            let reason = "proofs are switched off by the configuration (`ebpf.attest`)";
            return self.panel.give_up_proofs(reason);
        }
        if let Err(reason) = self.begin_proofs(false) {
            tracing::info!(reason, "the probes cannot be proven");
            self.panel.give_up_proofs(&reason);
        }
    }

    /// Proves the probes for somebody who asks.
    pub(super) fn answer_attest(
        &mut self,
        disruptive: bool,
        answer: oneshot::Sender<AttestReport>,
    ) {
        if self.attestor.running.is_none()
            && let Err(error) = self.begin_proofs(disruptive)
        {
            let _ = answer.send(AttestReport { error, ..AttestReport::default() });
            return;
        }
        match &mut self.attestor.running {
            Some(running) if running.disruptive == disruptive => running.askers.push(answer),
            // Dropping the answer tells the asker; one at a time.
            _ => self.losses.add(Cause::Requests, 1),
        }
    }

    fn begin_proofs(&mut self, disruptive: bool) -> Result<(), String> {
        let kernel = self.kernel.as_ref().map_err(Clone::clone)?;
        let options = Options {
            probes: self.panel.working(kernel),
            program: PathBuf::from(OWN_PROGRAM),
            state_dir: self.options.state_dir.clone(),
            disruptive,
            effort: 1,
            limit: LONGEST_ATTEST.saturating_sub(Duration::from_millis(500)),
        };
        let attestation = Attestation::start(kernel, &self.root, options)?;
        self.attestor.cgroup = attestation.cgroup_id();
        let since = BootTime::now();
        self.attestor.running =
            Some(Running { attestation, since, disruptive, askers: Vec::new() });
        Ok(())
    }

    /// Goes on with the proofs.
    pub(super) fn advance_proofs(&mut self) {
        let (Some(running), Ok(kernel)) = (&mut self.attestor.running, &self.kernel) else {
            return;
        };
        let Some(outcomes) = running.attestation.advance(kernel) else { return };
        let Some(running) = self.attestor.running.take() else { return };
        let took = BootTime::now().since(running.since);
        self.note(&outcomes);
        self.refresh_statuses();
        let report = AttestReport { outcomes, took, error: String::new() };
        for asker in running.askers {
            let _ = asker.send(report.clone());
        }
    }

    fn note(&mut self, outcomes: &[Outcome]) {
        let mut proven = Vec::new();
        for outcome in outcomes {
            let probe = outcome.probe;
            let proof = match &outcome.verdict {
                Verdict::Proven => Proof::Proven { unix_ms: clock::unix_ms() },
                Verdict::Unproven(reason) => Proof::Unproven { reason: reason.clone() },
                Verdict::Failed(reason) => Proof::Failed { reason: reason.clone() },
            };
            let (is_proven, failed) =
                (matches!(proof, Proof::Proven { .. }), matches!(proof, Proof::Failed { .. }));
            // What was proven once is not less so because it was not tried again.
            if matches!(proof, Proof::Unproven { .. }) && self.panel.is_settled(probe) {
                continue;
            }
            let before = self.panel.set_proof(probe, proof);
            if is_proven && !matches!(before, Some(Proof::Proven { .. })) {
                proven.push(probe);
            }
            if failed && !matches!(before, Some(Proof::Failed { .. })) {
                let reason = outcome_reason(outcome);
                tracing::warn!(probe, reason, "the probe does not see what it should");
                let message = format!("probe {probe} is not to be trusted: {reason}");
                let fields = vec![("probe", probe.to_owned())];
                let fact = Fact::new("probe.proof_failed", Severity::Warning, message);
                self.tell(Fact { fields, ..fact });
            }
        }
        if !proven.is_empty() {
            let names = proven.join(", ");
            let message = format!("proven by provoked events: {names}");
            let fields = vec![("probes", names)];
            self.tell(Fact { fields, ..Fact::new("probe.proven", Severity::Info, message) });
        }
        let forgotten: Vec<_> = proven_probes()
            .filter(|probe| !outcomes.iter().any(|outcome| outcome.probe == *probe))
            .collect();
        tracing::debug!(?forgotten, "probes that were off, and so not proven");
        self.panel.give_up_proofs("it has no proof, or was off when the others were proven");
    }
}

fn outcome_reason(outcome: &Outcome) -> &str {
    match &outcome.verdict {
        Verdict::Proven => "",
        Verdict::Unproven(reason) | Verdict::Failed(reason) => reason,
    }
}
