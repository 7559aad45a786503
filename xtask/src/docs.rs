//! `cargo xtask docs`: reference pages that the programs themselves print.
//!
//! Nothing here knows a signal or an option: the programs are built and asked, so
//! the pages say what is really there. `--check` fails when a page is stale.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::shell;
use crate::stack::Programs;

/// Where the pages are, from the repository's root.
const FOLDER: &str = "docs/generated";

/// Whether to write.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when a page is not what it would be
    #[arg(long)]
    pub(crate) check: bool,
}

/// Writes or checks all pages.
pub(crate) fn run(args: &Args) -> Result<()> {
    let programs = Programs::build("dev")?;
    let folder = shell::root()?.join(FOLDER);
    let mut stale = Vec::new();
    for (name, text) in pages(&programs)? {
        let path = folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        stale.push(format!("{FOLDER}/{name}"));
        if !args.check {
            fs::create_dir_all(&folder)?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    match (stale.is_empty(), args.check) {
        (true, _) => eprintln!("{FOLDER} is current"),
        (false, false) => eprintln!("written: {}", stale.join(", ")),
        (false, true) => bail!("{} is stale: run `cargo xtask docs`", stale.join(", ")),
    }
    Ok(())
}

fn pages(programs: &Programs) -> Result<Vec<(&'static str, String)>> {
    let default = |program: &Path| print(program, &["config", "default"]);
    Ok(vec![
        ("signals.md", signals(&print(&programs.agent, &["signals", "--json"])?)?),
        ("commands.md", commands(&[&programs.cli, &programs.agent, &programs.collector])?),
        ("config-agent.toml", default(&programs.agent)?),
        ("config-collector.toml", default(&programs.collector)?),
    ])
}

/// What a program prints, whatever this terminal and this environment are like.
fn print(program: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("COLUMNS", "100").env("NO_COLOR", "1");
    shell::output(&mut command)
}

/// A row of the catalogue.
#[derive(Deserialize)]
struct Signal {
    name: String,
    kind: String,
    measure: String,
    owner: String,
    probe: String,
    help: String,
    scoring: String,
}

fn signals(json: &str) -> Result<String> {
    let signals: Vec<Signal> = serde_json::from_str(json).context("the catalogue is no JSON")?;
    let mut text = String::from(
        "# Signals\n\n\
         Every signal of the agent, as `holdfast-agent signals` prints them. A counter only\n\
         grows and is shown as its rate per second; a gauge is shown as read; a histogram is\n\
         a distribution, of which percentiles are shown. What is scored is compared with its\n\
         own past; context is shown and never judged; a rule tells each one as an event or a\n\
         condition. `cargo xtask docs` writes this page.\n",
    );
    for (owner, title) in [
        ("host", "Of the host"),
        ("unit", "Of a systemd unit"),
        ("device", "Of a block device"),
        ("interface", "Of a network interface"),
        ("label", "Of a named class, such as the reason of a drop"),
    ] {
        write!(text, "\n## {title}\n\n| signal | kind | measure | probe | scoring | meaning |\n")?;
        text += "|---|---|---|---|---|---|\n";
        for signal in signals.iter().filter(|signal| signal.owner == owner) {
            let Signal { name, kind, measure, probe, help, scoring, .. } = signal;
            let help = help.replace('|', "\\|");
            writeln!(text, "| `{name}` | {kind} | {measure} | {probe} | {scoring} | {help} |")?;
        }
    }
    Ok(text)
}

fn commands(programs: &[&Path]) -> Result<String> {
    let mut text = String::from(
        "# Commands\n\n\
         The help texts of all programs. `cargo xtask docs` writes this page.\n",
    );
    for program in programs {
        command(program, &mut Vec::new(), &mut text)?;
    }
    Ok(text)
}

/// The help of a command, then of those below it.
fn command(program: &Path, below: &mut Vec<String>, text: &mut String) -> Result<()> {
    let mut arguments: Vec<&str> = below.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = print(program, &arguments)?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let title = std::iter::once(name.as_ref()).chain(below.iter().map(String::as_str));
    let title = title.collect::<Vec<_>>().join(" ");
    let level = "#".repeat(below.len() + 2);
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    write!(text, "\n{level} `{title}`\n\n```text\n{}\n```\n", help.join("\n").trim())?;
    for sub in subcommands(&help) {
        below.push(sub);
        command(program, below, text)?;
        below.pop();
    }
    Ok(())
}

/// Names in the `Commands:` section of a help text.
fn subcommands(help: &[&str]) -> Vec<String> {
    help.iter()
        .skip_while(|line| **line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // A description that is too long goes on in a deeper column.
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subcommands_are_found() {
        let help = "Usage: x\n\nCommands:\n  run     Runs\n          for long\n  config  Says\n  \
                    help    Print\n\nOptions:\n  -h\n";
        let lines: Vec<&str> = help.lines().collect();
        assert_eq!(subcommands(&lines), ["run", "config"]);
    }

    #[test]
    fn signals_are_sorted_by_owner() {
        let json = r#"[{"name":"a.b","kind":"gauge","measure":"ns","owner":"unit",
                        "probe":"p","help":"x | y","scoring":"scored"}]"#;
        let text = signals(json).unwrap();
        let row = text.lines().skip_while(|line| *line != "## Of a systemd unit").nth(4);
        assert_eq!(row, Some("| `a.b` | gauge | ns | p | scored | x \\| y |"));
    }
}
