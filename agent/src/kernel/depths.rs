//! How much detail the loaded programs keep, down to none: what the governor turns.

use std::sync::atomic::Ordering;

use holdfast_agent_ebpf::slots::DETAIL;
use holdfast_agent_ebpf::{depth, maps};
use holdfast_core::clock;

use super::Kernel;
use super::cells::load;

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
        // What they remembered is of another time: whoever ran then has long gone.
        let waiting: Vec<_> = self.object.parked(names).flat_map(|p| p.maps).collect();
        if waiting.contains(&&maps::CPUS) {
            for cpu in (0..self.cpus.len()).filter_map(|cpu| self.cpus.get(cpu)) {
                cpu.running.store(0, Ordering::Relaxed);
            }
        }
        if waiting.contains(&&maps::RECLAIMING) {
            self.object.forget_stamps(maps::RECLAIMING);
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
