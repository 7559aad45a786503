//! The programs under test, as cargo built them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

/// Path of `holdfast-agent`, `holdfast-collector` or `holdfast`.
///
/// `cargo xtask test` has built them and says where (`HOLDFAST_PROGRAMS`); else they
/// are built now, in the profile of this test.
///
/// # Errors
///
/// When they cannot be built.
pub fn path(name: &str) -> Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| find_or_build().map_err(|error| format!("{error:#}")));
    Ok(folder.as_ref().map_err(|error| anyhow!("{error}"))?.join(name))
}

fn find_or_build() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("HOLDFAST_PROGRAMS") {
        return Ok(folder.into());
    }
    // target/PROFILE/deps/TEST
    let test = env::current_exe().context("the test's own path is unknown")?;
    let folder = test.ancestors().nth(2).context("the test is in no build folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target = folder.parent().context("the test is in no build folder")?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace)
        .args(["build", "--quiet", "--bins", "--profile", profile, "--target-dir"])
        .arg(target)
        .args(["-p", "holdfast-agent", "-p", "holdfast-collector", "-p", "holdfast-cli"])
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the programs cannot be built: {status}");
    Ok(folder.to_path_buf())
}
