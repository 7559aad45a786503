//! The reader of the kernel's type description (BTF).

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_agent::kernel::fuzz::types(data));
