//! The present state of what a condition is about.

use std::fs;
use std::io;

use super::{Root, mounts};
use crate::conditions::Check;

/// Whether the condition about `instance` still stands, and why not; `None` when
/// that cannot be seen.
#[must_use]
pub fn why_over(root: &Root, check: Check, instance: &str) -> Option<String> {
    match check {
        Check::Task => task(root, instance),
        Check::Interface => interface(root, instance),
        Check::ReadOnly => {
            let read_only = mounts::is_read_only(root, instance)?;
            (!read_only).then(|| "it can be written again, or is no longer mounted".to_owned())
        }
    }
}

/// `instance` is NAME:PID, the name cut to 15 bytes by the kernel.
fn task(root: &Root, instance: &str) -> Option<String> {
    let (name, pid) = instance.rsplit_once(':')?;
    let pid: u32 = pid.parse().ok()?;
    let stat = match fs::read(root.path(format!("proc/{pid}/stat"))) {
        Ok(stat) => stat,
        // A mount of /proc with hidepid= hides the tasks of others: then nothing is known.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return root.path("proc/1/stat").exists().then(|| "the task is gone".to_owned());
        }
        Err(_) => return None,
    };
    let stat = String::from_utf8_lossy(&stat);
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, now) = head.split_once('(')?;
    if now != name {
        return Some("the task is gone".to_owned());
    }
    let state = tail.trim_start().chars().next()?;
    (state != 'D').then(|| "the task goes on".to_owned())
}

fn interface(root: &Root, name: &str) -> Option<String> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return None;
    }
    let all = root.path("sys/class/net");
    match fs::read_to_string(all.join(name).join("operstate")) {
        Ok(state) => (state.trim() == "up").then(|| "the link is up".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && all.is_dir() => {
            Some("the interface is gone".to_owned())
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_interfaces_and_what_cannot_be_seen() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let over = |check, instance: &str| why_over(&root, check, instance);
        for (check, instance) in
            [(Check::Task, "a:7"), (Check::Interface, "eth0"), (Check::ReadOnly, "sda")]
        {
            assert_eq!(over(check, instance), None, "nothing is there to look at");
        }
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/1/stat", "1 (init) S 0");
        write("proc/7/stat", "7 (a) b:c) D 1 1");
        assert_eq!(over(Check::Task, "a) b:c:7"), None);
        assert!(over(Check::Task, "other:7").unwrap().contains("gone"));
        assert!(over(Check::Task, "a:8").unwrap().contains("gone"));
        write("proc/7/stat", "7 (a) b:c) S 1 1");
        assert!(over(Check::Task, "a) b:c:7").unwrap().contains("goes on"));
        for odd in ["", ":", "a", "a:-1", "a:99999999999"] {
            assert_eq!(over(Check::Task, odd), None, "{odd}");
        }
        write("sys/class/net/eth0/operstate", "down\n");
        assert_eq!(over(Check::Interface, "eth0"), None);
        write("sys/class/net/eth0/operstate", "up\n");
        assert!(over(Check::Interface, "eth0").unwrap().contains("up"));
        assert!(over(Check::Interface, "eth1").unwrap().contains("gone"));
        assert_eq!(over(Check::Interface, "../eth0"), None);
        write("proc/self/mountinfo", "43 27 7:0 / /mnt rw - ext4 /dev/loop0 ro\n");
        assert_eq!(over(Check::ReadOnly, "loop0"), None);
        assert!(over(Check::ReadOnly, "loop1").is_some());
    }
}
