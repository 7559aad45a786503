//! How deep each probe may look: the steps there are for it, in the order they are
//! given up, and what an event costs where the kernel does not say.
//!
//! The order is that of what is lost, least first, not of what is saved. Only from
//! [`Depth::Sampled`] on do the programs themselves cost less. [`Depth::Gated`] and
//! [`Depth::Host`] save what comes after them: distributions that are read, sent and
//! stored. A switch even costs some ten nanoseconds more there, because a host's row is
//! written besides the unit's own. They are steps on the way all the same, of a second
//! or two each: the cost may fall meanwhile, and who reads the events finds the same
//! order each time. [`Depth::Counters`] saves distributions, and next to nothing that
//! [`Depth::Sampled`] does not save.

use holdfast_agent_ebpf::depth;

use crate::catalogue::{
    DISK_READS, DISK_WRITES, PROC_FORKS, PROC_SWITCHES, SOFTIRQ_COUNT, SignalId,
};

/// How much detail a probe keeps, most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Everything it can tell.
    Full,
    /// Distributions of units under pressure only; those of others add to the host's.
    Gated,
    /// Distributions of the host only; counters of every unit.
    Host,
    /// One event in so many is looked at and counts for all of them.
    Sampled,
    /// Counters only.
    Counters,
    /// Nothing: its programs are detached, and files are all there is.
    Off,
}

impl Depth {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// Its name on the wire and on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Gated => "gated",
            Self::Host => "host",
            Self::Sampled => "sampled",
            Self::Counters => "counters",
            Self::Off => "off",
        }
    }

    /// What the programs are told; `None` when none is attached.
    #[must_use]
    pub const fn in_kernel(self) -> Option<u64> {
        match self {
            Self::Full => Some(depth::FULL),
            Self::Gated => Some(depth::GATED),
            Self::Host => Some(depth::HOST),
            Self::Sampled => Some(depth::SAMPLED),
            Self::Counters => Some(depth::COUNTERS),
            Self::Off => None,
        }
    }

    /// What an event costs at this depth, as a share of what it costs at full depth.
    /// Used only until it has been measured. Of a switch, on 6.18, the call included:
    /// 54 ns at full depth, 70 gated, 66 for the host, 35 sampled and for counters.
    #[must_use]
    pub const fn share(self) -> f64 {
        match self {
            Self::Full => 1.0,
            Self::Gated => 1.3,
            Self::Host => 1.22,
            Self::Sampled | Self::Counters => 0.65,
            Self::Off => 0.0,
        }
    }
}

/// What the governor knows of a probe.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The probe, by the name of its row in `probes::PROBES`.
    pub probe: &'static str,
    /// Its depths, in the order they are given up. The first is [`Depth::Full`].
    pub steps: &'static [Depth],
    /// The program that runs once for each event; empty when the probe's programs
    /// have nothing to do with each other, so that any run is an event.
    pub lead: &'static str,
    /// Counters that together count the same events, from files, which tell attached or
    /// not, or the probe's own; none when there are none.
    pub events: &'static [SignalId],
    /// What an event costs at full depth, in nanoseconds, where the kernel's
    /// accounting is not to be had.
    pub event_ns: f64,
}

const ALL: &[Depth] =
    &[Depth::Full, Depth::Gated, Depth::Host, Depth::Sampled, Depth::Counters, Depth::Off];
const BY_SAMPLE: &[Depth] = &[Depth::Full, Depth::Sampled, Depth::Off];
const ALL_OR_NOTHING: &[Depth] = &[Depth::Full, Depth::Off];

/// The probes of which more is known than their names. `event_ns` is used only where the
/// kernel's accounting may not be had, and errs on the dear side: that of sched is a mean
/// by the accounting on a busy virtual machine (6.18) with the call
/// ([`CALL_NS`](super::CALL_NS)) added, rounded up; the others follow from what their
/// programs do (look-ups, clock reads). There is no row for "tasks": its passes run when it reads, never in a window, and
/// it keeps them below a thousandth of a CPU itself.
const PLANS: &[Plan] = &[
    Plan {
        probe: "sched",
        steps: ALL,
        lead: "sched_switch",
        events: &[PROC_SWITCHES],
        event_ns: 60.0,
    },
    Plan {
        probe: "block",
        steps: ALL_OR_NOTHING,
        lead: "block_rq_complete",
        events: &[DISK_READS, DISK_WRITES],
        // Two programs, and they are not often in the CPU's caches.
        event_ns: 500.0,
    },
    Plan {
        // Begin and end of each, two readings of the clock.
        probe: "irq",
        steps: BY_SAMPLE,
        lead: "softirq_exit",
        events: &[SOFTIRQ_COUNT],
        event_ns: 150.0,
    },
    Plan {
        // Dear in a flood of packets that nobody wants.
        probe: "drops",
        steps: ALL_OR_NOTHING,
        lead: "kfree_skb",
        events: &[],
        event_ns: 100.0,
    },
    Plan {
        // A stamp is put into a hash and taken out again.
        probe: "sync",
        steps: ALL_OR_NOTHING,
        lead: "sync_exit",
        events: &[],
        event_ns: 600.0,
    },
    Plan {
        probe: "compaction",
        steps: ALL_OR_NOTHING,
        lead: "compaction_end",
        events: &[],
        event_ns: 600.0,
    },
    Plan {
        // Programs that are executed are as many as processes that are started, or fewer.
        probe: "lifecycle",
        steps: ALL_OR_NOTHING,
        lead: "sched_process_fork",
        events: &[PROC_FORKS],
        event_ns: 300.0,
    },
    Plan {
        probe: "exit",
        steps: ALL_OR_NOTHING,
        lead: "sched_process_exit",
        // Whoever ends was once started.
        events: &[PROC_FORKS],
        event_ns: 400.0,
    },
    Plan {
        // Retransmits are what TCP's programs run for when much is wrong; changes of
        // a socket's state are not counted in any file.
        probe: "tcp",
        steps: ALL_OR_NOTHING,
        lead: "",
        events: &[],
        event_ns: 250.0,
    },
];

/// The plan of a probe. One that nothing is known of is kept whole or not at all.
#[must_use]
pub fn plan(probe: &'static str) -> Plan {
    let known = PLANS.iter().find(|plan| plan.probe == probe);
    known.copied().unwrap_or(Plan {
        probe,
        steps: ALL_OR_NOTHING,
        lead: "",
        events: &[],
        event_ns: 250.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::PROBES;

    #[test]
    fn plans_are_of_probes_that_are_there_and_their_steps_go_down() {
        for known in PLANS {
            let spec = PROBES.iter().find(|spec| spec.name == known.probe);
            let spec = spec.unwrap_or_else(|| panic!("no probe {}", known.probe));
            assert!(known.lead.is_empty() || spec.programs.contains(&known.lead), "{known:?}");
            assert_eq!(plan(known.probe).steps, known.steps);
        }
        for steps in PROBES.iter().map(|spec| plan(spec.name).steps) {
            assert_eq!((steps.first(), steps.last()), (Some(&Depth::Full), Some(&Depth::Off)));
            assert!(steps.windows(2).all(|pair| pair[0] < pair[1]));
            // The order is that of what is lost; what programs cost falls once, and for good.
            let shares: Vec<f64> = steps.iter().map(|step| step.share()).collect();
            let dear = shares.iter().take_while(|share| **share >= 1.0).count();
            let cheap = &shares[dear..];
            assert!(cheap.is_sorted_by(|a, b| a >= b) && cheap.ends_with(&[0.0]), "{shares:?}");
            assert!(cheap.iter().all(|share| *share < 0.7), "{shares:?}");
        }
    }

    #[test]
    fn depths_are_those_of_the_programs() {
        let told: Vec<_> = ALL.iter().filter_map(|depth| depth.in_kernel()).collect();
        assert_eq!(told, [depth::FULL, depth::GATED, depth::HOST, depth::SAMPLED, depth::COUNTERS]);
        assert_eq!(ALL.len(), Depth::COUNT);
    }
}
