//! Starts of processes, threads and programs, and tasks that hang, by unit. A task that
//! hangs also comes as an event: [`crate::kernel::KernelEvent`].

use super::counted::Counters;
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    HOST_EXECS, HOST_HUNG, SignalId, UNIT_EXECS, UNIT_FORKS, UNIT_HUNG, UNIT_THREADS_STARTED,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::load;

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "lifecycle",
    doc: "Processes, threads and programs that each unit started, and its tasks that hang",
    level: 2,
    programs: &["sched_process_exec", "sched_process_fork", "sched_process_hang"],
    open,
};

const UNIT: [SignalId; 4] = [UNIT_EXECS, UNIT_HUNG, UNIT_FORKS, UNIT_THREADS_STARTED];
/// What all units add up to, by place in [`UNIT`]. Starts on the host are in /proc.
const HOST: [SignalId; 2] = [HOST_EXECS, HOST_HUNG];

struct Lifecycle {
    degraded: Option<String>,
    counters: Counters<4>,
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    Ok(Box::new(Lifecycle {
        degraded: kernel.health(SPEC.programs)?,
        counters: Counters::new(UNIT, kernel.process().len(), |row| starts(kernel, row)),
    }))
}

impl Probe for Lifecycle {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let kernel = kernel_of(kernel)?;
        let mut host = [0u64; HOST.len()];
        for row in 0..kernel.process().len() {
            let now = starts(kernel, row);
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

fn starts(kernel: &Kernel, row: usize) -> [u64; 4] {
    kernel.process().get(row).map_or([0; 4], |cell| {
        [load(&cell.execs), load(&cell.hung), load(&cell.forks), load(&cell.threads)]
    })
}
