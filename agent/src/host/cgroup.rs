//! The unified cgroup hierarchy: where it is mounted, which directories it has,
//! and which appear and vanish.
//!
//! [`Tree`] walks the hierarchy once and then watches every directory with
//! inotify. A directory is listed *after* its watch is set, so that a child made
//! in between is seen twice rather than never. What inotify cannot tell (its queue
//! overflowed, the user's watch limit is reached) is found by walking again. It
//! knows directories and their ids (the inode is the cgroup id); units are none of
//! its business.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::Root;

/// Most directories that are kept; the rest is counted and ignored.
pub const DIRECTORIES: usize = 4096;
/// How often a tree that cannot be watched in full is walked again.
const WALK_EVERY: Duration = Duration::from_secs(10);
/// Most reads of the inotify queue for one call, so that a storm of changes cannot hold the sampler.
const READS: usize = 64;

/// Why the hierarchy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The mount table cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Mounts {
        /// The mount table.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Nothing of type cgroup2 is mounted.
    #[error("no unified cgroup hierarchy (cgroup2) is mounted")]
    NotMounted,
    /// No watch can be had.
    #[error("cannot watch the cgroup hierarchy: {0}; raise fs.inotify.max_user_instances")]
    Inotify(Errno),
}

/// What happened to a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It appeared.
    Born {
        /// Its cgroup id.
        id: u64,
        /// Its path below the mount point; empty for the root.
        path: Arc<str>,
    },
    /// It vanished.
    Gone {
        /// Its cgroup id.
        id: u64,
    },
}

/// Where cgroup2 is mounted.
///
/// # Errors
///
/// See [`Error`].
pub fn mount_point(root: &Root) -> Result<PathBuf, Error> {
    let path = root.path("proc/self/mountinfo");
    // Anybody's mount point, in whatever encoding, must not hide the hierarchy.
    let table = fs::read(&path).map_err(|error| Error::Mounts { path, error })?;
    let table = String::from_utf8_lossy(&table);
    let mount = table.lines().find_map(cgroup2_mount).ok_or(Error::NotMounted)?;
    Ok(root.path(mount.trim_start_matches('/')))
}

/// The mount point of a mountinfo line, if it is one of cgroup2.
fn cgroup2_mount(line: &str) -> Option<String> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let escaped = mount.split(' ').nth(4)?;
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    Some(plain.iter().fold(escaped.to_owned(), |text, (code, plain)| text.replace(code, plain)))
}

#[derive(Debug)]
struct Node {
    id: u64,
    watch: Option<WatchDescriptor>,
}

/// The directories of the hierarchy, kept current.
#[derive(Debug)]
pub struct Tree {
    mount: PathBuf,
    inotify: Inotify,
    nodes: HashMap<Arc<str>, Node>,
    watches: HashMap<WatchDescriptor, Arc<str>>,
    unwatched: bool,
    refused: u64,
    walked: BootTime,
}

impl Tree {
    /// Starts watching the hierarchy below `mount`; nothing is walked before the first [`poll`](Self::poll).
    ///
    /// # Errors
    ///
    /// When inotify itself cannot be had.
    pub fn open(mount: PathBuf) -> Result<Self, Error> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(Error::Inotify)?;
        Ok(Self {
            mount,
            inotify,
            nodes: HashMap::new(),
            watches: HashMap::new(),
            unwatched: false,
            refused: 0,
            walked: BootTime::default(),
        })
    }

    /// A second descriptor of the queue, to wait for its readiness.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned()
    }

    /// The directory of the cgroup at `path`.
    #[must_use]
    pub fn directory(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.mount.clone() } else { self.mount.join(path) }
    }

    /// Where the hierarchy is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Whether some directories could not be watched, so that changes are seen late.
    #[must_use]
    pub fn is_unwatched(&self) -> bool {
        self.unwatched
    }

    /// How often a directory was ignored because there are too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Appends what changed since the last call, the whole tree on the first.
    pub fn poll(&mut self, now: BootTime, out: &mut Vec<Change>) {
        let overdue = self.unwatched && now.since(self.walked) >= WALK_EVERY;
        let mut walk = self.nodes.is_empty() || overdue;
        for _ in 0..READS {
            let Ok(events) = self.inotify.read_events() else { break };
            for event in events {
                walk |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                self.apply(&event, out);
            }
        }
        if walk {
            self.walk(now, out);
        }
    }

    fn apply(&mut self, event: &InotifyEvent, out: &mut Vec<Change>) {
        let Some(parent) = self.watches.get(&event.wd).cloned() else { return };
        if !event.mask.contains(AddWatchFlags::IN_ISDIR) {
            return;
        }
        let Some(name) = event.name.as_deref().and_then(|name| name.to_str()) else { return };
        let path: Arc<str> =
            if parent.is_empty() { name.into() } else { format!("{parent}/{name}").into() };
        // What is there now decides, not what the event says: the same name may
        // have come and gone several times since.
        self.visit(path, None, out);
    }

    /// Walks everything and forgets what is no longer there.
    fn walk(&mut self, now: BootTime, out: &mut Vec<Change>) {
        self.walked = now;
        self.unwatched = false;
        let mut seen = Vec::with_capacity(self.nodes.len());
        self.visit(Arc::from(""), Some(&mut seen), out);
        seen.sort_unstable();
        let lost: Vec<_> =
            self.nodes.keys().filter(|path| seen.binary_search(path).is_err()).cloned().collect();
        for path in lost {
            self.remove(&path, out);
        }
    }

    /// Brings the directory at `path` and everything below it up to date. With
    /// `seen`, directories known already are looked into as well, and all are noted.
    fn visit(
        &mut self,
        path: Arc<str>,
        mut seen: Option<&mut Vec<Arc<str>>>,
        out: &mut Vec<Change>,
    ) {
        let mut stack = vec![path];
        while let Some(path) = stack.pop() {
            let directory = self.directory(&path);
            let Some(id) = directory_id(&directory) else {
                self.remove(&path, out);
                continue;
            };
            let known = self.nodes.get(&path).is_some_and(|node| node.id == id);
            if !known {
                self.remove(&path, out);
                if self.nodes.len() >= DIRECTORIES {
                    self.refused += 1;
                    continue;
                }
                self.nodes.insert(Arc::clone(&path), Node { id, watch: None });
                out.push(Change::Born { id, path: Arc::clone(&path) });
            }
            self.watch(&path, &directory);
            if let Some(seen) = &mut seen {
                seen.push(Arc::clone(&path));
            } else if known {
                continue;
            }
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if let Some(name) = entry.file_name().to_str() {
                    stack.push(if path.is_empty() {
                        name.into()
                    } else {
                        format!("{path}/{name}").into()
                    });
                }
            }
        }
    }

    fn watch(&mut self, path: &Arc<str>, directory: &Path) {
        let Some(node) = self.nodes.get_mut(path) else { return };
        if node.watch.is_some() {
            return;
        }
        let wanted = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        match self.inotify.add_watch(directory, wanted) {
            Ok(watch) => {
                node.watch = Some(watch);
                self.watches.insert(watch, Arc::clone(path));
            }
            // Gone already: the parent's watch tells.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(_) => self.unwatched = true,
        }
    }

    /// Forgets the directory at `path` and everything below it.
    fn remove(&mut self, path: &str, out: &mut Vec<Change>) {
        if !self.nodes.contains_key(path) {
            return;
        }
        let below = |candidate: &str| {
            candidate
                .strip_prefix(path)
                .is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        let lost: Vec<_> = self.nodes.extract_if(|candidate, _| below(candidate)).collect();
        for (_, node) in lost {
            if let Some(watch) = node.watch {
                self.watches.remove(&watch);
                // Already gone with its directory, as a rule.
                let _ = self.inotify.rm_watch(watch);
            }
            out.push(Change::Gone { id: node.id });
        }
    }
}

fn directory_id(directory: &Path) -> Option<u64> {
    fs::symlink_metadata(directory).ok().filter(fs::Metadata::is_dir).map(|meta| meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(changes: &[Change]) -> Vec<&str> {
        let mut paths: Vec<&str> = changes
            .iter()
            .map(|change| match change {
                Change::Born { path, .. } => &**path,
                Change::Gone { .. } => "gone",
            })
            .collect();
        paths.sort_unstable();
        paths
    }

    #[test]
    fn births_and_deaths_are_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let mut tree = Tree::open(dir.path().to_owned()).unwrap();
        let poll = |tree: &mut Tree| {
            let mut out = Vec::new();
            tree.poll(BootTime::default(), &mut out);
            out
        };
        assert_eq!(paths(&poll(&mut tree)), ["", "a", "a/b"]);
        assert!(poll(&mut tree).is_empty());

        // A subtree made at once is found in full, although only its top is reported.
        fs::create_dir_all(dir.path().join("c/d/e")).unwrap();
        fs::write(dir.path().join("c/file"), "").unwrap();
        assert_eq!(paths(&poll(&mut tree)), ["c", "c/d", "c/d/e"]);
        assert!(poll(&mut tree).is_empty());

        fs::remove_dir_all(dir.path().join("c")).unwrap();
        assert_eq!(paths(&poll(&mut tree)), ["gone", "gone", "gone"]);

        // Gone and back under the same name: another directory.
        fs::remove_dir(dir.path().join("a/b")).unwrap();
        fs::create_dir(dir.path().join("keep-the-inode-busy")).unwrap();
        fs::create_dir(dir.path().join("a/b")).unwrap();
        let changes = poll(&mut tree);
        assert!(paths(&changes).contains(&"keep-the-inode-busy"), "{changes:?}");
        assert_eq!(tree.nodes.len(), 4);
        assert_eq!(tree.watches.len(), 4);
    }

    #[test]
    fn walking_again_finds_what_was_missed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let mut tree = Tree::open(dir.path().to_owned()).unwrap();
        let mut out = Vec::new();
        tree.poll(BootTime::default(), &mut out);
        fs::remove_dir(dir.path().join("a")).unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        out.clear();
        tree.walk(BootTime::default(), &mut out);
        assert_eq!(paths(&out), ["b", "gone"]);
    }

    #[test]
    fn the_mount_is_found_by_its_type() {
        let line =
            "41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(line).as_deref(), Some("/sys/fs/cgroup/uni fied"));
        for odd in [
            "",
            " - ",
            "a - cgroup2",
            "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
        ] {
            assert_eq!(cgroup2_mount(odd), None, "{odd}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(mount_point(&Root::new(dir.path())), Err(Error::Mounts { .. })));
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        let odd = [b"1 0 8:1 / /\xff rw - ext4 /dev/sda rw\n", line.as_bytes()].concat();
        fs::write(dir.path().join("proc/self/mountinfo"), odd).unwrap();
        assert!(mount_point(&Root::new(dir.path())).unwrap().ends_with("uni fied"));
    }
}
