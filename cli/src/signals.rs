//! `holdfast signals`: the catalogue of all known hosts.

use holdfast_proto::v1::{self, ListSignalsRequest};
use serde::Serialize;

use crate::{
    catalogue::{Meaning, Owner},
    connection::Collector,
    error::Error,
    output::{Look, Output},
    table::{Table, left},
    text::clean,
};

/// One row of the catalogue.
#[derive(Debug, Serialize)]
struct Signal {
    name: String,
    #[serde(flatten)]
    meaning: Meaning,
    owner: Owner,
    probe: String,
    help: String,
}

impl Signal {
    fn from_wire(signal: &v1::SignalInfo) -> Self {
        Self {
            name: clean(&signal.name),
            meaning: Meaning::from_wire(signal),
            owner: Owner::from_wire(signal.owner),
            probe: clean(&signal.probe),
            help: clean(&signal.help),
        }
    }
}

pub(crate) async fn run(collector: &mut Collector, output: &mut Output) -> Result<(), Error> {
    let answer =
        collector.call(async |client| client.list_signals(ListSignalsRequest {}).await).await?;
    let signals: Vec<Signal> = answer.signal.iter().map(Signal::from_wire).collect();
    output.show(signals.as_slice(), table)
}

fn table(signals: &[Signal], look: &Look) -> String {
    let mut table = Table::new(
        look,
        &[
            left("SIGNAL"),
            left("OWNER"),
            left("KIND"),
            left("MEASURE"),
            left("PROBE"),
            left("MEANING"),
        ],
    );
    for signal in signals {
        table.row([
            signal.name.clone(),
            signal.owner.name().to_owned(),
            signal.meaning.kind.name().to_owned(),
            signal.meaning.measure.clone(),
            signal.probe.clone(),
            signal.help.clone(),
        ]);
    }
    table.finish("No host has reported its catalogue yet.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::{capture, field_names},
        value::tests::signal,
    };

    fn shown(json: bool) -> String {
        let wire = [
            signal("cpu.load1", v1::SignalKind::Gauge, v1::Owner::Host, "count"),
            signal("disk.read.latency", v1::SignalKind::Histogram, v1::Owner::Device, "ns"),
        ];
        let signals = wire.map(|signal| Signal::from_wire(&signal));
        capture(json, |output| output.show(&signals[..], table).unwrap())
    }

    #[test]
    fn golden_table() {
        assert_eq!(
            shown(false),
            "\
SIGNAL             OWNER   KIND       MEASURE  PROBE  MEANING
cpu.load1          host    gauge      count    sched  What cpu.load1 means
disk.read.latency  device  histogram  ns       sched  What disk.read.latency means
"
        );
    }

    #[test]
    fn field_names_are_stable() {
        assert_eq!(
            field_names(&shown(true)),
            ["help", "kind", "measure", "name", "owner", "probe"]
        );
    }
}
