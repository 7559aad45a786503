//! `holdfast host NAME`: one host with its agent, probes and newest values.

use std::fmt::Write as _;

use holdfast_proto::v1::{self, GetHostRequest};
use serde::Serialize;

use crate::{
    catalogue::{Catalogue, Owner},
    cli,
    connection::Collector,
    error::Error,
    hosts::Host,
    measure,
    output::{Look, Output},
    probes::{self, Probe},
    table::{Table, left, pairs},
    value::{self, Value},
};

/// A host, its probes and the newest window of each of its series.
#[derive(Debug, Serialize)]
pub(crate) struct Detail {
    #[serde(flatten)]
    pub(crate) host: Host,
    pub(crate) probes: Vec<Probe>,
    pub(crate) values: Vec<Value>,
}

impl Detail {
    /// Of the wire; `None` when the answer holds no host.
    pub(crate) fn from_wire(answer: &v1::GetHostResponse, catalogue: &Catalogue) -> Option<Self> {
        Some(Self {
            host: Host::from_wire(answer.host.as_ref()?),
            probes: probes::from_wire(&answer.probe),
            values: value::all(&answer.latest, catalogue),
        })
    }
}

/// Asks for one host.
pub(crate) async fn fetch(
    collector: &mut Collector,
    catalogue: &Catalogue,
    name: &str,
) -> Result<Detail, Error> {
    let request = GetHostRequest { host: name.to_owned() };
    let answer = collector.call(async |client| client.get_host(request).await).await?;
    Detail::from_wire(&answer, catalogue)
        .ok_or_else(|| Error::NotFound(format!("the collector says nothing about host {name:?}")))
}

pub(crate) async fn run(
    collector: &mut Collector,
    output: &mut Output,
    options: &cli::Host,
) -> Result<(), Error> {
    let catalogue = Catalogue::fetch(collector).await?;
    let detail = fetch(collector, &catalogue, &options.name).await?;
    output.show(&detail, text)
}

fn text(detail: &Detail, look: &Look) -> String {
    let host = &detail.host;
    let mut text = pairs(&[
        ("host", host.host.clone()),
        ("state", host.state.name().to_owned()),
        ("seen", format!("{} ago", measure::span(look.since(host.last_seen_unix_ms)))),
        ("first seen", look.time(host.first_seen_unix_ms)),
        ("up for", measure::span(host.uptime())),
        ("system", host.os_name.clone()),
        ("kernel", host.kernel_release.clone()),
        ("hardware", format!("{} CPUs, {}", host.cpus, measure::bytes(host.memory_bytes as f64))),
        ("agent", host.agent_version.clone()),
        ("cost", host.agent.text()),
        ("lost", host.agent.losses_text()),
        ("units", host.units.to_string()),
        ("series", host.series.to_string()),
    ]);
    let _ = write!(text, "\n{}", probes::table(&detail.probes, look));
    let _ = write!(text, "\n{}", values(&detail.values, look));
    let _ = writeln!(text, "\nUnits are listed by `holdfast units --host {}`.", host.host);
    text
}

/// What belongs to the host, its devices and interfaces; units have a table of their own.
fn values(values: &[Value], look: &Look) -> String {
    let mut table = Table::new(look, &[left("SIGNAL"), left("OF"), left("NEWEST")]);
    let mut shown: Vec<&Value> = values.iter().filter(|v| v.scope.owner != Owner::Unit).collect();
    shown.sort_by(|a, b| {
        (a.scope.owner, a.scope.instance(), &a.signal).cmp(&(
            b.scope.owner,
            b.scope.instance(),
            &b.signal,
        ))
    });
    for value in shown {
        table.row([value.signal.clone(), value.scope.instance().to_owned(), value.text()]);
    }
    table.finish("No values yet.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hosts,
        output::{capture, field_names},
        value::tests::{latest, latest_histogram, signal},
    };

    fn shown(json: bool) -> String {
        let answer = v1::GetHostResponse {
            host: Some(hosts::tests::info("web1", v1::HostState::Up)),
            probe: probes::tests::wire(),
            latest: vec![
                latest("network.receive.bytes", v1::Owner::Interface, "eth0", 2048.0),
                latest_histogram("disk.read.latency", v1::Owner::Device, "vda"),
                latest("memory.available", v1::Owner::Host, "", 1048576.0),
                latest("memory.current", v1::Owner::Unit, "a.service", 4096.0),
            ],
        };
        let catalogue = Catalogue::from_wire(&[
            signal("network.receive.bytes", v1::SignalKind::Counter, v1::Owner::Interface, "bytes"),
            signal("disk.read.latency", v1::SignalKind::Histogram, v1::Owner::Device, "ns"),
            signal("memory.available", v1::SignalKind::Gauge, v1::Owner::Host, "bytes"),
        ]);
        let detail = Detail::from_wire(&answer, &catalogue).unwrap();
        capture(json, |output| output.show(&detail, text).unwrap())
    }

    #[test]
    fn golden_text() {
        let text = shown(false);
        assert!(
            text.starts_with(
                "\
host        web1
state       UP
seen        2s ago
first seen  1970-01-01T22:13:20+00:00
up for      2h 03m
system      Debian GNU/Linux 12
kernel      6.18.5
hardware    2 CPUs, 24 GiB
agent       0.1.0
cost        1.2 s CPU time, 9 MiB resident, 3 MiB of eBPF maps
lost        2 ring_full
units       12
series      240

PROBE"
            ),
            "{text}"
        );
        assert!(
            text.ends_with(
                "\
SIGNAL                 OF    NEWEST
memory.available             1 MiB
disk.read.latency      vda   p50 2.82 µs, p99 2.88 ms, 100 values
network.receive.bytes  eth0  2 KiB/s

Units are listed by `holdfast units --host web1`.
"
            ),
            "{text}"
        );
    }

    #[test]
    fn field_names_are_stable() {
        let names = field_names(&shown(true)).join(" ");
        assert!(
            names.ends_with(
                "units uptime_seconds values values.count values.device values.end_unix_ms \
             values.interface values.kind values.label values.last values.max values.mean values.measure \
             values.min values.owner values.p50 values.p90 values.p99 values.samples \
             values.signal values.sum values.unit"
            ),
            "{names}"
        );
    }
}
