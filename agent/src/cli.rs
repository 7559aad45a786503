//! Command line of the agent: arguments only. What they lead to is in `main.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use holdfast_core::logs;

use crate::config::Config;

/// Watches this host and its systemd units, and tells a collector.
#[derive(Debug, Parser)]
#[command(name = "holdfast-agent", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 fine, 1 error (or doctor found signals missing), 2 wrong usage or configuration.";

/// What the agent can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run until told to stop (SIGTERM or SIGINT).
    Run(Run),
    /// Check or print configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Tell what this host gives the agent, what is missing, what that costs and how to
    /// get it. Needs no running agent; it looks with the rights of whoever calls it.
    Doctor {
        /// Configuration file, instead of /etc/holdfast/agent.toml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Print the catalogue: every signal with its meaning.
    Signals {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Provoke what the running agent tells, so that it can prove its probes.
    #[command(hide = true)]
    AttestWorker(AttestWorker),
    /// Become a program of the configuration, within limits.
    #[command(hide = true)]
    RunProgram(RunProgram),
}

/// Arguments of what becomes a program, which the agent gives it.
#[derive(Debug, Args)]
pub struct RunProgram {
    /// The cgroup to join.
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Arguments of the worker, which the agent gives it.
#[derive(Debug, Args)]
pub struct AttestWorker {
    /// The cgroup to join.
    #[arg(long, value_name = "DIR")]
    pub cgroup: PathBuf,
    /// Where a file may be written.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// How much to provoke.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub effort: u32,
}

/// What can be done with configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read the configuration as `run` would, say whether it can be used, and stop.
    Check {
        /// Configuration file, instead of /etc/holdfast/agent.toml.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print the documented default file.
    Default,
    /// Print the documented file of a service, for services.d.
    Service,
    /// Print the JSON schema of a service's file.
    Schema,
    /// Tell what another folder of services' files would mean: which services gain or lose
    /// which actions. Exit code 0 when nothing changes, 2 when something does, 1 when a file
    /// cannot be used.
    Plan {
        /// The folder in use.
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The folder that would be used.
        #[arg(value_name = "NEW")]
        new: PathBuf,
    },
}

/// Arguments of `run`; they win over the configuration file.
#[derive(Debug, Default, Args)]
pub struct Run {
    /// Configuration file, instead of /etc/holdfast/agent.toml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The collector, as http://HOST:PORT; an empty text for none.
    #[arg(long, value_name = "URL")]
    pub collector: Option<String>,
    /// Unix socket of the local API.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Address of the metrics page.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
    /// Folder of what must survive a restart.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Name of this host in the fleet.
    #[arg(long, value_name = "NAME")]
    pub host_name: Option<String>,
    /// Length of a summary window, as 10s.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub summary_interval: Option<Duration>,
    /// Do not load eBPF programs.
    #[arg(long)]
    pub no_ebpf: bool,
    /// Allow --metrics to be an address that other hosts can reach, without TLS.
    #[arg(long)]
    pub insecure_plaintext: bool,
    /// Form of the log lines: text or json.
    #[arg(long, value_name = "FORMAT", default_value_t)]
    pub log_format: logs::Format,
}

impl Run {
    /// Lays the flags over `config`.
    pub fn apply(&self, config: &mut Config) {
        fn set<T: Clone>(value: &mut T, flag: Option<&T>) {
            if let Some(flag) = flag {
                value.clone_from(flag);
            }
        }
        set(&mut config.collector, self.collector.as_ref());
        set(&mut config.socket, self.socket.as_ref());
        set(&mut config.metrics, self.metrics.as_ref());
        set(&mut config.state_dir, self.state_dir.as_ref());
        set(&mut config.host_name, self.host_name.as_ref());
        set(&mut config.summary_interval, self.summary_interval.as_ref());
        config.ebpf.enabled &= !self.no_ebpf;
        config.insecure_plaintext |= self.insecure_plaintext;
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| "a duration is not negative".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_file() {
        let arguments = "holdfast-agent run --collector http://c:1 --metrics 127.0.0.1:0 --no-ebpf \
                         --summary-interval 2s --host-name h --socket /s --state-dir /d";
        let cli = Cli::try_parse_from(arguments.split_ascii_whitespace()).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        let mut config = Config::default();
        run.apply(&mut config);
        assert_eq!((config.collector.as_str(), config.host_name.as_str()), ("http://c:1", "h"));
        assert_eq!((config.ebpf.enabled, config.summary_interval), (false, Duration::from_secs(2)));
        assert_eq!(config.metrics.port(), 0);
        assert!(Cli::try_parse_from(["x", "run", "--summary-interval", "-1s"]).is_err());
    }
}
