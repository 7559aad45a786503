//! What a test needs of the machine, and how it is skipped with the reason.
//!
//! A skipped test notes `name: reason` in the file that `HOLDFAST_SKIPS` names, so
//! that `cargo xtask test` can tell. With `HOLDFAST_REQUIRE_EBPF` set, as in CI as
//! root, a missing right or kernel feature is a failure.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use nix::unistd::Uid;

/// Where the kernel shows the types that eBPF programs need.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// True when the test runs as root; else it is skipped.
#[must_use]
pub fn root() -> bool {
    Uid::effective().is_root() || skip("needs root")
}

/// True when eBPF programs can be loaded; else the test is skipped.
#[must_use]
pub fn ebpf() -> bool {
    if !Path::new(KERNEL_BTF).exists() {
        return skip("needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF)");
    }
    root()
}

/// True when tests that take minutes were asked for; else the test is skipped.
#[must_use]
pub fn deep() -> bool {
    std::env::var_os("HOLDFAST_DEEP").is_some() || note("takes minutes: cargo xtask test --deep")
}

/// True when `program` is installed; else the test is skipped.
#[must_use]
pub fn program(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(extra).any(|dir| dir.join(program).is_file())
        || note(&format!("needs the program {program}"))
}

/// Notes the reason, or fails where nothing may be skipped; always false.
pub fn skip(reason: &str) -> bool {
    assert!(std::env::var_os("HOLDFAST_REQUIRE_EBPF").is_none(), "may not be skipped: {reason}");
    note(reason)
}

fn note(reason: &str) -> bool {
    // The test runner names each test's thread after the test.
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    eprint!("skipped {line}");
    if let Some(path) = std::env::var_os("HOLDFAST_SKIPS") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        // One short line is written at once, whoever else writes.
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            eprintln!("the skip cannot be noted: {error}");
        }
    }
    false
}
