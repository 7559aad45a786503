//! `holdfast-agent`: parses arguments, starts the log and the runtime, gives the exit code.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use holdfast_agent::catalogue::{SIGNALS, Signal};
use holdfast_agent::cli::{AttestWorker, Cli, Command, ConfigCommand, Run, RunProgram};
use holdfast_agent::config::{self, Config};
use holdfast_agent::daemon;
use holdfast_agent::doctor;
use holdfast_agent::healing::{self, program};
use holdfast_agent::host::Root;
use holdfast_agent::kernel::attest::worker;
use holdfast_core::logs;
use holdfast_healer::config::{Found, Service};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Exit code for wrong usage and configuration that cannot be used.
const USAGE: u8 = 2;
/// Exit code of `config plan` when something changes.
const CHANGES: u8 = 2;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(run) => match configure(&run) {
            Ok(config) => start(config),
            Err(error) => return refuse(&error),
        },
        Command::Config(ConfigCommand::Check { config }) => {
            let run = Run { config, ..Run::default() };
            match configure(&run) {
                Ok(config) => return check_services(&config),
                Err(error) => return refuse(&error),
            }
        }
        Command::Config(ConfigCommand::Default) => {
            print!("{}", config::default_file());
            return ExitCode::SUCCESS;
        }
        Command::Config(ConfigCommand::Service) => {
            print!("{}", holdfast_healer::config::EXAMPLE);
            return ExitCode::SUCCESS;
        }
        Command::Config(ConfigCommand::Schema) => {
            println!("{}", holdfast_healer::config::schema());
            return ExitCode::SUCCESS;
        }
        Command::Config(ConfigCommand::Plan { old, new }) => return plan(&old, &new),
        Command::Doctor { config, json } => {
            let run = Run { config, ..Run::default() };
            match configure(&run) {
                Ok(config) => return examine(&config, json),
                Err(error) => return refuse(&error),
            }
        }
        Command::Signals { json } => print_signals(json),
        Command::AttestWorker(AttestWorker { cgroup, state_dir, effort }) => {
            worker::run(&cgroup, &state_dir, effort).context("the worker cannot go on")
        }
        Command::RunProgram(RunProgram { cgroup, command }) => {
            let error = program::become_program(cgroup.as_deref(), &command);
            let name = command.first().map(String::as_str).unwrap_or_default();
            Err(error).with_context(|| format!("cannot run {name}"))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("holdfast-agent: {error:#}");
    ExitCode::from(USAGE)
}

/// Whether the services' files can be used, too.
fn check_services(config: &Config) -> ExitCode {
    let Found { services, mut problems } = healing::read_services(&config.healing.services);
    for (unit, hook) in services.iter().flat_map(Service::hooks) {
        if let Err(problem) = healing::trusted(&config.healing.hooks, hook) {
            problems.push(format!("{unit}: hook:{hook}: {problem}"));
        }
    }
    for problem in &problems {
        eprintln!("holdfast-agent: {problem}");
    }
    if problems.is_empty() {
        println!("the configuration can be used; services that are healed: {}", services.len());
        return ExitCode::SUCCESS;
    }
    ExitCode::from(USAGE)
}

/// Prints what another folder of services would mean.
fn plan(old: &Path, new: &Path) -> ExitCode {
    let (old, new) = (healing::read_services(old), healing::read_services(new));
    let problems: Vec<_> = old.problems.iter().chain(&new.problems).collect();
    if !problems.is_empty() {
        for problem in problems {
            eprintln!("holdfast-agent: {problem}");
        }
        return ExitCode::FAILURE;
    }
    let told = holdfast_healer::plan::differences(&old.services, &new.services);
    for difference in &told {
        println!("{difference}");
    }
    if told.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) }
}

/// Prints the page; the exit code says whether signals are missing.
fn examine(config: &Config, json: bool) -> ExitCode {
    let findings = doctor::examine(&Root::default(), config.ebpf.map_limit.as_u64());
    let page = if json {
        serde_json::to_string_pretty(&findings).unwrap_or_default() + "\n"
    } else {
        doctor::text(&findings)
    };
    print!("{page}");
    if doctor::is_missing(&findings) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print_signals(json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(SIGNALS)?);
        return Ok(());
    }
    for Signal { name, owner, kind, measure, help, .. } in SIGNALS {
        let (owner, kind) = (format!("{owner:?}"), format!("{kind:?}"));
        println!("{name:<30}{owner:<11}{kind:<11}{:<7}{help}", measure.name());
    }
    Ok(())
}

/// The checked configuration, with the flags laid over it and the log started.
fn configure(run: &Run) -> anyhow::Result<Config> {
    logs::init(run.log_format, "info")?;
    let mut config = Config::load(run.config.as_deref())?;
    run.apply(&mut config);
    config.check()?;
    Ok(config)
}

fn start(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
        let (again, reload) = mpsc::channel(1);
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                // One that waits is enough.
                let _ = again.try_send(());
            }
        });
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            stop.cancel();
        });
        daemon::run(config, Root::default(), reload, shutdown).await?;
        Ok(())
    })
}
