//! What other kernels would do with our programs, from what they say of themselves.
//!
//! `agent/tests/fixtures/kernels/` holds, for each kernel, a tree with its BTF and its
//! tracepoint formats, cut down to what the programs use, and `layout.txt`: what the
//! agent makes of them, reviewed by people. `cargo xtask fixtures` writes both.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast_agent_ebpf::fields::FIELDS;
use holdfast_agent_ebpf::offsets::MEMBERS;

use super::btf::Argument;
use super::btf::trim::{Wanted, trim};
use super::layout::{FUNCTIONS, Layout};
use super::programs::{CHOICES, Kind, is_classic};
use crate::host::Root;

/// Set by `cargo xtask fixtures`: a folder with what whole kernels say, from which the
/// fixtures are cut and their layouts written anew.
const SOURCES: &str = "HOLDFAST_KERNEL_SOURCES";
/// Set to write the layouts anew from the fixtures as they are.
const BLESS: &str = "HOLDFAST_BLESS";

const TYPES: &str = "sys/kernel/btf/vmlinux";
const EVENTS: &str = "sys/kernel/tracing/events";
const LAYOUT: &str = "layout.txt";
/// Name and version of a kernel, in a fixture and beside the tree it was cut from.
const RELEASE: &str = "release";

/// Enumerations whose values programs or probes name.
const ENUMS: &[&str] = &["req_op", "skb_drop_reason", "sk_rst_reason"];

/// Fewest fixtures: that none is lost unnoticed.
const KERNELS: usize = 3;
/// Most bytes of one fixture: they are cut, not copied.
const BYTES: usize = 96 << 10;

#[test]
fn every_kernel_is_understood_as_reviewed() {
    if let Some(sources) = std::env::var_os(SOURCES) {
        for source in folders(Path::new(&sources)) {
            cut(&source);
        }
    }
    let bless = std::env::var_os(BLESS).is_some() || std::env::var_os(SOURCES).is_some();
    let fixtures = folders(&home());
    assert!(fixtures.len() >= KERNELS, "only {} fixtures", fixtures.len());
    for fixture in fixtures {
        let now = describe(&fixture);
        if bless {
            fs::write(fixture.join(LAYOUT), &now).unwrap();
        }
        let reviewed = fs::read_to_string(fixture.join(LAYOUT)).unwrap_or_default();
        let differ = now.lines().zip(reviewed.lines()).find(|(now, reviewed)| now != reviewed);
        assert!(
            now == reviewed,
            "{} is not as reviewed, first at {differ:?}: if that is right, set {BLESS}=1 and run this \
             test once more; after a new row of a table, run `cargo xtask fixtures`",
            fixture.join(LAYOUT).display(),
        );
        let size = fs::metadata(fixture.join(TYPES)).unwrap().len() as usize;
        assert!(size < BYTES, "{} has {size} bytes of types", fixture.display());
    }
}

#[test]
fn every_kernel_runs_some_form_of_every_program() {
    for fixture in folders(&home()) {
        let layout = layout(&fixture);
        for forms in CHOICES {
            let lacking: Vec<_> = forms.iter().filter_map(|form| refusal(form, &layout)).collect();
            assert!(lacking.len() < forms.len(), "{}: {lacking:?}", fixture.display());
        }
    }
}

#[test]
fn a_fixture_cut_again_stays_the_same() {
    for fixture in folders(&home()) {
        let types = fs::read(fixture.join(TYPES)).unwrap();
        let again = trim(types.clone(), &wanted()).unwrap();
        assert_eq!(again, types, "{}", fixture.display());
    }
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kernels")
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).unwrap_or_else(|e| panic!("{}: {e}", parent.display()));
    let mut folders: Vec<_> = entries.map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

fn hooks() -> BTreeSet<&'static str> {
    let programs = CHOICES.iter().flat_map(|forms| forms.iter()).flat_map(|form| form.programs);
    // What the agent runs by itself hangs on nothing.
    let hangs = |kind| !matches!(kind, Kind::Iterator | Kind::Function);
    programs.filter(|program| hangs(program.kind)).map(|program| program.hook).collect()
}

/// Events that classic forms hang on or read.
fn events() -> BTreeSet<&'static str> {
    hooks()
        .into_iter()
        .filter(|hook| is_classic(hook))
        .chain(FIELDS.iter().map(|f| f.event))
        .collect()
}

fn wanted() -> Wanted<'static> {
    Wanted {
        members: MEMBERS.iter().map(|member| member.path).collect(),
        tracepoints: hooks().into_iter().filter(|hook| !is_classic(hook)).collect(),
        functions: std::iter::once("bpf_iter_task").chain(FUNCTIONS).collect(),
        enums: ENUMS.to_vec(),
    }
}

/// Makes the fixture of the kernel whose files are in `source`.
fn cut(source: &Path) {
    let fixture = home().join(source.file_name().unwrap());
    let put = |relative: &str, bytes: &[u8]| {
        let path = fixture.join(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put(TYPES, &trim(fs::read(source.join(TYPES)).unwrap(), &wanted()).unwrap());
    put(RELEASE, &fs::read(source.join(RELEASE)).unwrap());
    let _ = fs::remove_dir_all(fixture.join(EVENTS));
    for event in events() {
        let format = format!("{EVENTS}/{event}/format");
        // An event that the kernel does not have is missing in the fixture as well.
        if let Ok(text) = fs::read_to_string(source.join(&format)) {
            // The number is given out at boot, by chance.
            let stable: Vec<_> = text.lines().filter(|line| !line.starts_with("ID:")).collect();
            put(&format, (stable.join("\n") + "\n").as_bytes());
        }
    }
}

fn layout(fixture: &Path) -> Layout {
    Layout::read(&Root::new(fixture), &hooks()).unwrap()
}

fn refusal(form: &super::programs::Form, layout: &Layout) -> Option<String> {
    if !(form.fits)(&layout.settings) {
        return Some("made for other kernels".to_owned());
    }
    form.programs.iter().find_map(|program| layout.program_lacks(program))
}

/// What the agent makes of a kernel, line by line.
fn describe(fixture: &Path) -> String {
    let layout = layout(fixture);
    let release = fs::read_to_string(fixture.join(RELEASE)).unwrap();
    let mut text = format!("What Linux {} has of what the programs use.\n\n", release.trim());
    text += "members (offset in bytes)\n";
    for (member, offset) in MEMBERS.iter().zip(layout.offsets) {
        let place = if layout.has(member.path) { offset.to_string() } else { "missing".into() };
        writeln!(text, "  {:40} {place:>8}", member.path).unwrap();
    }
    text += "\nfields of classic records (offset in bytes)\n";
    for (field, offset) in FIELDS.iter().zip(layout.fields) {
        let place = if offset == 0 { "missing".into() } else { offset.to_string() };
        writeln!(text, "  {:40} {place:>8}", format!("{}:{}", field.event, field.name)).unwrap();
    }
    text += "\nsettings\n";
    let settings = format!("{:#?}", layout.settings);
    for line in settings.lines().filter(|line| line.starts_with(' ')) {
        writeln!(text, "  {}", line.trim().trim_end_matches(',')).unwrap();
    }
    text += "\ntracepoints\n";
    for hook in wanted().tracepoints {
        let arguments: Option<Vec<_>> = layout.prototype(hook).map(|p| {
            let name = |argument: &Argument| match argument {
                Argument::Pointer(to) => format!("{to} *"),
                Argument::Bool => "bool".to_owned(),
                Argument::Enum(of) => format!("enum {of}"),
                Argument::Other => "number".to_owned(),
            };
            p.arguments.iter().map(name).collect()
        });
        let shown = arguments.map_or("missing".to_owned(), |a| format!("({})", a.join(", ")));
        writeln!(text, "  {hook} {shown}").unwrap();
    }
    text += "\nprograms, best form first\n";
    for forms in CHOICES {
        for form in *forms {
            let names: Vec<_> = form.programs.iter().map(|program| program.name).collect();
            let verdict = refusal(form, &layout).map_or("fits".into(), |why| format!("no: {why}"));
            writeln!(text, "  {} [{}] {verdict}", names.join(" + "), form.variant).unwrap();
        }
    }
    text
}
