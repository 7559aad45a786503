//! `holdfast local status`: the agent of this host about itself.

use holdfast_proto::v1::{self, GetStatusRequest};
use serde::Serialize;

use crate::{
    catalogue::Owner,
    connection::Agent,
    error::Error,
    hosts::Vitals,
    measure,
    output::{Look, Output},
    table::pairs,
    text::clean,
    value::Scope,
};

/// What the agent says.
#[derive(Debug, Serialize)]
struct Status {
    host: String,
    agent_version: String,
    kernel_release: String,
    uptime_seconds: f64,
    /// Null when none is configured.
    collector: Option<String>,
    connected: bool,
    /// Why the last attempt failed; null when it did not.
    last_error: Option<String>,
    units: u32,
    agent: Vitals,
    values: Vec<Value>,
}

/// The newest sample of a series; of a histogram its 99th percentile.
#[derive(Debug, Serialize)]
struct Value {
    signal: String,
    #[serde(flatten)]
    scope: Scope,
    samples: u64,
    last: f64,
}

impl Status {
    fn from_wire(status: &v1::GetStatusResponse) -> Self {
        let given = |text: &str| Some(clean(text)).filter(|text| !text.is_empty());
        let value = |value: &v1::LocalValue| Value {
            signal: clean(&value.signal),
            scope: Scope::new(Owner::from_wire(value.owner), &value.instance),
            samples: value.samples,
            last: value.last,
        };
        Self {
            host: clean(&status.host),
            agent_version: clean(&status.agent_version),
            kernel_release: clean(&status.kernel_release),
            uptime_seconds: status.uptime_seconds,
            collector: given(&status.collector),
            connected: status.connected,
            last_error: given(&status.last_error),
            units: status.units,
            agent: Vitals::from_wire(status.vitals.as_ref()),
            values: status.value.iter().map(value).collect(),
        }
    }
}

pub(crate) async fn run(agent: &mut Agent, output: &mut Output) -> Result<(), Error> {
    let answer = agent.call(async |client| client.get_status(GetStatusRequest {}).await).await?;
    output.show(&Status::from_wire(&answer), text)
}

fn text(status: &Status, _: &Look) -> String {
    let connection = match (&status.collector, status.connected, &status.last_error) {
        (None, ..) => "no collector is configured".to_owned(),
        (Some(address), true, _) => format!("connected to {address}"),
        (Some(address), false, None) => format!("not connected to {address}"),
        (Some(address), false, Some(error)) => format!("not connected to {address}: {error}"),
    };
    let uptime = std::time::Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default();
    pairs(&[
        ("host", status.host.clone()),
        ("agent", status.agent_version.clone()),
        ("kernel", status.kernel_release.clone()),
        ("up for", measure::span(uptime)),
        ("collector", connection),
        ("units", status.units.to_string()),
        ("series", status.values.len().to_string()),
        ("cost", status.agent.text()),
        ("lost", status.agent.losses_text()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{capture, field_names};

    fn shown(json: bool) -> String {
        let status = Status::from_wire(&v1::GetStatusResponse {
            host: "web1".into(),
            agent_version: "0.1.0".into(),
            kernel_release: "6.18.5".into(),
            uptime_seconds: 65.0,
            vitals: None,
            collector: "http://c:7401".into(),
            connected: false,
            last_error: "connection refused\u{1b}[0m".into(),
            units: 3,
            value: vec![v1::LocalValue {
                signal: "disk.busy.time".into(),
                owner: v1::Owner::Device.into(),
                instance: "vda".into(),
                samples: 5,
                last: 1.0,
            }],
        });
        capture(json, |output| output.show(&status, text).unwrap())
    }

    #[test]
    fn golden_text() {
        assert_eq!(
            shown(false),
            "\
host       web1
agent      0.1.0
kernel     6.18.5
up for     1m 05s
collector  not connected to http://c:7401: connection refused\u{fffd}[0m
units      3
series     1
cost       0.0 s CPU time, 0 B resident, 0 B of eBPF maps
"
        );
    }

    #[test]
    fn field_names_are_stable() {
        assert_eq!(
            field_names(&shown(true)).join(" "),
            "agent agent.cpu_seconds agent.losses agent.map_bytes agent.rss_bytes agent_version \
             collector connected host kernel_release last_error units uptime_seconds values \
             values.device values.interface values.label values.last values.owner values.samples values.signal \
             values.unit"
        );
    }
}
