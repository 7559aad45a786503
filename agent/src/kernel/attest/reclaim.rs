//! The proof of the probe of stalls: the worker asks for its own memory back.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_core::clock::BootTime;
use nix::unistd::{AccessFlags, access};

use super::ground::remove_leftovers;
use super::{Check, Counts, Evidence, Facts, Place, Provoke, Spec, Watch};
use crate::host::Root;
use crate::host::own_cgroup::own_cgroup;
use crate::kernel::cells::{load, total};

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "reclaim",
    provokes: "a task that gives back its cgroup's memory",
    disruptive: "",
    prepare,
    count,
    judge,
};

const PROGRAM: &str = "cgroup_reclaim_end";
const MEMORY: usize = 256 * 1024;

/// A memory cgroup of version 1 that this process is in; left and removed when dropped.
pub(super) struct Beside {
    pub(super) folder: PathBuf,
    parent: PathBuf,
}

impl Beside {
    /// Makes one below this process's own and joins it.
    ///
    /// # Errors
    ///
    /// One sentence why not.
    pub(super) fn join(name: &str) -> Result<Self, String> {
        let root = Root::default();
        let lacking = "the memory controller is neither on the unified hierarchy, nor may a cgroup of version 1 be made";
        let mount = memory_mount(&root).ok_or(lacking)?;
        let own = own_cgroup(&root, "memory").map_err(|_| lacking)?;
        let parent = mount.join(own.trim_start_matches('/'));
        remove_leftovers(&parent);
        let folder = parent.join(name);
        let made = fs::create_dir(&folder);
        made.map_err(|error| format!("{lacking}: {}: {error}", folder.display()))?;
        let beside = Self { folder, parent };
        fs::write(beside.folder.join("cgroup.procs"), "0").map_err(|error| error.to_string())?;
        Ok(beside)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::write(self.parent.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.folder);
    }
}

fn memory_mount(root: &Root) -> Option<PathBuf> {
    let mounts = fs::read_to_string(root.path("proc/self/mounts")).ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup" && options.split(',').any(|o| o == "memory")).then(|| place.into())
    })
}

fn prepare(place: &Place<'_>) -> Result<Provoke, String> {
    // That of the agent's own cgroup will do: who reclaims is charged, not whose memory it is.
    let folders = [Some(place.cgroup), place.cgroup.parent()].into_iter().flatten();
    let files = folders.map(|folder| folder.join("memory.reclaim"));
    if let Some(file) = files.into_iter().find(|file| access(file, AccessFlags::W_OK).is_ok()) {
        return Ok(Box::new(move || give_back(&file, "64K")));
    }
    let beside = Beside::join(&format!("holdfast-attest-{}", std::process::id()))?;
    Ok(Box::new(move || give_back(&beside.folder.join("memory.force_empty"), "0")))
}

fn give_back(file: &Path, how_much: &str) -> Result<Facts, String> {
    // Something to give back, charged to where this process is now.
    let mut memory = vec![0u8; MEMORY];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
    let start = BootTime::now();
    match fs::write(file, how_much) {
        Ok(()) => {}
        // Tried, and not all of it found.
        Err(error)
            if matches!(error.raw_os_error(), Some(nix::libc::EAGAIN | nix::libc::EBUSY)) => {}
        Err(error) => return Err(format!("{} cannot be written: {error}", file.display())),
    }
    let mut facts = Facts::default();
    facts.set("spent", u64::try_from(BootTime::now().since(start).as_nanos()).unwrap_or(u64::MAX));
    Ok(facts)
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let kernel = watch.kernel;
    let cell = kernel.reclaim().get(kernel.attest_slot()).ok_or("no row to count in")?;
    Ok(Counts::from([("stalls", total(cell)), ("stalled", load(&cell.sum))]))
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let spent = evidence.facts.get("spent");
    vec![
        Check::at_least(PROGRAM, "stalls", 1, evidence.gained("stalls")),
        Check::between(PROGRAM, "time stalled", &(1..=spent), evidence.gained("stalled")),
    ]
}
