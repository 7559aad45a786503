//! Interrupts: how often and for how long devices' handlers and deferred interrupts
//! ran, from the programs on their begin and end. They belong to no unit: they
//! interrupt whoever runs.

use holdfast_agent_ebpf::cells::{Handled, SOFTIRQS};

use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    HARDIRQ_COUNT, HARDIRQ_TIME, SOFTIRQ_BLOCK, SOFTIRQ_COUNT, SOFTIRQ_HI, SOFTIRQ_HRTIMER,
    SOFTIRQ_IRQ_POLL, SOFTIRQ_NET_RX, SOFTIRQ_NET_TX, SOFTIRQ_RCU, SOFTIRQ_SCHED, SOFTIRQ_TASKLET,
    SOFTIRQ_TIME, SOFTIRQ_TIMER, SignalId,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::load;

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "irq",
    doc: "Time in devices' interrupts and in each kind of deferred interrupt (softirq)",
    level: 2,
    programs: &["softirq_entry", "softirq_exit", "irq_handler_entry", "irq_handler_exit"],
    open,
};

/// Time of each kind, in the order of [`SOFTIRQS`].
const KINDS: [SignalId; SOFTIRQS.len()] = [
    SOFTIRQ_HI,
    SOFTIRQ_TIMER,
    SOFTIRQ_NET_TX,
    SOFTIRQ_NET_RX,
    SOFTIRQ_BLOCK,
    SOFTIRQ_IRQ_POLL,
    SOFTIRQ_TASKLET,
    SOFTIRQ_SCHED,
    SOFTIRQ_HRTIMER,
    SOFTIRQ_RCU,
];

struct Irq {
    degraded: Option<String>,
    /// Whether deferred interrupts, and devices' ones, are counted.
    soft: bool,
    hard: bool,
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    Ok(Box::new(Irq {
        degraded: kernel.health(SPEC.programs)?,
        soft: kernel.at_its_best("softirq_exit"),
        hard: kernel.at_its_best("irq_handler_exit"),
    }))
}

impl Probe for Irq {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let cells = kernel_of(kernel)?.irqs();
        let cpus = || (0..cells.len()).filter_map(|cpu| cells.get(cpu));
        if self.soft {
            let mut all = (0u64, 0u64);
            for (kind, id) in KINDS.iter().enumerate() {
                let (count, ns) = sum(cpus().filter_map(|cpu| cpu.soft.get(kind)));
                all = (all.0.wrapping_add(count), all.1.wrapping_add(ns));
                frame.set(*id, 0, ns as f64);
            }
            frame.set(SOFTIRQ_COUNT, 0, all.0 as f64);
            frame.set(SOFTIRQ_TIME, 0, all.1 as f64);
        }
        if self.hard {
            let (count, ns) = sum(cpus().map(|cpu| &cpu.hard));
            frame.set(HARDIRQ_COUNT, 0, count as f64);
            frame.set(HARDIRQ_TIME, 0, ns as f64);
        }
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

/// Count and time over all CPUs.
fn sum<'a>(handled: impl Iterator<Item = &'a Handled>) -> (u64, u64) {
    handled.fold((0, 0), |(count, ns), one| {
        (count.wrapping_add(load(&one.count)), ns.wrapping_add(load(&one.ns)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_the_kernels_order() {
        for (kind, id) in SOFTIRQS.iter().zip(KINDS) {
            assert_eq!(id.signal().name, format!("cpu.softirq.{kind}.time"));
        }
    }
}
