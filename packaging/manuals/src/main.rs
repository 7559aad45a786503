//! `holdfast-manuals FOLDER`: man pages and completions of the three programs,
//! from the very definitions that parse their command lines.
//!
//! A program of its own, because it needs all three as libraries and `xtask` must
//! build without them. Writes `man/PROGRAM/*` and `completions/PROGRAM/*` below
//! the folder.

#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

/// Each shell and the name under which its completions are installed.
const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "{}"), (Shell::Zsh, "_{}"), (Shell::Fish, "{}.fish")];

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        bail!("name the folder to write to, and nothing else");
    };
    let folder = PathBuf::from(folder);
    // Section 1 is for everyone's commands, section 8 for daemons.
    let programs = [
        (holdfast_cli::command(), "1"),
        (holdfast_agent::command(), "8"),
        (holdfast_collector::cli::Cli::command(), "8"),
    ];
    for (command, section) in programs {
        let name = command.get_name().to_owned();
        completions(command.clone(), &name, &fresh(&folder.join("completions").join(&name))?)?;
        // `help` explains itself, and would bring a page for each command once more.
        let mut command = command.disable_help_subcommand(true);
        command.build();
        pages(&command, section, &fresh(&folder.join("man").join(&name))?)?;
    }
    Ok(())
}

/// A page for the command and one for each of its subcommands, as `git` has them.
fn pages(command: &Command, section: &str, folder: &Path) -> Result<()> {
    // Set by clap for subcommands: the words of the command joined by dashes.
    let name = command.get_display_name().unwrap_or(command.get_name());
    let path = folder.join(format!("{name}.{section}"));
    let mut text = Vec::new();
    Man::new(command.clone())
        .title(name)
        .section(section)
        .source(concat!("Holdfast ", env!("CARGO_PKG_VERSION")))
        .manual("Holdfast")
        .render(&mut text)?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    command
        .get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set())
        .try_for_each(|subcommand| pages(subcommand, section, folder))
}

fn completions(mut command: Command, name: &str, folder: &Path) -> Result<()> {
    for (shell, file) in SHELLS {
        let path = folder.join(file.replace("{}", name));
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, name, &mut text);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// An empty folder, so that no page outlives its command.
fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder.to_owned())
}
