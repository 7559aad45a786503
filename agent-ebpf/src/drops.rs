//! Packets that the network stack drops, by the kernel's reason.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use holdfast_agent_ebpf::loss::Loss;
use holdfast_agent_ebpf::reasons::{DROP_ROWS, drop_row};

use crate::support::count::{add_shared, lost};
use crate::support::kernel::setting;
use crate::support::units::MAPPED;

/// A row per reason, for each CPU: the agent sets the size.
#[btf_map]
static DROPS: Array<u64, 1, MAPPED> = Array::new();

/// A packet is freed before it came where it was going.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) {
    let row = if setting!(drop_has_reason) == 1 {
        let reason: u32 = ctx.arg(2);
        // Some kernels come here for packets that met no harm.
        let after = reason.wrapping_add(1);
        if after == setting!(drop_consumed) || after == setting!(drop_not_yet) {
            return;
        }
        drop_row(reason)
    } else {
        0
    };
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    match DROPS.get_ptr_mut(cpu * DROP_ROWS + row) {
        // Each CPU has its own, yet an interrupt may come between load and store.
        // SAFETY: the look-up gave a pointer to a whole counter.
        Some(counter) => unsafe { add_shared(counter, 1) },
        None => lost(Loss::OutOfRange),
    }
}
