//! How large the maps may be: computed before anything is created, from the
//! number of CPUs and the limit. What does not fit is rows, never the limit.

use holdfast_agent_ebpf::cells::{
    BlockCell, CpuCell, Histogram, IrqCell, ProcessCell, REQUEST_STAMPS, RequestStamp, SchedCell,
    TaskCell, TcpCell, TcpReasons, UnitBlockCell, UnitDiskCell, Word,
};
use holdfast_agent_ebpf::reasons::DROP_ROWS;
use holdfast_agent_ebpf::records::RING_BYTES;
use holdfast_agent_ebpf::slots::{DEVICE_SETS, RESERVED_ROWS, Set, UNIT_SETS};
use holdfast_agent_ebpf::turns::BLAME_ROWS;

const PAGE: u64 = 4096;
/// Device rows when memory is no question, row 0 included.
const DEVICE_ROWS: u64 = 32;
/// Fewest rows worth loading anything for: "everything else", one more, and those that
/// no unit gets.
const FEWEST_ROWS: u64 = 2 + RESERVED_ROWS as u64;
/// Fewest rows for devices.
const FEWEST_DEVICES: u64 = 2;
/// The matrix of victims and culprits gets at most one part in so many of what is
/// left for rows.
const BLAME_PART: u64 = 16;
/// The hashes of stalled threads and of victims, the two storages' buckets, the globals, the ring
/// buffer's own pages and each map's bookkeeping; measured, with room to spare.
const REST: u64 = 384 * 1024;

/// Numbers of entries of the maps whose size depends on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cpus: u32,
    pub(super) unit_rows: u32,
    pub(super) device_rows: u32,
    pub(super) blame_rows: u32,
    /// Device rows of the table that has a cell for each unit, too.
    pub(super) shared_devices: u32,
}

impl Size {
    /// The largest that stays under `limit` bytes.
    pub(super) fn fit(cpus: usize, unit_slots: usize, limit: u64) -> Result<Self, String> {
        let n = cpus.max(1) as u64;
        let of = |bytes: usize| bytes as u64;
        let fixed = REST
            + of(RING_BYTES)
            + u64::from(UNIT_SETS + DEVICE_SETS) * of(size_of::<Set>())
            + n * of(size_of::<CpuCell>())
            + n * of(size_of::<IrqCell>())
            + n * u64::from(DROP_ROWS) * of(size_of::<Word>())
            + of(size_of::<TcpReasons>())
            + u64::from(REQUEST_STAMPS) * of(size_of::<RequestStamp>());
        let device_row = n * of(size_of::<BlockCell>());
        let unit_row = n * of(size_of::<SchedCell>())
            + of(size_of::<TcpCell>() + size_of::<Histogram>() + size_of::<ProcessCell>())
            + of(size_of::<UnitDiskCell>() + size_of::<TaskCell>() + 2 * size_of::<Histogram>());

        let left = limit.saturating_sub(fixed);
        let blame_rows = blame_rows(left / BLAME_PART, unit_slots);
        let left = left.saturating_sub(blame_bytes(blame_rows));
        let device_rows = (left / 4 / device_row).min(DEVICE_ROWS);
        let left = left.saturating_sub(device_rows * device_row);
        // What units do to single devices may cost an eighth more.
        let shared_devices =
            (unit_row / 8 / of(size_of::<UnitBlockCell>())).clamp(1, device_rows.max(1));
        let unit_row = unit_row + shared_devices * of(size_of::<UnitBlockCell>());
        let unit_rows = (left / unit_row).min(unit_slots as u64 + u64::from(RESERVED_ROWS));
        if device_rows < FEWEST_DEVICES || unit_rows < FEWEST_ROWS {
            let rows = FEWEST_ROWS * unit_row + FEWEST_DEVICES * 4 * device_row + 8 * PAGE;
            let need = fixed + rows + rows / (BLAME_PART - 1) + blame_bytes(1);
            return Err(format!(
                "the map memory limit of {limit} bytes is too small for {n} CPUs: raise it to {need} or more"
            ));
        }
        Ok(Self {
            cpus: n as u32,
            unit_rows: unit_rows as u32,
            device_rows: device_rows as u32,
            blame_rows,
            shared_devices: shared_devices as u32,
        })
    }

    /// Counters of the matrix of victims and culprits.
    pub(super) fn blame_cells(self) -> u32 {
        self.blame_rows * (self.blame_rows + 1)
    }
}

/// As many rows as fit into `bytes`, but no more than there are units; at least one,
/// for all of them together.
fn blame_rows(bytes: u64, unit_slots: usize) -> u32 {
    let wanted = u32::try_from(unit_slots).unwrap_or(BLAME_ROWS).min(BLAME_ROWS);
    (1..=wanted).rev().find(|rows| blame_bytes(*rows) <= bytes).unwrap_or(1)
}

fn blame_bytes(rows: u32) -> u64 {
    u64::from(rows) * u64::from(rows + 1) * size_of::<Word>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 4 << 20;

    #[test]
    fn a_small_host_gets_what_it_asks_for() {
        let size = Size::fit(2, 256, LIMIT).unwrap();
        assert_eq!((size.unit_rows, size.device_rows, size.blame_rows), (258, 32, 128));
    }

    #[test]
    fn the_limit_is_no_aim() {
        use super::super::Options;
        let Options { unit_slots, map_limit_bytes, .. } = Options::default();
        for cpus in [1, 2, 4] {
            let generous = Size::fit(cpus, unit_slots, map_limit_bytes).unwrap();
            assert_eq!(Ok(generous), Size::fit(cpus, unit_slots, LIMIT), "{cpus} CPUs");
        }
    }

    #[test]
    fn a_large_host_gets_fewer_rows_and_a_tiny_limit_a_sentence() {
        let size = Size::fit(64, 256, LIMIT).unwrap();
        assert!(size.unit_rows > 32 && size.unit_rows < 256, "{size:?}");
        let bytes = u64::from(size.unit_rows) * 64 * size_of::<SchedCell>() as u64
            + u64::from(size.device_rows) * 64 * size_of::<BlockCell>() as u64;
        assert!(bytes + blame_bytes(size.blame_rows) < LIMIT);
        assert!(Size::fit(1024, 256, LIMIT).unwrap_err().contains("raise it to"));
        let need: u64 = Size::fit(2, 256, 1)
            .unwrap_err()
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .next_back()
            .unwrap();
        assert!(Size::fit(2, 256, need).is_ok());
    }

    #[test]
    fn the_matrix_takes_a_small_part_and_no_row_that_no_unit_needs() {
        assert_eq!(Size::fit(2, 8, LIMIT).unwrap().blame_rows, 8);
        let small = Size::fit(2, 256, 1 << 20).unwrap();
        assert!((16..128).contains(&small.blame_rows), "{small:?}");
        assert!(blame_bytes(small.blame_rows) <= (1 << 20) / BLAME_PART);
        assert_eq!(blame_rows(0, 256), 1);
    }

    #[test]
    fn absurd_numbers_of_cpus_overflow_nothing() {
        let huge = Size::fit(4096, 256, 256 << 20).unwrap();
        assert!(huge.device_rows >= 2 && huge.unit_rows < 256, "{huge:?}");
        for cpus in [4096, 65_536, u32::MAX as usize] {
            assert!(Size::fit(cpus, 1024, LIMIT).unwrap_err().contains("raise it to"), "{cpus}");
        }
    }
}
