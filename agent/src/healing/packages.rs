//! Is a package manager at work? Package managers hold a lock on a file while they change
//! the host; who holds locks is in `/proc/locks` (proc_locks(5)), for everybody to read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat;

use crate::host::{Root, mounts};

/// Files that are locked meanwhile: dpkg and apt, rpm in its two places.
const LOCKED: [&str; 4] = [
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/lock",
    "var/lib/rpm/.rpm.lock",
    "usr/lib/sysimage/rpm/.rpm.lock",
];
/// A file that is there meanwhile: pacman.
const PRESENT: &str = "var/lib/pacman/db.lck";

/// Whether packages are being changed now.
#[must_use]
pub fn are_changed(root: &Root) -> bool {
    if root.path(PRESENT).exists() {
        return true;
    }
    let Ok(locks) = fs::read_to_string(root.path("proc/locks")) else { return false };
    let locked: Vec<_> = locks.lines().filter_map(locked).collect();
    LOCKED.into_iter().any(|path| {
        let Ok(found) = fs::metadata(root.path(path)) else { return false };
        let of_file = locked.iter().filter(|(_, inode)| *inode == found.ino());
        let devices: Vec<_> = of_file.map(|(device, _)| *device).collect();
        if devices.is_empty() {
            return false;
        }
        let told = (stat::major(found.dev()), stat::minor(found.dev()));
        let mounted = mounts::device_of(root, &Path::new("/").join(path));
        devices.iter().any(|device| *device == told || Some(*device) == mounted)
    })
}

/// Device (major and minor number) and inode that a line of `/proc/locks` is about:
/// `1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF`.
fn locked(line: &str) -> Option<((u64, u64), u64)> {
    let mut place = line.split_ascii_whitespace().nth(5)?.split(':');
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).ok();
    let (major, minor) = (hexadecimal(place.next()?)?, hexadecimal(place.next()?)?);
    let inode = place.next()?.parse().ok()?;
    Some(((major, minor), inode))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use holdfast_core::clock::BootTime;

    use super::*;

    #[test]
    fn a_locked_database_is_a_package_manager_at_work() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        for folder in ["var/lib/dpkg", "proc"] {
            fs::create_dir_all(root.path(folder)).unwrap();
        }
        assert!(!are_changed(&root));
        let lock = root.path("var/lib/dpkg/lock");
        fs::write(&lock, "").unwrap();
        let of = fs::metadata(&lock).unwrap();
        let (major, minor) = (stat::major(of.dev()), stat::minor(of.dev()));
        let line = |inode: u64| {
            format!("1: POSIX  ADVISORY  WRITE 35 {major:02x}:{minor:02x}:{inode} 0 EOF\n")
        };
        fs::write(root.path("proc/locks"), format!("nonsense\n1: -> x\n{}", line(1))).unwrap();
        assert!(!are_changed(&root));
        fs::write(root.path("proc/locks"), line(of.ino())).unwrap();
        assert!(are_changed(&root));
    }

    #[test]
    fn a_real_lock_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
        let lock = dir.path().join("var/lib/dpkg/lock");
        fs::write(&lock, "").unwrap();
        std::os::unix::fs::symlink("/proc", dir.path().join("proc")).unwrap();
        let root = Root::new(dir.path());
        assert!(!are_changed(&root));
        let held = Command::new("flock").arg(&lock).args(["sleep", "30"]).spawn();
        let Ok(mut held) = held else { return eprintln!("there is no flock(1) here") };
        let (start, limit) = (BootTime::now(), std::time::Duration::from_secs(10));
        let mut seen = false;
        while !seen && BootTime::now().since(start) < limit {
            seen = are_changed(&root);
        }
        held.kill().unwrap();
        held.wait().unwrap();
        assert!(seen);
    }
}
