//! The parser of tracefs format files.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| holdfast_agent::kernel::fuzz::format(data));
