//! `cargo xtask tidy`: the rules of the house that a compiler does not check.
//!
//! The checks read text only, so they run in milliseconds and as an ordinary
//! test. A check is a function from the tree to complaints, and a row of
//! [`CHECKS`].

mod arrows;
mod text;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{ebpf, shell};

/// Nothing to choose.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// A file of the repository.
pub(crate) struct File {
    /// Path from the repository's root, with slashes.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Tests may name paths and break other rules that only products keep.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/")
    }

    /// Lines with their numbers, up to the unit tests at the file's foot.
    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_rust() { self.text.find("#[cfg(test)]\nmod tests") } else { None };
        let product = self.text.get(..end.unwrap_or(self.text.len())).unwrap_or_default();
        product.lines().enumerate().map(|(i, line)| (i + 1, line))
    }
}

/// What a check found.
pub(crate) struct Complaint {
    /// `path` or `path:line`.
    place: String,
    text: String,
    /// Shown, but does not fail.
    warning: bool,
}

impl Complaint {
    fn at(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: place.into(), text: text.into(), warning: false }
    }

    fn warn(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { warning: true, ..Self::at(place, text) }
    }
}

type Check = fn(&[File]) -> Vec<Complaint>;

const CHECKS: &[Check] = &[
    arrows::crates,
    arrows::pure_modules,
    arrows::aya_in_one_place,
    text::file_length,
    text::unsafe_is_fenced,
    text::module_comment,
    text::machine_paths,
    text::unfinished,
    text::changelog,
];

/// Checks the repository, prints what is wrong, and fails if anything is.
pub(crate) fn run(_: &Args) -> Result<()> {
    let files = read_tree(&shell::root()?)?;
    let mut wrong = 0;
    for complaint in CHECKS.iter().flat_map(|check| check(&files)) {
        let kind = if complaint.warning { "warning" } else { "error" };
        eprintln!("{kind}: {}: {}", complaint.place, complaint.text);
        wrong += usize::from(!complaint.warning);
    }
    if wrong > 0 {
        bail!("{wrong} rules of the house are broken (CONTRIBUTING.md explains them)");
    }
    ebpf::check()?;
    eprintln!("{} files are tidy", files.len());
    Ok(())
}

/// Every text file, sorted by path. What is built, fetched or hidden is left out.
fn read_tree(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    read_folder(root, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_folder(root: &Path, relative: &str, files: &mut Vec<File>) -> Result<()> {
    let folder = root.join(relative);
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | ".work") {
                read_folder(root, &path, files)?;
            }
        } else if kind.is_file() && name != ".git" {
            // Objects and pictures are not text: nothing here judges them.
            if let Ok(text) = fs::read_to_string(entry.path()) {
                files.push(File { path, text });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the checks say of one file, each as `place: text`.
    pub(super) fn complaints(check: Check, path: &str, text: &str) -> Vec<String> {
        check(&[File { path: path.into(), text: text.into() }])
            .into_iter()
            .map(|c| format!("{}: {}", c.place, c.text))
            .collect()
    }

    #[test]
    fn this_tree_is_tidy() {
        run(&Args {}).unwrap();
    }
}
