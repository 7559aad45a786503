//! A service's file, as somebody may have written it.
#![no_main]

use std::path::Path;

use holdfast_healer::config::Service;
use holdfast_healer::plan::differences;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(service) = Service::parse(Path::new("a.toml"), text) {
        let services = [service];
        assert_eq!(differences(&services, &services), Vec::<String>::new());
        // Errors show it, and so do events.
        services[0].checks.iter().for_each(|check| drop(check.shown()));
    }
});
