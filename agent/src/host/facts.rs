//! What is known about the machine once and for all: its name, boot, kernel, size.

use std::fs;

use holdfast_proto::limits;

use super::Root;

/// Facts that hold until the next boot.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The node name, made fit to name a host on the wire.
    pub node_name: String,
    /// The kernel's boot id; empty when it cannot be read.
    pub boot_id: String,
    /// Release of the running kernel.
    pub kernel_release: String,
    /// `PRETTY_NAME` of os-release; empty when there is none.
    pub os_name: String,
    /// CPUs that are online.
    pub cpus: u32,
    /// Usable memory.
    pub memory_bytes: u64,
}

impl Facts {
    /// Reads them; what cannot be read stays empty.
    #[must_use]
    pub fn read(root: &Root) -> Self {
        let text = |path: &str| fs::read_to_string(root.path(path)).unwrap_or_default();
        Self {
            node_name: host_name(text("proc/sys/kernel/hostname").trim()),
            boot_id: text("proc/sys/kernel/random/boot_id").trim().to_owned(),
            kernel_release: text("proc/sys/kernel/osrelease").trim().to_owned(),
            os_name: os_name(&text("etc/os-release")),
            cpus: count_cpus(text("sys/devices/system/cpu/online").trim()),
            memory_bytes: memory_total(&text("proc/meminfo")),
        }
    }
}

/// `name` with what a host name may not hold replaced by `-`; `localhost` when nothing is left.
#[must_use]
pub fn host_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let mut clean: String = name.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    clean.truncate(limits::HOST_NAME_BYTES);
    let clean = clean.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if clean.is_empty() { "localhost".to_owned() } else { clean.to_owned() }
}

fn os_name(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map(|value| value.trim_matches(['"', '\'']).to_owned())
        .unwrap_or_default()
}

/// Counts a list as `0-3,8`; 0 when it is malformed.
fn count_cpus(list: &str) -> u32 {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').try_fold(0u32, |sum, part| sum.checked_add(range(part)?)).unwrap_or(0)
}

fn memory_total(meminfo: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_node_name_becomes_a_host_name() {
        for (node, host) in [
            ("web-1", "web-1"),
            ("a b/c", "a-b-c"),
            ("-x", "x"),
            ("", "localhost"),
            ("ä", "localhost"),
        ] {
            assert_eq!(host_name(node), host);
        }
        assert!(limits::is_host_name(&host_name(&"n".repeat(400))));
    }

    #[test]
    fn facts_of_odd_files() {
        assert_eq!(
            (count_cpus("0-3,8"), count_cpus("0"), count_cpus(""), count_cpus("3-1")),
            (5, 1, 0, 0)
        );
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(memory_total("MemTotal:    2 kB\n"), 2048);
        let empty = Facts::read(&Root::new("/nonexistent"));
        assert_eq!((empty.node_name.as_str(), empty.cpus, empty.memory_bytes), ("localhost", 0, 0));
    }
}
