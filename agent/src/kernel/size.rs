//! How large the maps may be: computed before anything is created, from the
//! number of CPUs and the limit. What does not fit is rows, never the limit.

use holdfast_agent_ebpf::cells::{BlockCell, CpuCell, Histogram, ProcessCell, SchedCell, TcpCell};
use holdfast_agent_ebpf::records::RING_BYTES;
use holdfast_agent_ebpf::slots::{DEVICE_SETS, RESERVED_ROWS, Set, UNIT_SETS};

const PAGE: u64 = 4096;
/// Device rows when memory is no question, row 0 included.
const DEVICE_ROWS: u64 = 32;
/// Fewest rows worth loading anything for: "everything else", one more, and those that
/// no unit gets.
const FEWEST_ROWS: u64 = 2 + RESERVED_ROWS as u64;
/// Fewest rows for devices.
const FEWEST_DEVICES: u64 = 2;
/// The hash of stalled threads, the two storages' buckets, the globals, the ring
/// buffer's own pages and each map's bookkeeping; measured, with room to spare.
const REST: u64 = 256 * 1024;

/// Numbers of entries of the maps whose size depends on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cpus: u32,
    pub(super) unit_rows: u32,
    pub(super) device_rows: u32,
}

impl Size {
    /// The largest that stays under `limit` bytes.
    pub(super) fn fit(cpus: usize, unit_slots: usize, limit: u64) -> Result<Self, String> {
        let n = cpus.max(1) as u64;
        let of = |bytes: usize| bytes as u64;
        let fixed = REST
            + of(RING_BYTES)
            + u64::from(UNIT_SETS + DEVICE_SETS) * of(size_of::<Set>())
            + n * of(size_of::<CpuCell>());
        let device_row = n * of(size_of::<BlockCell>());
        let unit_row = n * of(size_of::<SchedCell>())
            + of(size_of::<TcpCell>() + size_of::<Histogram>() + size_of::<ProcessCell>());

        let left = limit.saturating_sub(fixed);
        let device_rows = (left / 4 / device_row).min(DEVICE_ROWS);
        let left = left.saturating_sub(device_rows * device_row);
        let unit_rows = (left / unit_row).min(unit_slots as u64 + u64::from(RESERVED_ROWS));
        if device_rows < FEWEST_DEVICES || unit_rows < FEWEST_ROWS {
            let need = fixed + FEWEST_ROWS * unit_row + FEWEST_DEVICES * 4 * device_row + 8 * PAGE;
            return Err(format!(
                "the map memory limit of {limit} bytes is too small for {n} CPUs: raise it to {need} or more"
            ));
        }
        Ok(Self { cpus: n as u32, unit_rows: unit_rows as u32, device_rows: device_rows as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 4 << 20;

    #[test]
    fn a_small_host_gets_what_it_asks_for() {
        let size = Size::fit(2, 256, LIMIT).unwrap();
        assert_eq!((size.unit_rows, size.device_rows), (258, 32));
    }

    #[test]
    fn a_large_host_gets_fewer_rows_and_a_tiny_limit_a_sentence() {
        let size = Size::fit(64, 256, LIMIT).unwrap();
        assert!(size.unit_rows > 32 && size.unit_rows < 256, "{size:?}");
        let bytes = u64::from(size.unit_rows) * 64 * size_of::<SchedCell>() as u64
            + u64::from(size.device_rows) * 64 * size_of::<BlockCell>() as u64;
        assert!(bytes < LIMIT);
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
    fn absurd_numbers_of_cpus_overflow_nothing() {
        let huge = Size::fit(4096, 256, 256 << 20).unwrap();
        assert!(huge.device_rows >= 2 && huge.unit_rows < 256, "{huge:?}");
        for cpus in [4096, 65_536, u32::MAX as usize] {
            assert!(Size::fit(cpus, 1024, LIMIT).unwrap_err().contains("raise it to"), "{cpus}");
        }
    }
}
