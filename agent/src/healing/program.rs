//! Programs that the configuration names: checks and hooks. No shell reads their command.
//! Each runs in a cgroup of its own below the agent's, with limits, and with everything it
//! started ends when its time is over.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::host::Root;
use crate::host::own_cgroup::own_directory;

/// The agent's subcommand that becomes the program.
pub const COMMAND: &str = "run-program";
/// The running agent, even where its file was replaced meanwhile.
const OURSELVES: &str = "/proc/self/exe";
/// Names of the cgroups begin so.
const PREFIX: &str = "holdfast-program-";
/// What a program may use.
const MEMORY_BYTES: u64 = 256 << 20;
const FILE_BYTES: u64 = 64 << 20;
const FILES: u64 = 256;
const CPU_SECONDS: u64 = 120;
/// How much of what it says is kept.
const SAID_BYTES: usize = 1_024;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `None` when its time was over.
    pub status: Option<ExitStatus>,
    /// The beginning of what it said, errors included.
    pub said: String,
}

impl Ended {
    /// What is wrong with that, in a few words.
    ///
    /// # Errors
    ///
    /// When it did not end with 0, or not in time.
    pub fn ok(&self, limit: Duration) -> Result<(), String> {
        let said = self.said.trim();
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        match self.status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("it ended with {status}{said}")),
            None => Err(format!("it did not end within {limit:?}{said}")),
        }
    }
}

/// Runs `command` with these variables, for up to `limit`.
///
/// # Errors
///
/// When it cannot be started at all.
pub async fn run(
    command: &[String],
    variables: &[(&str, String)],
    limit: Duration,
) -> io::Result<Ended> {
    start(command, variables, limit, (0, SAID_BYTES)).await
}

/// What `command` prints, up to `most` bytes of it.
///
/// # Errors
///
/// When it does not end well within `limit`, in plain words.
pub async fn output(command: &[String], limit: Duration, most: usize) -> Result<String, String> {
    let ended = start(command, &[], limit, (most, 0)).await.map_err(|error| error.to_string())?;
    match ended.status {
        Some(status) if status.success() => Ok(ended.said),
        Some(status) => Err(format!("{command:?} ended with {status}")),
        None => Err(format!("{command:?} did not end within {limit:?}")),
    }
}

/// As [`run`], keeping so much of its output and of its errors.
async fn start(
    command: &[String],
    variables: &[(&str, String)],
    limit: Duration,
    (most_out, most_errors): (usize, usize),
) -> io::Result<Ended> {
    let group = Group::make();
    let mut words = vec![COMMAND.to_owned()];
    if let Some(folder) = &group.folder {
        words.extend(["--cgroup".to_owned(), folder.display().to_string()]);
    }
    words.push("--".to_owned());
    words.extend_from_slice(command);
    let mut child = tokio::process::Command::new(OURSELVES)
        .args(words)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let (out, error) = (child.stdout.take(), child.stderr.take());
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let ended = async {
        // Read to the end, so that nobody waits for room in a pipe.
        let printed = hear(out, &mut printed, most_out);
        let ((), (), status) =
            tokio::join!(printed, hear(error, &mut said, most_errors), child.wait());
        status
    };
    let status = tokio::time::timeout(limit, ended).await;
    // What it left behind ends, too.
    if let Some(leader) = leader {
        let _ = killpg(leader, Signal::SIGKILL);
    }
    group.kill();
    let status = status.ok().transpose()?;
    printed.append(&mut said);
    let said = printed;
    Ok(Ended { status, said: String::from_utf8_lossy(&said).into_owned() })
}

async fn hear(from: Option<impl AsyncRead + Unpin>, said: &mut Vec<u8>, most: usize) {
    let Some(mut from) = from else { return };
    let mut part = [0; 4_096];
    while let Ok(length @ 1..) = from.read(&mut part).await {
        let room = most.saturating_sub(said.len());
        said.extend(part.iter().take(length.min(room)));
    }
}

/// A cgroup of its own; `None` where none can be had.
struct Group {
    folder: Option<PathBuf>,
}

impl Group {
    fn make() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = own_directory(&Root::default())
            .ok()
            .map(|own| own.join(format!("{PREFIX}{}-{number}", std::process::id())));
        Self { folder: folder.filter(|folder| fs::create_dir(folder).is_ok()) }
    }

    fn kill(&self) {
        if let Some(folder) = &self.folder {
            // Linux 5.14; before that whoever left the process group lives on.
            let _ = fs::write(folder.join("cgroup.kill"), "1");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        let Some(folder) = self.folder.take() else { return };
        // Who was killed is still there for a moment.
        if fs::remove_dir(&folder).is_err()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                for _ in 0..10 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    if fs::remove_dir(&folder).is_ok() {
                        break;
                    }
                }
            });
        }
    }
}

/// Becomes `command`, within limits. Returns only when that fails.
#[must_use]
pub fn become_program(cgroup: Option<&Path>, command: &[String]) -> io::Error {
    let confined = (|| -> io::Result<()> {
        if let Some(cgroup) = cgroup {
            fs::write(cgroup.join("cgroup.procs"), "0")?;
        }
        set_pdeathsig(Signal::SIGKILL)?;
        // Where memory runs out it goes before the agent does.
        fs::write("/proc/self/oom_score_adj", "500")?;
        for (resource, limit) in [
            (Resource::RLIMIT_DATA, MEMORY_BYTES),
            (Resource::RLIMIT_FSIZE, FILE_BYTES),
            (Resource::RLIMIT_NOFILE, FILES),
            (Resource::RLIMIT_CPU, CPU_SECONDS),
            (Resource::RLIMIT_CORE, 0),
        ] {
            setrlimit(resource, limit, limit)?;
        }
        Ok(())
    })();
    match (confined, command.split_first()) {
        (Err(error), _) => error,
        (Ok(()), None) => io::Error::other("there is nothing to run"),
        (Ok(()), Some((program, arguments))) => Command::new(program).args(arguments).exec(),
    }
}
