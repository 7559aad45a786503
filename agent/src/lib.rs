//! The agent of Holdfast: one daemon on each host.

#![deny(unsafe_code)]

pub mod backoff;
pub mod blame;
pub mod catalogue;
pub mod cli;
pub mod conditions;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod frame;
pub mod governor;
pub mod healing;
pub mod host;
pub mod kernel;
pub mod local_api;
pub mod losses;
pub mod metrics;
pub mod probes;
pub mod report;
pub mod sampler;
pub mod scorer;
pub mod scorer_file;
pub mod share;
pub mod summary;
pub mod teller;
pub mod units;
pub mod uplink;

/// The definition of the command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    <cli::Cli as clap::CommandFactory>::command()
}
