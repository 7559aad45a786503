//! `holdfast-collector`: arguments, log, signals, exit code.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use holdfast_collector::{
    cli::{Cli, Command, ConfigCommand, Run},
    config::{Config, DEFAULT_FILE},
    daemon::Daemon,
};
use holdfast_core::logs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

/// Usage or bad configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => match run.load() {
            Ok(config) => start(&run, config),
            Err(e) => return bad_configuration(e),
        },
        Command::Config(ConfigCommand::Check(file)) => match file.load() {
            Ok(_) => print("the configuration is good\n"),
            Err(e) => return bad_configuration(e),
        },
        Command::Config(ConfigCommand::Default) => print(DEFAULT_FILE),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => complain(&e, ExitCode::FAILURE),
    }
}

fn bad_configuration(error: impl Into<anyhow::Error>) -> ExitCode {
    complain(&error.into(), ExitCode::from(USAGE))
}

fn complain(error: &anyhow::Error, code: ExitCode) -> ExitCode {
    // Without a standard error there is nobody to tell.
    let _unheard = writeln!(io::stderr(), "holdfast-collector: {error:#}");
    code
}

fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn start(run: &Run, config: Config) -> Result<()> {
    logs::init(run.log_format, "info")?;
    allow_many_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        Daemon::start(config).await?.run(shutdown).await?;
        Ok(())
    })
}

/// Each agent is a connection, and the usual soft limit of 1,024 files is there for
/// programs that use select(2), which this one does not.
fn allow_many_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "cannot raise the limit of open files");
    }
}
