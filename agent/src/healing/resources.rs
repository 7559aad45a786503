//! Watches what services use up: memory towards the limit of their unit, and the file systems
//! of the folders that their files name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_healer::config::Service;
use holdfast_healer::trend::Trend;
use holdfast_healer::{Fact, Sign};
use nix::sys::statvfs::statvfs;

use crate::host::Root;
use crate::host::cgroup::mount_point;

/// How often it is looked at.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// What services use up.
#[derive(Debug)]
pub(super) struct Resources {
    mount: Option<PathBuf>,
    looked: BootTime,
    all: Vec<One>,
}

#[derive(Debug)]
struct One {
    unit: Arc<str>,
    /// Its cgroup's folder, once systemd said which.
    folder: Option<PathBuf>,
    memory: Trend,
    folders: Vec<(PathBuf, Trend)>,
}

impl Resources {
    pub(super) fn of(services: &[Service], root: &Root, now: BootTime) -> Self {
        let one = |service: &Service| One {
            unit: Arc::clone(&service.unit),
            folder: None,
            memory: Trend::default(),
            folders: service.folders.iter().map(|of| (of.clone(), Trend::default())).collect(),
        };
        let mount = mount_point(root).ok();
        Self { mount, looked: now, all: services.iter().map(one).collect() }
    }

    /// Takes in where the cgroup of a unit is; nowhere when it does not run.
    pub(super) fn place(&mut self, unit: &str, cgroup: &str) {
        let Some(one) = self.all.iter_mut().find(|one| *one.unit == *unit) else { return };
        let folder = self.mount.as_ref().filter(|_| !cgroup.is_empty());
        let folder = folder.map(|mount| mount.join(cgroup.trim_start_matches('/')));
        if folder != one.folder {
            one.memory.clear();
            one.folder = folder;
        }
    }

    /// Where the cgroup of a unit is; `None` while it has none.
    pub(super) fn folder(&self, unit: &str) -> Option<PathBuf> {
        self.all.iter().find(|one| *one.unit == *unit)?.folder.clone()
    }

    /// Looks, when it is time; what holds now.
    pub(super) fn look(&mut self, now: BootTime) -> Vec<Fact> {
        if now.since(self.looked) < EVERY {
            return Vec::new();
        }
        self.looked = now;
        let mut facts = Vec::new();
        for one in &mut self.all {
            let fact = |sign, stands| Fact::Sign { unit: Arc::clone(&one.unit), sign, stands };
            let memory = one.folder.as_deref().and_then(memory);
            let leaks = match memory {
                Some((used, limit)) => one.memory.read(now, used, limit),
                None => false,
            };
            facts.push(fact(Sign::Leaking, leaks));
            let mut fills = false;
            for (folder, trend) in &mut one.folders {
                if let Some((used, size)) = space(folder) {
                    fills |= trend.read(now, used, size);
                }
            }
            facts.push(fact(Sign::DiskFilling, fills));
        }
        facts
    }
}

/// Memory of a cgroup that cannot be given back, and its limit; `None` where there is no limit,
/// or it is not known here.
fn memory(folder: &Path) -> Option<(f64, f64)> {
    let limit: f64 = fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok()?;
    let stat = fs::read_to_string(folder.join("memory.stat")).ok()?;
    // The page cache goes before anybody is killed.
    let used = stat.lines().find_map(|line| line.strip_prefix("anon "))?.parse().ok()?;
    Some((used, limit))
}

/// What of the file system of `folder` is used, and how large it is, in bytes.
fn space(folder: &Path) -> Option<(f64, f64)> {
    let found = statvfs(folder).ok()?;
    let size = found.blocks() as f64 * found.fragment_size() as f64;
    let left = found.blocks_available() as f64 * found.fragment_size() as f64;
    Some((size - left, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_towards_its_limit_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sys/fs/cgroup/a.service");
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        let mounts = "1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        fs::write(dir.path().join("proc/self/mountinfo"), mounts).unwrap();
        let root = Root::new(dir.path());
        let path = Path::new("a.toml");
        let service = Service::parse(path, "folders = ['/']").unwrap();
        let at = |seconds| BootTime::new(Duration::from_secs(seconds));
        let mut resources = Resources::of(&[service], &root, at(0));
        resources.place("a.service", "/a.service");
        fs::write(folder.join("memory.max"), "1000\n").unwrap();
        let mut leaks = false;
        for n in 1..=40 {
            fs::write(folder.join("memory.stat"), format!("anon {}\nfile 9\n", 400 + 10 * n))
                .unwrap();
            assert!(resources.look(at(5 * n - 1)).is_empty(), "not yet");
            let facts = resources.look(at(5 * n));
            let [Fact::Sign { sign: Sign::Leaking, stands, .. }, Fact::Sign { stands: fills, .. }] =
                &*facts
            else {
                panic!("{facts:?}")
            };
            assert!(!fills);
            leaks = *stands;
        }
        assert!(leaks);
        fs::write(folder.join("memory.max"), "max\n").unwrap();
        let facts = resources.look(at(1_000));
        assert!(matches!(facts[0], Fact::Sign { stands: false, .. }));
    }
}
