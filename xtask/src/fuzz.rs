//! `cargo xtask fuzz`: runs the fuzz targets, one after another.
//!
//! The targets are those of `fuzz/`, laid out as cargo-fuzz has them, and built with the
//! flags that it uses; the stable compiler takes them when it is asked to. What is found
//! on the way is kept beside the build; the corpus in the repository stays small, and is
//! only read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell;

const TARGETS: &[&str] = &["types", "format", "record", "journal", "service"];
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Longest input, in bytes: a few times the largest seed.
const LONGEST: u32 = 32 << 10;

const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Zsanitizer=address",
    "--cfg=fuzzing",
];

/// What to run, and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this target; otherwise all of them
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

/// Builds and runs; an error when a target finds something, with the input that does it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = shell::root()?;
    let built = shell::target_dir()?.join("fuzz");
    let mut cargo = shell::cargo(["build", "--release", "--locked", "--target", TRIPLE])?;
    cargo
        .current_dir(root.join("fuzz"))
        .env("CARGO_TARGET_DIR", &built)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .env("RUSTC_BOOTSTRAP", "1");
    shell::run(&mut cargo)?;
    for target in TARGETS.iter().filter(|t| args.target.as_ref().is_none_or(|only| only == *t)) {
        run_one(target, args.seconds, &root, &built)?;
    }
    Ok(())
}

fn run_one(target: &str, seconds: u32, root: &Path, built: &Path) -> Result<()> {
    let seeds = root.join("fuzz/corpus").join(target);
    let (found, crashes) = (folder(built, "corpus", target)?, folder(built, "crashes", target)?);
    let program = built.join(TRIPLE).join("release").join(target);
    let mut fuzz = std::process::Command::new(program);
    fuzz.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={LONGEST}"))
        .args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"])
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        // New inputs go to the first folder; the second is read.
        .args([&found, &seeds]);
    if let Err(error) = shell::run(&mut fuzz) {
        bail!(
            "{target}: {error:#}; the input is in {}: mend it, and keep the input in {}",
            crashes.display(),
            seeds.display()
        );
    }
    Ok(())
}

fn folder(built: &Path, kind: &str, target: &str) -> Result<PathBuf> {
    let folder = built.join(kind).join(target);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_program_and_its_corpus() {
        let fuzz = shell::root().unwrap().join("fuzz");
        let programs = fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count();
        assert_eq!(programs, TARGETS.len());
        for target in TARGETS {
            assert!(fuzz.join(format!("fuzz_targets/{target}.rs")).is_file(), "{target}");
            assert!(fuzz.join("corpus").join(target).is_dir(), "{target}");
        }
    }
}
