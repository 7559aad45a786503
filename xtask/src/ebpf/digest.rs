//! What the shipped object was built from, as two digests.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

/// The crate that is not ours and whose code is in the object.
const LIBRARY: &str = "aya-ebpf";

/// Digests of the object and of its sources.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Digest {
    sources: String,
    object: String,
}

impl Digest {
    /// Of what lies in the repository now.
    pub(super) fn of(root: &Path, object: &Path) -> Result<Self> {
        let mut files = vec![root.join("agent-ebpf/Cargo.toml")];
        collect(&root.join("agent-ebpf/src"), &mut files)?;
        files.sort();
        let mut hash = Sha256::new();
        for file in files {
            let content = fs::read(&file).with_context(|| format!("{}", file.display()))?;
            let name = file.strip_prefix(root)?.to_string_lossy().into_owned();
            // Lengths keep two files from looking like one.
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((content.len() as u64).to_le_bytes());
            hash.update(content);
        }
        hash.update(locked_version(&fs::read_to_string(root.join("Cargo.lock"))?)?);
        let object = fs::read(object).with_context(|| format!("{}", object.display()))?;
        Ok(Self { sources: hex(&hash.finalize()), object: hex(&Sha256::digest(object)) })
    }

    /// The digest as it is kept beside the object.
    pub(super) fn text(&self, tools: &str) -> String {
        format!("sources {}\nobject {}\nbuilt with {tools}\n", self.sources, self.object)
    }

    /// What differs from the digest that was kept; `None` when nothing does.
    pub(super) fn difference(&self, kept: &str) -> Option<&'static str> {
        let value = |name| kept.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        if value("sources") != Some(&self.sources) {
            Some("its sources have changed since it was built")
        } else if value("object") != Some(&self.object) {
            Some("it is not the one that was built from them")
        } else {
            None
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn locked_version(lock: &str) -> Result<String> {
    let lock: toml::Table = toml::from_str(lock).context("Cargo.lock is not TOML")?;
    lock.get("package")
        .and_then(|packages| packages.as_array())
        .into_iter()
        .flatten()
        .find(|package| package.get("name").and_then(|name| name.as_str()) == Some(LIBRARY))
        .and_then(|package| Some(package.get("version")?.as_str()?.to_owned()))
        .with_context(|| format!("Cargo.lock has no {LIBRARY}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_sources_and_a_foreign_object_are_told_apart() {
        let digest = |sources: &str, object: &str| Digest {
            sources: sources.to_owned(),
            object: object.to_owned(),
        };
        let kept = digest("aa", "bb").text("tools");
        assert_eq!(digest("aa", "bb").difference(&kept), None);
        assert!(digest("cc", "bb").difference(&kept).unwrap().contains("sources"));
        assert!(digest("aa", "cc").difference(&kept).unwrap().contains("not the one"));
        assert!(digest("aa", "bb").difference("").is_some());
    }

    #[test]
    fn the_locked_version() {
        let lock = "[[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\n";
        assert_eq!(locked_version(lock).unwrap(), "0.2.1");
        assert!(locked_version("").is_err());
    }
}
