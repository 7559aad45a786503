//! The loads of `--provoke`, each in its own cgroup where we may make one.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use tempfile::TempDir;

use super::view::View;
use crate::cgroup::Cgroup;
use crate::leash::Leashed;
use crate::provoke::Load;
use crate::shell;

/// A load that was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    pub(crate) load: Load,
    /// Its memory limit holds.
    pub(crate) limited: bool,
}

/// Running loads. Dropping them ends them and removes what they made.
pub(crate) struct Loads {
    // Processes go before the cgroups they are in, and those before the files.
    running: Vec<(Running, Leashed)>,
    cgroups: Vec<Cgroup>,
    scratch: TempDir,
}

impl Loads {
    /// Starts what can be started; says what cannot, and why.
    pub(crate) fn start(wanted: &[Load], view: &View) -> Result<Self> {
        let mut loads = Self { running: Vec::new(), cgroups: Vec::new(), scratch: scratch()? };
        for load in wanted {
            match loads.start_one(*load, view) {
                Ok(()) => view.say(&format!("load: {}", load.unit())),
                Err(error) => view.say(&format!("no load {}: {error:#}", load.unit())),
            }
        }
        Ok(loads)
    }

    /// What was started.
    pub(crate) fn running(&self) -> impl Iterator<Item = Running> {
        self.running.iter().map(|(running, _)| *running)
    }

    fn start_one(&mut self, load: Load, view: &View) -> Result<()> {
        if load == Load::Disk {
            let kind = statfs(self.scratch.path()).context("the scratch folder is lost")?;
            let kind = kind.filesystem_type();
            if kind == TMPFS_MAGIC || kind == OVERLAYFS_SUPER_MAGIC {
                view.say("the scratch folder is on no disk of its own: requests may not reach one");
            }
        }
        let mut cgroup = Cgroup::create(load.unit());
        let limit = match (&mut cgroup, load.memory_limit()) {
            (Ok(cgroup), Some(bytes)) => cgroup.limit_memory(bytes),
            (Err(error), Some(_)) => Err(anyhow!("{error:#}")),
            (_, None) => Ok(()),
        };
        if load.needs_limit() {
            limit.as_ref().map_err(|error| anyhow!("no memory limit: {error:#}"))?;
        }
        for trouble in [cgroup.as_ref().err(), limit.as_ref().err()].into_iter().flatten() {
            view.say(&format!("{}: {trouble:#}", load.unit()));
        }
        let limited = limit.is_ok() && load.memory_limit().is_some();
        let cgroup = cgroup.ok();
        let folders = cgroup.as_ref().map(Cgroup::folders).unwrap_or_default();
        let name = clap::ValueEnum::to_possible_value(&load).context("a load without a name")?;
        let arguments = ["provoke", name.get_name(), "--scratch"].map(OsString::from);
        let arguments = arguments.into_iter().chain([self.scratch.path().into()]);
        let process = Leashed::start(Path::new(shell::OURSELVES), arguments, &folders, None)?;
        self.running.push((Running { load, limited }, process));
        self.cgroups.extend(cgroup);
        Ok(())
    }
}

/// Where builds go there is room and, mostly, a real disk.
fn scratch() -> Result<TempDir> {
    let folder = shell::target_dir()?;
    TempDir::with_prefix_in("holdfast-demo-", &folder)
        .with_context(|| format!("cannot write to {}", folder.display()))
}
