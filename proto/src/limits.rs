//! Bounds on everything that crosses the wire. The sender keeps to them, the
//! receiver refuses what does not.

/// Largest gRPC message either side decodes, in bytes.
pub const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Largest answer to an operator, in bytes: it may hold the newest values of a
/// whole fleet.
pub const ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Longest host name, in bytes: that of a DNS name (RFC 1035).
pub const HOST_NAME_BYTES: usize = 253;
/// Longest unit, device or interface name, in bytes: `UNIT_NAME_MAX` of systemd.
pub const INSTANCE_BYTES: usize = 255;
/// Longest signal name, in bytes.
pub const SIGNAL_NAME_BYTES: usize = 96;
/// Longest free text (help, reason, message, version), in bytes.
pub const TEXT_BYTES: usize = 1024;
/// Most signals in a catalogue.
pub const CATALOGUE_SIGNALS: usize = 1024;
/// Most series one host may define in a stream.
pub const SERIES_PER_HOST: usize = 32 * 1024;
/// Most summaries in one batch.
pub const SUMMARIES_PER_BATCH: usize = 32 * 1024;
/// Most fields of an event.
pub const EVENT_FIELDS: usize = 32;
/// Most probes in a report, and programs in a probe.
pub const PROBES: usize = 256;
/// Shortest and longest summary window, in milliseconds.
pub const WINDOW_MS: std::ops::RangeInclusive<u32> = 1_000..=60_000;

/// Whether `name` may name a host: letters, digits, `-`, `.`, `_`, starting with
/// a letter or digit, at most [`HOST_NAME_BYTES`].
#[must_use]
pub fn is_host_name(name: &str) -> bool {
    name.len() <= HOST_NAME_BYTES
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// Whether `name` may name a unit, device or interface: not empty, at most
/// [`INSTANCE_BYTES`], no control characters.
#[must_use]
pub fn is_instance(name: &str) -> bool {
    !name.is_empty() && name.len() <= INSTANCE_BYTES && !name.chars().any(char::is_control)
}

/// Whether `name` may name a signal or an event kind: lower-case letters, digits,
/// `_` and `.`, starting with a letter, at most [`SIGNAL_NAME_BYTES`].
#[must_use]
pub fn is_signal_name(name: &str) -> bool {
    name.len() <= SIGNAL_NAME_BYTES
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.'))
}

/// Whether `text` may be shown to a person: at most [`TEXT_BYTES`], no control
/// characters but line feed and tab.
#[must_use]
pub fn is_text(text: &str) -> bool {
    text.len() <= TEXT_BYTES && !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for good in ["a", "web-1.example.org", "h_2", &"x".repeat(253)] {
            assert!(is_host_name(good), "{good:?}");
        }
        for bad in ["", "-a", "a b", "a/b", "ä", "a\n", &"x".repeat(254)] {
            assert!(!is_host_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn instances_signals_texts() {
        assert!(is_instance("dev-disk-by\\x2duuid.swap") && is_instance("vda"));
        assert!(!is_instance("") && !is_instance("a\0b") && !is_instance(&"u".repeat(256)));
        assert!(
            is_signal_name("cpu.run_queue.latency")
                && !is_signal_name("Cpu")
                && !is_signal_name(".a")
        );
        assert!(is_text("a\tb\n") && !is_text("\u{1b}[2J") && !is_text(&"t".repeat(1025)));
    }
}
