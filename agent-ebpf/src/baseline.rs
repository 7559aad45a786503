//! What a program costs before its first instruction; benchmarks subtract it.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

/// Does nothing at each context switch.
#[btf_tracepoint(function = "sched_switch")]
pub fn empty(_: BtfTracePointContext) {}
