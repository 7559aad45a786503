//! Reading what the programs count, in place: the maps' memory is mapped, so a
//! reading is a memory load, not a system call.
#![expect(unsafe_code, reason = "maps kernel memory and hands out references into it")]

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use holdfast_agent_ebpf::cells::{
    BlockCell, CpuCell, Histogram, IrqCell, ProcessCell, SchedCell, TaskCell, TcpCell, TcpReasons,
    UnitBlockCell, UnitDiskCell, Word,
};
use holdfast_agent_ebpf::slots::Set;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A type that lies in a map.
///
/// # Safety
///
/// Made of atomic integers only, of a size divisible by eight.
pub unsafe trait Cell {}

// SAFETY: each consists of `Word` and `Half`, beginning with a `Word`.
unsafe impl Cell for SchedCell {}
// SAFETY: as above.
unsafe impl Cell for BlockCell {}
// SAFETY: as above.
unsafe impl Cell for UnitDiskCell {}
// SAFETY: as above.
unsafe impl Cell for UnitBlockCell {}
// SAFETY: as above.
unsafe impl Cell for TcpCell {}
// SAFETY: as above.
unsafe impl Cell for TcpReasons {}
// SAFETY: as above.
unsafe impl Cell for ProcessCell {}
// SAFETY: as above.
unsafe impl Cell for CpuCell {}
// SAFETY: as above.
unsafe impl Cell for TaskCell {}
// SAFETY: as above.
unsafe impl Cell for Histogram {}
// SAFETY: as above.
unsafe impl Cell for Set {}
// SAFETY: as above.
unsafe impl Cell for IrqCell {}
// SAFETY: a `Word` is one atomic integer.
unsafe impl Cell for Word {}

/// The mapped memory of an array map.
pub struct Cells<T> {
    memory: NonNull<T>,
    count: usize,
    bytes: NonZeroUsize,
}

impl<T> fmt::Debug for Cells<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells").field("count", &self.count).finish_non_exhaustive()
    }
}

// SAFETY: the memory is only reached through `&T`, which is made of atomics.
unsafe impl<T: Cell> Send for Cells<T> {}
// SAFETY: as above.
unsafe impl<T: Cell> Sync for Cells<T> {}

impl<T: Cell> Cells<T> {
    /// Maps the array `fd` of `count` entries; `writable` for those that the
    /// agent writes.
    ///
    /// # Errors
    ///
    /// The kernel refuses to map it.
    pub(super) fn map(fd: BorrowedFd<'_>, count: usize, writable: bool) -> io::Result<Self> {
        let bytes = count
            .checked_mul(size_of::<T>())
            .and_then(NonZeroUsize::new)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let access = if writable {
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
        } else {
            ProtFlags::PROT_READ
        };
        // SAFETY: a new mapping at an address of the kernel's choice; the kernel
        // refuses one longer than the map.
        let memory = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { memory: memory.cast(), count, bytes })
    }

    /// The cell at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: within the mapping, which is page-aligned and lives as long as
        // `self`; any bytes are a valid `T`, and the kernel's writes meet atomics.
        (index < self.count).then(|| unsafe { self.memory.add(index).as_ref() })
    }

    /// How many cells there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<T> Drop for Cells<T> {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; references into it cannot outlive `self`.
        let _ = unsafe { munmap(self.memory.cast(), self.bytes.get()) };
    }
}

/// Cells that each CPU has its own of: `rows` for the first CPU, then for the next.
pub struct PerCpu<T> {
    cells: Cells<T>,
    rows: usize,
}

impl<T> fmt::Debug for PerCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpu").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl<T: Cell> PerCpu<T> {
    pub(super) fn new(cells: Cells<T>, rows: usize) -> Self {
        Self { cells, rows }
    }

    /// Rows of one CPU.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many CPUs there are cells for.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.cells.len() / self.rows.max(1)
    }

    /// The cell of `row` on one CPU.
    #[must_use]
    pub fn get(&self, cpu: usize, row: usize) -> Option<&T> {
        if row < self.rows { self.cells.get(cpu * self.rows + row) } else { None }
    }

    /// The cells of `row`, CPU by CPU.
    pub fn of_row(&self, row: usize) -> impl Iterator<Item = &T> + Clone {
        let rows = self.rows.max(1);
        (row..self.cells.len()).step_by(rows).filter_map(|index| self.cells.get(index))
    }
}

/// The present value of a counter.
#[must_use]
pub fn load(counter: &Word) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How many values a distribution holds.
#[must_use]
pub fn total(histogram: &Histogram) -> u64 {
    histogram.counts.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).sum()
}
