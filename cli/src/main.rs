//! The `holdfast` command: everything is in the library, so that it can be tested.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_cli::main(std::env::args_os())
}
