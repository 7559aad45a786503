//! `cargo xtask package`: the .deb and .rpm of agent, collector and command.
//!
//! Builds the programs, lets them print their example settings, man pages and
//! completions, and hands all of it to cargo-deb and cargo-generate-rpm. What goes
//! where is said in `[package.metadata.deb]` and `[package.metadata.generate-rpm]`
//! of each crate; unit files and maintainer scripts are in `packaging/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;
use crate::tools::Tool;

/// Each package's folder and crate.
const PACKAGES: [(&str, &str); 3] =
    [("agent", "holdfast-agent"), ("collector", "holdfast-collector"), ("cli", "holdfast-cli")];
/// The daemons, which print their own example settings.
const DAEMONS: [&str; 2] = ["agent", "collector"];
/// Writes man pages and completions.
const MANUALS: &str = "holdfast-manuals";
/// Reads `[package.metadata.deb]`.
const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0" };
/// Reads `[package.metadata.generate-rpm]`.
const CARGO_GENERATE_RPM: Tool = Tool { name: "cargo-generate-rpm", version: "0.21.1" };

/// What to build the packages from, and where to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build profile; `release` is quicker to build, for tests of the packages
    #[arg(long, default_value = "dist")]
    profile: String,
    /// Folder for the packages [default: packages/ in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Builds all packages and prints their paths.
pub(crate) fn run(args: &Args) -> Result<()> {
    let out = match &args.out {
        Some(out) => std::path::absolute(out).context("the folder for the packages")?,
        None => shell::target_dir()?.join("packages"),
    };
    for package in debs(&args.profile, &out)?.iter().chain(&rpms(&args.profile, &out)?) {
        let size = fs::metadata(package).map_or(0, |metadata| metadata.len());
        println!("{} ({} KiB)", package.display(), size / 1024);
    }
    Ok(())
}

/// Builds the programs and packs them into a .deb each; returns their paths.
pub(crate) fn debs(profile: &str, out: &Path) -> Result<Vec<PathBuf>> {
    let cargo_deb = CARGO_DEB.get()?;
    compile(profile)?;
    generate(profile)?;
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    clear(out, "deb")?;
    for (_, name) in PACKAGES {
        let mut command = Command::new(&cargo_deb);
        command.current_dir(shell::root()?);
        command.args([
            "--no-build",
            "--strip",
            "--package",
            name,
            "--profile",
            profile,
            "--output",
        ]);
        shell::run(command.arg(out))?;
    }
    packages(out, "deb")
}

/// Packs the programs that [`debs`] built into an .rpm each; returns their paths.
fn rpms(profile: &str, out: &Path) -> Result<Vec<PathBuf>> {
    let cargo_generate_rpm = CARGO_GENERATE_RPM.get()?;
    clear(out, "rpm")?;
    for (folder, _) in PACKAGES {
        let mut command = Command::new(&cargo_generate_rpm);
        command.current_dir(shell::root()?);
        command.args(["--package", folder, "--profile", profile, "--target-dir"]);
        command.arg(shell::target_dir()?).arg("--output").arg(out);
        shell::run(&mut command)?;
    }
    packages(out, "rpm")
}

/// In one build, so that all programs share the same dependencies.
fn compile(profile: &str) -> Result<()> {
    let crates = PACKAGES.iter().map(|(_, name)| *name).chain([MANUALS]);
    let mut command = shell::cargo(["build", "--locked", "--profile", profile])?;
    command.args(crates.flat_map(|name| ["--package", name]));
    shell::run(&mut command)
}

/// Lets the programs write what the packages hold beside them.
fn generate(profile: &str) -> Result<()> {
    let built = shell::target_dir()?.join(profile);
    let folder = built.join("packaging");
    shell::run(Command::new(built.join(MANUALS)).arg(&folder))?;
    compress_pages(&folder.join("man"))?;
    let settings = folder.join("etc");
    fs::create_dir_all(&settings)
        .with_context(|| format!("cannot create {}", settings.display()))?;
    for daemon in DAEMONS {
        let program = built.join(format!("holdfast-{daemon}"));
        let text = shell::output(Command::new(program).args(["config", "default"]))?;
        let path = settings.join(format!("{daemon}.toml"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// As Debian wants them, without the time, so that equal pages give equal files.
fn compress_pages(folder: &Path) -> Result<()> {
    for program in entries(folder)? {
        shell::output(Command::new("gzip").arg("-9n").args(entries(&program)?))?;
    }
    Ok(())
}

/// Our packages with this ending, in order; what else is in the folder is not ours.
fn packages(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = entries(folder)?;
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("holdfast") && path.extension().is_some_and(|found| found == ending)
    });
    Ok(found)
}

/// Packages of an earlier version must not be taken for those built now.
fn clear(folder: &Path, ending: &str) -> Result<()> {
    for file in packages(folder, ending)? {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

/// What is in a folder, in order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        paths.push(entry.with_context(unreadable)?.path());
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_packages_are_cleared() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["holdfast_0.0.9-1_amd64.deb", "holdfast-agent-0.0.9-1.x86_64.rpm", "other.deb"]
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        clear(folder.path(), "deb").unwrap();
        let left = entries(folder.path()).unwrap();
        let names: Vec<_> = left.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["holdfast-agent-0.0.9-1.x86_64.rpm", "other.deb"]);
    }
}
