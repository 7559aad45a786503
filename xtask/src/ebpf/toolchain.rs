//! The tools that build the object: a Rust compiler with the source of its core
//! library, and a linker built on the same major version of LLVM.
//!
//! A nightly toolchain of rustup is taken when it has the source; otherwise
//! Debian's compiler for web browsers, which is recent and comes with it. What is
//! missing is installed where that is possible, and named where it is not.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{debian, shell};

/// The linker, in the version that we know to work.
const LINKER: &str = "bpf-linker";
const LINKER_VERSION: &str = "0.13.0";

/// Debian's compiler and its source.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "libstd-rust-web-dev"];

/// Where a compiler keeps the library's source, below its root.
const LIBRARY: &str = "lib/rustlib/src/rust";

/// Everything that is needed to build the object.
pub(super) struct Toolchain {
    /// The compiler.
    pub(super) rustc: PathBuf,
    /// The source of its library.
    pub(super) library: PathBuf,
    version: String,
    llvm_root: PathBuf,
    linker: PathBuf,
}

impl Toolchain {
    /// Finds the tools, or installs what is missing.
    pub(super) fn get() -> Result<Self> {
        let rustc = match nightly() {
            Some(rustc) => rustc,
            None => debian()?,
        };
        let library = library(&rustc).context("the compiler has lost its source")?;
        let version = shell::output(Command::new(&rustc).arg("-vV"))?;
        let major = llvm_major(&version).context("the compiler does not tell its LLVM version")?;
        let llvm_root = llvm(major)?;
        let linker = linker(major, &llvm_root)?;
        let version = version.lines().next().unwrap_or_default().to_owned();
        let version = format!("{version}, LLVM {major}, {LINKER} {LINKER_VERSION}");
        Ok(Self { rustc, library, version, llvm_root, linker })
    }

    /// The tools and their versions.
    pub(super) fn describe(&self) -> String {
        self.version.clone()
    }

    /// A tool of the compiler's LLVM.
    pub(super) fn llvm(&self, tool: &str) -> PathBuf {
        self.llvm_root.join("bin").join(tool)
    }

    /// The search path, with the linker first.
    pub(super) fn search_path(&self) -> Result<OsString> {
        let linker = self.linker.parent().context("the linker is in no folder")?.to_owned();
        let path = env::var_os("PATH").unwrap_or_default();
        Ok(env::join_paths([linker].into_iter().chain(env::split_paths(&path)))?)
    }
}

/// The compiler of a nightly toolchain that has the library's source.
fn nightly() -> Option<PathBuf> {
    shell::find("rustup")?;
    let list = shell::output(Command::new("rustup").args(["toolchain", "list"])).ok()?;
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with("nightly")).find_map(|name| {
        let mut which = Command::new("rustup");
        let rustc = shell::output(which.args(["which", "rustc", "--toolchain", name])).ok()?;
        let rustc = PathBuf::from(rustc.trim());
        library(&rustc).map(|_| rustc)
    })
}

/// Debian's compiler, installed if need be.
fn debian() -> Result<PathBuf> {
    let rustc = PathBuf::from(DEBIAN_RUSTC);
    if library(&rustc).is_none() {
        debian::install(
            "the eBPF object needs a nightly toolchain with rust-src (`rustup toolchain install \
             nightly -c rust-src`) or Debian's compiler",
            &DEBIAN_PACKAGES,
        )?;
    }
    ensure!(library(&rustc).is_some(), "{DEBIAN_RUSTC} came without the source of its library");
    Ok(rustc)
}

fn library(rustc: &Path) -> Option<PathBuf> {
    let root = shell::output(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
    let library = Path::new(root.trim()).join(LIBRARY);
    library.join("library/core/Cargo.toml").is_file().then_some(library)
}

/// The root of LLVM with this major version, installed if need be.
fn llvm(major: u32) -> Result<PathBuf> {
    let root = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    let complete = || {
        ["llvm-config", "llvm-objcopy", "clang"].iter().all(|t| root.join("bin").join(t).exists())
    };
    if !complete() {
        let packages = [format!("llvm-{major}-dev"), format!("clang-{major}")];
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        debian::install("the eBPF object needs the LLVM of its compiler", &packages)?;
    }
    ensure!(complete(), "{} is not complete", root.display());
    Ok(root)
}

/// The linker, built on that LLVM, installed if need be.
fn linker(major: u32, llvm_root: &Path) -> Result<PathBuf> {
    let tools = shell::cache()?.join("tools");
    let linker = tools.join("bin").join(LINKER);
    let feature = format!("llvm-{major}");
    let receipt = fs::read_to_string(tools.join(".crates2.json")).unwrap_or_default();
    if linker.is_file() && is_installed(&receipt, &feature) {
        return Ok(linker);
    }
    eprintln!("installing {LINKER} {LINKER_VERSION} for LLVM {major} (some minutes, once)");
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([llvm_root.join("bin")].into_iter().chain(env::split_paths(&path)))?;
    let package = format!("{LINKER}@{LINKER_VERSION}");
    let mut install = shell::cargo(["install", "--locked", "--quiet", "--force", &package])?;
    install
        .args(["--no-default-features", "--features", &feature, "--root"])
        .arg(&tools)
        .env("LLVM_PREFIX", llvm_root)
        .env("PATH", path)
        .env_remove("CARGO_TARGET_DIR");
    shell::run(&mut install)?;
    Ok(linker)
}

/// Whether cargo's receipt says that the linker is there, built with `feature`.
fn is_installed(receipt: &str, feature: &str) -> bool {
    let receipt: serde_json::Value = serde_json::from_str(receipt).unwrap_or_default();
    let start = format!("{LINKER} {LINKER_VERSION} ");
    receipt["installs"].as_object().into_iter().flatten().any(|(package, install)| {
        let features = install["features"].as_array();
        package.starts_with(&start) && features.is_some_and(|f| f.iter().any(|x| x == feature))
    })
}

fn llvm_major(version: &str) -> Option<u32> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_compiler() {
        assert_eq!(llvm_major("rustc 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }

    #[test]
    fn a_linker_of_another_llvm_will_not_do() {
        let receipt = format!(
            r#"{{"installs":{{"{LINKER} {LINKER_VERSION} (registry)":{{"features":["llvm-22"]}}}}}}"#
        );
        assert!(is_installed(&receipt, "llvm-22"));
        assert!(!is_installed(&receipt, "llvm-23"));
        assert!(!is_installed("", "llvm-22") && !is_installed("{}", "llvm-22"));
    }
}
