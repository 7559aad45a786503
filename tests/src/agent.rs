//! An agent under test.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Answer, Process};
use crate::programs;

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

/// A running agent with temporary state.
pub struct Agent {
    process: Process,
    folder: TempDir,
}

impl Agent {
    /// Starts one that reports to `collector` (a URL) as `host`, with summaries of
    /// one second.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn start(host: &str, collector: &str) -> Result<Self> {
        Self::start_with(host, collector, "").await
    }

    /// The same with this text as its configuration file.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn start_with(host: &str, collector: &str, config: &str) -> Result<Self> {
        let folder = folder()?;
        fs::write(folder.path().join("agent.toml"), config)?;
        let command = process::leashed(&programs::path("holdfast-agent")?);
        Self::run(folder, command, host, collector).await
    }

    /// The same as a user without any rights. Needs root.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn start_unprivileged(host: &str, collector: &str) -> Result<Self> {
        Self::start_as_nobody(host, collector, "", "-all").await
    }

    /// The same with this text as its configuration file, and as a user with the
    /// rights that the packaged service has: to load eBPF programs, and no more.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn start_as_service(host: &str, collector: &str, config: &str) -> Result<Self> {
        Self::start_as_nobody(host, collector, config, "-all,+bpf,+perfmon").await
    }

    async fn start_as_nobody(
        host: &str,
        collector: &str,
        config: &str,
        capabilities: &str,
    ) -> Result<Self> {
        let folder = folder()?;
        fs::write(folder.path().join("agent.toml"), config)?;
        // Where cargo builds, that user may not look.
        let program = folder.path().join("holdfast-agent");
        fs::copy(programs::path("holdfast-agent")?, &program).context("cannot copy the agent")?;
        for path in [folder.path(), &folder.path().join("state")] {
            chown(path, Some(NOBODY), Some(NOBODY)).context("cannot give the folder away")?;
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(["--bounding-set", capabilities, "--inh-caps", capabilities]);
        command.args(["--ambient-caps", capabilities, "--no-new-privs"]);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        Self::run(folder, command, host, collector).await
    }

    async fn run(
        folder: TempDir,
        mut command: Command,
        host: &str,
        collector: &str,
    ) -> Result<Self> {
        let process = launch(&folder, &mut command, host, collector).await?;
        Ok(Self { process, folder })
    }

    /// Starts it again after [`Self::stop`], with the same state.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub async fn start_again(&mut self, host: &str, collector: &str) -> Result<()> {
        fs::remove_file(self.folder.path().join("state/addresses.json")).ok();
        let mut command = process::leashed(&programs::path("holdfast-agent")?);
        self.process = launch(&self.folder, &mut command, host, collector).await?;
        Ok(())
    }

    /// Ends it in an orderly way, in under two seconds.
    ///
    /// # Errors
    ///
    /// When it does not end so.
    pub async fn stop(&mut self) -> Result<()> {
        let status = tokio::time::timeout(Duration::from_secs(2), self.process.stop())
            .await
            .context("the agent takes more than two seconds to stop")??;
        ensure!(status.success(), "{status}; it said:\n{}", self.process.log());
        Ok(())
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Where it answers people on this host.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// A file of its state.
    #[must_use]
    pub fn state(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    /// What `holdfast ARGUMENTS` answers about it, however it ends.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn holdfast(&self, arguments: &[&str]) -> Result<Answer> {
        let socket = self.socket().to_string_lossy().into_owned();
        process::answer("holdfast", &[&["--socket", &socket], arguments].concat())
    }

    /// What `holdfast local ARGUMENTS --json` answers about it.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn local(&self, arguments: &[&str]) -> Result<Value> {
        let socket = self.socket().to_string_lossy().into_owned();
        let options = ["--json", "--socket", &socket, "local"];
        let answer = process::answer("holdfast", &[&options, arguments].concat())?;
        ensure!(answer.code == Some(0), "{:?}: {}", answer.code, answer.stderr);
        serde_json::from_str(&answer.stdout).context("no JSON")
    }
}

/// Runs `command` as an agent with the state in `folder` until it has come up.
async fn launch(
    folder: &TempDir,
    command: &mut Command,
    host: &str,
    collector: &str,
) -> Result<Process> {
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    command.arg("run").arg("--config").arg(path("agent.toml"));
    command.arg("--state-dir").arg(path("state"));
    command.arg("--socket").arg(path("agent.sock"));
    command.args(["--metrics", "127.0.0.1:0", "--summary-interval", "1s"]);
    command.args(["--host-name", host, "--collector", collector]);
    let mut process = Process::start(command, path("log"))?;
    process.addresses(&path("state")).await?;
    Ok(process)
}

/// Temporary state and an empty configuration, so that the host's own does not count.
fn folder() -> Result<TempDir> {
    let folder = TempDir::with_prefix("holdfast-agent-")?;
    fs::create_dir(folder.path().join("state"))?;
    fs::write(folder.path().join("agent.toml"), "")?;
    Ok(folder)
}
