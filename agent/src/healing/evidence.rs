//! What there was to see before a service was touched: a bundle of what explains it, taken
//! within seconds, of bounded size, kept on the host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_healer::OperationId;
use serde::{Deserialize, Serialize};

use super::history::Course;
use super::program;
use crate::host::Root;

/// It may take so long, and be so large.
pub(super) const LONGEST: Duration = Duration::from_secs(2);
const BUNDLE_BYTES: usize = 256 << 10;
/// Most bundles that are kept.
const BUNDLES: usize = 50;
/// Most threads that are told, and lines of the journal, and bytes of one file.
const THREADS: usize = 64;
const LINES: &str = "40";
const KERNEL_LINES: &str = "10";
const FILE_BYTES: u64 = 4_096;
/// Files of the unit's cgroup that tell how it does.
const CGROUP_FILES: [&str; 9] = [
    "cpu.stat",
    "cpu.pressure",
    "memory.current",
    "memory.max",
    "memory.events",
    "memory.pressure",
    "io.pressure",
    "pids.current",
    "cgroup.freeze",
];

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bundle {
    /// The unit.
    pub unit: String,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Its signals in the last five minutes.
    pub signals: Vec<Course>,
    /// What its cgroup's files say, by their names.
    pub cgroup: Vec<(String, String)>,
    /// Its threads, those that wait in the kernel first.
    pub threads: Vec<Thread>,
    /// The last lines of its log.
    pub log: Vec<String>,
    /// The last lines of the kernel's log.
    pub kernel: Vec<String>,
    /// What could not be seen, and why.
    pub missing: Vec<String>,
}

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Its number.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// The kernel's letter for its state: `R` runs, `D` waits uninterruptibly.
    pub state: char,
    /// Where in the kernel it waits; empty when it does not, or that is hidden.
    pub waits_in: String,
    /// CPU time it has used, in clock ticks.
    pub cpu_ticks: u64,
}

impl Bundle {
    /// One with what is known without looking.
    pub(super) fn of(unit: &str, unix_ms: u64, signals: Vec<Course>) -> Self {
        Self { unit: unit.to_owned(), unix_ms, signals, ..Self::default() }
    }
}

/// Fills a bundle and keeps it in `dir`; the oldest go. `cgroup` is the folder of the unit's.
///
/// # Errors
///
/// When it cannot be written. What cannot be seen is told in the bundle.
pub(super) async fn take(
    mut bundle: Bundle,
    dir: &Path,
    root: &Root,
    cgroup: Option<&Path>,
    operation: OperationId,
) -> io::Result<()> {
    match cgroup {
        Some(folder) => look_at(&mut bundle, root, folder),
        None => bundle.missing.push("it has no cgroup: it does not run".to_owned()),
    }
    let unit = ["-n", LINES, "-u", &bundle.unit];
    let (log, kernel) = tokio::join!(log(&unit), log(&["-n", KERNEL_LINES, "-k"]));
    match log {
        Ok(lines) => bundle.log = lines,
        Err(error) => bundle.missing.push(format!("its log: {error}")),
    }
    match kernel {
        Ok(lines) => bundle.kernel = lines,
        Err(error) => bundle.missing.push(format!("the kernel's log: {error}")),
    }
    write(dir, operation, bundle)
}

fn look_at(bundle: &mut Bundle, root: &Root, folder: &Path) {
    for name in CGROUP_FILES {
        if let Ok(text) = beginning(&folder.join(name)) {
            bundle.cgroup.push((name.to_owned(), text.trim_end().to_owned()));
        }
    }
    match fs::read_to_string(folder.join("cgroup.threads")) {
        Ok(text) => {
            let mut threads: Vec<Thread> =
                text.lines().take(10 * THREADS).filter_map(|tid| thread(root, tid)).collect();
            threads.sort_by_key(|thread| (thread.state != 'D', u64::MAX - thread.cpu_ticks));
            threads.truncate(THREADS);
            bundle.threads = threads;
        }
        Err(error) => bundle.missing.push(format!("its threads: {error}")),
    }
}

fn thread(root: &Root, tid: &str) -> Option<Thread> {
    let tid: u32 = tid.trim().parse().ok()?;
    let folder = root.path(format!("proc/{tid}"));
    let stat = beginning(&folder.join("stat")).ok()?;
    // A name may hold anything, even brackets.
    let (front, rest) = stat.rsplit_once(") ")?;
    let name = front.split_once('(')?.1.to_owned();
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let mut times = fields.skip(10).map(|field| field.parse::<u64>().unwrap_or_default());
    let cpu_ticks = times.next()? + times.next()?;
    let waits_in = beginning(&folder.join("wchan")).unwrap_or_default();
    let waits_in = if waits_in == "0" { String::new() } else { waits_in };
    Some(Thread { tid, name, state, waits_in, cpu_ticks })
}

/// Lines of the journal of systemd.
async fn log(which: &[&str]) -> Result<Vec<String>, String> {
    let words = ["/usr/bin/journalctl", "-q", "--no-pager", "-o", "short-iso"];
    let command: Vec<String> = words.iter().chain(which).map(|word| (*word).to_owned()).collect();
    let text = program::output(&command, LONGEST / 2, BUNDLE_BYTES / 2).await;
    text.map(|text| text.lines().map(str::to_owned).collect()).map_err(|error| error.to_string())
}

/// The beginning of a file.
fn beginning(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(dir: &Path, id: OperationId, mut bundle: Bundle) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    rotate(dir)?;
    let mut text = serde_json::to_vec_pretty(&bundle).map_err(io::Error::other)?;
    while text.len() > BUNDLE_BYTES && !bundle.log.is_empty() {
        // The newest lines tell most.
        bundle.log.drain(..bundle.log.len().div_ceil(2));
        text = serde_json::to_vec_pretty(&bundle).map_err(io::Error::other)?;
    }
    let path = place(dir, id);
    // What is in it may be secret.
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(&text)
}

fn rotate(dir: &Path) -> io::Result<()> {
    let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let mut kept: Vec<(u64, PathBuf)> = fs::read_dir(dir)?
        .flatten()
        .filter_map(|entry| Some((number(&entry.path())?, entry.path())))
        .collect();
    kept.sort();
    let many = (kept.len() + 1).saturating_sub(BUNDLES);
    kept.into_iter().take(many).try_for_each(|(_, path)| fs::remove_file(path))
}

fn place(dir: &Path, id: OperationId) -> PathBuf {
    dir.join(format!("{id}.json"))
}

/// The bundle of operation `id`, if it is still there.
#[must_use]
pub(super) fn read(dir: &Path, id: OperationId) -> Option<Bundle> {
    let mut bytes = Vec::new();
    File::open(place(dir, id)).ok()?.take(2 * BUNDLE_BYTES as u64).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_bounded_in_size_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let lines = 40_000;
        let bundle = Bundle { log: vec!["a line of a log".into(); lines], ..Bundle::default() };
        for id in 1..=60 {
            write(dir.path(), OperationId(id), bundle.clone()).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), BUNDLES);
        assert_eq!(read(dir.path(), OperationId(1)), None);
        let read = read(dir.path(), OperationId(60)).unwrap();
        assert!(!read.log.is_empty() && read.log.len() < lines);
    }

    #[test]
    fn threads_are_seen() {
        let own = thread(&Root::default(), &std::process::id().to_string()).unwrap();
        assert!(own.tid > 0 && !own.name.is_empty(), "{own:?}");
    }
}
