//! What every file must have and must not hold.

use super::{Complaint, File};

/// Lines after which a file is too long to be one concept.
const TOO_LONG: usize = 600;
/// Lines after which it begins to smell.
const LONG: usize = 400;

/// No file grows beyond what a reader holds in mind.
pub(super) fn file_length(files: &[File]) -> Vec<Complaint> {
    files
        .iter()
        .filter(|file| file.is_rust())
        .filter_map(|file| match file.text.lines().count() {
            n if n > TOO_LONG => {
                Some(Complaint::at(&file.path, format!("{n} lines; {TOO_LONG} is the limit")))
            }
            n if n > LONG => {
                Some(Complaint::warn(&file.path, format!("{n} lines; above {LONG} is a smell")))
            }
            _ => None,
        })
        .collect()
}

/// Each crate root denies `unsafe`, and what allows it again is in the two places
/// that need it.
pub(super) fn unsafe_is_fenced(files: &[File]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let kernel =
            file.path.starts_with("agent-ebpf/") || file.path.starts_with("agent/src/kernel/");
        let root = file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs");
        let fenced = ["forbid", "deny"]
            .iter()
            .any(|word| file.text.contains(&format!("#![{word}(unsafe_code)]")));
        if root && !fenced && !file.path.starts_with("agent-ebpf/") {
            let text = "a crate root says #![forbid(unsafe_code)]";
            complaints.push(Complaint::at(&file.path, text));
        }
        for (number, line) in file.product_lines() {
            let allows = line.contains("unsafe_code") && !line.contains("#![forbid");
            if allows && !kernel && !line.contains("#![deny") && !is_tool(&file.path) {
                let text = "unsafe belongs to agent-ebpf and agent/src/kernel alone";
                complaints.push(Complaint::at(format!("{}:{number}", file.path), text));
            }
        }
    }
    complaints
}

/// Each Rust file begins by saying what it is for.
pub(super) fn module_comment(files: &[File]) -> Vec<Complaint> {
    files
        .iter()
        .filter(|file| file.is_rust() && !file.text.trim_start().starts_with("//!"))
        .map(|file| Complaint::at(&file.path, "begins without a module comment"))
        .collect()
}

/// No path of a developer's machine gets into what is shipped or read.
pub(super) fn machine_paths(files: &[File]) -> Vec<Complaint> {
    const PATHS: &[&str] = &["/work/", "/root/", "/tmp/", "/home/"];
    find(files, PATHS, |path| format!("`{path}` is a path of some machine"))
}

/// Nothing is left for later in a comment: it is done, or it is an issue.
pub(super) fn unfinished(files: &[File]) -> Vec<Complaint> {
    const MARKS: &[&str] = &["TODO", "FIXME", "XXX:", "HACK:"];
    find(files, MARKS, |mark| format!("`{mark}`: do it, or file it"))
}

/// Lines outside of tests that hold one of `words`.
fn find(files: &[File], words: &[&str], say: impl Fn(&str) -> String) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !file.is_test() && !is_tool(&file.path)) {
        for (number, line) in file.product_lines() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                complaints.push(Complaint::at(format!("{}:{number}", file.path), say(word)));
            }
        }
    }
    complaints
}

/// The changelog is there and has a place for what is not released yet.
pub(super) fn changelog(files: &[File]) -> Vec<Complaint> {
    let heading = |line: &str| line.starts_with("## ") && line.contains("Unreleased");
    match files.iter().find(|file| file.path == "CHANGELOG.md") {
        Some(file) if file.text.lines().any(heading) => Vec::new(),
        Some(file) => vec![Complaint::at(&file.path, "has no section `## [Unreleased]`")],
        None => vec![Complaint::at("CHANGELOG.md", "is missing")],
    }
}

/// The checks themselves spell out what they look for.
fn is_tool(path: &str) -> bool {
    path.starts_with("xtask/src/tidy/") || path == "Cargo.lock"
}

#[cfg(test)]
mod tests {
    use super::super::tests::complaints;
    use super::*;

    #[test]
    fn a_crate_root_must_fence_unsafe() {
        assert_eq!(complaints(unsafe_is_fenced, "cli/src/lib.rs", "//! x\n").len(), 1);
        let fenced = "//! x\n#![forbid(unsafe_code)]\n";
        assert!(complaints(unsafe_is_fenced, "cli/src/lib.rs", fenced).is_empty());
        let reopened = "//! x\n#![expect(unsafe_code, reason = \"r\")]\n";
        assert_eq!(complaints(unsafe_is_fenced, "agent/src/units.rs", reopened).len(), 1);
        assert!(complaints(unsafe_is_fenced, "agent/src/kernel/ring.rs", reopened).is_empty());
    }

    #[test]
    fn machine_paths_are_for_tests_only() {
        let text = "//! x\nconst A: &str = \"/tmp/x\";\n";
        assert_eq!(complaints(machine_paths, "cli/src/a.rs", text).len(), 1);
        assert!(complaints(machine_paths, "tests/tests/a.rs", text).is_empty());
        let in_unit_test = "//! x\n\n#[cfg(test)]\nmod tests {\n    // \"/tmp/x\"\n}\n";
        assert!(complaints(machine_paths, "cli/src/a.rs", in_unit_test).is_empty());
    }

    #[test]
    fn a_changelog_needs_its_open_section() {
        assert!(complaints(changelog, "CHANGELOG.md", "# C\n## [Unreleased]\n").is_empty());
        assert_eq!(complaints(changelog, "CHANGELOG.md", "# C\n## 0.1.0\n").len(), 1);
    }
}
