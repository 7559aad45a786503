//! The mount table: which file systems are on block devices, and which of them are
//! read-only.
//!
//! What counts are the options of the file system itself, not those of the mount: a
//! service that systemd confines sees every mount as read-only. The kernel does not
//! wake those who poll the table when a file system turns read-only by itself, so it
//! has to be read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Root;

/// Most file systems that are looked at.
pub const FILE_SYSTEMS: usize = 1024;
/// Types that cannot be written at all.
const NEVER_WRITTEN: [&str; 6] = ["squashfs", "iso9660", "udf", "erofs", "cramfs", "romfs"];

/// A file system on a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it is mounted first, as the kernel escapes it.
    pub mount_point: String,
    /// Its type.
    pub kind: String,
    /// Whether it can be read only.
    pub read_only: bool,
    /// Whether it is so because of an error, which some types say.
    pub by_error: bool,
}

/// The file systems of a table, by the kernel's name of their device.
#[must_use]
pub fn file_systems(root: &Root, table: &str) -> BTreeMap<String, FileSystem> {
    let mut found: BTreeMap<String, FileSystem> = BTreeMap::new();
    for line in table.lines() {
        let Some(mount) = Mount::parse(line) else { continue };
        if NEVER_WRITTEN.contains(&mount.kind) {
            continue;
        }
        let Some(device) = mount.device(root) else { continue };
        if found.len() >= FILE_SYSTEMS {
            break;
        }
        let has = |wanted: &[&str]| mount.options.split(',').any(|option| wanted.contains(&option));
        // ext4 since 6.15 and f2fs stay "rw" and say it in another word.
        let by_error = has(&["emergency_ro", "shutdown"]);
        found.entry(device).or_insert_with(|| FileSystem {
            mount_point: mount.point.to_owned(),
            kind: mount.kind.to_owned(),
            read_only: by_error || has(&["ro"]),
            by_error,
        });
    }
    found
}

/// What the condition that `device` is read-only must know; `None` when the table
/// cannot be read.
#[must_use]
pub fn is_read_only(root: &Root, device: &str) -> Option<bool> {
    let table = fs::read(root.path("proc/self/mountinfo")).ok()?;
    let table = String::from_utf8_lossy(&table);
    Some(file_systems(root, &table).get(device).is_some_and(|system| system.read_only))
}

/// Major and minor number of the file system that `path`, absolute and on the host, is on,
/// as the kernel knows it: that of `stat(2)` is another on some types.
#[must_use]
pub fn device_of(root: &Root, path: &Path) -> Option<(u64, u64)> {
    let table = fs::read(root.path("proc/self/mountinfo")).ok()?;
    let table = String::from_utf8_lossy(&table);
    let mounts = table.lines().filter_map(Mount::parse);
    // The last of equals hides those before it.
    let mount = mounts
        .filter(|mount| path.starts_with(mount.point))
        .max_by_key(|mount| mount.point.len())?;
    let (major, minor) = mount.number.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A line of mountinfo(5).
struct Mount<'a> {
    number: &'a str,
    point: &'a str,
    kind: &'a str,
    source: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ');
        let number = mount.nth(2)?;
        let point = mount.nth(1)?;
        let mut system = system.split(' ');
        let (kind, source) = (system.next()?, system.next()?);
        Some(Self { number, point, kind, source, options: system.next()? })
    }

    /// The kernel's name of the block device; `None` when it is not on one.
    fn device(&self, root: &Root) -> Option<String> {
        let (major, minor) = self.number.split_once(':')?;
        let (major, _) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
        let of_source = || Some(self.source.strip_prefix("/dev/")?.rsplit('/').next()?.to_owned());
        // btrfs has device numbers of its own, which are no device's.
        if major == 0 {
            return of_source();
        }
        let link = fs::read_link(root.path("sys/dev/block").join(self.number)).ok();
        let name = link.and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
        name.map(|name| name.replace('!', "/")).or_else(of_source)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_file_systems_own_options_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sys/dev/block")).unwrap();
        symlink("../../devices/virtual/block/dm-3", dir.path().join("sys/dev/block/253:3"))
            .unwrap();
        let table = "\
            27 1 254:0 / / ro,relatime shared:1 - ext4 /dev/vda rw,discard\n\
            43 27 7:0 / /mnt rw,relatime - ext4 /dev/loop0 rw,errors=remount-ro,emergency_ro\n\
            44 27 253:3 / /da\\040ta\\134x rw - xfs /dev/mapper/vg-data ro,attr2\n\
            45 27 253:3 / /again rw - xfs /dev/mapper/vg-data ro,attr2\n\
            46 27 0:44 /sub /b rw master:1 - btrfs /dev/sdb rw,space_cache=v2\n\
            47 27 7:1 / /snap/core ro - squashfs /dev/loop1 ro\n\
            48 27 0:5 / /proc rw - proc proc rw\n";
        let found = file_systems(&Root::new(dir.path()), table);
        let told: Vec<_> = found
            .iter()
            .map(|(device, system)| (device.as_str(), &*system.mount_point, system.read_only))
            .collect();
        assert_eq!(
            told,
            [
                ("dm-3", "/da\\040ta\\134x", true),
                ("loop0", "/mnt", true),
                ("sdb", "/b", false),
                ("vda", "/", false)
            ]
        );
        assert!(found["loop0"].by_error && !found["dm-3"].by_error);
    }

    #[test]
    fn odd_tables_are_bounded() {
        let root = Root::new("/nonexistent");
        for odd in [
            "",
            " - ",
            "1 2 3:4 / /x rw - ext4 /dev/x",
            "1 2 x:4 / /x rw - ext4 /dev/x ro",
            "1 2 99999999999:4 / /x rw - ext4 /dev/x ro",
            "1 2 0:4 / /x rw - ext4 sda ro",
        ] {
            assert!(file_systems(&root, odd).is_empty(), "{odd}");
        }
        let many: String = (0..2 * FILE_SYSTEMS)
            .map(|n| format!("1 2 8:{n} / /{n} rw - ext4 /dev/d{n} ro\n"))
            .collect();
        assert_eq!(file_systems(&root, &many).len(), FILE_SYSTEMS);
        assert_eq!(is_read_only(&root, "sda"), None);
    }
}
