//! One look at the fleet: all hosts, and one of them in detail.

use serde::Serialize;

use crate::{
    catalogue::{Catalogue, Owner},
    connection::Collector,
    error::Error,
    host,
    hosts::{self, Host},
    rows::{DeviceRow, HostRow, InterfaceRow, UnitRow, instances},
    units,
    value::Value,
};

/// What `top` shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) hosts: Vec<Host>,
    /// The host that the rest is about; null when there is no host.
    pub(crate) selected: Option<String>,
    pub(crate) summary: HostRow,
    /// Live units only.
    pub(crate) units: Vec<UnitRow>,
    pub(crate) devices: Vec<DeviceRow>,
    pub(crate) interfaces: Vec<InterfaceRow>,
}

impl Snapshot {
    /// Asks for all hosts, and for `wanted` (the first one by default) in detail.
    pub(crate) async fn fetch(
        collector: &mut Collector,
        catalogue: &Catalogue,
        wanted: Option<&str>,
    ) -> Result<Self, Error> {
        let hosts = hosts::fetch(collector).await?;
        let Some(name) = wanted.or_else(|| hosts.first().map(|host| host.host.as_str())) else {
            return Ok(Self::default());
        };
        let detail = host::fetch(collector, catalogue, name).await?;
        let units = units::fetch(collector, catalogue, name).await?;
        let live = units.iter().filter(|unit| unit.live).map(units::Unit::row).collect();
        Ok(Self::new(hosts.clone(), name, &detail.values, live))
    }

    /// Whether nothing of the selected host was understood.
    pub(crate) fn is_bare(&self) -> bool {
        self.summary == HostRow::default() && self.units.is_empty()
    }

    /// Picks the rows out of a host's values.
    pub(crate) fn new(hosts: Vec<Host>, name: &str, values: &[Value], units: Vec<UnitRow>) -> Self {
        let named = |owner| instances(values, owner);
        Self {
            hosts,
            selected: Some(name.to_owned()),
            summary: HostRow::new(values),
            units,
            devices: named(Owner::Device).iter().map(|name| DeviceRow::new(name, values)).collect(),
            interfaces: named(Owner::Interface)
                .iter()
                .map(|name| InterfaceRow::new(name, values))
                .collect(),
        }
    }
}
