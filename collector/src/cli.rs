//! The command line of `holdfast-collector`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use holdfast_core::{config as files, logs};

use crate::config::{self, Config, DEFAULT_PATH};

/// Takes what agents report about their hosts, keeps it, and answers operators.
///
/// Exit codes: 0 fine, 1 error, 2 usage or bad configuration.
#[derive(Debug, Parser)]
#[command(name = "holdfast-collector", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the collector until SIGTERM or SIGINT.
    Run(Run),
    /// Check or show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration and exit.
    Check(File),
    /// Print the documented default configuration.
    Default,
}

/// Which configuration file.
#[derive(Debug, Default, Args)]
pub struct File {
    /// Configuration file; by default /etc/holdfast/collector.toml if it exists.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Settings over those of the configuration file.
#[derive(Debug, Default, Args)]
pub struct Run {
    /// Which configuration file.
    #[command(flatten)]
    pub file: File,
    /// Address for agents and operators' tools.
    #[arg(long, value_name = "ADDR")]
    pub grpc: Option<SocketAddr>,
    /// Address for health and metrics.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Folder of the store.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Listen on addresses that other hosts can reach, without TLS: anyone who can
    /// reach them can read everything and report anything.
    #[arg(long)]
    pub insecure_plaintext: bool,
    /// Form of the log on standard error: text or json. HOLDFAST_LOG filters it.
    #[arg(long, value_name = "FORMAT", default_value_t)]
    pub log_format: logs::Format,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is at fault.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// A setting is at fault.
    #[error("bad configuration")]
    Setting(#[from] config::Error),
}

impl File {
    /// The settings of the file, checked.
    ///
    /// # Errors
    ///
    /// The file or a setting is at fault.
    pub fn load(&self) -> Result<Config, Error> {
        let config = self.read()?;
        config.check()?;
        Ok(config)
    }

    fn read(&self) -> Result<Config, files::Error> {
        files::load(self.config.as_deref(), DEFAULT_PATH.as_ref())
    }
}

impl Run {
    /// The settings of file and flags, checked.
    ///
    /// # Errors
    ///
    /// The file or a setting is at fault.
    pub fn load(&self) -> Result<Config, Error> {
        let mut config = self.file.read()?;
        config.grpc = self.grpc.unwrap_or(config.grpc);
        config.http = self.http.unwrap_or(config.http);
        config.insecure_plaintext |= self.insecure_plaintext;
        if let Some(state_dir) = &self.state_dir {
            config.state_dir.clone_from(state_dir);
        }
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        Cli::command().debug_assert();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, "http = '127.0.0.1:1'\ngrpc = '10.0.0.1:1'").unwrap();
        let line = |more: &[&str]| {
            let start = ["holdfast-collector", "run", "--config", path.to_str().unwrap()];
            let cli = Cli::try_parse_from(start.iter().chain(more)).unwrap();
            let Command::Run(run) = cli.command else { unreachable!() };
            run.load()
        };
        assert!(matches!(line(&[]), Err(Error::Setting(_))));
        let config = line(&["--grpc", "127.0.0.1:0", "--state-dir", "/x"]).unwrap();
        assert_eq!((config.grpc.port(), config.http.port()), (0, 1));
        assert_eq!(config.state_dir, PathBuf::from("/x"));
        assert!(line(&["--insecure-plaintext"]).is_ok());
    }
}
