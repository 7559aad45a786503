//! Who may import whom: the arrows of ARCHITECTURE.md.

use super::{Complaint, File};

/// Each crate's folder and the crates of ours that it may depend on.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("proto", &[]),
    ("scorer", &["holdfast-core"]),
    ("healer", &["holdfast-core"]),
    ("agent-ebpf", &[]),
    (
        "agent",
        &[
            "holdfast-core",
            "holdfast-proto",
            "holdfast-agent-ebpf",
            "holdfast-scorer",
            "holdfast-healer",
        ],
    ),
    ("collector", &["holdfast-core", "holdfast-proto"]),
    ("cli", &["holdfast-core", "holdfast-proto", "holdfast-scorer", "holdfast-healer"]),
    ("packaging/manuals", &["holdfast-agent", "holdfast-collector", "holdfast-cli"]),
    ("xtask", &["holdfast-core"]),
    ("fuzz", &["holdfast-agent", "holdfast-healer"]),
    (
        "tests",
        &[
            "holdfast-core",
            "holdfast-proto",
            "holdfast-agent-ebpf",
            "holdfast-agent",
            "holdfast-collector",
            "holdfast-cli",
        ],
    ),
];

/// Files and folders that decide but never touch the world.
const PURE: &[&str] = &[
    "agent/src/blame/",
    "agent/src/catalogue.rs",
    "agent/src/frame.rs",
    "agent/src/governor/",
    "agent/src/scorer/",
    "agent-ebpf/src/lib.rs",
    "proto/src/histogram.rs",
    "proto/src/limits.rs",
    "scorer/src/",
    "healer/src/",
];

/// What touches the world. The clocks of `core` are among it: a pure part takes
/// `now` as an argument.
const WORLD: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "BootTime::now",
    "unix_ms(",
    "nix::",
];

/// The dependencies of each crate keep to [`MAY_IMPORT`].
pub(super) fn crates(files: &[File]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in files {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { continue };
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == folder) else {
            let text = "a new crate needs a row in xtask/src/tidy/arrows.rs";
            complaints.push(Complaint::at(&file.path, text));
            continue;
        };
        for name in ours_in(&file.text) {
            if !allowed.contains(&name.as_str()) {
                let text = format!("{folder} may not depend on {name}");
                complaints.push(Complaint::at(&file.path, text));
            }
        }
    }
    complaints
}

/// Names of our crates in any dependency table of a manifest.
fn ours_in(manifest: &str) -> Vec<String> {
    let Ok(manifest) = manifest.parse::<toml::Table>() else { return Vec::new() };
    let mut names = Vec::new();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let table = manifest.get(kind).and_then(toml::Value::as_table);
        let ours = |name: &&String| name.starts_with("holdfast-");
        names.extend(table.into_iter().flat_map(toml::Table::keys).filter(ours).cloned());
    }
    names
}

/// The files of [`PURE`] exist and name nothing of [`WORLD`].
pub(super) fn pure_modules(files: &[File]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for pure in PURE {
        let mut found = false;
        for file in files.iter().filter(|file| file.path.starts_with(pure)) {
            found = true;
            for (number, line) in code_lines(file) {
                if let Some(word) = WORLD.iter().find(|word| line.contains(**word)) {
                    let text = format!("a pure module may not name `{word}`");
                    complaints.push(Complaint::at(format!("{}:{number}", file.path), text));
                }
            }
        }
        // A list that names what has gone protects nothing.
        if !found && files.len() > 1 {
            let text = "listed as pure in xtask/src/tidy/arrows.rs, but not there";
            complaints.push(Complaint::at(*pure, text));
        }
    }
    complaints
}

/// In the agent, only `kernel` knows which BPF library we use.
pub(super) fn aya_in_one_place(files: &[File]) -> Vec<Complaint> {
    let outside = |file: &&File| {
        file.is_rust()
            && file.path.starts_with("agent/src/")
            && !file.path.starts_with("agent/src/kernel/")
    };
    let mut complaints = Vec::new();
    for file in files.iter().filter(outside) {
        for (number, line) in code_lines(file) {
            if line.contains("aya::") || line.trim_start().starts_with("use aya") {
                let text = "only agent/src/kernel imports aya";
                complaints.push(Complaint::at(format!("{}:{number}", file.path), text));
            }
        }
    }
    complaints
}

/// Product lines that are no comment.
fn code_lines(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.product_lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::complaints;
    use super::*;

    #[test]
    fn a_forbidden_arrow_is_named() {
        let manifest = "[dependencies]\nholdfast-collector.workspace = true\nserde = \"1\"\n";
        assert_eq!(
            complaints(crates, "agent/Cargo.toml", manifest),
            ["agent/Cargo.toml: agent may not depend on holdfast-collector"]
        );
        assert!(complaints(crates, "tests/Cargo.toml", manifest).is_empty());
    }

    #[test]
    fn pure_code_may_speak_of_the_world_in_comments_and_tests_only() {
        let check = |text| complaints(pure_modules, "agent/src/frame.rs", text).len();
        assert_eq!(check("use std::fs;\n"), 1);
        assert_eq!(check("//! no std::fs here\n\n#[cfg(test)]\nmod tests { use std::fs; }\n"), 0);
    }

    #[test]
    fn aya_is_seen_outside_its_folder() {
        let text = "use aya::Ebpf;\n";
        assert_eq!(complaints(aya_in_one_place, "agent/src/probes/block.rs", text).len(), 1);
        assert!(complaints(aya_in_one_place, "agent/src/kernel/load.rs", text).is_empty());
    }
}
