//! `holdfast completion SHELL`: the script that completes this command's arguments.

use crate::{cli, error::Error, output::Output};

pub(crate) fn run(output: &mut Output, options: &cli::Completion) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut crate::command(), "holdfast", &mut script);
    output.write(&String::from_utf8_lossy(&script))
}
