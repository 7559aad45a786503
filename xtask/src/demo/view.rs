//! The live view: a table that refreshes itself on a terminal, plain lines elsewhere.
//! Always on standard error, so that standard output stays the program's answer.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::board::{Board, Key, Series};

/// Signals worth watching, with the kind of their owner and what to call them.
const WATCHED: &[(&str, &str, &str)] = &[
    ("cpu.run_queue.latency", "host", "run queue p99"),
    ("cpu.run_queue.latency", "unit", "run queue p99, worst unit"),
    ("cpu.on_cpu.time", "unit", "CPU time, busiest unit"),
    ("cpu.pressure.some.time", "host", "CPU pressure"),
    ("disk.read.latency", "device", "disk read p99"),
    ("disk.write.latency", "device", "disk write p99"),
    ("disk.pressure.some.time", "host", "disk pressure"),
    ("memory.faults", "host", "page faults"),
    ("memory.reclaim.latency", "unit", "direct reclaim p99, worst unit"),
    ("memory.oom_kills", "host", "OOM kills"),
    ("network.transmit.bytes", "interface", "sent, busiest interface"),
    ("tcp.retransmits", "host", "TCP retransmits"),
    ("tcp.resets.sent", "host", "TCP resets sent"),
    ("tcp.connect.refused", "host", "connects refused"),
    ("tcp.connect.slow", "host", "connects slow"),
    ("process.exits.signal", "host", "processes killed by a signal"),
    ("process.exits.error", "host", "processes that failed"),
];
/// Without a terminal, one block of lines each so many ticks.
const PLAIN_EVERY: u64 = 5;

/// Where the demo speaks to the person.
pub(crate) struct View {
    /// One bar for each line of the table; empty without a terminal.
    lines: Vec<ProgressBar>,
    screen: MultiProgress,
    ticks: u64,
}

impl View {
    /// For standard error as it is.
    pub(crate) fn new() -> Self {
        let screen = MultiProgress::new();
        let mut lines = Vec::new();
        if std::io::stderr().is_terminal() {
            // One line for the head.
            for _ in 0..=WATCHED.len() {
                let line = screen.add(ProgressBar::new_spinner());
                line.set_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| {
                    // The template is a constant; any style would do.
                    ProgressStyle::default_spinner()
                }));
                lines.push(line);
            }
        }
        Self { lines, screen, ticks: 0 }
    }

    /// One sentence, above the table.
    pub(crate) fn say(&self, text: &str) {
        if self.lines.is_empty() || self.screen.println(text).is_err() {
            eprintln!("{text}");
        }
    }

    /// The newest values.
    pub(crate) fn draw(&mut self, board: &Board, elapsed: Duration) {
        let plain = self.lines.is_empty();
        self.ticks += 1;
        if plain && self.ticks % PLAIN_EVERY != 1 {
            return;
        }
        let rows = WATCHED.iter().map(|(name, owner, label)| {
            row(label, board.largest(name, owner), |key| {
                board.signal(key).map_or(("", ""), |s| (s.kind.as_str(), s.measure.as_str()))
            })
        });
        let head = format!(
            "{:<34}{:>14}{:>14}  {:<36}",
            format!("after {} s", elapsed.as_secs()),
            "now",
            "highest",
            "of"
        );
        for (i, text) in std::iter::once(head).chain(rows).enumerate() {
            match self.lines.get(i) {
                Some(line) => line.set_message(text),
                None => eprintln!("{}", text.trim_end()),
            }
        }
    }

    /// Leaves the last table on the screen.
    pub(crate) fn finish(&self) {
        self.lines.iter().for_each(ProgressBar::abandon);
    }
}

fn row<'a>(
    label: &str,
    found: Option<(&'a Key, &'a Series)>,
    meaning: impl Fn(&Key) -> (&'a str, &'a str),
) -> String {
    let mut text = format!("{label:<34}");
    let Some((key, series)) = found else {
        text += &format!("{:>14}{:>14}", "-", "-");
        return text;
    };
    let (kind, measure) = meaning(key);
    for value in [series.last, series.highest] {
        let shown = value.map_or_else(|| "-".into(), |value| shown(value, kind, measure));
        let _infallible = write!(text, "{shown:>14}");
    }
    let _infallible = write!(text, "  {:<36}", key.instance.as_deref().unwrap_or("host"));
    text
}

/// A value with a fitting unit of measure.
fn shown(value: f64, kind: &str, measure: &str) -> String {
    match (kind, measure) {
        // Nanoseconds in each second are a share of the time.
        ("counter", "ns") => format!("{:.1} %", value / 1e7),
        (_, "ns") if value < 1e3 => format!("{value:.0} ns"),
        (_, "ns") if value < 1e6 => format!("{:.1} µs", value / 1e3),
        (_, "ns") if value < 1e9 => format!("{:.1} ms", value / 1e6),
        (_, "ns") => format!("{:.2} s", value / 1e9),
        (kind, "bytes") => {
            let per = if kind == "counter" { "/s" } else { "" };
            format!("{:.1} MiB{per}", value / f64::from(1 << 20))
        }
        ("counter", _) => format!("{value:.0} /s"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_get_fitting_units() {
        assert_eq!(shown(950.0, "histogram", "ns"), "950 ns");
        assert_eq!(shown(1_500_000.0, "histogram", "ns"), "1.5 ms");
        assert_eq!(shown(5e8, "counter", "ns"), "50.0 %");
        assert_eq!(shown(2_097_152.0, "counter", "bytes"), "2.0 MiB/s");
        assert_eq!(shown(7.0, "counter", "count"), "7 /s");
    }
}
