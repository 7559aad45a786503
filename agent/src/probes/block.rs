//! Block I/O: latency, size and errors of requests by device, and of each unit's
//! requests, from the programs on their issue and completion.

use holdfast_agent_ebpf::cells::{BlockCell, Histogram, IN_FLIGHT_SHIFT, UnitDiskCell, operation};

use super::counted::{Counters, Distributions};
use super::{Context, Probe, Spec, kernel_of};
use crate::catalogue::{
    DISK_ERRORS, DISK_FLUSH_LATENCY, DISK_OTHER_LATENCY, DISK_READ_LATENCY, DISK_READ_QUEUE,
    DISK_READ_SERVICE, DISK_READ_SIZE, DISK_WRITE_LATENCY, DISK_WRITE_QUEUE, DISK_WRITE_SERVICE,
    DISK_WRITE_SIZE, SignalId, UNIT_DISK_ERRORS, UNIT_IN_FLIGHT, UNIT_READ_LATENCY,
    UNIT_READ_REQUESTED, UNIT_WRITE_LATENCY, UNIT_WRITE_REQUESTED,
};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::kernel::cells::{PerCpu, load};

/// The probe's row of the table.
pub(super) const SPEC: Spec = Spec {
    name: "block",
    doc: "Latency in the queue and on the device, size and errors of block I/O by device, kind and unit",
    level: 2,
    programs: &["block_rq_complete", "block_rq_issue", "block_rq_insert"],
    open,
};

/// Where in a cell the distribution of a signal is.
type Place = fn(&BlockCell) -> &Histogram;

const PLACES: [(SignalId, Place); operation::COUNT + 3 * operation::SIZED] = [
    (DISK_READ_LATENCY, |cell| &cell.latency[operation::READ]),
    (DISK_WRITE_LATENCY, |cell| &cell.latency[operation::WRITE]),
    (DISK_FLUSH_LATENCY, |cell| &cell.latency[operation::FLUSH]),
    (DISK_OTHER_LATENCY, |cell| &cell.latency[operation::OTHER]),
    (DISK_READ_SIZE, |cell| &cell.size[operation::READ]),
    (DISK_WRITE_SIZE, |cell| &cell.size[operation::WRITE]),
    (DISK_READ_QUEUE, |cell| &cell.queue[operation::READ]),
    (DISK_WRITE_QUEUE, |cell| &cell.queue[operation::WRITE]),
    (DISK_READ_SERVICE, |cell| &cell.service[operation::READ]),
    (DISK_WRITE_SERVICE, |cell| &cell.service[operation::WRITE]),
];

const UNIT: [SignalId; 3] = [UNIT_DISK_ERRORS, UNIT_READ_REQUESTED, UNIT_WRITE_REQUESTED];
const UNIT_LATENCY: [SignalId; operation::SIZED] = [UNIT_READ_LATENCY, UNIT_WRITE_LATENCY];
/// Seconds times bytes in one step of a cell's count of what was in flight.
const BYTE_SECONDS: f64 = (1u64 << IN_FLIGHT_SHIFT) as f64 / 1e9;

struct Block {
    degraded: Option<String>,
    errors: Counters<1>,
    distributions: [(Distributions, Place); PLACES.len()],
    units: Counters<3>,
    in_flight: Counters<1>,
    unit_latency: [Distributions; operation::SIZED],
}

fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let kernel = context.kernel.map_err(str::to_owned)?;
    // Without completions there is nothing to be had.
    kernel.health(&["block_rq_complete"])?;
    let cells = kernel.block();
    let units = kernel.unit_disk().len();
    Ok(Box::new(Block {
        degraded: kernel.health(SPEC.programs)?,
        errors: Counters::new([DISK_ERRORS], cells.rows(), |row| errors(cells, row)),
        distributions: PLACES.map(|(id, place)| {
            let of_row = |row| cells.of_row(row).map(place);
            (Distributions::new(id, None, cells.rows(), of_row), place)
        }),
        units: Counters::new(UNIT, units, |slot| of_unit(kernel, slot)),
        in_flight: Counters::new([UNIT_IN_FLIGHT], units, |slot| [in_flight(kernel, slot)]),
        unit_latency: std::array::from_fn(|kind| {
            let of_slot = |slot| unit_latency(kernel, slot, kind);
            Distributions::new(UNIT_LATENCY[kind], None, units, of_slot)
        }),
    }))
}

impl Probe for Block {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let kernel = kernel_of(kernel)?;
        let cells = kernel.block();
        for row in 0..cells.rows() {
            self.errors.put(frame, row, errors(cells, row));
            for (distribution, place) in &mut self.distributions {
                distribution.put(frame, row, cells.of_row(row).map(*place));
            }
        }
        for slot in 0..kernel.unit_disk().len() {
            self.units.put(frame, slot, of_unit(kernel, slot));
            self.in_flight.put(frame, slot, [in_flight(kernel, slot)]);
            let steps = frame.get(UNIT_IN_FLIGHT, slot);
            frame.set(UNIT_IN_FLIGHT, slot, steps * BYTE_SECONDS);
            for (kind, latency) in self.unit_latency.iter_mut().enumerate() {
                latency.put(frame, slot, unit_latency(kernel, slot, kind));
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

fn of_unit(kernel: &Kernel, slot: usize) -> [u64; 3] {
    let counters = |cell: &UnitDiskCell| {
        let [read, write] = &cell.bytes;
        [load(&cell.errors), load(read), load(write)]
    };
    kernel.unit_disk().get(slot).map_or([0; 3], counters)
}

/// What a unit had in flight, over all devices.
fn in_flight(kernel: &Kernel, slot: usize) -> u64 {
    (0..kernel.shared_devices())
        .filter_map(|row| kernel.unit_block(row, slot))
        .fold(0, |sum, cell| sum.wrapping_add(load(&cell.in_flight)))
}

fn unit_latency(
    kernel: &Kernel,
    slot: usize,
    kind: usize,
) -> impl Iterator<Item = &Histogram> + Clone {
    kernel.unit_disk().get(slot).and_then(|cell| cell.latency.get(kind)).into_iter()
}
