//! What the tables and `holdfast top` say in a line about a host, a unit, a
//! device and an interface, picked from their newest values.

use serde::Serialize;

use crate::{
    catalogue::Owner,
    measure,
    value::{Lookup, Value},
};

/// The host as a whole. Shares are of the time passed, rates per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct HostRow {
    pub(crate) load1: Option<f64>,
    pub(crate) run_queue_p50_ns: Option<f64>,
    pub(crate) run_queue_p99_ns: Option<f64>,
    pub(crate) memory_available_bytes: Option<f64>,
    pub(crate) memory_total_bytes: Option<f64>,
    pub(crate) cpu_pressure_ratio: Option<f64>,
    pub(crate) memory_pressure_ratio: Option<f64>,
    pub(crate) io_pressure_ratio: Option<f64>,
    pub(crate) failed_connects_per_second: Option<f64>,
    pub(crate) retransmits_per_second: Option<f64>,
}

impl HostRow {
    pub(crate) fn new(values: &[Value]) -> Self {
        let of = Lookup::new(values, Owner::Host, "");
        let (run_queue_p50_ns, run_queue_p99_ns) = of.quantiles("cpu.run_queue.latency");
        Self {
            load1: of.headline("cpu.load1"),
            run_queue_p50_ns,
            run_queue_p99_ns,
            memory_available_bytes: of.headline("memory.available"),
            memory_total_bytes: of.headline("memory.total"),
            cpu_pressure_ratio: of.share("cpu.pressure.some.time"),
            memory_pressure_ratio: of.share("memory.pressure.some.time"),
            io_pressure_ratio: of.share("disk.pressure.some.time"),
            failed_connects_per_second: of.headline("tcp.connect.failed"),
            retransmits_per_second: of.headline("tcp.retransmits"),
        }
    }

    /// Two lines: CPU and memory, then pressure and network.
    pub(crate) fn lines(&self) -> [String; 2] {
        [
            format!(
                "load {}   run queue p50 {}  p99 {}   memory {} free of {}",
                or_dash(self.load1, measure::count),
                or_dash(self.run_queue_p50_ns, measure::time),
                or_dash(self.run_queue_p99_ns, measure::time),
                or_dash(self.memory_available_bytes, measure::bytes),
                or_dash(self.memory_total_bytes, measure::bytes),
            ),
            format!(
                "pressure cpu {}  memory {}  io {}   failed connects {}   retransmits {}",
                or_dash(self.cpu_pressure_ratio, measure::share),
                or_dash(self.memory_pressure_ratio, measure::share),
                or_dash(self.io_pressure_ratio, measure::share),
                or_dash(self.failed_connects_per_second, rate),
                or_dash(self.retransmits_per_second, rate),
            ),
        ]
    }
}

/// A systemd unit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct UnitRow {
    pub(crate) unit: String,
    pub(crate) live: bool,
    /// CPU time per time passed: 1 is one CPU busy.
    pub(crate) on_cpu_ratio: Option<f64>,
    pub(crate) run_queue_p50_ns: Option<f64>,
    pub(crate) run_queue_p99_ns: Option<f64>,
    pub(crate) memory_bytes: Option<f64>,
    pub(crate) cpu_pressure_ratio: Option<f64>,
    pub(crate) memory_pressure_ratio: Option<f64>,
    pub(crate) io_pressure_ratio: Option<f64>,
}

impl UnitRow {
    pub(crate) const TITLES: [&'static str; 6] =
        ["ON CPU", "WAIT P50", "WAIT P99", "MEMORY", "P-CPU", "P-IO"];

    pub(crate) fn new(unit: &str, live: bool, values: &[Value]) -> Self {
        let of = Lookup::new(values, Owner::Unit, unit);
        let (run_queue_p50_ns, run_queue_p99_ns) = of.quantiles("cpu.run_queue.latency");
        Self {
            unit: unit.to_owned(),
            live,
            // Without eBPF the cgroup's own count stands in.
            on_cpu_ratio: of.share("cpu.on_cpu.time").or_else(|| of.share("cpu.usage.time")),
            run_queue_p50_ns,
            run_queue_p99_ns,
            memory_bytes: of.headline("memory.current"),
            cpu_pressure_ratio: of.share("cpu.pressure.some.time"),
            memory_pressure_ratio: of.share("memory.pressure.some.time"),
            io_pressure_ratio: of.share("disk.pressure.some.time"),
        }
    }

    /// Below [`UnitRow::TITLES`].
    pub(crate) fn cells(&self) -> [String; 6] {
        [
            or_dash(self.on_cpu_ratio, measure::share),
            or_dash(self.run_queue_p50_ns, measure::time),
            or_dash(self.run_queue_p99_ns, measure::time),
            or_dash(self.memory_bytes, measure::bytes),
            or_dash(self.cpu_pressure_ratio, measure::share),
            or_dash(self.io_pressure_ratio, measure::share),
        ]
    }
}

/// A block device. Rates are per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct DeviceRow {
    pub(crate) device: String,
    pub(crate) read_p50_ns: Option<f64>,
    pub(crate) read_p99_ns: Option<f64>,
    pub(crate) write_p50_ns: Option<f64>,
    pub(crate) write_p99_ns: Option<f64>,
    pub(crate) read_bytes_per_second: Option<f64>,
    pub(crate) write_bytes_per_second: Option<f64>,
    pub(crate) errors_per_second: Option<f64>,
}

impl DeviceRow {
    pub(crate) const TITLES: [&'static str; 7] =
        ["READ P50", "READ P99", "WRITE P50", "WRITE P99", "READ", "WRITTEN", "ERRORS"];

    pub(crate) fn new(device: &str, values: &[Value]) -> Self {
        let of = Lookup::new(values, Owner::Device, device);
        let (read_p50_ns, read_p99_ns) = of.quantiles("disk.read.latency");
        let (write_p50_ns, write_p99_ns) = of.quantiles("disk.write.latency");
        Self {
            device: device.to_owned(),
            read_p50_ns,
            read_p99_ns,
            write_p50_ns,
            write_p99_ns,
            read_bytes_per_second: of.headline("disk.read.bytes"),
            write_bytes_per_second: of.headline("disk.write.bytes"),
            errors_per_second: of.headline("disk.errors"),
        }
    }

    /// Below [`DeviceRow::TITLES`].
    pub(crate) fn cells(&self) -> [String; 7] {
        [
            or_dash(self.read_p50_ns, measure::time),
            or_dash(self.read_p99_ns, measure::time),
            or_dash(self.write_p50_ns, measure::time),
            or_dash(self.write_p99_ns, measure::time),
            or_dash(self.read_bytes_per_second, bytes_rate),
            or_dash(self.write_bytes_per_second, bytes_rate),
            or_dash(self.errors_per_second, rate),
        ]
    }
}

/// A network interface. Rates are per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct InterfaceRow {
    pub(crate) interface: String,
    pub(crate) receive_bytes_per_second: Option<f64>,
    pub(crate) transmit_bytes_per_second: Option<f64>,
    pub(crate) errors_per_second: Option<f64>,
    pub(crate) drops_per_second: Option<f64>,
}

impl InterfaceRow {
    pub(crate) const TITLES: [&'static str; 4] = ["RECEIVED", "SENT", "ERRORS", "DROPS"];

    pub(crate) fn new(interface: &str, values: &[Value]) -> Self {
        let of = Lookup::new(values, Owner::Interface, interface);
        let both = |name: &str| {
            let (receive, transmit) =
                (format!("network.receive.{name}"), format!("network.transmit.{name}"));
            Some(of.headline(&receive)? + of.headline(&transmit)?)
        };
        Self {
            interface: interface.to_owned(),
            receive_bytes_per_second: of.headline("network.receive.bytes"),
            transmit_bytes_per_second: of.headline("network.transmit.bytes"),
            errors_per_second: both("errors"),
            drops_per_second: both("drops"),
        }
    }

    /// Below [`InterfaceRow::TITLES`].
    pub(crate) fn cells(&self) -> [String; 4] {
        [
            or_dash(self.receive_bytes_per_second, bytes_rate),
            or_dash(self.transmit_bytes_per_second, bytes_rate),
            or_dash(self.errors_per_second, rate),
            or_dash(self.drops_per_second, rate),
        ]
    }
}

/// The names of all instances of `owner` that have a value, in order.
pub(crate) fn instances(values: &[Value], owner: Owner) -> Vec<String> {
    let of_owner = values.iter().filter(|value| value.scope.owner == owner);
    let mut names: Vec<String> = of_owner.map(|value| value.scope.instance().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn or_dash(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn rate(per_second: f64) -> String {
    format!("{}/s", measure::count(per_second))
}

fn bytes_rate(per_second: f64) -> String {
    format!("{}/s", measure::bytes(per_second))
}

#[cfg(test)]
mod tests {
    use holdfast_proto::v1;

    use super::*;
    use crate::{
        catalogue::Catalogue,
        value::{
            all,
            tests::{latest, latest_histogram, signal},
        },
    };

    #[test]
    fn a_unit_in_a_line() {
        let values = all(
            &[
                latest("cpu.on_cpu.time", v1::Owner::Unit, "a.service", 2.5e8),
                latest_histogram("cpu.run_queue.latency", v1::Owner::Unit, "a.service"),
                latest("memory.current", v1::Owner::Unit, "a.service", 1048576.0),
                latest("cpu.on_cpu.time", v1::Owner::Unit, "b.service", 1e9),
            ],
            &Catalogue::default(),
        );
        let row = UnitRow::new("a.service", true, &values);
        assert_eq!(row.cells(), ["25.0 %", "2.82 µs", "2.88 ms", "1 MiB", "-", "-"]);
        assert_eq!(instances(&values, Owner::Unit), ["a.service", "b.service"]);
    }

    #[test]
    fn an_interface_adds_both_directions() {
        let rate = |name: &str, value| latest(name, v1::Owner::Interface, "eth0", value);
        let catalogue = Catalogue::from_wire(
            &["network.receive.drops", "network.transmit.drops", "network.receive.bytes"]
                .map(|name| signal(name, v1::SignalKind::Counter, v1::Owner::Interface, "count")),
        );
        let values = all(
            &[
                rate("network.receive.drops", 1.0),
                rate("network.transmit.drops", 2.0),
                rate("network.receive.bytes", 512.0),
            ],
            &catalogue,
        );
        assert_eq!(InterfaceRow::new("eth0", &values).cells(), ["512 B/s", "-", "-", "3/s"]);
    }
}
