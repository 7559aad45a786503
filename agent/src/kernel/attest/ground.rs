//! Where attestation happens: a cgroup of its own below the agent's, and the disk
//! that the state directory is on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::host::Root;
use crate::host::own_cgroup::own_directory;
use crate::kernel::Kernel;

/// Names of attestation's cgroups begin so, the agent's process id follows.
const PREFIX: &str = "holdfast-attest-";

/// Whether the cgroup at `path` is one of attestation's, or below one: no unit.
#[must_use]
pub fn is_attest_cgroup(path: &str) -> bool {
    path.split('/').any(|component| component.starts_with(PREFIX))
}

/// A fresh cgroup; removed when dropped, once it is empty.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) folder: PathBuf,
    pub(super) id: u64,
}

impl Ground {
    /// Makes one below the agent's own.
    ///
    /// # Errors
    ///
    /// One sentence why none can be had, and how to get one.
    pub(super) fn make(root: &Root) -> Result<Self, String> {
        let parent = own_directory(root)?;
        remove_leftovers(&parent);
        let folder = parent.join(format!("{PREFIX}{}", std::process::id()));
        let made = match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        made.map_err(|error| {
            format!(
                "no cgroup can be made below {}: {error}; run the agent as root or under a unit with Delegate=yes",
                parent.display()
            )
        })?;
        let id = fs::metadata(&folder).map_err(|error| error.to_string())?.ino();
        Ok(Self { folder, id })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What cannot be removed yet is removed by the next one that is made here.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Removes what an agent that was killed left behind; the kernel keeps those in use.
pub(super) fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The whole disk under a directory.
#[derive(Debug)]
pub(super) struct Disk {
    /// Its row in the counters.
    pub(super) row: usize,
    /// The kernel's own counts of it.
    pub(super) stat: PathBuf,
}

impl Disk {
    /// Finds the disk of `folder`.
    ///
    /// # Errors
    ///
    /// One sentence why its requests cannot be told.
    pub(super) fn of(folder: &Path, root: &Root, kernel: &Kernel) -> Result<Self, String> {
        let shown = folder.display();
        let device = fs::metadata(folder).map_err(|error| format!("{shown}: {error}"))?.dev();
        let number = format!("{}:{}", major(device), minor(device));
        let link = root.path("sys/dev/block").join(&number);
        let place = link.canonicalize().map_err(|_| {
            format!("the state directory {shown} is not on a block device of its own")
        })?;
        let is_part = place.join("partition").exists();
        let disk = if is_part { place.parent().unwrap_or(&place) } else { &place };
        let name = disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stacked =
            fs::read_dir(disk.join("slaves")).is_ok_and(|mut below| below.next().is_some());
        if stacked {
            return Err(format!(
                "the state directory {shown} is on {name}, which has no requests of its own"
            ));
        }
        let text = fs::read_to_string(disk.join("dev")).map_err(|error| error.to_string())?;
        let row = text
            .trim()
            .split_once(':')
            .and_then(|(major, minor)| kernel.device_row(major.parse().ok()?, minor.parse().ok()?));
        let row = row.ok_or_else(|| format!("the disk {name} has no row of its own"))?;
        Ok(Self { row, stat: disk.join("stat") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attestations_cgroups_are_known_by_name() {
        assert!(is_attest_cgroup("holdfast-attest-7"));
        assert!(is_attest_cgroup("system.slice/holdfast-agent.service/holdfast-attest-7/x"));
        assert!(!is_attest_cgroup("system.slice/holdfast-agent.service"));
    }
}
