//! `cargo xtask JOB`: everything that people and CI do with this repository.
//!
//! One job is one file. This crate must not depend on the agent, the collector
//! or the CLI: it builds in seconds on a bare machine, it can rebuild the eBPF
//! object that the agent embeds, and it sees the programs as a user does, through
//! their command lines.

#![forbid(unsafe_code)]

mod bench;
mod cgroup;
mod ci;
mod debian;
mod demo;
mod docs;
mod ebpf;
mod fixtures;
mod fuzz;
mod healing_test;
mod hosts_test;
mod leash;
mod matrix;
mod package;
mod provoke;
mod shell;
mod soak;
mod stack;
mod stop;
mod test;
mod testhost;
mod tidy;
mod tools;

use std::process::ExitCode;

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
    /// Measure something; `list` shows what
    Bench(bench::Args),
    /// Everything that has to hold before a change is taken
    Ci(ci::Args),
    /// Write the reference pages that the programs print
    Docs(docs::Args),
    /// Build the eBPF object that the agent embeds
    Ebpf(ebpf::Args),
    /// Run Holdfast on this host for a while and show what it sees
    Demo(demo::Args),
    /// Ask the kernels that Debian serves what they look like, for the agent's tests
    Fixtures(fixtures::Args),
    /// Feed what reads foreign bytes with bytes that nobody thought of
    Fuzz(fuzz::Args),
    /// Boot the kernels that Debian serves and see whether every probe works there
    Matrix(matrix::Args),
    /// Install the packages on a host with real systemd and check them there
    HostsTest(hosts_test::Args),
    /// Let the agent heal real units on a host with real systemd, and see what it does
    HealingTest(healing_test::Args),
    /// Build the .deb and .rpm packages
    Package(package::Args),
    /// Run the programs under churn for a long time
    Soak(soak::Args),
    /// Run every test that can run on this machine
    Test(test::Args),
    /// Check the rules of the house that the compiler does not
    Tidy(tidy::Args),
    /// Start a program so that it ends with us
    #[command(hide = true)]
    Leash(leash::Args),
    /// Become the first process of a test host
    #[command(hide = true)]
    HostInit(testhost::init::Args),
    /// Be one of several units that share this machine, until killed
    #[command(hide = true)]
    Neighbour(provoke::neighbour::Args),
    /// Be a service that falls ill while a file is there, until killed
    #[command(hide = true)]
    Patient(provoke::patient::Args),
    /// Be a service that falls ill as a file says
    #[command(hide = true)]
    Victim(provoke::victim::Args),
    /// Load this machine until killed
    #[command(hide = true)]
    Provoke(provoke::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(job: Job) -> anyhow::Result<()> {
    match job {
        Job::Bench(args) => bench::run(&args),
        Job::Ci(args) => ci::run(&args),
        Job::Docs(args) => docs::run(&args),
        Job::Ebpf(args) => ebpf::run(&args),
        Job::Demo(args) => demo::run(&args),
        Job::Soak(args) => soak::run(&args),
        Job::Test(args) => test::run(&args),
        Job::Tidy(args) => tidy::run(&args),
        Job::Fixtures(args) => fixtures::run(&args),
        Job::Fuzz(args) => fuzz::run(&args),
        Job::Matrix(args) => matrix::run(&args),
        Job::HostsTest(args) => hosts_test::run(&args),
        Job::HealingTest(args) => healing_test::run(&args),
        Job::Package(args) => package::run(&args),
        Job::HostInit(args) => testhost::init::run(&args),
        Job::Leash(args) => leash::run(&args),
        Job::Neighbour(args) => provoke::neighbour::run(&args),
        Job::Patient(args) => provoke::patient::run(&args),
        Job::Victim(args) => provoke::victim::run(&args),
        Job::Provoke(args) => provoke::run(&args),
    }
}
