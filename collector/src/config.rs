//! What an operator can set: `collector.toml`, its drop-ins, and flags over them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use bytesize::ByteSize;
use holdfast_core::address;
use jiff::fmt::serde::unsigned_duration::friendly::compact::required as duration;
use serde::Deserialize;

/// Where the configuration lies unless a flag says otherwise.
pub const DEFAULT_PATH: &str = "/etc/holdfast/collector.toml";
/// The documented default configuration, every setting commented out.
pub const DEFAULT_FILE: &str = include_str!("collector.toml");

/// All settings. Each is explained in [`DEFAULT_FILE`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address for agents and operators' tools.
    pub grpc: SocketAddr,
    /// Address for health and metrics.
    pub http: SocketAddr,
    /// Allows addresses that other hosts can reach, without TLS.
    pub insecure_plaintext: bool,
    /// Folder of the store.
    pub state_dir: PathBuf,
    /// Most hosts.
    pub max_hosts: usize,
    /// Budget for what is known of all hosts.
    pub host_memory: ByteSize,
    /// Budget for recent windows of all series.
    pub series_memory: ByteSize,
    /// How far back series are kept, memory permitting.
    #[serde(with = "duration")]
    pub series_span: Duration,
    /// Most events kept.
    pub events_kept: u64,
    /// How long events are kept.
    #[serde(with = "duration")]
    pub events_kept_for: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            grpc: SocketAddr::from((Ipv4Addr::LOCALHOST, 7401)),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 7402)),
            insecure_plaintext: false,
            state_dir: PathBuf::from("/var/lib/holdfast/collector"),
            max_hosts: 10_000,
            host_memory: ByteSize::mib(512),
            series_memory: ByteSize::mib(512),
            series_span: Duration::from_secs(3600),
            events_kept: 100_000,
            events_kept_for: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A number is out of bounds.
    #[error("`{key}` must be {bounds}")]
    Bounds {
        /// The setting.
        key: &'static str,
        /// What it must be.
        bounds: &'static str,
    },
    /// An address that other hosts can reach.
    #[error(transparent)]
    Address(#[from] address::Error),
}

impl Config {
    /// Checks what the types of the settings do not say.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be.
    pub fn check(&self) -> Result<(), Error> {
        let checks = [
            ("max_hosts", (1..=1_000_000).contains(&self.max_hosts), "from 1 to 1000000"),
            ("host_memory", self.host_memory >= ByteSize::mib(1), "at least 1 MiB"),
            ("series_memory", self.series_memory >= ByteSize::mib(1), "at least 1 MiB"),
            (
                "series_span",
                (Duration::from_secs(60)..=Duration::from_secs(86_400)).contains(&self.series_span),
                "from 1 minute to 24 hours",
            ),
            ("events_kept", self.events_kept >= 1, "at least 1"),
            (
                "events_kept_for",
                self.events_kept_for >= Duration::from_secs(60),
                "at least 1 minute",
            ),
        ];
        for (key, good, bounds) in checks {
            if !good {
                return Err(Error::Bounds { key, bounds });
            }
        }
        address::check_listen(self.grpc, self.insecure_plaintext)?;
        address::check_listen(self.http, self.insecure_plaintext)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Config {
        holdfast_core::config::parse(Path::new("collector.toml"), text).unwrap()
    }

    #[test]
    fn the_documented_file_holds_every_setting_at_its_default() {
        assert_eq!(parse(DEFAULT_FILE), Config::default());
        let settings = DEFAULT_FILE.lines().filter_map(|line| line.strip_prefix('#'));
        let settings = settings.filter(|line| !line.starts_with(' ') && line.contains('='));
        let settings: Vec<_> = settings.collect();
        assert_eq!(parse(&settings.join("\n")), Config::default());
        let debug = format!("{:?}", Config::default());
        assert_eq!(settings.len(), debug.matches(": ").count(), "{settings:?}");
        Config::default().check().unwrap();
    }

    #[test]
    fn settings_out_of_bounds_are_named() {
        for (text, expected) in [
            ("max_hosts = 0", "`max_hosts` must be from 1 to 1000000"),
            ("series_memory = '1 KiB'", "`series_memory` must be at least 1 MiB"),
            ("series_span = '10s'", "`series_span` must be from 1 minute to 24 hours"),
        ] {
            assert_eq!(parse(text).check().unwrap_err().to_string(), expected);
        }
        let open = "http = '0.0.0.0:7402'\n";
        assert!(parse(open).check().unwrap_err().to_string().contains("0.0.0.0:7402"));
        parse(&format!("{open}insecure_plaintext = true")).check().unwrap();
    }
}
