//! `cargo xtask JOB`: everything that people and CI do with this repository.
//!
//! One job is one file. This crate must not depend on the agent, the collector
//! or the CLI: it builds in seconds on a bare machine, it can rebuild the eBPF
//! object that the agent embeds, and it sees the programs as a user does, through
//! their command lines.

#![forbid(unsafe_code)]

mod shell;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The jobs of this repository")]
struct Cli {
    #[command(subcommand)]
    job: Job,
}

/// Each variant is a file of the same name with its `Args` and its `run`.
#[derive(Subcommand)]
enum Job {
    /// Check the rules of the house that the compiler does not
    Tidy(tidy::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().job {
        Job::Tidy(args) => tidy::run(&args),
    }
}
