//! cgroup id ⇄ unit ⇄ slot: follows the hierarchy and keeps frame, kernel table and
//! the list of cgroups to read in step.
//!
//! [`name`] and [`table`] decide and are pure; this file watches and acts.

pub mod name;
pub mod table;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use holdfast_core::clock::BootTime;

use crate::catalogue::Owner;
use crate::frame::Frame;
use crate::host::Root;
use crate::host::cgroup::{Change, Tree, mount_point};
use crate::kernel::Kernel;
use crate::kernel::attest::is_attest_cgroup;
use crate::losses::{Cause, Losses};

use table::{BirthKind, Table};

/// Name of row 0: everything that has no slot or row of its own.
pub const OTHER: &str = "other";
/// Most slices looked at in one tick for processes of their own.
const SLICES_PER_TICK: usize = 32;

/// A unit's cgroup whose files shall be read.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its cgroup id.
    pub id: u64,
    /// Slot of its unit.
    pub slot: usize,
    /// Its directory.
    pub directory: PathBuf,
}

/// The top cgroups of all live units that have a slot, the root excepted.
#[derive(Debug, Default)]
pub struct Members {
    /// Grows with each change.
    pub version: u64,
    /// By cgroup id.
    pub list: BTreeMap<u64, Member>,
    /// Slot of every cgroup that counts for a unit, by cgroup id.
    pub slots: BTreeMap<u64, usize>,
    /// The controllers on the unified hierarchy, as the kernel lists them.
    pub controllers: String,
    /// Whether some cgroups cannot be watched, so that births are seen late.
    pub unwatched: bool,
}

/// The members as the stages of one thread share them.
pub type SharedMembers = Rc<RefCell<Members>>;

/// What happened to a unit, to be told as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its name.
    pub unit: Arc<str>,
    /// Whether it was born; gone otherwise.
    pub born: bool,
}

/// A cgroup of a slice, without a slot as long as it has no process of its own.
#[derive(Debug)]
struct Slice {
    path: Arc<str>,
    name: String,
}

/// The units of this host.
#[derive(Debug)]
pub struct Units {
    tree: Tree,
    table: Table,
    members: SharedMembers,
    /// Paths of the cgroups that are their unit's top, by id.
    tops: BTreeMap<u64, Arc<str>>,
    slices: BTreeMap<u64, Slice>,
    next_slice: u64,
    losses: Losses,
    refused_directories: u64,
    changes: Vec<Change>,
    settled: bool,
}

impl Units {
    /// Finds the hierarchy; nothing is assigned before the first [`follow`](Self::follow).
    ///
    /// # Errors
    ///
    /// One sentence why there are no units to be had.
    pub fn start(root: &Root, slots: usize, losses: &Losses) -> Result<Self, String> {
        let mount = mount_point(root).map_err(|error| error.to_string())?;
        let tree = Tree::open(mount).map_err(|error| error.to_string())?;
        let controllers =
            fs::read_to_string(tree.mount().join("cgroup.controllers")).unwrap_or_default();
        Ok(Self {
            tree,
            table: Table::new(slots),
            members: Rc::new(RefCell::new(Members { controllers, ..Members::default() })),
            tops: BTreeMap::new(),
            slices: BTreeMap::new(),
            next_slice: 0,
            losses: losses.clone(),
            refused_directories: 0,
            changes: Vec::new(),
            settled: false,
        })
    }

    /// The cgroups whose files shall be read, kept current.
    #[must_use]
    pub fn members(&self) -> &SharedMembers {
        &self.members
    }

    /// A descriptor that becomes readable when the hierarchy changes.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn descriptor(&self) -> io::Result<std::os::fd::OwnedFd> {
        self.tree.descriptor()
    }

    /// How many units have a slot and are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.table.live()
    }

    /// The unit of a cgroup, live or gone a short while ago.
    #[must_use]
    pub fn name(&self, cgroup_id: u64) -> Option<Arc<str>> {
        self.table.name(cgroup_id)
    }

    /// The cgroups of a slot, live or gone a short while ago.
    pub fn ids(&self, slot: usize) -> impl Iterator<Item = u64> {
        self.table.ids(slot)
    }

    /// Brings everything up to date with the hierarchy. Appends to `moved` what
    /// happened since, but not what was there at the first call.
    pub fn follow(
        &mut self,
        now: BootTime,
        frame: &mut Frame,
        kernel: Option<&Kernel>,
        moved: &mut Vec<Moved>,
    ) {
        let told = moved.len();
        let mut changes = std::mem::take(&mut self.changes);
        self.tree.poll(now, &mut changes);
        for change in changes.drain(..) {
            match change {
                Change::Born { id, path } => self.born(id, path, now, frame, kernel, moved),
                Change::Gone { id } => self.gone(id, now, frame, kernel, moved),
            }
        }
        self.changes = changes;
        let refused = self.tree.refused();
        self.losses.add(Cause::Directories, refused - self.refused_directories);
        self.refused_directories = refused;
        self.members.borrow_mut().unwatched = self.tree.is_unwatched();
        if !self.settled {
            self.settled = true;
            moved.truncate(told);
        }
    }

    /// The part that needs no change of the hierarchy: slices that got processes,
    /// cgroups that waited for a slot. Once a tick.
    pub fn tick(
        &mut self,
        now: BootTime,
        frame: &mut Frame,
        kernel: Option<&Kernel>,
        moved: &mut Vec<Moved>,
    ) {
        let told = moved.len();
        let settled = self.settled;
        self.follow(now, frame, kernel, moved);
        for (id, name) in self.populated_slices() {
            self.assign(id, &name, now, frame, kernel, moved);
        }
        while let Some((id, name)) = self.table.next_waiting(now) {
            self.assign(id, &name, now, frame, kernel, moved);
        }
        if !settled {
            moved.truncate(told);
        }
    }

    fn born(
        &mut self,
        id: u64,
        path: Arc<str>,
        now: BootTime,
        frame: &mut Frame,
        kernel: Option<&Kernel>,
        moved: &mut Vec<Moved>,
    ) {
        // What happens there the agent provoked itself; its row is no unit's.
        if is_attest_cgroup(&path) {
            return;
        }
        let name = name::of(&path);
        if name.is_top && !path.is_empty() {
            self.tops.insert(id, Arc::clone(&path));
        }
        if name.is_slice {
            self.slices.insert(id, Slice { path, name: name.text });
        } else {
            self.assign(id, &name.text, now, frame, kernel, moved);
        }
    }

    fn assign(
        &mut self,
        id: u64,
        name: &str,
        now: BootTime,
        frame: &mut Frame,
        kernel: Option<&Kernel>,
        moved: &mut Vec<Moved>,
    ) {
        let birth = self.table.born(id, name, now);
        self.release(kernel, &birth.released);
        match birth.kind {
            BirthKind::Refused => return self.losses.add(Cause::Units, 1),
            BirthKind::Given => {
                frame.assign(Owner::Unit, birth.slot, self.table.slot_name(birth.slot));
            }
            BirthKind::Revived => frame.revive(Owner::Unit, birth.slot),
            BirthKind::Joined => {}
        }
        if birth.kind != BirthKind::Joined {
            moved.push(Moved { unit: self.table.slot_name(birth.slot), born: true });
        }
        if kernel.is_some_and(|kernel| kernel.assign_unit(id, birth.slot).is_err()) {
            self.losses.add(Cause::Assignments, 1);
        }
        self.members.borrow_mut().slots.insert(id, birth.slot);
        if let Some(path) = self.tops.get(&id) {
            let directory = self.tree.directory(path);
            let mut members = self.members.borrow_mut();
            members.version += 1;
            members.list.insert(id, Member { id, slot: birth.slot, directory });
        }
    }

    fn gone(
        &mut self,
        id: u64,
        now: BootTime,
        frame: &mut Frame,
        kernel: Option<&Kernel>,
        moved: &mut Vec<Moved>,
    ) {
        self.tops.remove(&id);
        self.slices.remove(&id);
        {
            let mut members = self.members.borrow_mut();
            if members.list.remove(&id).is_some() {
                members.version += 1;
            }
        }
        let Some(death) = self.table.gone(id, now) else { return };
        self.release(kernel, &death.released);
        if death.unit_gone {
            frame.retire(Owner::Unit, death.slot);
            moved.push(Moved { unit: self.table.slot_name(death.slot), born: false });
        }
    }

    /// Takes the slices out of the waiting line that have processes of their own,
    /// looking at a few each tick, in turn.
    fn populated_slices(&mut self) -> Vec<(u64, String)> {
        let from_here =
            self.slices.range(self.next_slice..).chain(self.slices.range(..self.next_slice));
        let looked_at: Vec<u64> = from_here.map(|(&id, _)| id).take(SLICES_PER_TICK).collect();
        self.next_slice = looked_at.last().map_or(0, |id| id.wrapping_add(1));
        let tree = &self.tree;
        let has_process = |slice: &Slice| {
            let mut byte = [0];
            fs::File::open(tree.directory(&slice.path).join("cgroup.procs"))
                .and_then(|mut file| file.read(&mut byte))
                .is_ok_and(|n| n > 0)
        };
        let found: Vec<u64> = looked_at
            .into_iter()
            .filter(|id| self.slices.get(id).is_some_and(has_process))
            .collect();
        found
            .into_iter()
            .filter_map(|id| self.slices.remove(&id).map(|slice| (id, slice.name)))
            .collect()
    }

    fn release(&self, kernel: Option<&Kernel>, ids: &[u64]) {
        let mut members = self.members.borrow_mut();
        for id in ids {
            members.slots.remove(id);
            if let Some(kernel) = kernel {
                kernel.release_unit(*id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    struct Host {
        dir: tempfile::TempDir,
        units: Units,
        frame: Frame,
    }

    impl Host {
        fn new(slots: usize) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("proc/self")).unwrap();
            fs::create_dir_all(dir.path().join("cg/system.slice/a.service")).unwrap();
            fs::write(
                dir.path().join("proc/self/mountinfo"),
                "1 1 0:1 / /cg rw - cgroup2 cgroup2 rw\n",
            )
            .unwrap();
            fs::write(dir.path().join("cg/cgroup.controllers"), "cpu\n").unwrap();
            let units = Units::start(&Root::new(dir.path()), slots, &Losses::default()).unwrap();
            Self {
                dir,
                units,
                frame: Frame::new(Shape { units: slots, devices: 1, interfaces: 1 }),
            }
        }

        fn tick(&mut self) -> Vec<String> {
            let mut moved = Vec::new();
            self.units.tick(BootTime::default(), &mut self.frame, None, &mut moved);
            moved.iter().map(|m| format!("{}{}", if m.born { '+' } else { '-' }, m.unit)).collect()
        }

        fn live(&self) -> Vec<&str> {
            self.frame
                .rows(Owner::Unit)
                .iter()
                .filter(|row| row.live)
                .map(|row| &*row.name)
                .collect()
        }
    }

    #[test]
    fn units_come_share_and_go() {
        let mut host = Host::new(8);
        assert!(host.tick().is_empty(), "what was there already is no event");
        assert_eq!(host.live(), ["a.service"]);
        fs::create_dir_all(host.dir.path().join("cg/system.slice/b.service/payload")).unwrap();
        assert_eq!(host.tick(), ["+b.service"]);
        assert_eq!(host.units.members().borrow().list.len(), 2, "the payload is part of b.service");
        fs::remove_dir(host.dir.path().join("cg/system.slice/b.service/payload")).unwrap();
        assert!(host.tick().is_empty());
        fs::remove_dir(host.dir.path().join("cg/system.slice/b.service")).unwrap();
        assert_eq!(host.tick(), ["-b.service"]);
        let row = &host.frame.rows(Owner::Unit)[2];
        assert_eq!((&*row.name, row.live), ("b.service", false));
    }

    #[test]
    fn what_is_provoked_belongs_to_no_unit() {
        let mut host = Host::new(8);
        host.tick();
        let own = host.dir.path().join("cg/system.slice/a.service/holdfast-attest-7");
        fs::create_dir(&own).unwrap();
        assert!(host.tick().is_empty());
        assert_eq!(host.units.members().borrow().list.len(), 1);
        fs::remove_dir(&own).unwrap();
        assert!(host.tick().is_empty());
        assert_eq!(host.live(), ["a.service"]);
    }

    #[test]
    fn a_slice_gets_a_slot_when_it_has_a_process() {
        let mut host = Host::new(8);
        host.tick();
        fs::write(host.dir.path().join("cg/cgroup.procs"), "").unwrap();
        assert!(host.tick().is_empty());
        fs::write(host.dir.path().join("cg/cgroup.procs"), "1\n").unwrap();
        assert_eq!(host.tick(), ["+-.slice"]);
        assert_eq!(host.live(), ["a.service", "-.slice"]);
        assert_eq!(host.units.members().borrow().list.len(), 1, "the root's files are the host's");
    }

    #[test]
    fn without_a_slot_a_unit_counts_as_other() {
        let mut host = Host::new(2);
        host.tick();
        fs::create_dir(host.dir.path().join("cg/b.service")).unwrap();
        assert!(host.tick().is_empty());
        assert_eq!(host.units.losses.total(), 1);
        assert_eq!(host.live(), ["a.service"]);
    }

    #[test]
    fn no_hierarchy_is_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        fs::write(dir.path().join("proc/self/mountinfo"), "").unwrap();
        let error = Units::start(&Root::new(dir.path()), 4, &Losses::default()).unwrap_err();
        assert!(error.contains("cgroup2"), "{error}");
    }
}
