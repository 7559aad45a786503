//! Ends of processes by unit, from the program on the exit hook. The single
//! failures come as events: [`crate::kernel::KernelEvent`].

use super::counted::Counters;
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    HOST_EXITS, HOST_EXITS_ERROR, HOST_EXITS_SIGNAL, SignalId, UNIT_EXITS, UNIT_EXITS_ERROR,
    UNIT_EXITS_SIGNAL,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::load;

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "exit",
    doc: "Processes of each unit that ended, and how; an event for each that a signal or error ended",
    level: 2,
    programs: &["sched_process_exit"],
    open,
};

const HOST: [SignalId; 3] = [HOST_EXITS, HOST_EXITS_SIGNAL, HOST_EXITS_ERROR];
const UNIT: [SignalId; 3] = [UNIT_EXITS, UNIT_EXITS_SIGNAL, UNIT_EXITS_ERROR];

struct Exit {
    degraded: Option<String>,
    counters: Counters<3>,
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    Ok(Box::new(Exit {
        degraded: kernel.health(SPEC.programs)?,
        counters: Counters::new(UNIT, kernel.process().len(), |row| ends(kernel, row)),
    }))
}

impl Probe for Exit {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let kernel = kernel_of(kernel)?;
        let mut host = [0u64; 3];
        for row in 0..kernel.process().len() {
            let now = ends(kernel, row);
            host.iter_mut().zip(now).for_each(|(sum, n)| *sum = sum.wrapping_add(n));
            self.counters.put(frame, row, now);
        }
        HOST.iter().zip(host).for_each(|(id, sum)| frame.set(*id, 0, sum as f64));
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

fn ends(kernel: &Kernel, row: usize) -> [u64; 3] {
    kernel
        .process()
        .get(row)
        .map_or([0; 3], |cell| [load(&cell.exits), load(&cell.by_signal), load(&cell.by_error)])
}
