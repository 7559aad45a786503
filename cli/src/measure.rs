//! Values as a person reads them: three digits and a fitting unit.

use std::time::Duration;

use crate::catalogue::{Kind, Meaning};

/// A value of a signal. Counters are rates: bytes and counts get `/s`, time
/// spent per time passed becomes a share.
pub(crate) fn value(meaning: &Meaning, value: f64) -> String {
    match (meaning.kind, meaning.measure.as_str()) {
        (Kind::Counter, "ns") => share(value / 1e9),
        (Kind::Counter, "bytes") => format!("{}/s", bytes(value)),
        (Kind::Counter, _) => format!("{}/s", count(value)),
        (_, "ns") => time(value),
        (_, "bytes") => bytes(value),
        (_, "ratio") => share(value),
        _ => count(value),
    }
}

/// Nanoseconds.
pub(crate) fn time(ns: f64) -> String {
    scaled(ns, 1000.0, &["ns", "µs", "ms", "s"])
}

/// Bytes in binary units.
pub(crate) fn bytes(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// A number of things.
pub(crate) fn count(count: f64) -> String {
    if count.abs() < 10_000.0 {
        return if count.fract() == 0.0 { format!("{count}") } else { digits(count) };
    }
    scaled(count / 1000.0, 1000.0, &["k", "M", "G", "T"]).replace(' ', "")
}

/// A share in per cent; 1 is the whole.
pub(crate) fn share(ratio: f64) -> String {
    if !ratio.is_finite() {
        return "-".to_owned();
    }
    format!("{:.1} %", ratio * 100.0)
}

/// A small share in per cent, such as that of one program in a core.
pub(crate) fn small_share(ratio: f64) -> String {
    if ratio.abs() >= 0.01 { share(ratio) } else { format!("{:.3} %", ratio * 100.0) }
}

/// A time span of seconds to days in its two largest units.
pub(crate) fn span(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m {:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// `value` in the largest unit in which it still has a digit before the point.
fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while value.abs() >= step - 0.5 {
        let Some(next) = units.next() else { break };
        unit = next;
        value /= step;
    }
    format!("{} {unit}", digits(value))
}

/// Three significant digits; whole numbers as they are.
fn digits(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let magnitude = value.abs();
    if magnitude >= 99.95 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else if magnitude >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_fit_the_value() {
        let cases = [
            (time(0.0), "0 ns"),
            (time(850.0), "850 ns"),
            (time(12_345.0), "12.3 µs"),
            (time(999_700.0), "1.00 ms"),
            (time(4.567e9), "4.57 s"),
            (time(5e12), "5000 s"),
            (bytes(512.0), "512 B"),
            (bytes(1536.0), "1.50 KiB"),
            (bytes(1_048_000.0), "1023 KiB"),
            (bytes(25.0 * 1024.0 * 1024.0), "25 MiB"),
            (count(0.534), "0.53"),
            (count(9_999.0), "9999"),
            (count(1_234_567.0), "1.23M"),
            (share(0.1234), "12.3 %"),
            (share(f64::NAN), "-"),
            (time(f64::INFINITY), "- s"),
        ];
        for (shown, expected) in cases {
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn counters_are_rates() {
        let counter = |measure: &str| Meaning { kind: Kind::Counter, measure: measure.into() };
        assert_eq!(value(&counter("ns"), 5e8), "50.0 %");
        assert_eq!(value(&counter("bytes"), 2048.0), "2 KiB/s");
        assert_eq!(value(&counter("count"), 1.5), "1.50/s");
        let gauge = Meaning { kind: Kind::Gauge, measure: "ratio".into() };
        assert_eq!(value(&gauge, 0.5), "50.0 %");
    }

    #[test]
    fn spans() {
        let shown = [5, 65, 3_725, 200_000].map(|s| span(Duration::from_secs(s)));
        assert_eq!(shown, ["5s", "1m 05s", "1h 02m", "2d 07h"]);
    }
}
