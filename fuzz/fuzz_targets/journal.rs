//! A journal of repairs, as a damaged disk may give it back: read, gone on from, and run again.
#![no_main]

use holdfast_healer::Settings;
use holdfast_healer::journal::{read, recover, replay};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((entries, whole)) = read(bytes) {
        assert!(whole <= bytes.len());
        let settings = Settings::default();
        let _ = recover(&entries, &settings);
        let _ = replay(&entries, &settings);
    }
});
