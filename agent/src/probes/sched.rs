//! The scheduler: run-queue latency, CPU time and switches by unit, from the
//! programs on context switches.

use holdfast_agent_ebpf::cells::SchedCell;

use super::counted::{Counters, Distributions};
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    HOST_INVOLUNTARY, HOST_ON_CPU, HOST_RUN_QUEUE, HOST_SWITCHES, SignalId, UNIT_INVOLUNTARY,
    UNIT_ON_CPU, UNIT_RUN_QUEUE, UNIT_SWITCHES,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::{PerCpu, load};

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "sched",
    doc: "Run-queue latency, CPU time and context switches of each unit",
    level: 2,
    programs: &["sched_switch", "sched_wakeup", "sched_wakeup_new"],
    open,
};

const HOST: [SignalId; 3] = [HOST_SWITCHES, HOST_INVOLUNTARY, HOST_ON_CPU];
const UNIT: [SignalId; 3] = [UNIT_SWITCHES, UNIT_INVOLUNTARY, UNIT_ON_CPU];

struct Sched {
    degraded: Option<String>,
    counters: Counters<3>,
    waits: Distributions,
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    let cells = kernel.sched();
    Ok(Box::new(Sched {
        degraded: kernel.health(SPEC.programs)?,
        counters: Counters::new(UNIT, cells.rows(), |row| counters(cells, row)),
        waits: Distributions::new(UNIT_RUN_QUEUE, Some(HOST_RUN_QUEUE), cells.rows(), |row| {
            waits(cells, row)
        }),
    }))
}

impl Probe for Sched {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let cells = kernel_of(kernel)?.sched();
        let mut host = [0u64; 3];
        for row in 0..cells.rows() {
            let now = counters(cells, row);
            host.iter_mut().zip(now).for_each(|(sum, n)| *sum = sum.wrapping_add(n));
            if self.counters.put(frame, row, now) {
                self.waits.put_changed(frame, row, waits(cells, row));
            }
        }
        HOST.iter().zip(host).for_each(|(id, sum)| frame.set(*id, 0, sum as f64));
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

fn counters(cells: &PerCpu<SchedCell>, row: usize) -> [u64; 3] {
    cells.of_row(row).fold([0; 3], |[a, b, c], cell| {
        [
            a.wrapping_add(load(&cell.switches)),
            b.wrapping_add(load(&cell.involuntary)),
            c.wrapping_add(load(&cell.on_cpu_ns)),
        ]
    })
}

fn waits(
    cells: &PerCpu<SchedCell>,
    row: usize,
) -> impl Iterator<Item = &holdfast_agent_ebpf::cells::Histogram> + Clone {
    cells.of_row(row).map(|cell| &cell.wait)
}
