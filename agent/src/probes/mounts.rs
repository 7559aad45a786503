//! File systems on block devices that turn read-only: the kernel's answer to errors
//! that it will not write over.
//!
//! What is mounted read-only from the start is so by somebody's will. A change is
//! not, or is at least worth knowing.

use std::collections::BTreeMap;

use holdfast_core::clock::BootTime;

use super::{Context, Probe};
use crate::catalogue::FILESYSTEMS_READ_ONLY;
use crate::conditions::{Evidence, FILESYSTEM_READ_ONLY};
use crate::frame::Frame;
use crate::host::Root;
use crate::host::file::{Buffer, Source};
use crate::host::mounts::{FileSystem, file_systems};
use crate::kernel::Kernel;

/// Ticks between two readings: the table grows with every mount of every container.
const EVERY: u64 = 5;

struct Mounts {
    root: Root,
    table: Source,
    buffer: Buffer,
    tick: u64,
    known: BTreeMap<String, FileSystem>,
    read_only: f64,
    findings: Vec<Evidence>,
}

pub(super) fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let mut probe = Mounts {
        root: context.root.clone(),
        table: Source::new(context.root.path("proc/self/mountinfo")),
        buffer: Buffer::default(),
        tick: 0,
        known: BTreeMap::new(),
        read_only: f64::NAN,
        findings: Vec::new(),
    };
    probe.look(BootTime::now())?;
    Ok(Box::new(probe))
}

impl Mounts {
    fn look(&mut self, now: BootTime) -> Result<(), String> {
        let table = self.table.read(&mut self.buffer);
        let table = table.map_err(|error| format!("the mount table cannot be read: {error}"))?;
        let found = file_systems(&self.root, table);
        self.read_only = found.values().filter(|system| system.read_only).count() as f64;
        for (device, system) in &found {
            let before = self.known.get(device);
            let was = before.is_some_and(|before| before.read_only);
            let turned = system.read_only && (before.is_some() || system.by_error);
            if was != system.read_only && (turned || was) {
                self.findings.push(evidence(device, system, now));
            }
        }
        for (device, system) in &self.known {
            if system.read_only && !found.contains_key(device) {
                let gone = FileSystem { read_only: false, ..system.clone() };
                self.findings.push(evidence(device, &gone, now));
            }
        }
        self.known = found;
        Ok(())
    }
}

fn evidence(device: &str, system: &FileSystem, at: BootTime) -> Evidence {
    let FileSystem { mount_point, kind, read_only, by_error } = system;
    let detail = match (read_only, by_error) {
        (true, true) => format!("{kind} at {mount_point} is read-only because of an error"),
        (true, false) => format!("{kind} at {mount_point} was read-write and is read-only now"),
        (false, _) => format!("{kind} at {mount_point} is read-write again or no longer mounted"),
    };
    Evidence {
        kind: &FILESYSTEM_READ_ONLY,
        instance: device.to_owned(),
        stands: *read_only,
        detail,
        at,
        history: false,
    }
}

impl Probe for Mounts {
    fn read(&mut self, _: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        self.tick += 1;
        if self.tick.is_multiple_of(EVERY) {
            self.look(BootTime::now()).inspect_err(|_| self.read_only = f64::NAN)?;
        }
        frame.set(FILESYSTEMS_READ_ONLY, 0, self.read_only);
        Ok(())
    }

    fn evidence(&mut self, out: &mut Vec<Evidence>) {
        out.append(&mut self.findings);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::frame::Shape;
    use crate::losses::Losses;

    #[test]
    fn only_a_change_is_evidence() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        let path = dir.path().join("proc/self/mountinfo");
        let write = |a: &str, b: &str| {
            let text = format!(
                "1 0 8:1 / /a\\040b rw - ext4 /dev/sda1 {a}\n2 0 8:2 / /\u{1b}{} rw - xfs /dev/sda2 {b}\n",
                "m".repeat(4096)
            );
            fs::write(&path, text).unwrap();
        };
        write("rw", "ro");
        let (root, losses) = (Root::new(dir.path()), Losses::default());
        let context = Context { root: &root, kernel: Err("-"), members: Err("-"), losses: &losses };
        let mut probe = open(&context).unwrap();
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 1 });
        let mut look = || {
            let mut out = Vec::new();
            for _ in 0..EVERY {
                probe.read(None, &mut frame).unwrap();
                probe.evidence(&mut out);
            }
            let told: Vec<_> = out.into_iter().map(|e| (e.instance, e.stands)).collect();
            (told, frame.get(FILESYSTEMS_READ_ONLY, 0))
        };
        assert_eq!(look(), (vec![], 1.0));
        write("ro,x", "ro");
        assert_eq!(look(), (vec![("sda1".into(), true)], 2.0));
        assert_eq!(look(), (vec![], 2.0));
        write("rw", "rw");
        assert_eq!(look(), (vec![("sda1".into(), false), ("sda2".into(), false)], 0.0));
        write("rw,emergency_ro", "ro");
        assert_eq!(look().0.len(), 2);
        fs::write(&path, [0xff, b'\n']).unwrap();
        assert_eq!(look(), (vec![("sda1".into(), false), ("sda2".into(), false)], 0.0));

        fs::write(&path, "1 0 8:1 / / rw - ext4 /dev/sda1 rw,emergency_ro\n").unwrap();
        let mut out = Vec::new();
        let mut late = open(&context).unwrap();
        late.evidence(&mut out);
        assert!(out.len() == 1 && out[0].detail.contains("because of an error"), "{out:?}");
        fs::remove_file(&path).unwrap();
        assert!(open(&context).is_err());
    }
}
