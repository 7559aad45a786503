//! A virtual machine without any help of the processor: slow, but it boots every
//! kernel everywhere. It hands its results over through a second serial port.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_core::clock::BootTime;
use indicatif::{ProgressBar, ProgressStyle};

use super::archive::Archive;
use super::kernels::Kernel;
use crate::leash::Leashed;
use crate::shell;

const EMULATOR: &str = "qemu-system-x86_64";
/// The last word is for real-time kernels, which take the emulated serial port's many
/// interrupts for a fault.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet noirqdebug";
/// Memory of the machine, in MiB.
const MEMORY: &str = "1024";
/// An emulated processor on a loaded machine now and then hangs while the kernel looks
/// for its clock: then another boot helps. This is how long the first process may take.
const UP: Duration = Duration::from_secs(240);
const BOOTS: u32 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lines of the console that are shown when something went wrong.
const LAST_LINES: usize = 25;

/// Boots `kernel` with `archive` and waits until the machine turns itself off. What its
/// `/out` held is then below `results`.
///
/// # Errors
///
/// It did not get there within `limit`: with the last lines of its console.
pub(crate) fn run(
    kernel: &Kernel,
    archive: Archive,
    results: &Path,
    limit: Duration,
) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    archive.write(&folder.path().join("initrd"))?;
    fs::create_dir_all(results)?;
    for attempt in 1..=BOOTS {
        if boot(kernel, folder.path(), results, limit)? {
            return Ok(());
        }
        eprintln!("{}: attempt {attempt} did not come up within {} s", kernel.name, UP.as_secs());
    }
    bail!("{} did not come up in {BOOTS} attempts", kernel.name)
}

/// False when the machine got nowhere.
fn boot(kernel: &Kernel, folder: &Path, results: &Path, limit: Duration) -> Result<bool> {
    let emulator = shell::find(EMULATOR)
        .with_context(|| format!("no {EMULATOR}: apt-get install qemu-system-x86"))?;
    let path = |name: &str| folder.join(name);
    let console = path("console");
    let serial = |name: &str| format!("file:{}", path(name).display());
    let arguments = ["-M", "pc", "-accel", "tcg", "-cpu", "Nehalem", "-smp", "2", "-m", MEMORY]
        .map(Into::into)
        .into_iter()
        .chain(["-nographic", "-nodefaults", "-no-reboot", "-kernel"].map(Into::into))
        .chain([kernel.image().into_os_string()])
        .chain(["-initrd".into(), path("initrd").into_os_string()])
        .chain(["-append".into(), COMMAND_LINE.into()])
        .chain(["-serial".into(), serial("console").into()])
        .chain(["-serial".into(), serial("results").into()]);
    let mut machine = Leashed::start(&emulator, arguments, &[], Some(&path("emulator")))?;

    let bar = progress();
    let begun = BootTime::now();
    let said = || String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
    let ended = loop {
        if let Some(status) = machine.ended()? {
            break status;
        }
        let elapsed = BootTime::now().since(begun);
        if elapsed > limit {
            bar.finish_and_clear();
            bail!("{} took longer than {} s:\n{}", kernel.name, limit.as_secs(), last(&said()));
        }
        let text = said();
        if elapsed > UP && !text.lines().any(|line| line.trim() == "up") {
            bar.finish_and_clear();
            return Ok(false);
        }
        let line = text.lines().last().unwrap_or_default().trim().to_owned();
        bar.set_message(format!("{} {:4} s  {line}", kernel.name, elapsed.as_secs()));
        bar.tick();
        std::thread::park_timeout(LOOK_EVERY);
    };
    bar.finish_and_clear();
    if !ended.success() {
        let words = fs::read_to_string(path("emulator")).unwrap_or_default();
        bail!("the emulator ended with {ended}: {}", words.trim());
    }
    shell::output(Command::new("tar").arg("-xzf").arg(path("results")).arg("-C").arg(results))
        .map(|_| true)
        .with_context(|| format!("{} gave no results:\n{}", kernel.name, last(&said())))
}

fn last(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// A line that changes, on a terminal; nothing elsewhere.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}
