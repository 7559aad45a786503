//! `holdfast hosts`: all hosts that ever reported.

use std::time::Duration;

use holdfast_proto::v1::{self, ListHostsRequest};
use serde::Serialize;

use crate::{
    connection::Collector,
    error::Error,
    measure,
    output::{Look, Output},
    table::{Table, Tone, left, right},
    text::clean,
};

/// Whether a host is heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Up,
    Late,
    Lost,
    #[default]
    Unknown,
}

impl State {
    fn from_wire(state: i32) -> Self {
        match v1::HostState::try_from(state) {
            Ok(v1::HostState::Up) => Self::Up,
            Ok(v1::HostState::Late) => Self::Late,
            Ok(v1::HostState::Lost) => Self::Lost,
            _ => Self::Unknown,
        }
    }

    /// As in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Late => "LATE",
            Self::Lost => "LOST",
            Self::Unknown => "?",
        }
    }

    /// As coloured in tables.
    pub(crate) fn tone(self) -> Tone {
        match self {
            Self::Up => Tone::Good,
            Self::Late | Self::Unknown => Tone::Warning,
            Self::Lost => Tone::Bad,
        }
    }
}

/// The agent's own cost and losses.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Vitals {
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) map_bytes: u64,
    pub(crate) losses: Vec<Loss>,
}

/// What the agent had to drop since it started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Loss {
    pub(crate) cause: String,
    pub(crate) count: u64,
}

impl Vitals {
    /// Of the wire; all zero when the agent has not said.
    pub(crate) fn from_wire(vitals: Option<&v1::AgentVitals>) -> Self {
        let Some(vitals) = vitals else { return Self::default() };
        let loss = |loss: &v1::Loss| Loss { cause: clean(&loss.cause), count: loss.count };
        Self {
            cpu_seconds: vitals.cpu_seconds,
            rss_bytes: vitals.rss_bytes,
            map_bytes: vitals.map_bytes,
            losses: vitals.loss.iter().map(loss).collect(),
        }
    }

    /// CPU time and memory in short.
    pub(crate) fn text(&self) -> String {
        format!(
            "{:.1} s CPU time, {} resident, {} of eBPF maps",
            self.cpu_seconds,
            measure::bytes(self.rss_bytes as f64),
            measure::bytes(self.map_bytes as f64)
        )
    }

    /// The losses in short; empty when nothing was lost.
    pub(crate) fn losses_text(&self) -> String {
        let lost = self.losses.iter().filter(|loss| loss.count > 0);
        lost.map(|loss| format!("{} {}", loss.count, loss.cause)).collect::<Vec<_>>().join(", ")
    }
}

/// A host as the collector knows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Host {
    pub(crate) host: String,
    pub(crate) state: State,
    pub(crate) boot_id: String,
    pub(crate) agent_version: String,
    pub(crate) kernel_release: String,
    pub(crate) os_name: String,
    pub(crate) cpus: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) first_seen_unix_ms: u64,
    pub(crate) last_seen_unix_ms: u64,
    pub(crate) uptime_seconds: f64,
    pub(crate) units: u32,
    pub(crate) series: u32,
    pub(crate) probes_active: u32,
    pub(crate) probes_degraded: u32,
    pub(crate) probes_off: u32,
    pub(crate) agent: Vitals,
}

impl Host {
    /// Of the wire.
    pub(crate) fn from_wire(info: &v1::HostInfo) -> Self {
        Self {
            host: clean(&info.host),
            state: State::from_wire(info.state),
            boot_id: clean(&info.boot_id),
            agent_version: clean(&info.agent_version),
            kernel_release: clean(&info.kernel_release),
            os_name: clean(&info.os_name),
            cpus: info.cpus,
            memory_bytes: info.memory_bytes,
            first_seen_unix_ms: info.first_seen_unix_ms,
            last_seen_unix_ms: info.last_seen_unix_ms,
            uptime_seconds: info.uptime_seconds,
            units: info.units,
            series: info.series,
            probes_active: info.probes_active,
            probes_degraded: info.probes_degraded,
            probes_off: info.probes_off,
            agent: Vitals::from_wire(info.vitals.as_ref()),
        }
    }

    /// Time since boot.
    pub(crate) fn uptime(&self) -> Duration {
        Duration::try_from_secs_f64(self.uptime_seconds).unwrap_or_default()
    }

    /// How many probes work: "9 active, 1 off".
    pub(crate) fn probes(&self) -> String {
        let parts = [
            (self.probes_active, "active"),
            (self.probes_degraded, "degraded"),
            (self.probes_off, "off"),
        ];
        let named = parts.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!("{n} {name}"));
        named.collect::<Vec<_>>().join(", ")
    }
}

/// Asks for all hosts.
pub(crate) async fn fetch(collector: &mut Collector) -> Result<Vec<Host>, Error> {
    let answer =
        collector.call(async |client| client.list_hosts(ListHostsRequest {}).await).await?;
    Ok(answer.host.iter().map(Host::from_wire).collect())
}

pub(crate) async fn run(collector: &mut Collector, output: &mut Output) -> Result<(), Error> {
    let hosts = fetch(collector).await?;
    output.show(hosts.as_slice(), table)
}

/// One line for each host.
pub(crate) fn table(hosts: &[Host], look: &Look) -> String {
    let mut table = Table::new(
        look,
        &[
            left("HOST"),
            left("STATE"),
            right("SEEN"),
            right("UP FOR"),
            right("CPUS"),
            right("MEMORY"),
            right("UNITS"),
            right("SERIES"),
            left("PROBES"),
            left("AGENT"),
            left("KERNEL"),
        ],
    );
    for host in hosts {
        let plain = |text: String| (text, Tone::Plain);
        let probes =
            if host.probes_off + host.probes_degraded > 0 { Tone::Warning } else { Tone::Plain };
        table.toned([
            plain(host.host.clone()),
            (host.state.name().to_owned(), host.state.tone()),
            plain(format!("{} ago", measure::span(look.since(host.last_seen_unix_ms)))),
            plain(measure::span(host.uptime())),
            plain(host.cpus.to_string()),
            plain(measure::bytes(host.memory_bytes as f64)),
            plain(host.units.to_string()),
            plain(host.series.to_string()),
            (host.probes(), probes),
            plain(host.agent_version.clone()),
            plain(host.kernel_release.clone()),
        ]);
    }
    table.finish("No host has reported yet.")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::{capture, field_names};

    /// A host with every field set.
    pub(crate) fn info(host: &str, state: v1::HostState) -> v1::HostInfo {
        v1::HostInfo {
            host: host.into(),
            state: state.into(),
            boot_id: "b".into(),
            agent_version: "0.1.0".into(),
            kernel_release: "6.18.5".into(),
            os_name: "Debian GNU/Linux 12".into(),
            cpus: 2,
            memory_bytes: 25_769_803_776,
            first_seen_unix_ms: 80_000_000,
            last_seen_unix_ms: 86_398_000,
            uptime_seconds: 7_384.5,
            units: 12,
            series: 240,
            probes_active: 9,
            probes_degraded: 0,
            probes_off: 1,
            vitals: Some(v1::AgentVitals {
                cpu_seconds: 1.25,
                rss_bytes: 9 << 20,
                map_bytes: 3 << 20,
                loss: vec![v1::Loss { cause: "ring_full".into(), count: 2 }],
            }),
            latest: Vec::new(),
        }
    }

    #[test]
    fn golden_table() {
        let hosts = [
            Host::from_wire(&info("web1", v1::HostState::Up)),
            Host::from_wire(&info("database-long-name", v1::HostState::Lost)),
        ];
        assert_eq!(
            capture(false, |output| output.show(&hosts[..], table).unwrap()),
            "\
HOST                STATE    SEEN  UP FOR  CPUS  MEMORY  UNITS  SERIES  PROBES           AGENT  KERNEL
web1                UP     2s ago  2h 03m     2  24 GiB     12     240  9 active, 1 off  0.1.0  6.18.5
database-long-name  LOST   2s ago  2h 03m     2  24 GiB     12     240  9 active, 1 off  0.1.0  6.18.5
"
        );
        assert_eq!(
            capture(false, |output| output.show(&[][..], table).unwrap()),
            "No host has reported yet.\n"
        );
    }

    #[test]
    fn field_names_are_stable() {
        let hosts = [Host::from_wire(&info("web1", v1::HostState::Up))];
        let json = capture(true, |output| output.show(&hosts[..], table).unwrap());
        assert!(json.contains(r#""state": "up""#), "{json}");
        assert_eq!(
            field_names(&json).join(" "),
            "agent agent.cpu_seconds agent.losses agent.losses.cause agent.losses.count \
             agent.map_bytes agent.rss_bytes agent_version boot_id cpus first_seen_unix_ms host \
             kernel_release last_seen_unix_ms memory_bytes os_name probes_active probes_degraded \
             probes_off series state units uptime_seconds"
        );
    }
}
