//! Children that never outlive us.
//!
//! A child starts as this same program (`xtask leash`), which asks the kernel for
//! a signal at its parent's death, joins the wanted cgroups, and only then becomes
//! the real program. So nothing is left behind even when the parent is killed.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use holdfast_core::clock::BootTime;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{cgroup, shell, stop};

/// How long an orderly end may take before it is made less orderly.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `xtask leash` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Join this cgroup first; may be given several times
    #[arg(long)]
    cgroup: Vec<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// The child's side: never returns when all is well.
pub(crate) fn run(args: &Args) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGTERM).context("no signal at the parent's death")?;
    stop::restore()?;
    for folder in &args.cgroup {
        cgroup::join(folder)?;
    }
    let (program, arguments) = args.command.split_first().context("no program given")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// A child process; stopped when dropped.
pub(crate) struct Leashed {
    name: String,
    child: Child,
}

impl Leashed {
    /// Starts `program` with `arguments` in `cgroups`, its output in `log` (or nowhere).
    pub(crate) fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = OsString>,
        cgroups: &[PathBuf],
        log: Option<&Path>,
    ) -> Result<Self> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into();
        let mut command = Command::new(shell::OURSELVES);
        command.arg("leash");
        for folder in cgroups {
            command.arg("--cgroup").arg(folder);
        }
        command.arg("--").arg(program).args(arguments).stdin(Stdio::null());
        match log {
            Some(path) => {
                let file = File::create(path)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                command.stdout(file.try_clone()?).stderr(file);
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error when it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(anyhow!("{} ended by itself with {status}", self.name)),
            Err(error) => Err(error).with_context(|| format!("{} was lost", self.name)),
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Asks it to end, waits, and kills it only when it does not.
    pub(crate) fn stop(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        // The pid is ours until we have waited for it.
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _already_gone = kill(pid, Signal::SIGTERM);
        let asked = BootTime::now();
        while BootTime::now().since(asked) < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{} cannot be stopped: {error}", self.name);
        }
    }
}
