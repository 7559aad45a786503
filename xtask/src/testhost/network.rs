//! The network of the test hosts: a bridge in a namespace, a cable to each host.

use std::process::Command;

use anyhow::Result;

use super::prefix;
use crate::shell;

/// The first three bytes of all addresses; a host's number is the fourth.
const NETWORK: &str = "10.77.0";

/// A bridge in a network namespace; removed when dropped.
pub(crate) struct Switch {
    namespace: String,
}

/// A host's end of the cable: a namespace with `eth0`; removed when dropped.
pub(super) struct Port {
    namespace: String,
}

impl Switch {
    /// An empty bridge.
    pub(crate) fn new() -> Result<Self> {
        let switch = Self { namespace: format!("{}switch", prefix()) };
        let name = switch.namespace.as_str();
        ip(&["netns", "add", name])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", name, "address", "add", &format!("{NETWORK}.254/24"), "dev", "bridge"])?;
        ip(&["-n", name, "link", "set", "bridge", "up"])?;
        Ok(switch)
    }

    /// A namespace for host number `number`, with a cable to the bridge.
    pub(super) fn plug(&self, number: u8) -> Result<Port> {
        let port = Port { namespace: format!("{}h{number}", prefix()) };
        let (switch, name, cable) =
            (self.namespace.as_str(), port.namespace(), format!("port{number}"));
        ip(&["netns", "add", name])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&[
            "-n", switch, "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns",
            name,
        ])?;
        ip(&["-n", switch, "link", "set", &cable, "master", "bridge", "up"])?;
        ip(&["-n", name, "address", "add", &format!("{NETWORK}.{number}/24"), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        Ok(port)
    }
}

impl Port {
    /// The network namespace.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        remove(&self.namespace);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        remove(&self.namespace);
    }
}

/// Removes the namespaces of earlier runs, by their names.
pub(super) fn sweep(is_left_behind: impl Fn(&str) -> bool) -> Result<()> {
    let list = ip(&["netns", "list"])?;
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| is_left_behind(name)).for_each(remove);
    Ok(())
}

fn remove(namespace: &str) {
    if let Err(error) = ip(&["netns", "delete", namespace]) {
        eprintln!("the network namespace {namespace} is left behind: {error:#}");
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    shell::output(Command::new("ip").args(arguments))
}
