//! `cargo xtask soak NAME`: the real programs under churn for a long time. What must
//! stay flat stays flat, or the job fails.

mod churn;
mod scoring;
mod signals;

use anyhow::Result;

use crate::stop::Stop;

/// What to soak.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The agent's signals: short-lived processes and units that come and go (root)
    Signals(signals::Args),
    /// The agent's scoring while nothing is wrong: what it tells is a false alarm (root)
    Scoring(scoring::Args),
}

/// Soaks, prints what was seen, and fails when something was not as it must be.
pub(crate) fn run(args: &Args) -> Result<()> {
    let stop = Stop::listen()?;
    match &args.what {
        What::Signals(args) => signals::run(args, &stop),
        What::Scoring(args) => scoring::run(args, &stop),
    }
}
