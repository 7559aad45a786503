//! The files that all test hosts share read-only: a minimal Debian with systemd.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// What is installed beside the minimum.
const PACKAGES: &str = "systemd,systemd-sysv,libpam-systemd,dbus,polkitd,iproute2,strace";
/// Grows when the recipe changes, so that old bases are not used.
const VERSION: u32 = 3;

/// The base's folder in the cache; made on first use, which takes a minute or two.
pub(crate) fn base() -> Result<PathBuf> {
    let suite = suite()?;
    let cache = shell::cache()?.join("testhost");
    let base = cache.join(format!("{suite}-{VERSION}"));
    if base.is_dir() {
        return Ok(base);
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let fresh = tempfile::tempdir_in(&cache).context("no folder for the base")?;
    let root = fresh.path().join("root");
    eprintln!("making the base of the test hosts (once)");
    let mut debootstrap = Command::new(shell::find("debootstrap").context("no debootstrap")?);
    debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), &suite]);
    // Keeps the log out of the way unless something goes wrong.
    shell::output(debootstrap.arg(&root).arg(mirror(&suite)?))?;
    // Only a whole base gets the name.
    fs::rename(&root, &base).with_context(|| format!("cannot name {}", base.display()))?;
    Ok(base)
}

/// This machine's own release: what is built here needs its libraries.
fn suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release cannot be read")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned())
        .context("this is no Debian release with a code name: test hosts are not known here")
}

/// Where this machine itself gets packages from.
fn mirror(suite: &str) -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]);
    let text = shell::output(apt.arg(format!("Codename: {suite}")))?;
    text.lines()
        .next()
        .map(str::to_owned)
        .with_context(|| format!("apt knows no source of {suite}"))
}
