//! A snapshot as plain text, for `holdfast top --once`.

use super::{snapshot::Snapshot, state::Sort};
use crate::{
    hosts,
    output::Look,
    rows::{DeviceRow, InterfaceRow, UnitRow},
    table::{Table, left, right},
};

/// Hosts, and the selected one's units by CPU, devices and interfaces.
pub(crate) fn text(snapshot: &Snapshot, look: &Look) -> String {
    let mut text = hosts::table(&snapshot.hosts, look);
    let Some(selected) = &snapshot.selected else { return text };
    let [first, second] = snapshot.summary.lines();
    text += &format!("\n{selected}\n{first}\n{second}\n\n");

    let mut units = snapshot.units.clone();
    Sort::OnCpu.apply(&mut units);
    let rows = units.iter().map(|unit| (unit.unit.as_str(), unit.cells()));
    text += &table("UNIT", UnitRow::TITLES, rows, look);
    let rows = snapshot.devices.iter().map(|device| (device.device.as_str(), device.cells()));
    text += &table("DEVICE", DeviceRow::TITLES, rows, look);
    let rows = snapshot.interfaces.iter().map(|i| (i.interface.as_str(), i.cells()));
    text += table("INTERFACE", InterfaceRow::TITLES, rows, look).trim_end();
    text + "\n"
}

fn table<'a, const N: usize>(
    name: &'static str,
    titles: [&'static str; N],
    rows: impl Iterator<Item = (&'a str, [String; N])>,
    look: &Look,
) -> String {
    let mut columns = vec![left(name)];
    columns.extend(titles.map(right));
    let mut table = Table::new(look, &columns);
    for (name, cells) in rows {
        table.plain(std::iter::once(name.to_owned()).chain(cells).collect());
    }
    table.finish(&format!("No {} yet.", name.to_lowercase())) + "\n"
}
