//! `holdfast`, the command for people and their scripts.
//!
//! Asks the collector about the fleet and the agent about this host, and shows
//! the answer as a table or as JSON. One file is one noun (`hosts`, `units`, …):
//! it holds the request, the record that `--json` prints, and the table. Wire
//! types end in those files. Nothing here knows how agent or collector work.

#![forbid(unsafe_code)]

mod attest;
mod blame;
mod calibration;
mod catalogue;
mod cli;
mod completion;
mod connection;
mod doctor;
mod episodes;
mod error;
mod events;
mod exit_codes;
mod healing;
mod host;
mod hosts;
mod measure;
mod output;
mod probes;
mod replay;
mod rows;
mod score;
mod series;
mod signals;
mod sparkline;
mod status;
mod table;
mod text;
mod top;
mod units;
mod value;
mod version;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser as _};

use crate::{
    cli::{Cli, Command, Global, Local},
    connection::{Agent, Collector},
    error::Error,
    output::Output,
};

/// The whole command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command with `arguments` (the first is the program's name), prints
/// to standard output and error, and returns the exit code (`holdfast help exit-codes`).
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(stop) => {
            // Help and version come this way too, with code 0. There is nobody
            // left to tell when standard error is gone.
            let _ = stop.print();
            return ExitCode::from(u8::try_from(stop.exit_code()).unwrap_or(error::USAGE));
        }
    };
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Result<(), Error> {
    let Cli { global, command } = cli;
    let mut output = Output::standard(global.json, global.no_color);
    match command {
        Command::Local(Local::Probes(options)) => {
            probes::run(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Attest(options)) => {
            attest::run(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Status) => status::run(&mut agent(&global).await?, &mut output).await,
        Command::Blame(options) => {
            blame::run(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Episodes => episodes::list(&mut agent(&global).await?, &mut output).await,
        Command::Explain(options) => {
            episodes::explain(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Calibration) => {
            calibration::show(&mut agent(&global).await?, &mut output).await
        }
        Command::Local(Local::Feedback(options)) => {
            calibration::judge(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Note(options)) => {
            calibration::note(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Doctor) => doctor::run(&mut agent(&global).await?, &mut output).await,
        Command::Completion(options) => completion::run(&mut output, &options),
        Command::Version => version::run(&mut output),
        Command::ExitCodes => exit_codes::run(&mut output),
        Command::Local(Local::Services) => {
            healing::list(&mut agent(&global).await?, &mut output).await
        }
        Command::Local(Local::Silence(options)) => {
            healing::silence(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Pause(options)) => {
            healing::pause(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Resume(options)) => {
            healing::resume(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Run(options)) => {
            healing::run(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Clear(options)) => {
            healing::clear(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Local(Local::Confirm(options)) => {
            healing::confirm(&mut agent(&global).await?, &mut output, &options).await
        }
        Command::Replay(options) => replay::run(&mut output, &options),
        Command::Score(options) => score::run(&mut output, &options),
        Command::Hosts => hosts::run(&mut collector(&global).await?, &mut output).await,
        Command::Host(options) => {
            host::run(&mut collector(&global).await?, &mut output, &options).await
        }
        Command::Units(options) => {
            units::run(&mut collector(&global).await?, &mut output, &options).await
        }
        Command::Signals => signals::run(&mut collector(&global).await?, &mut output).await,
        Command::Series(options) => {
            series::run(&mut collector(&global).await?, &mut output, &options).await
        }
        Command::Events(options) => {
            events::run(&mut collector(&global).await?, &mut output, &options).await
        }
        Command::Top(options) => {
            top::check(&output, &options)?;
            top::run(collector(&global).await?, &mut output, &options).await
        }
    }
}

async fn collector(global: &Global) -> Result<Collector, Error> {
    Collector::connect(&global.collector, global.timeout).await
}

async fn agent(global: &Global) -> Result<Agent, Error> {
    Agent::connect(&global.socket, global.timeout).await
}
