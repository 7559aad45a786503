//! Processes that end badly, as a service's helpers do.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::pause;

pub(super) fn run() -> Result<()> {
    loop {
        shell("exit 7")?;
        pause(Duration::from_millis(500));
        // Without a core file: it would only cost disk space.
        shell("ulimit -c 0; kill -SEGV $$")?;
        pause(Duration::from_millis(1500));
    }
}

fn shell(script: &str) -> Result<()> {
    Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .status()
        .map(drop)
        .context("cannot start a shell")
}
