//! Block I/O: latency, size and errors of requests by device, from the program
//! on their completion.

use holdfast_agent_ebpf::cells::{BlockCell, Histogram, operation};

use super::counted::{Counters, Distributions};
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    DISK_ERRORS, DISK_FLUSH_LATENCY, DISK_OTHER_LATENCY, DISK_READ_LATENCY, DISK_READ_SIZE,
    DISK_WRITE_LATENCY, DISK_WRITE_SIZE, SignalId,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::{PerCpu, load};

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "block",
    doc: "Latency, size and errors of block I/O by device and kind",
    level: 2,
    programs: &["block_rq_complete"],
    open,
};

/// Where in a cell the distribution of a signal is.
type Place = fn(&BlockCell) -> &Histogram;

const PLACES: [(SignalId, Place); operation::COUNT + operation::SIZED] = [
    (DISK_READ_LATENCY, |cell| &cell.latency[operation::READ]),
    (DISK_WRITE_LATENCY, |cell| &cell.latency[operation::WRITE]),
    (DISK_FLUSH_LATENCY, |cell| &cell.latency[operation::FLUSH]),
    (DISK_OTHER_LATENCY, |cell| &cell.latency[operation::OTHER]),
    (DISK_READ_SIZE, |cell| &cell.size[operation::READ]),
    (DISK_WRITE_SIZE, |cell| &cell.size[operation::WRITE]),
];

struct Block {
    degraded: Option<String>,
    errors: Counters<1>,
    distributions: [(Distributions, Place); PLACES.len()],
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    let cells = kernel.block();
    Ok(Box::new(Block {
        degraded: kernel.health(SPEC.programs)?,
        errors: Counters::new([DISK_ERRORS], cells.rows(), |row| errors(cells, row)),
        distributions: PLACES.map(|(id, place)| {
            let of_row = |row| cells.of_row(row).map(place);
            (Distributions::new(id, None, cells.rows(), of_row), place)
        }),
    }))
}

impl Probe for Block {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let cells = kernel_of(kernel)?.block();
        for row in 0..cells.rows() {
            self.errors.put(frame, row, errors(cells, row));
            for (distribution, place) in &mut self.distributions {
                distribution.put(frame, row, cells.of_row(row).map(*place));
            }
        }
        Ok(())
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

fn errors(cells: &PerCpu<BlockCell>, row: usize) -> [u64; 1] {
    [cells.of_row(row).fold(0, |sum, cell| sum.wrapping_add(load(&cell.errors)))]
}
