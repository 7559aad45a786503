//! A program under test as a process: its log is kept, and it never outlives the test.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{programs, wait};

/// A running program. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, with what it says in the file `log`.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Everything it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An error with its log when it has ended by itself.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; it said:\n{}", self.name, self.log()),
        }
    }

    /// Waits for its own end.
    ///
    /// # Errors
    ///
    /// When it goes on.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait::until(&what, async || Ok(self.child.try_wait()?)).await
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Errors
    ///
    /// When it goes on.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        kill(self.pid(), Signal::SIGTERM).context("the process is gone already")?;
        self.wait().await
    }

    /// The addresses that a daemon wrote into its state folder.
    ///
    /// # Errors
    ///
    /// When it ends before, or takes too long.
    pub async fn addresses(&mut self, state: &Path) -> Result<Value> {
        let file = state.join("addresses.json");
        wait::until("the daemon listens", async || {
            self.check()?;
            // While it is being written it is no JSON yet.
            Ok(fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()))
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_waited_for = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.log());
        }
    }
}

/// A command that the kernel kills when this test's thread dies.
#[must_use]
pub fn leashed(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// What a program that ends by itself has said.
pub struct Answer {
    /// How it ended; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs one of the programs under test to its end.
///
/// # Errors
///
/// When it cannot be started.
pub fn answer<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<Answer> {
    let arguments: Vec<OsString> = arguments.iter().map(|a| a.as_ref().to_owned()).collect();
    let output = Command::new(programs::path(program)?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    Ok(Answer {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).context("not text")?,
        stderr: String::from_utf8(output.stderr).context("not text")?,
    })
}
