//! Who kept whom from the CPU, and for how long: a matrix of victims and culprits.
//!
//! Each CPU remembers its last turns ([`turns`](holdfast_agent_ebpf::turns)), which
//! costs something only when it passes from one unit to another. When a task gets the
//! CPU after a long wait, the wait is charged, newest turn first, to the units that had
//! the CPU meanwhile. What reaches back further than the memory, and all short waits,
//! the agent divides itself.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use holdfast_agent_ebpf::cells::CpuCell;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::turns::{
    LONG_WAIT_NS, RUNNING, RUNNING_BITS, TURNS, charge_index, idle_index,
};

use crate::support::count::{add_shared, lost};
use crate::support::kernel::setting;
use crate::support::units::MAPPED;

/// Nanoseconds waited: a row of `blame_rows` + 1 for each victim, the last one for
/// what no unit caused. The agent sets the size.
#[btf_map]
static PREEMPT: Array<u64, 1, MAPPED> = Array::new();

/// From `now` on this CPU belongs to who `running` stands for ([`CpuCell::running`]).
/// Nothing to do while it stays with one unit.
#[inline(always)]
pub fn hand_over(here: &mut CpuCell, running: u64, now: u64) {
    if here.running == running {
        return;
    }
    let ran = now.saturating_sub(here.turn_began);
    here.turns += 1;
    here.turn[here.turns as usize & (TURNS - 1)] = ran << RUNNING_BITS | here.running;
    here.turn_began = now;
    here.running = running;
}

/// Charges those who had this CPU of late with the wait of `waited` nanoseconds
/// that ends `now` for a task of the unit in `slot`, which has been handed the CPU.
#[inline(always)]
pub fn kept_waiting(here: &CpuCell, slot: u32, waited: u64, now: u64) {
    if waited < LONG_WAIT_NS {
        return;
    }
    let rows = setting!(blame_rows);
    // Its own turn comes first: another of its tasks may have had the CPU.
    let mut left = waited;
    let mut turn = now.saturating_sub(here.turn_began) << RUNNING_BITS | here.running;
    let mut newest = here.turns as usize;
    for _ in 0..=TURNS {
        let index = match turn & RUNNING {
            0 => idle_index(rows, slot),
            running => charge_index(rows, slot, running as u32 - 1),
        };
        let ran = turn >> RUNNING_BITS;
        let caused = if ran < left { ran } else { left };
        match PREEMPT.get_ptr_mut(index) {
            // SAFETY: the look-up gave a pointer to a whole counter.
            Some(counter) => unsafe { add_shared(counter, caused) },
            None => return lost(Loss::OutOfRange),
        }
        left -= caused;
        if left == 0 {
            return;
        }
        turn = here.turn[newest & (TURNS - 1)];
        newest = newest.wrapping_sub(1);
    }
}
