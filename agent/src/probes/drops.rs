//! Packets that the network stack dropped, by the kernel's reason.

use super::labels::Labels;
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{HOST_DROPS, LABEL_DROPS};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::load;

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "drops",
    doc: "Packets dropped by the network stack, by reason",
    level: 2,
    programs: &["kfree_skb"],
    open,
};

struct Drops {
    degraded: Option<String>,
    labels: Labels,
    /// What each row counts, its memory reused.
    counts: Vec<u64>,
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    Ok(Box::new(Drops {
        degraded: kernel.health(SPEC.programs)?,
        labels: Labels::new(LABEL_DROPS, &kernel.names().drops),
        counts: Vec::new(),
    }))
}

impl Probe for Drops {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let kernel = kernel_of(kernel)?;
        let rows = kernel.drops();
        let sum = |row| rows.of_row(row).fold(0u64, |sum, cell| sum.wrapping_add(load(cell)));
        self.counts.clear();
        self.counts.extend((0..rows.rows()).map(sum));
        let all = self.counts.iter().fold(0u64, |sum, n| sum.wrapping_add(*n));
        frame.set(HOST_DROPS, 0, all as f64);
        self.labels.put(frame, &kernel.names().drops, self.counts.iter().copied());
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}
