//! The eBPF object: one file for each kernel subsystem, loaded program by program.
//!
//! All programs hang on typed tracepoints (`tp_btf`) and read kernel structures
//! by direct loads through typed pointers: no helper call, and the verifier holds
//! each access against the kernel's own types. Offsets and settings are frozen
//! read-only globals. Measurements are added up here; only rare facts become events.
//!
//! Minimum kernel: 5.11 with BTF (task and socket storage in tracing programs).

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod baseline;
mod blame;
mod block;
mod drops;
mod exit;
mod irq;
mod lifecycle;
mod memory;
mod sched;
mod support;
mod sync;
mod tasks;
mod tcp;

/// Kernel structures may be read by programs under a licence compatible with the GPL.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: nothing here panics, and the verifier refuses endless loops.
    loop {}
}
