//! The opened probes: reads them in order, knows what each costs and how it does.

use holdfast_core::clock::BootTime;

use crate::conditions::Evidence;
use crate::frame::Frame;
use crate::kernel::{Kernel, ProgramCost, State as ProgramState, needs_no_types};
use crate::probes::{Context, PROBES, Probe, Spec};
use crate::report::{ProbeCost, ProbeStatus, ProgramStatus, Proof, State};

struct Entry {
    spec: &'static Spec,
    /// `Err` when it could not be opened, with the reason.
    probe: Result<Box<dyn Probe>, String>,
    /// Why the last read failed.
    failure: Option<String>,
    cost: ProbeCost,
    proof: Proof,
}

/// All probes of the table.
pub(super) struct Panel {
    entries: Vec<Entry>,
    /// Whether a probe began or ceased to fail since [`take_changed`](Self::take_changed).
    changed: bool,
}

impl Panel {
    /// Opens every probe; one that cannot be opened stays off, with its reason.
    pub(super) fn open(context: &Context<'_>) -> Self {
        let open = |spec: &'static Spec| {
            let probe = match context.kernel {
                Err(reason) if spec.level > 0 => Err(reason.to_owned()),
                _ => (spec.open)(context),
            };
            let proof = if spec.level == 0 {
                let reason = "it reads the kernel's own files, for which nothing is provoked";
                Proof::Unproven { reason: reason.to_owned() }
            } else {
                Proof::Pending
            };
            Entry { spec, probe, failure: None, cost: ProbeCost::of(spec.name), proof }
        };
        Self { entries: PROBES.iter().map(open).collect(), changed: true }
    }

    /// Reads every probe into `frame`.
    pub(super) fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) {
        let mut begun = BootTime::now();
        for entry in &mut self.entries {
            let Ok(probe) = &mut entry.probe else { continue };
            // What a shed program has counted is of another time.
            if kernel.is_some_and(|kernel| kernel.shed_reason(entry.spec.programs).is_some()) {
                continue;
            }
            let failure = probe.read(kernel, frame).err();
            self.changed |= failure.is_some() != entry.failure.is_some();
            entry.failure = failure;
            // One clock read for each probe: the end of one is the start of the next.
            let ended = BootTime::now();
            entry.cost.add(ended.since(begun));
            begun = ended;
        }
    }

    /// What the probes found that speaks for or against conditions of the host.
    pub(super) fn evidence(&mut self, out: &mut Vec<Evidence>) {
        let open = self.entries.iter_mut().filter_map(|entry| entry.probe.as_mut().ok());
        open.for_each(|probe| probe.evidence(out));
    }

    /// Notes what came out of proving a probe, and returns what was known before.
    pub(super) fn set_proof(&mut self, probe: &str, proof: Proof) -> Option<Proof> {
        let entry = self.entries.iter_mut().find(|entry| entry.spec.name == probe)?;
        self.changed |= entry.proof != proof;
        Some(std::mem::replace(&mut entry.proof, proof))
    }

    /// Notes for every probe that could be proven, but was not yet, why it will not be.
    pub(super) fn give_up_proofs(&mut self, reason: &str) {
        for entry in self.entries.iter_mut().filter(|entry| entry.proof == Proof::Pending) {
            entry.proof = Proof::Unproven { reason: reason.to_owned() };
            self.changed = true;
        }
    }

    /// Whether a proof of the probe was made, whatever came out.
    pub(super) fn is_settled(&self, probe: &str) -> bool {
        let proof = self.entries.iter().find(|entry| entry.spec.name == probe).map(|e| &e.proof);
        matches!(proof, Some(Proof::Proven { .. } | Proof::Failed { .. }))
    }

    /// The probes that yield something at present: not those whose programs are shed.
    pub(super) fn working(&self, kernel: &Kernel) -> Vec<&'static str> {
        let works = |entry: &&Entry| {
            entry.probe.is_ok()
                && entry.failure.is_none()
                && kernel.shed_reason(entry.spec.programs).is_none()
        };
        self.entries.iter().filter(works).map(|entry| entry.spec.name).collect()
    }

    /// Whether the states may differ from when this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What reading each probe cost.
    pub(super) fn costs(&self) -> impl Iterator<Item = &ProbeCost> {
        self.entries.iter().filter(|entry| entry.probe.is_ok()).map(|entry| &entry.cost)
    }

    /// How each probe does, with its programs' costs where they were measured.
    pub(super) fn statuses(
        &self,
        kernel: Option<&Kernel>,
        costs: &[ProgramCost],
    ) -> Vec<ProbeStatus> {
        self.entries.iter().map(|entry| entry.status(kernel, costs)).collect()
    }
}

impl Entry {
    fn status(&self, kernel: Option<&Kernel>, costs: &[ProgramCost]) -> ProbeStatus {
        let loaded = kernel.map_or(&[][..], Kernel::programs);
        let programs: Vec<ProgramStatus> = loaded
            .iter()
            .filter(|program| self.spec.programs.contains(&program.name))
            .map(|program| {
                let cost = costs.iter().find(|cost| cost.name == program.name);
                ProgramStatus {
                    name: program.name,
                    variant: program.variant,
                    state: match program.state {
                        ProgramState::Active => State::Active,
                        ProgramState::Off => State::Off,
                    },
                    reason: program.reason.clone(),
                    map_bytes: program.map_bytes,
                    events_per_second: cost.map(|cost| cost.events_per_second),
                    ns_per_event: cost.map(|cost| cost.ns_per_event),
                }
            })
            .collect();
        let shed = kernel.and_then(|kernel| kernel.shed_reason(self.spec.programs));
        let (state, reason) = match (&self.probe, &self.failure) {
            (Ok(_), _) if shed.is_some() => (State::Off, shed.unwrap_or_default().to_owned()),
            (Err(reason), _) | (Ok(_), Some(reason)) => (State::Off, reason.clone()),
            (Ok(probe), None) => {
                let lost = programs.iter().find(|program| program.state == State::Off);
                let lost = lost.map(|program| format!("{}: {}", program.name, program.reason));
                match probe.degraded().map(str::to_owned).or(lost) {
                    Some(reason) => (State::Degraded, reason),
                    None => (State::Active, String::new()),
                }
            }
        };
        let (state, reason) = match &self.proof {
            Proof::Failed { reason: seen } if state != State::Off => {
                let doubt = format!("do not trust it, it did not see what it should: {seen}");
                let both = if reason.is_empty() { doubt } else { format!("{doubt}; {reason}") };
                (State::Degraded, both)
            }
            _ => (state, reason),
        };
        ProbeStatus {
            name: self.spec.name,
            state,
            reason,
            level: level(self.spec, &programs),
            depth: None,
            programs,
            proof: self.proof.clone(),
        }
    }
}

/// What the running programs really need of the kernel: less than the probe would like
/// where all of them run in a form without types.
fn level(spec: &Spec, programs: &[ProgramStatus]) -> u8 {
    let running = || programs.iter().filter(|program| program.state == State::Active);
    let untyped = running().count() > 0 && running().all(|p| needs_no_types(p.variant));
    if untyped { spec.level.min(1) } else { spec.level }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Root;
    use crate::losses::Losses;

    #[test]
    fn a_probe_without_types_is_of_level_1() {
        let program = |variant, state| ProgramStatus {
            name: "p",
            variant,
            state,
            reason: String::new(),
            map_bytes: 0,
            events_per_second: None,
            ns_per_event: None,
        };
        let of = |programs: &[ProgramStatus]| {
            PROBES.iter().filter(|spec| spec.level == 2).map(|spec| level(spec, programs)).max()
        };
        let classic = program("tracepoint", State::Active);
        assert_eq!(of(&[]), Some(2));
        assert_eq!(of(&[classic.clone(), program("tp_btf", State::Off)]), Some(1));
        assert_eq!(of(&[classic, program("tp_btf", State::Active)]), Some(2));
    }

    #[test]
    fn without_anything_every_probe_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let (root, losses) = (Root::new(dir.path()), Losses::default());
        let context = Context {
            root: &root,
            kernel: Err("no eBPF here"),
            members: Err("no cgroups here"),
            losses: &losses,
        };
        let mut panel = Panel::open(&context);
        let mut frame = Frame::new(crate::frame::Shape { units: 2, devices: 2, interfaces: 2 });
        panel.read(None, &mut frame);
        assert!(panel.take_changed() && !panel.take_changed());
        for status in panel.statuses(None, &[]) {
            let expected = match status.name {
                "self" => State::Active,
                // It needs no files, only units to tell apart.
                "sockets" => State::Degraded,
                _ => State::Off,
            };
            assert_eq!(
                (status.state, status.reason.is_empty()),
                (expected, expected == State::Active),
                "{status:?}"
            );
            if status.level > 0 {
                assert_eq!(status.reason, "no eBPF here");
            }
        }
        let failed = Proof::Failed { reason: "400 expected, 3 seen".to_owned() };
        let before = panel.set_proof("self", failed.clone());
        assert!(matches!(before, Some(Proof::Unproven { .. })) && panel.take_changed());
        let own = panel.statuses(None, &[]).pop().unwrap();
        assert_eq!((own.state, &own.proof), (State::Degraded, &failed));
        assert!(own.reason.contains("do not trust it") && own.reason.contains("3 seen"));
        assert!(panel.costs().any(|cost| cost.name == "self" && cost.reads == 1));
    }
}
