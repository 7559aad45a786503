//! Syncs of files by unit: how long fsync and its like held up the caller.
//!
//! From the function that all file systems' syncs go through, where the kernel has
//! trampolines (level 3). Elsewhere from a pair of tracepoints of ext4, the only file
//! system that has one: XFS, btrfs and others tell when a sync begins but not when it ends.

use super::counted::Distributions;
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{HOST_SYNC, UNIT_SYNC};
use crate::frame::Frame;
use crate::kernel::Kernel;

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "sync",
    doc: "Time tasks of each unit waited for a file to be synced; where the kernel has no trampolines, on ext4 only",
    level: 2,
    programs: &["sync_enter", "sync_exit"],
    open,
};

struct Sync {
    degraded: Option<String>,
    syncs: Distributions,
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    let cells = kernel.sync();
    Ok(Box::new(Sync {
        degraded: kernel.health(SPEC.programs)?,
        syncs: Distributions::new(UNIT_SYNC, Some(HOST_SYNC), cells.len(), |row| {
            cells.get(row).into_iter()
        }),
    }))
}

impl Probe for Sync {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let cells = kernel_of(kernel)?.sync();
        for row in 0..cells.len() {
            self.syncs.put(frame, row, cells.get(row).into_iter());
        }
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}
