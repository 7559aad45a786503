//! `cargo xtask test`: every test that can run on this machine.
//!
//! A test that needs root or a kernel feature asks the harness in the `tests`
//! crate, which notes the reason in the file that [`SKIPS`] names and lets the
//! test end; this job reads the file and says what was left out. In CI as root
//! nothing of the eBPF set may be left out: [`REQUIRE_EBPF`] turns a skip into a
//! failure.

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::shell;

/// Names the file in which the harness notes each skipped test: `name: reason`.
const SKIPS: &str = "HOLDFAST_SKIPS";
/// Set when a missing right or kernel feature is a failure.
const REQUIRE_EBPF: &str = "HOLDFAST_REQUIRE_EBPF";
/// Names the folder in which the harness finds the built programs.
const PROGRAMS: &str = "HOLDFAST_PROGRAMS";
/// Names the object that the agent loads instead of its own.
const OBJECT: &str = "HOLDFAST_EBPF_OBJECT";
/// Set when tests that take minutes shall run too.
const DEEP: &str = "HOLDFAST_DEEP";

/// What to run.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Also run what takes minutes: the packages on a host with systemd
    #[arg(long)]
    pub(crate) deep: bool,
    /// Run what uses eBPF, and only that, against this object instead of the shipped one
    #[arg(long, value_name = "PATH")]
    pub(crate) object: Option<PathBuf>,
    /// Run only tests whose name contains this
    #[arg(value_name = "NAME")]
    pub(crate) filter: Option<String>,
}

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Runs the tests, says what was skipped and why, ends with the counts.
pub(crate) fn run(args: &Args) -> Result<()> {
    let notes = tempfile::NamedTempFile::new().context("no temporary file for the notes")?;
    let programs = shell::target_dir()?.join("debug");
    let prepare = |mut command: Command| {
        command.env(SKIPS, notes.path()).env(PROGRAMS, &programs);
        if args.deep {
            command.env(DEEP, "1");
        }
        if std::env::var_os("CI").is_some() && Uid::effective().is_root() {
            command.env(REQUIRE_EBPF, "1");
        }
        if let Some(object) = &args.object {
            command.env(OBJECT, object);
        }
        command.args(args.filter.iter());
        command
    };
    let packages: &[&str] = match args.object {
        None => &["--workspace"],
        Some(_) => &["-p", "holdfast-agent", "-p", "holdfast-tests"],
    };

    // The harness starts the programs themselves, as a user would.
    shell::run(&mut shell::cargo(["build", "--workspace", "--bins"])?)?;

    let mut counts = Counts::default();
    let mut broken = Vec::new();
    let suites = if shell::find("cargo-nextest").is_some() {
        let nextest = ["nextest", "run", "--no-fail-fast", "--no-tests", "pass"];
        let doc = ["test", "--doc", "--no-fail-fast"];
        vec![[&nextest, packages].concat(), [&doc, packages].concat()]
    } else {
        vec![[&["test", "--no-fail-fast"], packages].concat()]
    };
    for arguments in suites {
        let mut suite = prepare(shell::cargo(&arguments)?);
        let (seen, good) = run_suite(&mut suite)?;
        // A suite that does not even compile counts nothing, but it has failed.
        if !good && seen.failed == 0 {
            broken.push(format!("`cargo {}`", arguments.join(" ")));
        }
        counts += seen;
    }

    if args.deep {
        counts += hosts_test();
    }

    if args.filter.is_some() {
        // Nextest calls those skipped that were not asked for.
        counts.skipped = 0;
    }
    let notes = fs::read_to_string(notes.path()).context("the notes cannot be read")?;
    let skips: Vec<&str> = notes.lines().collect();
    if !skips.is_empty() {
        println!("\nskipped:");
        skips.iter().for_each(|skip| println!("  {skip}"));
    }
    let noted = skips.len() as u64;
    counts.passed = counts.passed.saturating_sub(noted);
    counts.skipped += noted;
    println!("\n{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if counts.failed > 0 {
        bail!("{} tests failed", counts.failed);
    }
    if !broken.is_empty() {
        bail!("no test result from {}", broken.join(" and "));
    }
    Ok(())
}

/// The packages on a test host count as one test.
fn hosts_test() -> Counts {
    if !Uid::effective().is_root() {
        println!("skipped hosts-test: needs root");
        return Counts { skipped: 1, ..Counts::default() };
    }
    match shell::run(Command::new(shell::OURSELVES).arg("hosts-test")) {
        Ok(()) => Counts { passed: 1, ..Counts::default() },
        Err(error) => {
            println!("{error:#}");
            Counts { failed: 1, ..Counts::default() }
        }
    }
}

/// Runs one suite, passes its output on, and counts. The flag says whether it
/// ended well.
fn run_suite(command: &mut Command) -> Result<(Counts, bool)> {
    // Nextest writes its results to standard error, cargo's own runner to
    // standard output: read one pipe that carries both.
    let (reader, writer) = std::io::pipe().context("no pipe")?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("no pipe")?)
        .stderr(writer)
        .env("CARGO_TERM_PROGRESS_WHEN", "never");
    let mut child = command.spawn().context("cannot start cargo")?;
    // The command keeps its ends of the pipe open until they are replaced.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut counts = Counts::default();
    for line in BufReader::new(reader).lines() {
        let line = line.context("the output of the tests cannot be read")?;
        println!("{line}");
        if let Some(seen) = parse_result(&line) {
            counts += seen;
        }
    }
    Ok((counts, child.wait().context("cargo was lost")?.success()))
}

/// The counts in a result line of cargo's runner or of nextest.
fn parse_result(line: &str) -> Option<Counts> {
    // Nextest shows what a failing test binary said, indented: its result is not one
    // more.
    if !line.starts_with("test result:") && !line.trim_start().starts_with("Summary [") {
        return None;
    }
    let mut counts = Counts::default();
    let words: Vec<&str> = line.split([' ', ',', ';', '(', ')']).collect();
    for pair in words.windows(2) {
        let [number, word] = pair else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match *word {
            "passed" => counts.passed += number,
            "failed" | "timed" | "exec" => counts.failed += number,
            "ignored" | "skipped" => counts.skipped += number,
            _ => {}
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_understood() {
        let cargo =
            "test result: FAILED. 8 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            parse_result(cargo),
            Some(Counts { passed: 8, failed: 1, skipped: 2 }),
            "the runner of cargo"
        );
        let nextest = "     Summary [   0.1s] 9 tests run: 8 passed (1 slow), 1 failed, 3 skipped";
        assert_eq!(parse_result(nextest), Some(Counts { passed: 8, failed: 1, skipped: 3 }));
        assert_eq!(parse_result("    test result: FAILED. 0 passed; 1 failed"), None);
        assert_eq!(parse_result("test a ... ok"), None);
    }
}
