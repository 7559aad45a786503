//! Cgroups of our own, to load one systemd unit's worth of processes and to limit
//! its memory.
//!
//! Where no systemd runs, a folder named like a unit is a unit to the agent. Memory
//! limits are taken from whichever hierarchy has the memory controller: version 2,
//! or version 1 mounted beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use holdfast_core::clock::BootTime;

/// Below which group of version 1 this process is, per controller.
const OWN_GROUPS: &str = "/proc/self/cgroup";
const MOUNTS: &str = "/proc/self/mounts";

/// A cgroup; its processes are killed and it is removed when dropped.
pub(crate) struct Cgroup {
    /// The folder below the version 2 mount, which names the unit.
    unit: PathBuf,
    /// The folder in a version 1 memory hierarchy, where that is the one with limits.
    memory: Option<PathBuf>,
}

impl Cgroup {
    /// A fresh cgroup named `name`, below the root of the version 2 hierarchy.
    ///
    /// # Errors
    ///
    /// When there is no version 2 hierarchy or no right to write to it.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let unit = mount_of("cgroup2", None)?.join(name);
        create_folder(&unit)?;
        Ok(Self { unit, memory: None })
    }

    /// Limits the memory of what is in it, swap included.
    ///
    /// # Errors
    ///
    /// When neither hierarchy has a memory controller that we may use.
    pub(crate) fn limit_memory(&mut self, bytes: u64) -> Result<()> {
        let limit = self.unit.join("memory.max");
        if limit.is_file() {
            let swap = self.unit.join("memory.swap.max");
            if swap.is_file() {
                write(&swap, "0")?;
            }
            return write(&limit, &bytes.to_string());
        }
        let name = self.unit.file_name().unwrap_or_default();
        let folder = own_memory_group()?.join(name);
        create_folder(&folder)?;
        let limit = folder.join("memory.limit_in_bytes");
        self.memory = Some(folder);
        write(&limit, &bytes.to_string())
    }

    /// The folder that limits memory, where it is one of version 1: others may join it
    /// and stay in units of their own.
    pub(crate) fn memory_folder(&self) -> Option<&Path> {
        self.memory.as_deref()
    }

    /// The folders that a process has to join.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        self.memory.iter().chain([&self.unit]).cloned().collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        kill(&self.unit);
        for folder in self.folders() {
            remove(&folder);
        }
    }
}

/// Moves this process into the cgroup at `folder`.
pub(crate) fn join(folder: &Path) -> Result<()> {
    write(&folder.join("cgroup.procs"), "0")
}

/// A group that a run before us left behind is taken over, if it is empty.
fn create_folder(folder: &Path) -> Result<()> {
    let _leftover = fs::remove_dir(folder);
    fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Ends every process in a group of ours: only what was started in it is in it.
fn kill(folder: &Path) {
    // Kernels before 5.14 have no such file.
    let _absent = fs::write(folder.join("cgroup.kill"), "1");
}

/// Clears away the groups of earlier runs, by their names.
pub(crate) fn sweep(is_left_behind: impl Fn(&str) -> bool) -> Result<()> {
    let root = mount_of("cgroup2", None)?;
    let groups = fs::read_dir(&root).with_context(|| format!("cannot read {}", root.display()))?;
    for group in groups.filter_map(Result::ok) {
        if group.file_name().to_str().is_some_and(&is_left_behind) {
            kill(&group.path());
            remove(&group.path());
        }
    }
    Ok(())
}

/// Removes a group and those below it, which a systemd inside may have made. The
/// kernel refuses while a killed process is still ending: tries for a second.
fn remove(folder: &Path) {
    let below = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    let start = BootTime::now();
    while let Err(error) = fs::remove_dir(folder) {
        if error.kind() == std::io::ErrorKind::NotFound {
            return;
        }
        if BootTime::now().since(start).as_secs() >= 1 {
            eprintln!("cannot remove {}: {error}", folder.display());
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Our own group in the version 1 memory hierarchy: what hosts us may limit us
/// there, so new groups must stay below it.
fn own_memory_group() -> Result<PathBuf> {
    let mount = mount_of("cgroup", Some("memory"))?;
    let groups = fs::read_to_string(OWN_GROUPS).context("our own cgroups are unknown")?;
    let own = groups
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"))
        .map_or("/", |(_, path)| path);
    let below = mount.join(own.trim_start_matches('/'));
    // Inside a container the path may be written from outside: then the mount is ours.
    Ok(if below.is_dir() { below } else { mount })
}

fn mount_of(kind: &str, option: Option<&str>) -> Result<PathBuf> {
    let mounts = fs::read_to_string(MOUNTS).context("the mounts are unknown")?;
    find_mount(&mounts, kind, option).with_context(|| match option {
        Some(controller) => format!("the {controller} controller is in no cgroup hierarchy"),
        None => format!("no {kind} file system is mounted"),
    })
}

fn find_mount(mounts: &str, kind: &str, option: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, found, options) = (words.next()?, words.next()?, words.next()?);
        let suits = option.is_none_or(|wanted| options.split(',').any(|o| o == wanted));
        (found == kind && suits).then(|| PathBuf::from(place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_kind_and_controller() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let find = |kind, option| find_mount(mounts, kind, option);
        assert_eq!(find("cgroup2", None), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find("cgroup", Some("memory")), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(find("cgroup", Some("io")), None);
    }
}
