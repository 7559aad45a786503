//! What the loaded programs have counted so far, read in place.

use std::io;

use holdfast_agent_ebpf::cells::{
    BlockCell, CpuCell, Histogram, IrqCell, ProcessCell, SchedCell, TcpCell, TcpReasons,
    UnitBlockCell, UnitDiskCell, Word,
};

use super::cells::{Cells, PerCpu};
use super::names::Names;
use super::preempt::Preempt;
use super::{Kernel, TaskSums};

impl Kernel {
    /// What the scheduler's programs count, by unit slot.
    #[must_use]
    pub fn sched(&self) -> &PerCpu<SchedCell> {
        &self.sched
    }

    /// What each CPU's scheduler programs remember.
    #[must_use]
    pub fn cpus(&self) -> &Cells<CpuCell> {
        &self.cpus
    }

    /// What the programs on interrupts count, by CPU.
    #[must_use]
    pub fn irqs(&self) -> &Cells<IrqCell> {
        &self.irqs
    }

    /// Who kept whom from the CPU.
    #[must_use]
    pub fn preempt(&self) -> &Preempt {
        &self.preempt
    }

    /// What the block program counts, by device row.
    #[must_use]
    pub fn block(&self) -> &PerCpu<BlockCell> {
        &self.block
    }

    /// What the block programs count, by unit slot.
    #[must_use]
    pub fn unit_disk(&self) -> &Cells<UnitDiskCell> {
        &self.unit_disk
    }

    /// What a unit's reads and writes did to a device, by device row and unit slot.
    /// Devices from [`shared_devices`](Self::shared_devices) on are in row 0.
    #[must_use]
    pub fn unit_block(&self, device_row: usize, slot: usize) -> Option<&UnitBlockCell> {
        let rows = self.size.unit_rows as usize;
        (slot < rows).then(|| self.unit_block.get(device_row * rows + slot)).flatten()
    }

    /// Device rows that [`unit_block`](Self::unit_block) knows, row 0 included.
    #[must_use]
    pub fn shared_devices(&self) -> usize {
        self.size.shared_devices as usize
    }

    /// What the TCP programs count, by unit slot.
    #[must_use]
    pub fn tcp(&self) -> &Cells<TcpCell> {
        &self.tcp
    }

    /// What the TCP programs count by the kernel's own words.
    #[must_use]
    pub fn tcp_reasons(&self) -> Option<&TcpReasons> {
        self.tcp_reasons.get(0)
    }

    /// Packets dropped, by reason.
    #[must_use]
    pub fn drops(&self) -> &PerCpu<Word> {
        &self.drops
    }

    /// What the kernel calls its reasons.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.object.names
    }

    /// Time in direct reclaim, by unit slot.
    #[must_use]
    pub fn reclaim(&self) -> &Cells<Histogram> {
        &self.reclaim
    }

    /// Time in direct compaction, by unit slot.
    #[must_use]
    pub fn compaction(&self) -> &Cells<Histogram> {
        &self.compaction
    }

    /// Time of syncs of files, by unit slot.
    #[must_use]
    pub fn sync(&self) -> &Cells<Histogram> {
        &self.sync
    }

    /// Passes over all tasks of the host, now, and puts what was found into `found`, by
    /// unit slot. Whoever else does so at the same time must wait.
    ///
    /// # Errors
    ///
    /// The program is off, or the kernel ends the pass early.
    pub fn count_tasks(&self, found: &mut Vec<TaskSums>) -> io::Result<()> {
        let pass = self.object.task_pass.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let sums = |slot| self.task_sums.get(slot).map_or_else(TaskSums::default, TaskSums::of);
        found.clear();
        found.extend((0..self.task_sums.len()).map(sums));
        pass.run()?;
        for (slot, found) in found.iter_mut().enumerate() {
            *found = sums(slot).since(found);
        }
        Ok(())
    }

    /// Ends of processes, by unit slot.
    #[must_use]
    pub fn process(&self) -> &Cells<ProcessCell> {
        &self.process
    }
}
