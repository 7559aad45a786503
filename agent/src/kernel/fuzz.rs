//! What is fuzzed: everything here that reads what it did not write itself. Compiled
//! for tests and with the feature `fuzz` only; the targets are in `fuzz/`.
//!
//! Each function takes any bytes, must return, and checks what its reader promises.

use super::btf::Btf;
use super::{events, tracefs};

/// Structures that the seeds have, and paths into them, good and bad.
const WANTED: [&str; 4] = ["task_struct", "request", "kernfs_node", "btf_trace_sched_switch"];
const PATHS: [&str; 6] = [
    "task_struct.se.cfs_rq",
    "task_struct.comm",
    "request.cmd_flags",
    "kernfs_node.id",
    "kernfs_node.id.none",
    "absent.member",
];

/// A description of types.
pub fn types(data: &[u8]) {
    let Ok(btf) = Btf::parse(data.to_vec(), WANTED) else { return };
    for path in PATHS {
        if let Some(place) = btf.member(path) {
            // Offsets are counted in bits, of which there are fewer than 2^32.
            assert!(place.offset <= u32::MAX / 8, "{path}: {place:?}");
        }
    }
    let _ = btf.tracepoint("sched_switch");
    let _ = btf.tracepoint("absent");
}

/// A format file of a tracepoint.
pub fn format(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let fields = tracefs::parse(&text);
    assert!(fields.len() <= tracefs::FIELDS, "{} fields", fields.len());
    for field in fields {
        assert!(field.offset.checked_add(field.bytes).is_some(), "{field:?}");
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(!field.name.is_empty() && field.name.chars().all(is_name), "{field:?}");
    }
}

/// A record of the ring buffer.
pub fn record(data: &[u8]) {
    use super::KernelEvent::{Exit, OomKill};
    if let Some(Exit { command, .. } | OomKill { command, .. }) = events::decode(data) {
        assert!(!command.chars().any(char::is_control), "{command:?}");
        // A byte that is no text becomes a sign of three.
        assert!(command.len() <= 3 * holdfast_agent_ebpf::records::COMMAND_BYTES, "{command:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::btf::trim;
    use super::*;

    /// Most broken copies that are made of one seed.
    const COPIES: usize = 2_000;

    /// Everything kept in the corpus of `target`, whole, cut off, and with wrong bytes.
    fn replay(target: &str, run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut seeds = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let whole = fs::read(entry.unwrap().path()).unwrap();
            seeds += 1;
            run(&whole);
            for end in (0..whole.len()).step_by(whole.len() / COPIES + 1) {
                run(&whole[..end]);
                for wrong in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut broken = whole.clone();
                    broken[end] ^= wrong;
                    broken[whole.len() - 1 - end] = wrong;
                    run(&broken);
                }
            }
        }
        assert!(seeds > 2, "the corpus of {target} has {seeds} seeds");
    }

    #[test]
    fn types_of_the_corpus() {
        replay("types", types);
    }

    #[test]
    fn formats_of_the_corpus() {
        replay("format", format);
    }

    #[test]
    fn records_of_the_corpus() {
        replay("record", record);
    }

    #[test]
    fn a_seed_of_types_can_be_read_and_cut() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/types");
        let data = fs::read(corpus.join("6.18")).unwrap();
        let btf = Btf::parse(data.clone(), WANTED).unwrap();
        assert!(PATHS[..4].iter().all(|path| btf.member(path).is_some()));
        assert!(btf.tracepoint("sched_switch").is_some());
        let wanted = trim::Wanted {
            members: PATHS.to_vec(),
            tracepoints: vec![],
            functions: vec![],
            enums: vec![],
        };
        assert!(trim::trim(data.clone(), &wanted).unwrap().len() < data.len());
    }
}
