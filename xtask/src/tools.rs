//! Tools that cargo can install, pinned, kept in the cache folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// A tool from the package registry.
pub(crate) struct Tool {
    /// Name of the package and of its program.
    pub(crate) name: &'static str,
    /// The version that we know to work.
    pub(crate) version: &'static str,
}

/// Checks licences, sources and bans of the dependency graph.
pub(crate) const CARGO_DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };

impl Tool {
    /// The program's path; installs it if it is not there in its version.
    pub(crate) fn get(&self) -> Result<PathBuf> {
        let tools = shell::cache()?.join("tools");
        let program = tools.join("bin").join(self.name);
        let version = shell::output(Command::new(&program).arg("--version"));
        let is_version = |text: String| text.split_whitespace().any(|word| word == self.version);
        if !version.is_ok_and(is_version) {
            eprintln!("installing {} {} (some minutes, once)", self.name, self.version);
            let package = format!("{}@{}", self.name, self.version);
            let mut install = shell::cargo(["install", "--locked", "--quiet", &package])?;
            // Its build is not one of ours: nothing of it is worth keeping.
            install.arg("--root").arg(&tools).env_remove("CARGO_TARGET_DIR");
            shell::run(&mut install)?;
        }
        Ok(program)
    }
}
