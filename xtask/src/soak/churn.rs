//! Units that come and go with short-lived processes in them.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cgroup::Cgroup;
use crate::leash::Leashed;
use crate::shell;

/// All units of a soak begin so.
pub(super) const PREFIX: &str = "holdfast-soak-";

/// One unit's life: it is born, a few processes live and die in it, it is gone. Each
/// fourth has a process that fails, which the agent tells with the unit's name.
pub(super) fn live(number: u64, processes: u64) -> Result<()> {
    let unit = Cgroup::create(&format!("{PREFIX}{number}.service"))?;
    let fails = number.is_multiple_of(4);
    let shell = shell::find("sh").context("no shell")?;
    // One shell runs them all, so that what is started is what is wanted and no more;
    // a command in parentheses is a process of its own.
    let last = if fails { "(exit 77)\n" } else { "(:)\n" };
    let script =
        ["(:)\n".repeat(processes.saturating_sub(2) as usize).as_str(), last, "exit 0"].concat();
    let arguments = ["-c".into(), OsString::from(script)];
    let mut process = Leashed::start(Path::new(&shell), arguments, &unit.folders(), None)?;
    let status = process.wait().context("a short-lived process was lost")?;
    ensure!(status.success(), "a short-lived process ended with {status}");
    Ok(())
}
