//! How much detail the loaded programs keep, down to none: what the governor turns.

use std::sync::atomic::Ordering;

use holdfast_agent_ebpf::cells::CpuCell;
use holdfast_agent_ebpf::slots::DETAIL;
use holdfast_agent_ebpf::{depth, maps};
use holdfast_core::clock;

use super::Kernel;
use super::cells::load;

/// When a turn began of which nothing is known: later than any time, so that it has
/// lasted for no time yet.
const UNKNOWN: u64 = u64::MAX;

impl Kernel {
    /// Whether the distributions of what happens in a cgroup are kept at depth
    /// [`GATED`](depth::GATED). It stays so until the cgroup is released. Returns
    /// whether the cgroup has a slot.
    pub fn set_detail(&self, cgroup_id: u64, detail: bool) -> bool {
        self.units.flag(cgroup_id, DETAIL, detail)
    }

    /// How much detail the scheduler's programs keep from now on: one of [`depth`].
    pub fn set_sched_depth(&self, depth: u64) {
        let depth = depth.min(depth::COUNTERS);
        let now = clock::monotonic_ns();
        let cpus = (0..self.cpus.len()).filter_map(|cpu| self.cpus.get(cpu));
        for cpu in cpus.filter(|cpu| load(&cpu.depth) != depth) {
            if load(&cpu.depth) >= depth::SAMPLED {
                // Turns were not followed.
                forget_turns(cpu);
            }
            cpu.changed.store(now, Ordering::Relaxed);
            cpu.depth.store(depth, Ordering::Release);
        }
    }

    /// How much detail the programs on interrupts keep from now on: one of [`depth`].
    pub fn set_irq_depth(&self, depth: u64) {
        for cpu in (0..self.irqs.len()).filter_map(|cpu| self.irqs.get(cpu)) {
            cpu.depth.store(depth.min(depth::COUNTERS), Ordering::Relaxed);
        }
    }

    /// Detaches programs, by name, until [`regain`](Self::regain); `reason` is shown
    /// as theirs meanwhile. What they have counted stays.
    pub fn shed(&mut self, names: &[&str], reason: &str) {
        self.object.park(names, reason);
    }

    /// Attaches programs again that were [`shed`](Self::shed).
    ///
    /// # Errors
    ///
    /// The kernel refuses it: one sentence. Then they stay shed.
    pub fn regain(&mut self, names: &[&str]) -> Result<(), String> {
        // What they remembered is of another time: whoever ran then has long gone, and
        // what began then has ended unseen.
        let waiting: Vec<_> = self.object.parked(names).collect();
        let uses = |map| waiting.iter().any(|program| program.maps.contains(&map));
        let back = |name| waiting.iter().any(|program| program.name == name);
        if uses(maps::CPUS) {
            let now = clock::monotonic_ns();
            for cpu in (0..self.cpus.len()).filter_map(|cpu| self.cpus.get(cpu)) {
                cpu.running.store(0, Ordering::Relaxed);
                cpu.skip.store(0, Ordering::Relaxed);
                cpu.weight.store(0, Ordering::Relaxed);
                cpu.changed.store(now, Ordering::Relaxed);
                forget_turns(cpu);
            }
        }
        if uses(maps::IRQS) {
            // Devices' handlers may be back alone: what is under way of the others is lost.
            for cpu in (0..self.irqs.len()).filter_map(|cpu| self.irqs.get(cpu)) {
                cpu.soft_since.store(0, Ordering::Relaxed);
                cpu.hard_since.store(0, Ordering::Relaxed);
                cpu.skip.store(0, Ordering::Relaxed);
                cpu.weight.store(0, Ordering::Relaxed);
            }
        }
        // The same map holds stamps of both, those of compaction with an upper half.
        let (reclaim, compaction) =
            (back("reclaim_end") || back("cgroup_reclaim_end"), back("compaction_end"));
        if reclaim || compaction {
            self.object.forget::<u64, u64>(maps::RECLAIMING, |key| {
                if key >> u32::BITS == 0 { reclaim } else { compaction }
            });
        }
        if uses(maps::SYNCING) {
            self.object.forget::<u32, [u64; 2]>(maps::SYNCING, |_| true);
        }
        if back("sched_process_exit") {
            // Their ends were not seen, and others may have got their ids.
            self.object.forget::<u32, u8>(maps::VICTIMS, |_| true);
        }
        self.object.unpark(names, &self.root)
    }

    /// Why nothing of programs `names` runs at present although it could; `None` when
    /// something does, or never could.
    #[must_use]
    pub fn shed_reason(&self, names: &[&str]) -> Option<&str> {
        let shed = self.object.parked(names).next()?;
        let runs = self.object.running.iter().any(|(name, _)| names.contains(name));
        let status = self.programs().iter().find(|status| status.name == shed.name);
        status.filter(|_| !runs).map(|status| status.reason.as_str())
    }
}

/// Forgets who had a CPU: a wait that reaches back to then is charged to nobody by turns,
/// and the agent divides it. While the programs follow no turns nobody else writes them.
fn forget_turns(cpu: &CpuCell) {
    cpu.turn_began.store(UNKNOWN, Ordering::Relaxed);
    for turn in &cpu.turn {
        turn.store(0, Ordering::Relaxed);
    }
}
