//! The real programs, running on this host with temporary state: a collector, an
//! agent, and the CLI to ask them.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_core::clock::BootTime;
use serde_json::Value;
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::leash::Leashed;
use crate::shell;
use crate::stop::Stop;

/// Ports of the collector's gRPC and HTTP sides when nothing says otherwise.
const DEFAULT_PORTS: [u16; 2] = [7401, 7402];
/// How long a program may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The three programs, built.
pub(crate) struct Programs {
    pub(crate) agent: PathBuf,
    pub(crate) collector: PathBuf,
    pub(crate) cli: PathBuf,
}

impl Programs {
    /// Builds them with cargo's `profile`.
    pub(crate) fn build(profile: &str) -> Result<Self> {
        let crates = ["-p", "holdfast-agent", "-p", "holdfast-collector", "-p", "holdfast-cli"];
        shell::run(shell::cargo(["build", "--bins", "--profile", profile])?.args(crates))?;
        // The folder of the `dev` profile has its old name.
        let folder = if profile == "dev" { "debug" } else { profile };
        let built = shell::target_dir()?.join(folder);
        Ok(Self {
            agent: built.join("holdfast-agent"),
            collector: built.join("holdfast-collector"),
            cli: built.join("holdfast"),
        })
    }
}

/// Which ports the collector listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Whatever is free.
    Any,
    /// The default ones, so that `holdfast` finds them by itself, if they are free.
    DefaultIfFree,
}

/// A running agent and collector. Dropping it stops both and removes their state.
pub(crate) struct Stack {
    // Fields are dropped in this order: the agent first, its state last.
    pub(crate) agent: Leashed,
    pub(crate) collector: Leashed,
    _units: Vec<Cgroup>,
    cli: PathBuf,
    grpc: String,
    http: String,
    agent_started: BootTime,
    folder: TempDir,
}

impl Stack {
    /// Starts a collector, then an agent that reports to it.
    pub(crate) fn start(
        programs: &Programs,
        ports: Ports,
        agent_options: &[&str],
        stop: &Stop,
    ) -> Result<Self> {
        Self::start_with(programs, ports, agent_options, "", stop)
    }

    /// As [`start`](Self::start), with the text of the agent's configuration.
    pub(crate) fn start_with(
        programs: &Programs,
        ports: Ports,
        agent_options: &[&str],
        agent_config: &str,
        stop: &Stop,
    ) -> Result<Self> {
        let folder =
            TempDir::with_prefix("holdfast-").context("no temporary folder can be made")?;
        let path = |name: &str| folder.path().join(name).into_os_string();
        // Files of our own, so that what is configured on this host does not leak in.
        for (name, text) in [("agent.toml", agent_config), ("collector.toml", "")] {
            fs::write(folder.path().join(name), text).context("cannot write a configuration")?;
        }
        for name in ["agent", "collector"] {
            fs::create_dir(folder.path().join(name)).context("cannot make a state folder")?;
        }

        // As services they would be units of their own; without the right to make
        // cgroups they share ours.
        let mut units = Vec::new();
        let mut unit = |name: &str| {
            let unit = Cgroup::create(&format!("holdfast-demo-{name}.service")).ok();
            let folders = unit.as_ref().map(Cgroup::folders).unwrap_or_default();
            units.extend(unit);
            folders
        };

        let address = |port: u16| OsString::from(format!("127.0.0.1:{port}"));
        let [grpc, http] = choose(ports).map(address);
        let mut collector = Leashed::start(
            &programs.collector,
            ["run", "--config"]
                .map(OsString::from)
                .into_iter()
                .chain([path("collector.toml"), "--state-dir".into(), path("collector")])
                .chain(["--grpc".into(), grpc, "--http".into(), http]),
            &unit("collector"),
            Some(&folder.path().join("collector.log")),
        )?;
        let bound = wait_for_addresses(folder.path(), "collector", &mut collector, stop)?;
        let grpc = field(&bound, "grpc")?;
        let http = field(&bound, "http")?;

        let agent_started = BootTime::now();
        let mut agent = Leashed::start(
            &programs.agent,
            ["run", "--config"]
                .map(OsString::from)
                .into_iter()
                .chain([path("agent.toml"), "--state-dir".into(), path("agent")])
                .chain(["--socket".into(), path("agent.sock")])
                .chain(["--collector".into(), format!("http://{grpc}").into()])
                .chain(["--metrics".into(), address(0)])
                .chain(agent_options.iter().map(OsString::from)),
            &unit("agent"),
            Some(&folder.path().join("agent.log")),
        )?;
        wait_for_addresses(folder.path(), "agent", &mut agent, stop)?;
        let cli = programs.cli.clone();
        Ok(Self { agent, collector, _units: units, cli, grpc, http, agent_started, folder })
    }

    /// The collector's HTTP address.
    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The collector's gRPC address, as `holdfast --collector` takes it.
    pub(crate) fn grpc(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// The agent's socket, as `holdfast --socket` takes it.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// How long the agent has been running.
    pub(crate) fn agent_age(&self) -> Duration {
        BootTime::now().since(self.agent_started)
    }

    /// What `holdfast ARGUMENTS --json` answers.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = std::process::Command::new(&self.cli);
        command.args(arguments).args(["--json", "--timeout", "15s"]);
        command.arg("--collector").arg(self.grpc()).arg("--socket").arg(self.socket());
        let answer = shell::output(&mut command)?;
        serde_json::from_str(&answer)
            .with_context(|| format!("`holdfast {}` printed no JSON", arguments.join(" ")))
    }

    /// An error when one of the programs has ended by itself, with its last words.
    pub(crate) fn check(&mut self) -> Result<()> {
        let agent = self.agent.check();
        agent.with_context(|| last_words(self.folder.path(), "agent"))?;
        let collector = self.collector.check();
        collector.with_context(|| last_words(self.folder.path(), "collector"))
    }
}

/// The default ports, if both can be had; zero lets the kernel choose.
fn choose(ports: Ports) -> [u16; 2] {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    if ports == Ports::DefaultIfFree && DEFAULT_PORTS.into_iter().all(free) {
        DEFAULT_PORTS
    } else {
        [0, 0]
    }
}

/// Waits until the program called `name` has written which addresses it bound.
fn wait_for_addresses(
    folder: &Path,
    name: &str,
    program: &mut Leashed,
    stop: &Stop,
) -> Result<Value> {
    let file = folder.join(name).join("addresses.json");
    let start = BootTime::now();
    loop {
        // While it is being written it is no JSON yet.
        if let Some(addresses) =
            fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok())
        {
            return Ok(addresses);
        }
        program.check().with_context(|| last_words(folder, name))?;
        if BootTime::now().since(start) > START_LIMIT {
            bail!("the {name} does not listen after {START_LIMIT:?}; {}", last_words(folder, name));
        }
        if stop.wait(Duration::from_millis(20)) {
            bail!("stopped");
        }
    }
}

fn field(addresses: &Value, name: &str) -> Result<String> {
    let text = addresses.get(name).and_then(Value::as_str);
    text.map(str::to_owned).with_context(|| format!("addresses.json has no `{name}`"))
}

/// The end of a program's log.
fn last_words(folder: &Path, name: &str) -> String {
    let log = fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
    format!("the {name}'s last words:\n{}\n", end.join("\n"))
}
