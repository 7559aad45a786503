//! Configuration of the agent: what may be set, what it means, what is sensible.
//!
//! [`Config`] is what files and flags say; [`Config::check`] turns down what cannot
//! work, in the words of the keys. The documented default file is printed from
//! `KEYS`, and a test holds the two together.

mod keys;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use holdfast_core::address;
use holdfast_proto::limits;
use serde::{Deserialize, Serialize};

use crate::share::Share;

pub use keys::default_file;

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_FILE: &str = "/etc/holdfast/agent.toml";
/// Where the socket is when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/holdfast/agent.sock";

/// Most unit slots: what a host's series may be at most, with room for devices.
const UNIT_SLOTS: std::ops::RangeInclusive<usize> = 2..=1024;
/// Least and most memory for eBPF maps.
const MAP_LIMIT: std::ops::RangeInclusive<u64> = (256 << 10)..=(256 << 20);

/// Least and most that the eBPF programs may cost, as shares of one core.
const CPU_BUDGET: std::ops::RangeInclusive<Share> =
    Share::millionths(100)..=Share::millionths(1_000_000);
/// Least and most time between measurements, and before detail comes back.
const MEASURE_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);
const LEARNING_TIME: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(7 * 86_400);
const FALSE_ALARMS: std::ops::RangeInclusive<f64> = 0.01..=100.0;
const REGAIN_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// Most disruptive actions on one host; fewer than are remembered.
const PER_10M: std::ops::RangeInclusive<u32> = 0..=100;
const PER_24H: std::ops::RangeInclusive<u32> = 0..=250;
const LONGEST_GRACE: Duration = Duration::from_secs(3_600);
const PROTECTED: usize = 256;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this host in the fleet; the kernel's node name when empty.
    pub host_name: String,
    /// The collector, as `http://HOST:PORT`; none when empty.
    pub collector: String,
    /// Unix socket of the local API.
    pub socket: PathBuf,
    /// Address of the metrics page.
    pub metrics: SocketAddr,
    /// Whether `metrics` may be an address that other hosts reach.
    pub insecure_plaintext: bool,
    /// What must survive a restart.
    pub state_dir: PathBuf,
    /// Length of a summary window, in whole seconds.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub summary_interval: Duration,
    /// The eBPF programs.
    pub ebpf: Ebpf,
    /// How unusual the host is.
    pub scoring: Scoring,
    /// What may be done for services.
    pub healing: Healing,
}

/// What can be set about the scorer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scoring {
    /// Whether to score at all.
    pub enabled: bool,
    /// How many false alarms a week this host may raise.
    pub promised_false_alarms: f64,
    /// History before anything is scored.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub learning_time: Duration,
}

impl Default for Scoring {
    fn default() -> Self {
        Self {
            enabled: true,
            promised_false_alarms: 1.0,
            learning_time: Duration::from_secs(1_800),
        }
    }
}

/// What can be set about healing; the services themselves have a file each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Healing {
    /// Whether to heal at all.
    pub enabled: bool,
    /// Folder of the services' files.
    pub services: PathBuf,
    /// Folder of the hooks.
    pub hooks: PathBuf,
    /// Units that are never touched, beside those that never are.
    pub protected: BTreeSet<String>,
    /// Most disruptive actions on this host in ten minutes, and in a day.
    pub per_10m: u32,
    /// See `per_10m`.
    pub per_24h: u32,
    /// For so long after its start the agent does nothing.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub grace: Duration,
}

impl Default for Healing {
    fn default() -> Self {
        let holdfast_healer::Settings { budget, grace, .. } = holdfast_healer::Settings::default();
        Self {
            enabled: true,
            services: "/etc/holdfast/services.d".into(),
            hooks: "/etc/holdfast/hooks.d".into(),
            protected: BTreeSet::new(),
            per_10m: budget.per_10m,
            per_24h: budget.per_24h,
            grace,
        }
    }
}

/// What can be set about the eBPF programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ebpf {
    /// Whether to load any.
    pub enabled: bool,
    /// How many units are told apart.
    pub unit_slots: usize,
    /// Most kernel memory for all maps.
    pub map_limit: ByteSize,
    /// Programs not to load.
    pub disabled: Vec<String>,
    /// What all programs may cost, as a share of one core.
    pub cpu_budget: Share,
    /// How often what an event costs is measured while nothing happens.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub measure_interval: Duration,
    /// How long there must be room before detail that was given up is kept again.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub regain_after: Duration,
    /// From which share of stalled time on a unit is under pressure.
    pub pressure_threshold: Share,
    /// Whether to prove the probes at the start.
    pub attest: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host_name: String::new(),
            collector: "http://127.0.0.1:7401".to_owned(),
            socket: DEFAULT_SOCKET.into(),
            metrics: SocketAddr::from(([127, 0, 0, 1], 7404)),
            insecure_plaintext: false,
            state_dir: "/var/lib/holdfast/agent".into(),
            summary_interval: Duration::from_secs(10),
            ebpf: Ebpf::default(),
            scoring: Scoring::default(),
            healing: Healing::default(),
        }
    }
}

impl Default for Ebpf {
    fn default() -> Self {
        Self {
            enabled: true,
            unit_slots: 256,
            map_limit: ByteSize::mib(16),
            disabled: Vec::new(),
            cpu_budget: Share::millionths(10_000),
            measure_interval: Duration::from_secs(10),
            regain_after: Duration::from_secs(60),
            pressure_threshold: Share::millionths(50_000),
            attest: true,
        }
    }
}

/// Why a configuration cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is malformed.
    #[error(transparent)]
    File(#[from] holdfast_core::config::Error),
    /// A value is out of its bounds.
    #[error("`{key}` cannot be {value}: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// What is wrong with that, and what would be right.
        problem: String,
    },
}

impl Config {
    /// Reads `named`, or the default file where there is one, with its drop-ins.
    ///
    /// # Errors
    ///
    /// See [`Error`]; values are not checked yet.
    pub fn load(named: Option<&Path>) -> Result<Self, Error> {
        Ok(holdfast_core::config::load(named, Path::new(DEFAULT_FILE))?)
    }

    /// Turns down values that cannot work.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for the first one.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key, value: &dyn std::fmt::Display, problem: &str| {
            Err(Error::Value { key, value: format!("`{value}`"), problem: problem.to_owned() })
        };
        if !self.host_name.is_empty() && !limits::is_host_name(&self.host_name) {
            let problem = "a host name has letters, digits, `-`, `.`, `_` and at most 253 of them";
            return refuse("host_name", &self.host_name, problem);
        }
        if !self.collector.is_empty() && !self.collector.starts_with("http://") {
            let problem = "give an address of the form http://HOST:PORT, or \"\" for none";
            return refuse("collector", &self.collector, problem);
        }
        let healing = &self.healing;
        for (key, path) in [
            ("socket", &self.socket),
            ("state_dir", &self.state_dir),
            ("healing.services", &healing.services),
            ("healing.hooks", &healing.hooks),
        ] {
            if !path.is_absolute() {
                return refuse(key, &path.display(), "give an absolute path");
            }
        }
        if let Err(error) = address::check_listen(self.metrics, self.insecure_plaintext) {
            return refuse("metrics", &self.metrics, &error.to_string());
        }
        let interval = self.summary_interval;
        let whole = interval.subsec_nanos() == 0;
        let in_range =
            u32::try_from(interval.as_millis()).is_ok_and(|ms| limits::WINDOW_MS.contains(&ms));
        if !whole || !in_range {
            let problem = "give whole seconds, from 1s to 60s";
            return refuse("summary_interval", &format_args!("{interval:?}"), problem);
        }
        if !UNIT_SLOTS.contains(&self.ebpf.unit_slots) {
            let problem = format!("give {} to {}", UNIT_SLOTS.start(), UNIT_SLOTS.end());
            return refuse("ebpf.unit_slots", &self.ebpf.unit_slots, &problem);
        }
        if !MAP_LIMIT.contains(&self.ebpf.map_limit.as_u64()) {
            return refuse("ebpf.map_limit", &self.ebpf.map_limit, "give 256 KiB to 256 MiB");
        }
        let (budget, interval) = (self.ebpf.cpu_budget, self.ebpf.measure_interval);
        if !CPU_BUDGET.contains(&budget) {
            return refuse("ebpf.cpu_budget", &budget, "give 0.01% to 100% (of one core)");
        }
        if !MEASURE_INTERVAL.contains(&interval) {
            let interval = format_args!("{interval:?}");
            return refuse("ebpf.measure_interval", &interval, "give 1s to 5m");
        }
        if !REGAIN_AFTER.contains(&self.ebpf.regain_after) {
            let wait = format_args!("{:?}", self.ebpf.regain_after);
            return refuse("ebpf.regain_after", &wait, "give 1s to 1h");
        }
        let promised = self.scoring.promised_false_alarms;
        if !FALSE_ALARMS.contains(&promised) {
            let key = "scoring.promised_false_alarms";
            return refuse(key, &promised, "give 0.01 to 100 (a week)");
        }
        let learning = self.scoring.learning_time;
        if !LEARNING_TIME.contains(&learning) {
            let wait = format_args!("{learning:?}");
            return refuse("scoring.learning_time", &wait, "give 1m to 168h");
        }
        if !PER_10M.contains(&healing.per_10m) {
            return refuse("healing.per_10m", &healing.per_10m, "give 0 to 100");
        }
        if !PER_24H.contains(&healing.per_24h) {
            return refuse("healing.per_24h", &healing.per_24h, "give 0 to 250");
        }
        if healing.grace > LONGEST_GRACE {
            let grace = format_args!("{:?}", healing.grace);
            return refuse("healing.grace", &grace, "give 0s to 1h");
        }
        if healing.protected.len() > PROTECTED {
            let problem = format!("name at most {PROTECTED}; `name*` is all that begin so");
            return refuse("healing.protected", &healing.protected.len(), &problem);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::keys::KEYS;
    use super::*;

    fn load(text: &str) -> Result<Config, Error> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(Some(&file))?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn the_default_file_holds_every_key_with_its_default() {
        assert_eq!(load(&default_file()).unwrap(), Config::default());
        let commented_in: String = default_file()
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)
            })
            .fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(load(&commented_in).unwrap(), Config::default());

        let written = toml::Table::try_from(Config::default()).unwrap();
        let mut keys: Vec<_> = written
            .iter()
            .flat_map(|(name, value)| match value.as_table() {
                Some(table) => table.keys().map(|key| (name.clone(), key.clone())).collect(),
                None => vec![(String::new(), name.clone())],
            })
            .collect();
        keys.sort();
        let mut shown: Vec<_> =
            KEYS.iter().map(|key| (key.table.to_owned(), key.name.to_owned())).collect();
        shown.sort();
        assert_eq!(shown, keys);
    }

    #[test]
    fn a_misspelt_key_is_told_with_its_place() {
        let error = load("\nsummary_intervall = \"5s\"\n").unwrap_err().to_string();
        assert!(
            error.contains(":2:1") && error.contains("did you mean `summary_interval`"),
            "{error}"
        );
    }

    #[test]
    fn values_that_cannot_work_are_turned_down() {
        for (text, key) in [
            ("host_name = \"a b\"", "host_name"),
            ("collector = \"https://x\"", "collector"),
            ("socket = \"agent.sock\"", "socket"),
            ("metrics = \"0.0.0.0:7404\"", "metrics"),
            ("summary_interval = \"90s\"", "summary_interval"),
            ("summary_interval = \"1500ms\"", "summary_interval"),
            ("summary_interval = \"x\"", "summary_interval"),
            ("[ebpf]\nunit_slots = 1", "ebpf.unit_slots"),
            ("[ebpf]\nmap_limit = \"1 KiB\"", "ebpf.map_limit"),
            ("[ebpf]\ncpu_budget = \"0%\"", "ebpf.cpu_budget"),
            ("[ebpf]\ncpu_budget = \"a lot\"", "no share"),
            ("[ebpf]\nmeasure_interval = \"0s\"", "ebpf.measure_interval"),
            ("[ebpf]\nregain_after = \"2h\"", "ebpf.regain_after"),
            ("[scoring]\npromised_false_alarms = 0.0", "scoring.promised_false_alarms"),
            ("[scoring]\npromised_false_alarms = nan", "scoring.promised_false_alarms"),
            ("[scoring]\nlearning_time = \"1s\"", "scoring.learning_time"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(key), "{text}: {error}");
        }
        let config =
            load("metrics = \"0.0.0.0:0\"\ninsecure_plaintext = true\nsummary_interval = \"1s\"");
        assert_eq!(config.unwrap().summary_interval, Duration::from_secs(1));
    }
}
