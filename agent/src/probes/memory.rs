//! Memory: stalls in direct reclaim and kills for want of memory, by unit, from
//! the programs on the kernel's reclaim and OOM hooks.

use std::iter;

use super::counted::{Counters, Distributions};
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{HOST_OOM_KILLS, HOST_RECLAIM, UNIT_OOM_KILLS, UNIT_RECLAIM};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::load;

/// The row of the probe of stalls.
pub(super) const RECLAIM: Spec = Spec {
    name: "reclaim",
    doc: "Time tasks of each unit stalled to reclaim memory, of the host or within their own limit",
    level: 2,
    programs: &["reclaim_begin", "reclaim_end", "cgroup_reclaim_begin", "cgroup_reclaim_end"],
    open: open_reclaim,
};

/// The row of the probe of kills.
pub(super) const OOM: Spec = Spec {
    name: "oom",
    doc: "Processes of each unit killed because memory ran out",
    level: 2,
    programs: &["oom_mark_victim"],
    open: open_oom,
};

struct Reclaim {
    degraded: Option<String>,
    stalls: Distributions,
}

fn open_reclaim(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    let cells = kernel.reclaim();
    Ok(Box::new(Reclaim {
        degraded: kernel.health(RECLAIM.programs)?,
        stalls: Distributions::new(UNIT_RECLAIM, Some(HOST_RECLAIM), cells.len(), |row| {
            cells.get(row).into_iter()
        }),
    }))
}

impl Probe for Reclaim {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let cells = kernel_of(kernel)?.reclaim();
        for row in 0..cells.len() {
            self.stalls.put(frame, row, cells.get(row).into_iter());
        }
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

struct Oom {
    degraded: Option<String>,
    kills: Counters<1>,
}

fn open_oom(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    Ok(Box::new(Oom {
        degraded: kernel.health(OOM.programs)?,
        kills: Counters::new([UNIT_OOM_KILLS], kernel.process().len(), |row| [kills(kernel, row)]),
    }))
}

impl Probe for Oom {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let kernel = kernel_of(kernel)?;
        let mut host = 0u64;
        for row in 0..kernel.process().len() {
            let now = kills(kernel, row);
            host = host.wrapping_add(now);
            self.kills.put(frame, row, [now]);
        }
        frame.set(HOST_OOM_KILLS, 0, host as f64);
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

fn kills(kernel: &Kernel, row: usize) -> u64 {
    let cells = iter::once(row).filter_map(|row| kernel.process().get(row));
    cells.map(|cell| load(&cell.oom_kills)).sum()
}
