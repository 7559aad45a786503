//! `holdfast units`: the systemd units of a host or of the fleet.

use holdfast_proto::v1::{self, ListUnitsRequest};
use serde::Serialize;

use crate::{
    catalogue::Catalogue,
    cli,
    connection::Collector,
    error::Error,
    output::{Look, Output},
    rows::UnitRow,
    table::{Table, Tone, left, right},
    text::clean,
    value::{self, Value},
};

/// A unit and the newest window of each of its series.
#[derive(Debug, Serialize)]
pub(crate) struct Unit {
    pub(crate) host: String,
    pub(crate) unit: String,
    /// False once the unit is gone.
    pub(crate) live: bool,
    pub(crate) values: Vec<Value>,
}

impl Unit {
    fn from_wire(unit: &v1::UnitInfo, catalogue: &Catalogue) -> Self {
        Self {
            host: clean(&unit.host),
            unit: clean(&unit.unit),
            live: unit.live,
            values: value::all(&unit.latest, catalogue),
        }
    }

    /// The unit in a line.
    pub(crate) fn row(&self) -> UnitRow {
        UnitRow::new(&self.unit, self.live, &self.values)
    }
}

/// Asks for the units of `host`; of all hosts when it is empty.
pub(crate) async fn fetch(
    collector: &mut Collector,
    catalogue: &Catalogue,
    host: &str,
) -> Result<Vec<Unit>, Error> {
    let request = ListUnitsRequest { host: host.to_owned() };
    let answer = collector.call(async |client| client.list_units(request).await).await?;
    Ok(answer.unit.iter().map(|unit| Unit::from_wire(unit, catalogue)).collect())
}

pub(crate) async fn run(
    collector: &mut Collector,
    output: &mut Output,
    options: &cli::Units,
) -> Result<(), Error> {
    let catalogue = Catalogue::fetch(collector).await?;
    let units = fetch(collector, &catalogue, options.host.as_deref().unwrap_or_default()).await?;
    output.show(units.as_slice(), table)
}

fn table(units: &[Unit], look: &Look) -> String {
    let mut columns = vec![left("HOST"), left("UNIT"), left("STATE")];
    columns.extend(UnitRow::TITLES.map(right));
    let mut table = Table::new(look, &columns);
    for unit in units {
        let state = if unit.live { ("live", Tone::Plain) } else { ("gone", Tone::Faint) };
        let names = [
            (unit.host.clone(), Tone::Plain),
            (unit.unit.clone(), Tone::Plain),
            (state.0.to_owned(), state.1),
        ];
        table.toned(names.into_iter().chain(unit.row().cells().map(|cell| (cell, Tone::Plain))));
    }
    table.finish("No unit has been reported yet.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::{capture, field_names},
        value::tests::{latest, latest_histogram},
    };

    fn shown(json: bool) -> String {
        let unit = |unit: &str, live, latest| v1::UnitInfo {
            host: "web1".into(),
            unit: unit.into(),
            live,
            latest,
        };
        let wire = [
            unit(
                "nginx.service",
                true,
                vec![
                    latest("cpu.on_cpu.time", v1::Owner::Unit, "nginx.service", 1.5e9),
                    latest_histogram("cpu.run_queue.latency", v1::Owner::Unit, "nginx.service"),
                    latest("memory.current", v1::Owner::Unit, "nginx.service", 52_428_800.0),
                    latest("disk.pressure.some.time", v1::Owner::Unit, "nginx.service", 1e6),
                ],
            ),
            unit("old.scope", false, Vec::new()),
        ];
        let units: Vec<Unit> =
            wire.iter().map(|unit| Unit::from_wire(unit, &Catalogue::default())).collect();
        capture(json, |output| output.show(units.as_slice(), table).unwrap())
    }

    #[test]
    fn golden_table() {
        assert_eq!(
            shown(false),
            "\
HOST  UNIT           STATE   ON CPU  WAIT P50  WAIT P99  MEMORY  P-CPU   P-IO
web1  nginx.service  live   150.0 %   2.82 µs   2.88 ms  50 MiB      -  0.1 %
web1  old.scope      gone         -         -         -       -      -      -
"
        );
    }

    #[test]
    fn field_names_are_stable() {
        let json = shown(true);
        assert!(json.contains(r#""device": null"#), "{json}");
        let names = field_names(&json).join(" ");
        assert!(names.starts_with("host live unit values values.count"), "{names}");
    }
}
