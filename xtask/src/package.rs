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

/// Each package's folder and crate.
const PACKAGES: [(&str, &str); 3] =
    [("agent", "holdfast-agent"), ("collector", "holdfast-collector"), ("cli", "holdfast-cli")];
/// The daemons, which print their own example settings.
const DAEMONS: [&str; 2] = ["agent", "collector"];
/// Writes man pages and completions.
const MANUALS: &str = "holdfast-manuals";
/// The tools and the versions of them that the metadata is written for.
const CARGO_DEB: (&str, &str) = ("cargo-deb", "3.8.0");
const CARGO_GENERATE_RPM: (&str, &str) = ("cargo-generate-rpm", "0.21.1");

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
    for package in build(&args.profile, &out)?.iter().chain(&rpms(&args.profile, &out)?) {
        let size = fs::metadata(package).map_or(0, |metadata| metadata.len());
        println!("{} ({} KiB)", package.display(), size / 1024);
    }
    Ok(())
}

/// Builds programs and .debs, and returns the paths of the latter.
pub(crate) fn build(profile: &str, out: &Path) -> Result<Vec<PathBuf>> {
    let cargo_deb = tool(CARGO_DEB)?;
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
    files(out, "deb")
}

/// Needs [`build`] before it.
fn rpms(profile: &str, out: &Path) -> Result<Vec<PathBuf>> {
    let cargo_generate_rpm = tool(CARGO_GENERATE_RPM)?;
    clear(out, "rpm")?;
    for (folder, _) in PACKAGES {
        let mut command = Command::new(&cargo_generate_rpm);
        command.current_dir(shell::root()?);
        command.args(["--package", folder, "--profile", profile, "--target-dir"]);
        command.arg(shell::target_dir()?).arg("--output").arg(out);
        shell::run(&mut command)?;
    }
    files(out, "rpm")
}

/// In one build, so that all programs share the same dependencies.
fn compile(profile: &str) -> Result<()> {
    let packages = PACKAGES.iter().map(|(_, name)| *name).chain([MANUALS]);
    let mut command = shell::cargo(["build", "--locked", "--profile", profile])?;
    command.args(packages.flat_map(|name| ["--package", name]));
    shell::run(&mut command)
}

/// Lets the programs write what the packages hold beside them.
fn generate(profile: &str) -> Result<()> {
    let built = built(profile)?;
    let folder = built.join("packaging");
    shell::run(Command::new(built.join(MANUALS)).arg(&folder))?;
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

/// Where cargo puts what it builds with `profile`.
fn built(profile: &str) -> Result<PathBuf> {
    // The only profile whose folder has another name.
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(shell::target_dir()?.join(folder))
}

/// The path of a tool in exactly the version wanted, installed when it is missing.
fn tool((name, version): (&str, &str)) -> Result<PathBuf> {
    let tools = shell::cache()?.join("tools");
    let path = tools.join("bin").join(name);
    if !is_version(&path, version) {
        let mut command = shell::cargo(["install", "--locked", "--force", "--root"])?;
        shell::run(command.arg(&tools).arg(format!("{name}@{version}")))?;
    }
    Ok(path)
}

fn is_version(tool: &Path, version: &str) -> bool {
    let printed = shell::output(Command::new(tool).arg("--version"));
    printed.is_ok_and(|text| text.split_whitespace().any(|word| word == version))
}

/// Our packages with this ending, in order; what else is in the folder is not ours.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let ours = path.file_name().and_then(|name| name.to_str());
        let ours = ours.is_some_and(|name| name.starts_with("holdfast"));
        if ours && path.extension().is_some_and(|found| found == ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Packages of an earlier version must not be taken for those built now.
fn clear(folder: &Path, ending: &str) -> Result<()> {
    for file in files(folder, ending)? {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}
