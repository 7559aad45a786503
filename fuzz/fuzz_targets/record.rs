//! The decoder of ring-buffer records.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_agent::kernel::fuzz::record(data));
