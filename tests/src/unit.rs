//! A unit of our own: a fresh cgroup with a unit's name. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A fresh cgroup below the root of the version 2 hierarchy. What is still in it
/// is killed, and it is removed, when this is dropped.
pub struct Unit {
    /// Its name, as the agent should tell it.
    pub name: String,
    folder: PathBuf,
}

impl Unit {
    /// Makes one whose name holds `word`.
    ///
    /// # Errors
    ///
    /// When cgroups cannot be made.
    pub fn create(word: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("holdfast-test-{word}-{}-{number}.service", std::process::id());
        let folder = cgroup2()?.join(&name);
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { name, folder })
    }

    /// The cgroup's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a shell script in the unit.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(&self, script: &str) -> Result<Child> {
        // The shell moves itself before it does anything else.
        let joined = format!("echo 0 > \"$0/cgroup.procs\" || exit 99\n{script}");
        Command::new("sh")
            .arg("-c")
            .arg(joined)
            .arg(&self.folder)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start a shell")
    }

    /// Runs a shell script in the unit to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn run(&self, script: &str) -> Result<ExitStatus> {
        self.start(script)?.wait().context("the shell is lost")
    }

    /// Runs a process in the unit that is killed by SIGSEGV, without a core file.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn crash(&self) -> Result<ExitStatus> {
        self.run("ulimit -c 0; kill -SEGV $$")
    }

    /// Removes the empty cgroup.
    ///
    /// # Errors
    ///
    /// When something is still in it.
    pub fn remove(&self) -> Result<()> {
        fs::remove_dir(&self.folder)
            .with_context(|| format!("cannot remove {}", self.folder.display()))
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _gone = fs::write(self.folder.join("cgroup.kill"), "1");
        // The kernel refuses until the killed processes are reaped.
        for _ in 0..1000 {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32) => {
                    std::thread::yield_now();
                }
                _ => return,
            }
        }
    }
}

/// Where the version 2 hierarchy is mounted.
fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let place = words.filter(|words| words.get(2) == Some(&"cgroup2"));
    let place = place.filter_map(|words| words.get(1).map(PathBuf::from)).next();
    place.context("no cgroup2 file system is mounted")
}
