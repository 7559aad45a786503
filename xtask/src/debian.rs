//! Installing Debian packages: as root it is done, else it is said what to do.

use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::shell;

/// Installs `packages`; `whom` needs them: "the eBPF object needs a compiler".
pub(crate) fn install(whom: &str, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let command = format!("apt-get install --no-install-recommends {list}");
    if shell::find("apt-get").is_none() {
        bail!("{whom}; on Debian: {command}");
    }
    if !Uid::effective().is_root() {
        bail!("{whom}; as root: {command}");
    }
    eprintln!("{whom}: installing {list}");
    let get = |arguments: &[&str]| {
        let mut get = Command::new("apt-get");
        get.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        get
    };
    let options = ["install", "--yes", "--quiet", "--no-install-recommends"];
    let wanted: Vec<&str> = options.iter().chain(packages).copied().collect();
    // A fresh machine has no lists of packages yet.
    if shell::run(&mut get(&wanted)).is_err() {
        shell::run(&mut get(&["update", "--quiet"]))?;
        shell::run(&mut get(&wanted))?;
    }
    Ok(())
}
