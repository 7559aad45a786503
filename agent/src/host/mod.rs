//! The one way to the machine. Paths are rooted, so that tests use a tree of files.

pub mod cgroup;
pub mod facts;
pub mod file;
pub mod mounts;
pub mod own_cgroup;
pub mod present;
pub mod socket_diag;
pub mod systemd;

use std::path::{Path, PathBuf};

/// Where the host's file systems are.
#[derive(Debug, Clone)]
pub struct Root {
    base: PathBuf,
}

impl Default for Root {
    fn default() -> Self {
        Self::new("/")
    }
}

impl Root {
    /// The host whose root directory is `base`.
    #[must_use]
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// `relative` (no leading slash) below the root.
    #[must_use]
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.base.join(relative)
    }
}
