//! The scheduler: run-queue latency, time on and off the CPU and switches by unit,
//! from the programs on context switches.

use holdfast_agent_ebpf::cells::{SchedCell, Word};

use super::counted::{Counters, Distributions};
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    HOST_INVOLUNTARY, HOST_OFF_CPU, HOST_ON_CPU, HOST_RUN_QUEUE, HOST_SWITCHES, SignalId,
    UNIT_INVOLUNTARY, UNIT_OFF_CPU, UNIT_ON_CPU, UNIT_RUN_QUEUE, UNIT_SWITCHES,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::{PerCpu, load};

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "sched",
    doc: "Run-queue latency, time on and off the CPU and context switches of each unit",
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
    off_cpu: Option<OffCpu>,
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
        // The other form has no cycles.
        off_cpu: kernel.at_its_best("sched_switch").then(|| OffCpu::new(cells)),
    }))
}

impl Probe for Sched {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let kernel = kernel_of(kernel)?;
        let cells = kernel.sched();
        let mut host = [0u64; 3];
        let mut host_off_cpu = 0u64;
        for row in 0..cells.rows() {
            let now = counters(cells, row);
            host.iter_mut().zip(now).for_each(|(sum, n)| *sum = sum.wrapping_add(n));
            if self.counters.put(frame, row, now) {
                self.waits.put_changed(frame, row, waits(cells, row));
            } else if row >= kernel.unit_slots() {
                // Rows of no unit: perhaps distributions and no counter, for the host.
                self.waits.put(frame, row, waits(cells, row));
            }
            if let Some(off_cpu) = &mut self.off_cpu {
                host_off_cpu = host_off_cpu.wrapping_add(off_cpu.put(frame, row, cells));
            }
        }
        if self.off_cpu.is_some() {
            frame.set(HOST_OFF_CPU, 0, host_off_cpu as f64);
        }
        HOST.iter().zip(host).for_each(|(id, sum)| frame.set(*id, 0, sum as f64));
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

/// Time off the CPU: what cycles leave when the slices in them are taken off.
///
/// The slice of a task that sleeps is taken off before its cycle is added, when it gets
/// a CPU again. So the difference may go back for a while; the highest it was is told.
/// A task that sleeps while it is given to another unit leaves its last slice with the
/// first and brings it to the second: that much is wrong, once.
struct OffCpu {
    counters: Counters<1>,
    highest: Vec<u64>,
}

impl OffCpu {
    fn new(cells: &PerCpu<SchedCell>) -> Self {
        let highest: Vec<u64> =
            (0..cells.rows()).map(|row| later(0, off_cpu(cells, row))).collect();
        let counters = Counters::new([UNIT_OFF_CPU], highest.len(), |row| {
            [highest.get(row).copied().unwrap_or_default()]
        });
        Self { counters, highest }
    }

    /// Writes that of `row` and returns what its cells have held at most.
    fn put(&mut self, frame: &mut Frame, row: usize, cells: &PerCpu<SchedCell>) -> u64 {
        let Some(highest) = self.highest.get_mut(row) else { return 0 };
        *highest = later(*highest, off_cpu(cells, row));
        self.counters.put(frame, row, [*highest]);
        *highest
    }
}

/// The larger of two values of a counter that wraps.
fn later(a: u64, b: u64) -> u64 {
    if b.wrapping_sub(a) < 1 << 63 { b } else { a }
}

/// In the order that never finds a cycle without its slice: too little for a moment,
/// never too much.
fn off_cpu(cells: &PerCpu<SchedCell>, row: usize) -> u64 {
    let sum = |word: fn(&SchedCell) -> &Word| {
        cells.of_row(row).fold(0u64, |sum, cell| sum.wrapping_add(load(word(cell))))
    };
    let (cycles, last_slices) = (sum(|cell| &cell.cycles_ns), sum(|cell| &cell.last_slices_ns));
    cycles.wrapping_add(last_slices).wrapping_sub(sum(|cell| &cell.on_cpu_ns))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_over_a_wrap() {
        assert_eq!(later(5, 7), 7);
        assert_eq!(later(7, 5), 7);
        assert_eq!(later(u64::MAX - 1, 3), 3);
        assert_eq!(later(3, u64::MAX - 1), 3);
    }
}
