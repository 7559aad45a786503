//! The agent's own cgroup: what it starts runs below it.

use std::fs;
use std::path::PathBuf;

use super::Root;
use super::cgroup::mount_point;

/// The folder of this process's cgroup of version 2.
///
/// # Errors
///
/// One sentence why there is none.
pub fn own_directory(root: &Root) -> Result<PathBuf, String> {
    let mount = mount_point(root).map_err(|error| error.to_string())?;
    Ok(mount.join(own_cgroup(root, "")?.trim_start_matches('/')))
}

/// The path of this process's cgroup in the hierarchy of `controller`; of version 2
/// when that is empty.
///
/// # Errors
///
/// One sentence why it cannot be told.
pub fn own_cgroup(root: &Root, controller: &str) -> Result<String, String> {
    let path = root.path("proc/self/cgroup");
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    own_in(&text, controller)
        .map(str::to_owned)
        .ok_or_else(|| format!("the agent is in no cgroup of version 2, by {}", path.display()))
}

fn own_in<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|c| c == controller).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_cgroup_by_hierarchy() {
        let text = "4:memory:/a\n2:cpu,cpuacct:/b\n0::/system.slice/x.service\n";
        assert_eq!(own_in(text, ""), Some("/system.slice/x.service"));
        assert_eq!(own_in(text, "memory"), Some("/a"));
        assert_eq!(own_in(text, "cpuacct"), Some("/b"));
        assert_eq!(own_in(text, "io"), None);
    }
}
