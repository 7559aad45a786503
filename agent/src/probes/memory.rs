//! Memory: stalls in direct reclaim and compaction, and kills for want of memory, by unit, from
//! the programs on the kernel's reclaim and OOM hooks.

use std::iter;

use holdfast_agent_ebpf::cells::Histogram;

use super::counted::{Counters, Distributions};
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    HOST_COMPACTION, HOST_OOM_KILLS, HOST_RECLAIM, SignalId, UNIT_COMPACTION, UNIT_OOM_KILLS,
    UNIT_RECLAIM,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::{Cells, load};

/// The row of the probe of stalls.
pub(super) const RECLAIM: Spec = Spec {
    name: "reclaim",
    doc: "Time tasks of each unit stalled to reclaim memory, of the host or within their own limit",
    level: 2,
    programs: &["reclaim_begin", "reclaim_end", "cgroup_reclaim_begin", "cgroup_reclaim_end"],
    open: open_reclaim,
};

/// The row of the probe of stalls for memory in one piece.
pub(super) const COMPACTION: Spec = Spec {
    name: "compaction",
    doc: "Time tasks of each unit stalled to move pages together themselves",
    level: 2,
    programs: &["compaction_begin", "compaction_end"],
    open: open_compaction,
};

/// The row of the probe of kills.
pub(super) const OOM: Spec = Spec {
    name: "oom",
    doc: "Processes of each unit killed because memory ran out",
    level: 2,
    programs: &["oom_mark_victim"],
    open: open_oom,
};

/// Where the kernel side keeps the stalls of units.
type Place = fn(&Kernel) -> &Cells<Histogram>;

/// Stalls of one sort.
struct Stalls {
    degraded: Option<String>,
    place: Place,
    stalls: Distributions,
}

impl Stalls {
    fn open(
        context: &Context<'_>,
        spec: &Spec,
        unit: SignalId,
        host: SignalId,
        place: Place,
    ) -> Result<Box<dyn Probe>, String> {
        let kernel = context.kernel.map_err(str::to_owned)?;
        let degraded = kernel.health(spec.programs)?;
        let cells = place(kernel);
        let of_row = |row| cells.get(row).into_iter();
        let stalls = Distributions::new(unit, Some(host), cells.len(), of_row);
        Ok(Box::new(Self { degraded, place, stalls }))
    }
}

fn open_reclaim(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    Stalls::open(context, &RECLAIM, UNIT_RECLAIM, HOST_RECLAIM, Kernel::reclaim)
}

fn open_compaction(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    Stalls::open(context, &COMPACTION, UNIT_COMPACTION, HOST_COMPACTION, Kernel::compaction)
}

impl Probe for Stalls {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let cells = (self.place)(kernel_of(kernel)?);
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
