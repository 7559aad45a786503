//! Carries out what the governor decides: measures in short windows, tells the
//! programs how deep to look, detaches and attaches them, and tells everybody.

use std::time::Duration;

use holdfast_core::clock::BootTime;
use tokio::time::Instant;

use super::Sampler;
use crate::catalogue::AGENT_EBPF_COST;
use crate::governor::pressure::Pressure;
use crate::governor::{
    ACCOUNTING_NS, Basis, CALL_NS, Depth, Governor, Move, Options, Overhead, Plan, Sample, events,
};
use crate::kernel::{Kernel, Measurement, ProgramCost};
use crate::losses::Cause;
use crate::probes::PROBES;
use crate::report::{ProbeStatus, Severity, State};
use crate::teller::Fact;

/// How long a window is. The kernel accounts for a tenth of the time at most.
const WINDOW: Duration = Duration::from_millis(100);
/// The probes whose programs know depths between full and off.
const SCHED: &str = "sched";
const IRQ: &str = "irq";
/// The program that does nothing.
const EMPTY: &str = "empty";
/// Runs of it in a window that tell what accounting costs.
const EMPTY_RUNS: f64 = 1000.0;
/// What that may be believed to be, in nanoseconds.
const BELIEVABLE: std::ops::RangeInclusive<f64> = 20.0..=120.0;

/// The governor, and what it needs of the world.
pub(super) struct Governing {
    governor: Governor,
    pressure: Pressure,
    /// The programs of each governed probe, by position. One that two probes read
    /// belongs to the first.
    programs: Vec<Vec<&'static str>>,
    /// Why a probe is not at full depth, by position; empty for one that is.
    reasons: Vec<String>,
    window: Option<Window>,
    /// What the accounting adds to a run, once that was measured here.
    accounting_ns: Option<f64>,
    /// Why there is nothing measured; empty when there is.
    note: String,
    refused: u64,
    changed: Vec<(usize, bool)>,
}

struct Window {
    measurement: Measurement,
    until: Instant,
    /// Whether the program that does nothing takes part.
    empty: bool,
}

impl Governing {
    /// For the programs that run.
    pub(super) fn new(
        options: Options,
        pressure_threshold: f64,
        slots: usize,
        kernel: &Kernel,
    ) -> Self {
        let mut taken: Vec<&str> = Vec::new();
        let (mut names, mut programs) = (Vec::new(), Vec::new());
        for spec in PROBES.iter().filter(|spec| kernel.health(spec.programs).is_ok()) {
            let own = spec.programs.iter().copied().filter(|program| !taken.contains(program));
            let own: Vec<_> = own.collect();
            taken.extend(&own);
            if !own.is_empty() {
                names.push(spec.name);
                programs.push(own);
            }
        }
        Self {
            governor: Governor::new(options, names.iter().copied()),
            pressure: Pressure::new(pressure_threshold, slots),
            reasons: vec![String::new(); programs.len()],
            programs,
            window: None,
            accounting_ns: None,
            note: String::new(),
            refused: 0,
            changed: Vec::new(),
        }
    }

    /// When the window under way ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.window.as_ref().map(|window| window.until)
    }

    fn begin_window(&mut self, kernel: &mut Kernel, switches: Option<f64>) {
        // On a quiet host too few runs would tell too little, from cold caches.
        let busy = switches.is_some_and(|rate| rate * WINDOW.as_secs_f64() >= EMPTY_RUNS);
        let empty = self.accounting_ns.is_none() && busy && kernel.attach_empty().is_ok();
        match kernel.measure() {
            Ok(measurement) => {
                self.note.clear();
                self.window = Some(Window { measurement, until: Instant::now() + WINDOW, empty });
            }
            Err(error) => {
                self.note = error.to_string();
                self.governor.cannot_measure();
                if empty {
                    kernel.detach_empty();
                }
            }
        }
    }

    fn end_window(&mut self, kernel: &mut Kernel) -> Option<Vec<ProgramCost>> {
        let window = self.window.take()?;
        let costs = window.measurement.finish(kernel);
        if window.empty {
            kernel.detach_empty();
            let of_empty = costs.iter().find(|cost| cost.name == EMPTY);
            let enough =
                of_empty.filter(|cost| cost.events_per_second * WINDOW.as_secs_f64() >= EMPTY_RUNS);
            self.accounting_ns =
                enough.map(|cost| cost.ns_per_event).filter(|ns| BELIEVABLE.contains(ns));
            tracing::debug!(ns = self.accounting_ns, "what the kernel's accounting adds to a run");
        }
        Some(costs)
    }

    fn learn(&mut self, costs: &[ProgramCost]) {
        let accounting = self.accounting_ns.unwrap_or(ACCOUNTING_NS);
        let plans = self.governor.plans().zip(&self.programs);
        let samples: Vec<_> =
            plans.map(|(plan, programs)| sample(plan, programs, costs, accounting)).collect();
        self.governor.learn(BootTime::now(), &samples);
    }

    /// Takes a step. Returns what is to be told.
    fn take(&mut self, step: &Move, kernel: &mut Kernel) -> Fact {
        let overhead = self.governor.overhead();
        let budget = percent(overhead.budget);
        let programs = self.programs.get(step.index).map_or(&[][..], Vec::as_slice);
        let reason = format!("{} of a core, budget {budget}", percent(step.cost));
        match step.to.in_kernel() {
            None => kernel.shed(programs, &format!("shed by the governor: {reason}")),
            Some(depth) => {
                match step.probe {
                    SCHED => kernel.set_sched_depth(depth),
                    IRQ => kernel.set_irq_depth(depth),
                    _ => {}
                }
                let refused = (step.from == Depth::Off).then(|| kernel.regain(programs));
                if let Some(Err(refusal)) = refused {
                    self.governor.refused(step);
                    let message =
                        format!("probe {} cannot be attached again: {refusal}", step.probe);
                    let fields = vec![("probe", step.probe.to_owned())];
                    return Fact { fields, ..Fact::new("probe.off", Severity::Warning, message) };
                }
            }
        }
        if let Some(lowered) = self.reasons.get_mut(step.index) {
            *lowered = match step.to {
                Depth::Full => String::new(),
                to => format!("the governor keeps it at depth \"{}\": {reason}", to.name()),
            };
        }
        told(step, &budget, overhead.basis)
    }
}

/// What the window told of one probe; `None` when none of its programs ran all the time.
fn sample(
    plan: &Plan,
    programs: &[&str],
    costs: &[ProgramCost],
    accounting: f64,
) -> Option<Sample> {
    let own = || costs.iter().filter(|cost| programs.contains(&cost.name));
    own().next()?;
    let lead = own().find(|cost| cost.name == plan.lead).map(|cost| cost.events_per_second);
    let events_per_second = lead.unwrap_or_else(|| own().map(|c| c.events_per_second).sum());
    let net = |cost: &ProgramCost| (cost.ns_per_event - accounting).max(0.0) + CALL_NS;
    Some(Sample {
        events_per_second,
        events: events_per_second * WINDOW.as_secs_f64(),
        ns_per_second: own().map(|cost| cost.events_per_second * net(cost)).sum(),
    })
}

fn told(step: &Move, budget: &str, basis: Basis) -> Fact {
    let (probe, from, to) = (step.probe, step.from.name(), step.to.name());
    let cost = percent(step.cost);
    let (kind, severity, message) = if step.lowers() {
        let message = format!(
            "probe {probe} looks less deep, {to} instead of {from}: the eBPF programs cost \
             {cost} of a core ({}), budget {budget}",
            basis.name()
        );
        ("agent.depth_lowered", Severity::Warning, message)
    } else {
        let message = format!(
            "probe {probe} looks deeper again, {to} instead of {from}: the eBPF programs cost \
             {cost} of a core ({}), budget {budget}",
            basis.name()
        );
        ("agent.depth_raised", Severity::Info, message)
    };
    let fields = vec![
        ("probe", probe.to_owned()),
        ("from", from.to_owned()),
        ("to", to.to_owned()),
        ("cost", cost),
        ("budget", budget.to_owned()),
    ];
    Fact { fields, ..Fact::new(kind, severity, message) }
}

/// A share for people: two digits that count, at least.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent >= 10.0 {
        0
    } else if percent >= 1.0 {
        1
    } else {
        3
    };
    let text = format!("{percent:.digits$}");
    let text = match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.'),
        None => &text,
    };
    format!("{text} %")
}

impl Sampler {
    /// Once a tick, when all probes were read.
    pub(super) fn govern(&mut self, now: BootTime) {
        let (Some(governing), Ok(kernel)) = (&mut self.governing, &mut self.kernel) else { return };
        let rate = |plan: &Plan| events::rate(plan, &self.previous, &self.current);
        let rates: Vec<_> = governing.governor.plans().map(rate).collect();
        let verdict = governing.governor.tick(now, &rates);
        let fact = verdict.step.map(|step| {
            // Half a window at either depth tells of neither.
            drop(governing.end_window(kernel));
            governing.take(&step, kernel)
        });
        if verdict.measure && governing.window.is_none() {
            let sched = governing.governor.plans().position(|plan| plan.probe == SCHED);
            governing.begin_window(kernel, sched.and_then(|n| rates.get(n).copied().flatten()));
        }
        self.current.set(AGENT_EBPF_COST, 0, governing.governor.overhead().cost);

        governing.changed.clear();
        governing.pressure.tick(&self.previous, &self.current, &mut governing.changed);
        if let Some(units) = &self.units {
            let gone = governing.changed.iter().filter(|(_, detail)| !detail);
            for (slot, _) in gone {
                units.ids(*slot).for_each(|id| {
                    kernel.set_detail(id, false);
                });
            }
            // Each tick, because a unit's cgroups come and go.
            for slot in governing.pressure.slots() {
                units.ids(slot).for_each(|id| {
                    kernel.set_detail(id, true);
                });
            }
        }
        let refused = governing.pressure.refused();
        self.losses.add(Cause::Detail, refused - governing.refused);
        governing.refused = refused;

        if let Some(fact) = fact {
            if fact.severity > Severity::Info {
                tracing::warn!(kind = fact.kind, message = fact.message, "the governor");
            } else {
                tracing::info!(kind = fact.kind, message = fact.message, "the governor");
            }
            self.tell(fact);
            self.refresh_statuses();
            if let Some(scoring) = &mut self.scoring {
                scoring.change_depth();
            }
        }
    }

    /// The window under way is over.
    pub(super) fn finish_window(&mut self) {
        let (Some(governing), Ok(kernel)) = (&mut self.governing, &mut self.kernel) else { return };
        if let Some(costs) = governing.end_window(kernel) {
            governing.learn(&costs);
        }
    }

    /// What the programs cost; `None` without eBPF.
    pub(super) fn overhead(&self) -> Option<Overhead> {
        self.governing.as_ref().map(|governing| governing.governor.overhead())
    }

    /// Why it is not known at present how long the unit in `slot` waits for a CPU; `None`
    /// when it is, as far as depth goes.
    pub(super) fn waits_given_up(&self, slot: usize) -> Option<String> {
        let governing = self.governing.as_ref()?;
        let place = governing.governor.plans().position(|plan| plan.probe == SCHED)?;
        let depth = governing.governor.overhead().probes.get(place)?.depth;
        let kept = match depth {
            Depth::Full => true,
            Depth::Gated => governing.pressure.slots().any(|detailed| detailed == slot),
            Depth::Host | Depth::Sampled | Depth::Counters | Depth::Off => false,
        };
        let reason = governing.reasons.get(place).cloned().unwrap_or_default();
        (!kept).then(|| format!("waits of this unit are not kept at present: {reason}"))
    }

    /// Why nothing is measured; empty when it is.
    pub(super) fn overhead_note(&self) -> String {
        self.governing.as_ref().map(|governing| governing.note.clone()).unwrap_or_default()
    }

    /// How each probe does, with how deep it looks.
    pub(super) fn statuses(&self, costs: &[ProgramCost]) -> Vec<ProbeStatus> {
        let mut statuses = self.panel.statuses(self.kernel.as_ref().ok(), costs);
        let Some(governing) = &self.governing else { return statuses };
        let governed = governing.governor.overhead().probes.into_iter().zip(&governing.reasons);
        for (probe, reason) in governed {
            let Some(status) = statuses.iter_mut().find(|status| status.name == probe.probe) else {
                continue;
            };
            status.depth = Some(probe.depth);
            if status.state != State::Off && !reason.is_empty() {
                status.state = State::Degraded;
                let apart = if status.reason.is_empty() { "" } else { "; " };
                status.reason = format!("{reason}{apart}{}", status.reason);
            }
        }
        statuses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::plan;

    #[test]
    fn shares_for_people() {
        for (share, text) in [
            (0.0, "0 %"),
            (0.000_012, "0.001 %"),
            (0.0005, "0.05 %"),
            (0.01, "1 %"),
            (0.017, "1.7 %"),
            (0.1, "10 %"),
            (0.5, "50 %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn a_probe_costs_what_all_its_programs_cost_without_the_accounting() {
        let cost = |name, events_per_second, ns_per_event| ProgramCost {
            name,
            events_per_second,
            ns_per_event,
        };
        let costs = [cost("sched_switch", 1000.0, 78.0), cost("sched_wakeup", 500.0, 58.0)];
        let programs = ["sched_switch", "sched_wakeup", "sched_wakeup_new"];
        let sample = |name, programs: &[&str]| sample(&plan(name), programs, &costs, 48.0);
        let told = sample("sched", &programs).unwrap();
        assert_eq!((told.events_per_second, told.events), (1000.0, 100.0));
        assert_eq!(told.ns_per_second, 1000.0 * (30.0 + CALL_NS) + 500.0 * (10.0 + CALL_NS));
        assert_eq!(sample("tcp", &["sched_wakeup"]).unwrap().events_per_second, 500.0);
        assert_eq!(sample("block", &["block_rq_complete"]), None);
    }

    #[test]
    fn a_step_is_told_with_its_cost_and_budget() {
        let step =
            Move { index: 0, probe: "sched", from: Depth::Full, to: Depth::Gated, cost: 0.017 };
        let fact = told(&step, "1 %", Basis::Measured);
        assert_eq!((fact.kind, fact.severity), ("agent.depth_lowered", Severity::Warning));
        assert!(
            fact.message.contains("1.7 % of a core (measured), budget 1 %"),
            "{}",
            fact.message
        );
        let back = Move { from: Depth::Gated, to: Depth::Full, ..step };
        assert_eq!(told(&back, "1 %", Basis::Measured).kind, "agent.depth_raised");
    }
}
