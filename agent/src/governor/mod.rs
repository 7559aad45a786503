//! A hard limit on what the eBPF programs cost.
//!
//! The cost of each probe is its events per second times what one costs. When all
//! together near the budget, the dearest probe looks less deep, one step at a time
//! and in the order of [`Depth`]; when there would be room again for a while, it
//! gets the step back. A step that had to be given up again soon waits longer the
//! next time.
//!
//! Pure: time, measurements and rates come in, decisions go out. The sampler carries
//! them out.

mod depth;
pub mod events;
pub mod pressure;

use std::time::Duration;

use holdfast_core::clock::BootTime;

pub use depth::{Depth, Plan, plan};

/// What the kernel's accounting itself adds to the time of each run: what it reads
/// for a program that does nothing, measured on 6.18, until it is measured here.
pub const ACCOUNTING_NS: f64 = 48.0;
/// What calling a `tp_btf` program costs before its first instruction, which the
/// accounting does not see; measured on 6.18 in paired runs of an empty program.
pub const CALL_NS: f64 = 15.0;

/// From this share of the budget on, depth is given up.
const NEAR: f64 = 0.9;
/// A step is given back when all would cost less than this share with it.
const ROOMY: f64 = 0.7;
/// Looks at a cost that is too high before something is done about it, so that one
/// odd moment changes nothing.
const CONFIRM: u32 = 2;
/// A probe is measured anew before depth is given up by figures older than this.
const FRESH: Duration = Duration::from_secs(2);
/// Runs in a window that make its mean count for all that was learned before.
const RUNS: f64 = 1000.0;
/// Rates that grew by this factor, and cost this share of the budget, are a reason
/// to measure at once.
const JUMP: f64 = 2.0;
const JUMP_SHARE: f64 = 0.1;
/// The longest wait for a step, in waits that were asked for: 15 minutes of 60 s.
const LONGEST_WAIT: u32 = 15;

/// What is asked of the governor.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What all programs may cost, in nanoseconds per second: 1e9 is one core.
    pub budget_ns: f64,
    /// How often to measure when nothing happens.
    pub measure_interval: Duration,
    /// How long there must be room for a step before it is given back.
    pub regain_after: Duration,
}

/// Where the figures come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Basis {
    /// There are none yet.
    #[default]
    Unknown,
    /// Time of a run from the kernel's accounting.
    Measured,
    /// Events from files and a fixed cost for each.
    Estimated,
}

impl Basis {
    /// Its name on the wire and on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Measured => "measured",
            Self::Estimated => "estimated",
        }
    }
}

/// What a window told about one probe's programs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Events per second: runs of the lead program, or of all.
    pub events_per_second: f64,
    /// How many events there were in all.
    pub events: f64,
    /// What all its programs cost, in nanoseconds per second, without the accounting.
    pub ns_per_second: f64,
}

/// A step that a probe takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Move {
    /// The probe's position among the governed.
    pub index: usize,
    /// Its name.
    pub probe: &'static str,
    /// From where.
    pub from: Depth,
    /// Where to.
    pub to: Depth,
    /// What all programs cost just before, as a share of one core.
    pub cost: f64,
}

impl Move {
    /// Whether detail is given up.
    #[must_use]
    pub fn lowers(&self) -> bool {
        self.to > self.from
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Verdict {
    /// A step to take.
    pub step: Option<Move>,
    /// Whether to measure a window, beginning now.
    pub measure: bool,
}

/// What the programs cost, for people.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overhead {
    /// What they may cost, as a share of one core.
    pub budget: f64,
    /// What they cost, as a share of one core.
    pub cost: f64,
    /// Where the figures come from.
    pub basis: Basis,
    /// When what an event costs was last measured, on the boot-time clock.
    pub measured: Option<BootTime>,
    /// Each governed probe.
    pub probes: Vec<ProbeOverhead>,
}

/// What one probe costs.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeOverhead {
    /// Its name.
    pub probe: &'static str,
    /// How deep it looks.
    pub depth: Depth,
    /// What it costs, as a share of one core.
    pub cost: f64,
}

const NS_PER_SECOND: f64 = 1e9;

#[derive(Debug)]
struct Governed {
    plan: Plan,
    /// Position in the plan's steps.
    at: usize,
    /// What an event costs at each step, as far as it was measured.
    ns: [Option<f64>; Depth::COUNT],
    /// Events per second now.
    rate: f64,
    /// The same in the newest window.
    window_rate: f64,
    /// Since when there is room for its next step up.
    roomy: Option<BootTime>,
    /// How long there must be.
    wait: Duration,
    /// When it last got a step back that it still has.
    raised: Option<BootTime>,
}

impl Governed {
    fn depth(&self) -> Depth {
        self.plan.steps.get(self.at).copied().unwrap_or(Depth::Off)
    }

    fn cost_at(&self, step: usize) -> f64 {
        let depth = self.plan.steps.get(step).copied().unwrap_or(Depth::Off);
        if depth == Depth::Off {
            return 0.0;
        }
        let measured = self.ns.get(step).copied().flatten();
        self.rate * measured.unwrap_or(self.plan.event_ns * depth.share())
    }

    fn cost(&self) -> f64 {
        let cost = self.cost_at(self.at);
        if self.rate > JUMP * self.window_rate {
            // What a lone event costs, with everything to be fetched from memory, says
            // too much of many. The window that is about to come says it right.
            cost.min(self.rate * self.plan.event_ns * self.depth().share())
        } else {
            cost
        }
    }
}

/// Decides how deep each probe looks.
#[derive(Debug)]
pub struct Governor {
    options: Options,
    probes: Vec<Governed>,
    basis: Basis,
    measured: Option<BootTime>,
    moved: Option<BootTime>,
    /// When a measurement was last asked for.
    asked: Option<BootTime>,
    over: u32,
}

impl Governor {
    /// For `probes`, all at full depth.
    #[must_use]
    pub fn new(options: Options, probes: impl IntoIterator<Item = &'static str>) -> Self {
        let governed = |probe| Governed {
            plan: plan(probe),
            at: 0,
            ns: [None; Depth::COUNT],
            rate: 0.0,
            window_rate: 0.0,
            roomy: None,
            wait: options.regain_after,
            raised: None,
        };
        Self {
            options,
            probes: probes.into_iter().map(governed).collect(),
            basis: Basis::Unknown,
            measured: None,
            moved: None,
            asked: None,
            over: 0,
        }
    }

    /// The plans of the governed, by position.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.probes.iter().map(|probe| &probe.plan)
    }

    /// Takes in a window that ended at `now`: a sample for each probe, by position,
    /// `None` for one whose programs did not run all the time.
    pub fn learn(&mut self, now: BootTime, samples: &[Option<Sample>]) {
        self.basis = Basis::Measured;
        self.measured = Some(now);
        for (probe, sample) in self.probes.iter_mut().zip(samples) {
            let Some(sample) = sample else { continue };
            probe.window_rate = sample.events_per_second;
            if sample.events < 1.0 || sample.events_per_second <= 0.0 {
                continue;
            }
            let now = sample.ns_per_second / sample.events_per_second;
            if let Some(known) = probe.ns.get_mut(probe.at) {
                let weight = if known.is_none() { 1.0 } else { (sample.events / RUNS).min(1.0) };
                *known = Some(known.unwrap_or(now) * (1.0 - weight) + now * weight);
            }
        }
    }

    /// Takes note that the kernel does not account: costs are estimated from now on.
    pub fn cannot_measure(&mut self) {
        self.basis = Basis::Estimated;
    }

    /// Takes note that a step up could not be taken. The probe waits longer for it.
    pub fn refused(&mut self, step: &Move) {
        let longest = self.longest_wait();
        if let Some(probe) = self.probes.get_mut(step.index) {
            let back = probe.plan.steps.iter().position(|depth| *depth == step.from);
            probe.at = back.unwrap_or(probe.at);
            probe.wait = (probe.wait * 2).min(longest);
            probe.raised = None;
        }
    }

    /// Once a second: what to do, given the events per second of each probe where
    /// files tell.
    pub fn tick(&mut self, now: BootTime, rates: &[Option<f64>]) -> Verdict {
        let budget = self.options.budget_ns;
        let mut jumped = false;
        for (n, probe) in self.probes.iter_mut().enumerate() {
            // Where files do not tell, nothing is known of what is detached.
            let told = rates.get(n).copied().flatten();
            let seen = if probe.depth() == Depth::Off { 0.0 } else { probe.window_rate };
            probe.rate = told.unwrap_or(seen);
            jumped |= probe.rate > JUMP * probe.window_rate && probe.cost() > JUMP_SHARE * budget;
        }
        let cost = self.cost();
        let near = cost >= NEAR * budget;
        self.over = match (near, self.trusted(now)) {
            (false, _) => 0,
            (true, true) => self.over.saturating_add(1),
            (true, false) => self.over,
        };
        let step = if near {
            self.probes.iter_mut().for_each(|probe| probe.roomy = None);
            let enough = self.over >= CONFIRM && self.trusted(now);
            if enough { self.shed(now) } else { None }
        } else {
            self.regain(now)
        };
        let age = |since: Option<BootTime>| since.map(|since| now.since(since));
        let due = age(self.asked).is_none_or(|age| age >= self.options.measure_interval);
        let measure = due || (self.basis == Basis::Measured && (near || jumped || step.is_some()));
        if measure {
            self.asked = Some(now);
        }
        Verdict { step, measure }
    }

    /// What all programs cost, and each probe.
    #[must_use]
    pub fn overhead(&self) -> Overhead {
        let probe = |probe: &Governed| ProbeOverhead {
            probe: probe.plan.probe,
            depth: probe.depth(),
            cost: probe.cost() / NS_PER_SECOND,
        };
        Overhead {
            budget: self.options.budget_ns / NS_PER_SECOND,
            cost: self.cost() / NS_PER_SECOND,
            basis: self.basis,
            measured: self.measured.filter(|_| self.basis == Basis::Measured),
            probes: self.probes.iter().map(probe).collect(),
        }
    }

    /// In nanoseconds per second.
    fn cost(&self) -> f64 {
        self.probes.iter().map(Governed::cost).sum()
    }

    /// Whether the figures are of the present depths and young enough to act on.
    fn trusted(&self, now: BootTime) -> bool {
        match self.basis {
            Basis::Unknown => false,
            Basis::Estimated => self.moved.is_none_or(|moved| moved < now),
            Basis::Measured => self.measured.is_some_and(|measured| {
                now.since(measured) <= FRESH && self.moved.is_none_or(|moved| moved < measured)
            }),
        }
    }

    fn longest_wait(&self) -> Duration {
        self.options.regain_after * LONGEST_WAIT
    }

    /// The dearest probe that has something left to give up gives up a step.
    fn shed(&mut self, now: BootTime) -> Option<Move> {
        let (before, longest) = (self.cost(), self.longest_wait());
        let left = self.probes.iter().enumerate();
        let left = left.filter(|(_, probe)| probe.depth() != Depth::Off && probe.cost() > 0.0);
        let (index, _) = left.max_by(|(_, a), (_, b)| a.cost().total_cmp(&b.cost()))?;
        let probe = self.probes.get_mut(index)?;
        // Given back too early, or given back for good and only now too dear again.
        match probe.raised.take().map(|raised| now.since(raised)) {
            Some(held) if held < longest => probe.wait = (probe.wait * 2).min(longest),
            Some(_) => probe.wait = self.options.regain_after,
            None => {}
        }
        self.take(index, 1, now, before)
    }

    /// Among the probes for whose next step there was room for long enough, the one
    /// that costs the least more gets it.
    fn regain(&mut self, now: BootTime) -> Option<Move> {
        let (before, room) = (self.cost(), ROOMY * self.options.budget_ns);
        let mut best: Option<(usize, f64)> = None;
        for (index, probe) in self.probes.iter_mut().enumerate().filter(|(_, p)| p.at > 0) {
            let more = probe.cost_at(probe.at - 1) - probe.cost();
            if before + more >= room {
                probe.roomy = None;
                continue;
            }
            let since = *probe.roomy.get_or_insert(now);
            if now.since(since) >= probe.wait && best.is_none_or(|(_, least)| more < least) {
                best = Some((index, more));
            }
        }
        let (index, _) = best?;
        if let Some(probe) = self.probes.get_mut(index) {
            probe.raised = Some(now);
        }
        self.take(index, -1, now, before)
    }

    fn take(&mut self, index: usize, by: isize, now: BootTime, cost: f64) -> Option<Move> {
        let probe = self.probes.get_mut(index)?;
        let from = probe.depth();
        probe.at = probe.at.checked_add_signed(by)?.min(probe.plan.steps.len() - 1);
        let (name, to) = (probe.plan.probe, probe.depth());
        self.moved = Some(now);
        // Room is seen anew with what the others cost now.
        self.probes.iter_mut().for_each(|probe| probe.roomy = None);
        Some(Move { index, probe: name, from, to, cost: cost / NS_PER_SECOND })
    }
}

#[cfg(test)]
mod tests;
