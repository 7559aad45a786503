//! A service's file, `/etc/holdfast/services.d/NAME.toml`, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_core::config::Contents;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::action::Action;
use crate::check::{Check, Question};
use crate::policy::{Budget, Policy};
use crate::trigger::{Mode, Trigger};

const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);
const IN_A_ROW: RangeInclusive<u32> = 1..=100;
const UPTIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
const JUDGED: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
const PER_10M: RangeInclusive<u32> = 0..=20;
const PER_24H: RangeInclusive<u32> = 0..=200;
/// Most checks of a service, rungs of a ladder, services that one requires, and services.
const CHECKS: usize = crate::service::CHECKS;
const RUNGS: usize = 16;
const REQUIRES: usize = 32;
const FOLDERS: usize = 8;
/// Most services of a host.
pub const SERVICES: usize = 1_024;
/// Longest name of a unit (systemd's own limit), of a check, and of anything else.
const UNIT_BYTES: usize = 255;
const NAME_BYTES: usize = 64;
const TEXT_BYTES: usize = 4_096;

/// A service's file with every key, its default and what it means.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The JSON schema of a service's file, as text.
#[must_use]
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(File);
    schema.insert("title".to_owned(), "A service that holdfast-agent heals".into());
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}

/// A service: what is checked and what may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its unit.
    pub unit: Arc<str>,
    /// What may be done for it.
    pub policy: Policy,
    /// What is asked of it.
    pub checks: Vec<Check>,
    /// Folders whose file systems it must not fill.
    pub folders: Vec<PathBuf>,
}

/// Why a service's file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what would be right.
    pub problem: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct File {
    unit: String,
    requires: BTreeSet<String>,
    culprits: BTreeSet<String>,
    folders: Vec<PathBuf>,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    #[schemars(with = "Option<String>")]
    min_uptime: Option<Duration>,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    #[schemars(with = "Option<String>")]
    judged_after: Option<Duration>,
    permits: Option<bool>,
    budget: FileBudget,
    #[schemars(with = "BTreeMap<Trigger, Vec<String>>")]
    ladders: BTreeMap<Trigger, Vec<Action>>,
    modes: BTreeMap<Trigger, Mode>,
    checks: Vec<FileCheck>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct FileBudget {
    per_10m: Option<u32>,
    per_24h: Option<u32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct FileCheck {
    name: String,
    http: Option<String>,
    status: Option<Vec<u16>>,
    contains: Option<String>,
    tcp: Option<String>,
    grpc: Option<String>,
    grpc_service: Option<String>,
    exec: Option<Vec<String>>,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    #[schemars(with = "Option<String>")]
    every: Option<Duration>,
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    #[schemars(with = "Option<String>")]
    timeout: Option<Duration>,
    failures: Option<u32>,
    successes: Option<u32>,
}

impl Service {
    /// Reads a service from the text of its file.
    ///
    /// # Errors
    ///
    /// [`Error`] for the first thing that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let refuse = |problem: String| Error { path: path.to_owned(), problem };
        let file: File =
            holdfast_core::config::parse(path, text).map_err(|error| refuse(error.to_string()))?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        file.service(stem).map_err(refuse)
    }

    /// The hooks that its ladders name, each with the unit.
    pub fn hooks(&self) -> impl Iterator<Item = (&str, &str)> {
        let rungs = self.policy.ladders.values().flatten();
        rungs.filter_map(|action| match action {
            Action::Hook(name) => Some((&*self.unit, name.as_str())),
            _ => None,
        })
    }
}

impl File {
    fn service(self, stem: &str) -> Result<Service, String> {
        let unit = if self.unit.is_empty() { format!("{stem}.service") } else { self.unit };
        check_unit(&unit)?;
        if self.requires.len() > REQUIRES {
            return Err(format!("`requires` names more than {REQUIRES} units"));
        }
        self.requires.iter().try_for_each(|unit| check_unit(unit))?;
        if self.requires.contains(&unit) {
            return Err(format!("{unit} cannot require itself"));
        }
        if self.culprits.len() > REQUIRES {
            return Err(format!("`culprits` names more than {REQUIRES} units"));
        }
        self.culprits.iter().try_for_each(|unit| check_unit(unit))?;
        if self.culprits.contains(&unit) {
            return Err(format!("{unit} cannot be its own culprit"));
        }
        if self.folders.len() > FOLDERS {
            return Err(format!("`folders` names more than {FOLDERS} folders"));
        }
        if let Some(folder) = self.folders.iter().find(|folder| !folder.is_absolute()) {
            return Err(format!("`folders`: {} is no absolute path", folder.display()));
        }
        let of = Policy::default();
        let min_uptime = self.min_uptime.unwrap_or(of.min_uptime);
        let judged_after = self.judged_after.unwrap_or(of.judged_after);
        within("min_uptime", &min_uptime, &UPTIME, "give 0s to 1h")?;
        within("judged_after", &judged_after, &JUDGED, "give 1s to 1h")?;
        let budget = Budget {
            per_10m: self.budget.per_10m.unwrap_or(of.budget.per_10m),
            per_24h: self.budget.per_24h.unwrap_or(of.budget.per_24h),
        };
        within("budget.per_10m", &budget.per_10m, &PER_10M, "give 0 to 20")?;
        within("budget.per_24h", &budget.per_24h, &PER_24H, "give 0 to 200")?;
        for (trigger, ladder) in &self.ladders {
            let name = trigger.name();
            if ladder.len() > RUNGS {
                return Err(format!("`ladders.{name}` has more than {RUNGS} rungs"));
            }
            if let Some(twice) = first_twice(ladder) {
                return Err(format!("`ladders.{name}` names {twice} twice"));
            }
            if ladder.contains(&Action::Throttle) && self.culprits.is_empty() {
                return Err(format!("`ladders.{name}` throttles, and `culprits` names nobody"));
            }
        }
        if self.checks.len() > CHECKS {
            return Err(format!("there are more than {CHECKS} checks"));
        }
        let checks: Vec<Check> =
            self.checks.into_iter().map(FileCheck::check).collect::<Result<_, _>>()?;
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        if let Some(twice) = first_twice(&names) {
            return Err(format!("two checks have the name `{twice}`"));
        }
        let policy = Policy {
            requires: self.requires.into_iter().map(Arc::from).collect(),
            culprits: self.culprits.into_iter().map(Arc::from).collect(),
            min_uptime,
            judged_after,
            ladders: self.ladders,
            modes: self.modes,
            budget,
            permits: self.permits.unwrap_or(of.permits),
        };
        Ok(Service { unit: unit.into(), policy, checks, folders: self.folders })
    }
}

impl FileCheck {
    fn check(self) -> Result<Check, String> {
        let name = self.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=NAME_BYTES).contains(&name.len()) || !name.chars().all(plain) {
            return Err(format!(
                "a check's name has letters, digits, `-`, `.`, `_` and at most {NAME_BYTES} of them"
            ));
        }
        let refuse = |problem: &str| Err(format!("check `{name}`: {problem}"));
        let question = match (self.http, self.tcp, self.grpc, self.exec) {
            (Some(url), None, None, None) => {
                let status = match self.status.as_deref() {
                    None => (200, 299),
                    Some([one]) => (*one, *one),
                    Some([from, to]) if from <= to => (*from, *to),
                    Some(_) => return refuse("`status` is one status, or the first and the last"),
                };
                if !url.starts_with("http://") {
                    return refuse("`http` is of the form http://HOST:PORT/PATH");
                }
                Question::Http { url, status, contains: self.contains.unwrap_or_default() }
            }
            (None, Some(address), None, None) => Question::Tcp { address },
            (None, None, Some(address), None) => {
                Question::Grpc { address, service: self.grpc_service.unwrap_or_default() }
            }
            (None, None, None, Some(command)) => {
                if !command.first().is_some_and(|program| program.starts_with('/')) {
                    return refuse("`exec` begins with the whole path of a program");
                }
                Question::Exec { command }
            }
            _ => return refuse("give one of `http`, `tcp`, `grpc` and `exec`"),
        };
        if !texts(&question).into_iter().all(is_plain) {
            return refuse("it has control characters, or is too long");
        }
        if let Question::Tcp { address } | Question::Grpc { address, .. } = &question
            && address
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            return refuse("an address is of the form HOST:PORT");
        }
        let every = self.every.unwrap_or(Duration::from_secs(5));
        let check = Check {
            every,
            timeout: self.timeout.unwrap_or_else(|| every.min(Duration::from_secs(2))),
            failures: self.failures.unwrap_or(2),
            successes: self.successes.unwrap_or(2),
            question,
            name: name.clone(),
        };
        let of = |problem| format!("check `{name}`: {problem}");
        within("every", &check.every, &EVERY, "give 1s to 1h").map_err(of)?;
        within("timeout", &check.timeout, &TIMEOUT, "give 10ms to 5m").map_err(of)?;
        if check.timeout > check.every {
            return refuse("`timeout` cannot be longer than `every`");
        }
        within("failures", &check.failures, &IN_A_ROW, "give 1 to 100").map_err(of)?;
        within("successes", &check.successes, &IN_A_ROW, "give 1 to 100").map_err(of)?;
        Ok(check)
    }
}

fn texts(question: &Question) -> Vec<&str> {
    match question {
        Question::Http { url, contains, .. } => vec![url, contains],
        Question::Tcp { address } => vec![address],
        Question::Grpc { address, service } => vec![address, service],
        Question::Exec { command } => command.iter().map(String::as_str).collect(),
    }
}

fn is_plain(text: &str) -> bool {
    text.len() <= TEXT_BYTES && !text.chars().any(char::is_control)
}

fn within<T: PartialOrd + std::fmt::Debug>(
    key: &str,
    value: &T,
    range: &RangeInclusive<T>,
    right: &str,
) -> Result<(), String> {
    if range.contains(value) {
        Ok(())
    } else {
        Err(format!("`{key}` cannot be {value:?}: {right}"))
    }
}

fn first_twice<T: PartialEq>(all: &[T]) -> Option<&T> {
    all.iter()
        .enumerate()
        .find(|(n, one)| all.iter().take(*n).any(|earlier| earlier == *one))
        .map(|(_, one)| one)
}

/// Whether `unit` can be the name of a service that is healed.
fn check_unit(unit: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let named = unit.strip_suffix(".service").is_some_and(|name| !name.is_empty());
    if named && unit.len() <= UNIT_BYTES && unit.chars().all(plain) {
        return Ok(());
    }
    let shown: String = unit.chars().filter(|c| !c.is_control()).take(NAME_BYTES).collect();
    Err(format!("`{shown}` is no name of a service; one ends in .service"))
}

/// What a folder of services' files comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The services that can be used.
    pub services: Vec<Service>,
    /// What cannot be used, and why, in plain words.
    pub problems: Vec<String>,
}

/// Reads the services of `folder`, as [`holdfast_core::config::folder`] found them. A file that
/// cannot be used costs its own service and no other.
#[must_use]
pub fn read(folder: Result<Vec<(PathBuf, Contents)>, holdfast_core::config::Error>) -> Found {
    let mut found = Found::default();
    let files = match folder {
        Ok(files) => files,
        Err(error) => {
            found.problems.push(error.to_string());
            return found;
        }
    };
    for (path, contents) in files {
        let service = contents.map_err(|error| error.to_string()).and_then(|bytes| {
            let text = str::from_utf8(&bytes);
            let text = text.map_err(|_| format!("{} is no text", path.display()))?;
            Service::parse(&path, text).map_err(|error| error.to_string())
        });
        match service {
            Ok(service) => {
                found.services.push(service);
                if let Err(problem) = check_together(&found.services) {
                    found.services.pop();
                    found.problems.push(format!("{}: {problem}", path.display()));
                }
            }
            Err(problem) => found.problems.push(problem),
        }
    }
    found
}

/// Whether services can be healed together.
///
/// # Errors
///
/// What stands against it, in plain words: two files for one unit, or services that require
/// each other.
pub fn check_together(services: &[Service]) -> Result<(), String> {
    if services.len() > SERVICES {
        return Err(format!("there are more than {SERVICES} services"));
    }
    let units: Vec<&Arc<str>> = services.iter().map(|service| &service.unit).collect();
    if let Some(twice) = first_twice(&units) {
        return Err(format!("there are two files for {twice}"));
    }
    let by_unit: BTreeMap<&str, &Policy> =
        services.iter().map(|service| (&*service.unit, &service.policy)).collect();
    for unit in by_unit.keys() {
        if let Some(way) = circle(unit, &by_unit) {
            return Err(format!("{} require each other", way.join(" and ")));
        }
    }
    Ok(())
}

/// A way from `start` back to it.
fn circle<'a>(start: &'a str, policies: &BTreeMap<&'a str, &'a Policy>) -> Option<Vec<&'a str>> {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![vec![start]];
    while let Some(way) = ahead.pop() {
        let Some(policy) = way.last().and_then(|unit| policies.get(unit)) else { continue };
        for next in &policy.requires {
            if **next == *start {
                return Some(way);
            }
            if seen.insert(&**next) {
                ahead.push(way.iter().copied().chain([&**next]).collect());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Service, String> {
        Service::parse(Path::new("/etc/holdfast/services.d/web.toml"), text)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_a_service_with_the_defaults() {
        let service = parse("").unwrap();
        assert_eq!((&*service.unit, service.policy), ("web.service", Policy::default()));
    }

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        assert_eq!(parse(EXAMPLE).unwrap().policy, Policy::default());
        let spelt: String = EXAMPLE
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)
            })
            .fold(String::new(), |text, line| text + line + "\n");
        let spelt = parse(&spelt.replace("NAME.service", "web.service")).unwrap();
        let policy = &spelt.policy;
        for trigger in Trigger::ALL {
            assert_eq!(policy.ladders.get(&trigger), Some(&trigger.ladder()), "{trigger:?}");
            assert_eq!(policy.modes.get(&trigger), Some(&trigger.mode()), "{trigger:?}");
        }
        let defaults = Policy::default();
        let of = |policy: &Policy| (policy.min_uptime, policy.judged_after, policy.budget);
        assert_eq!(of(policy), of(&defaults));
        let [health, port, rpc, script] = &*spelt.checks else { panic!("{:?}", spelt.checks) };
        for check in [port, rpc, script] {
            let of = |check: &Check| (check.every, check.timeout, check.failures, check.successes);
            assert_eq!(of(check), of(health), "what is spelt out is the default");
        }
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
        let known = schema["properties"].as_object().expect("properties");
        let spelt =
            EXAMPLE.lines().filter_map(|line| line.trim_start_matches('#').split_once(" = "));
        let top = spelt.map(|(key, _)| key).take_while(|key| *key != "per_10m");
        for key in top.chain(["budget", "ladders", "modes", "checks"]) {
            assert!(known.contains_key(key), "{key}");
        }
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn all_that_can_be_said() {
        let service = parse(
            "unit = 'app@1.service'\nrequires = ['db.service']\nmin_uptime = '1m'\n\
             judged_after = '90s'\npermits = true\n[budget]\nper_10m = 1\n[modes]\n\
             degraded = 'act'\n[ladders]\nunresponsive = ['reload', 'hook:flush', 'escalate']\n\
             [[checks]]\nname = 'health'\nhttp = 'http://127.0.0.1:8080/health'\nstatus = [200]\n\
             every = '2s'\ntimeout = '500ms'\nfailures = 3\n\
             [[checks]]\nname = 'port'\ntcp = '[::1]:5432'\n\
             [[checks]]\nname = 'script'\nexec = ['/usr/bin/check', '-q']\n",
        )
        .unwrap();
        let policy = &service.policy;
        assert_eq!((policy.budget.per_10m, policy.budget.per_24h), (1, 10));
        assert_eq!(policy.mode(Trigger::Degraded), Mode::Act);
        let rungs: Vec<_> = policy.ladder(Trigger::Unresponsive);
        assert_eq!(rungs, [Action::Reload, Action::Hook("flush".into()), Action::Escalate]);
        let [health, port, _] = &*service.checks else { panic!("{:?}", service.checks) };
        assert_eq!((health.failures, health.patience()), (3, Duration::from_millis(4_500)));
        assert_eq!((port.every, port.timeout), (Duration::from_secs(5), Duration::from_secs(2)));
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_would() {
        let long = format!("[[checks]]\nname = '{}'\ntcp = 'h:1'", "x".repeat(65));
        for (text, part) in [
            ("unitt = 'a'", "did you mean `unit`?"),
            ("unit = 'ssh.socket'", "no name of a service"),
            ("unit = '../x.service'", "no name of a service"),
            ("requires = ['web.service']", "cannot require itself"),
            ("folders = ['data']", "no absolute path"),
            ("min_uptime = '2h'", "give 0s to 1h"),
            ("[budget]\nper_10m = 21", "give 0 to 20"),
            ("[ladders]\nfoo = []", "foo"),
            ("[ladders]\ncrashed = ['reboot', 'reboot']", "names reboot twice"),
            ("[ladders]\ncrashed = ['rm -rf /']", "is no action"),
            ("[modes]\ncrashed = 'maybe'", "maybe"),
            ("[[checks]]\nname = 'a'", "give one of"),
            ("[[checks]]\nname = 'a'\ntcp = 'h:1'\nhttp = 'http://h'", "give one of"),
            ("[[checks]]\nname = 'a b'\ntcp = 'h:1'", "a check's name"),
            ("[[checks]]\nname = 'a'\ntcp = 'h'", "HOST:PORT"),
            (
                "[[checks]]\nname = 'a'\ntcp = 'h:1'\n[[checks]]\nname = 'a'\ntcp = 'h:2'",
                "two checks",
            ),
            ("[[checks]]\nname = 'a'\nhttp = 'https://h'", "http://HOST"),
            ("[[checks]]\nname = 'a'\nexec = ['sh', '-c', 'x']", "whole path"),
            ("[[checks]]\nname = 'a'\ntcp = 'h:1'\ntimeout = '9s'", "longer than `every`"),
            ("[[checks]]\nname = 'a'\ntcp = 'h:1'\nevery = '1ms'", "give 1s to 1h"),
            (&long, "a check's name"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part) && error.contains("web.toml"), "{text}: {error}");
        }
    }

    #[test]
    fn one_bad_file_costs_one_service() {
        let file = |name: &str, text: &[u8]| {
            (PathBuf::from(format!("/etc/{name}.toml")), Ok(text.to_vec()))
        };
        let found = read(Ok(vec![
            file("a", b"requires = ['z.service']"),
            file("binary", &[0xff, 0xfe]),
            file("broken", b"unit = "),
            file("db", b""),
            file("twice", b"unit = 'db.service'"),
            file("typo", b"unitt = 'x.service'"),
            file("web", b"requires = ['db.service']"),
            file("z", b"requires = ['a.service']"),
        ]));
        let units: Vec<_> = found.services.iter().map(|service| &*service.unit).collect();
        assert_eq!(units, ["a.service", "db.service", "web.service"]);
        let parts = ["binary.toml", "broken.toml", "two files", "did you mean", "require each"];
        assert_eq!(found.problems.len(), parts.len(), "{:?}", found.problems);
        for (problem, part) in found.problems.iter().zip(parts) {
            assert!(problem.contains(part), "{part}: {problem}");
        }
    }

    #[test]
    fn services_that_require_each_other_are_refused() {
        let service = |unit: &str, requires: &[&str]| Service {
            unit: unit.into(),
            policy: Policy {
                requires: requires.iter().map(|unit| (*unit).into()).collect(),
                ..Policy::default()
            },
            checks: Vec::new(),
            folders: Vec::new(),
        };
        let a = service("a.service", &["b.service", "x.service"]);
        let (b, c) = (service("b.service", &["c.service"]), service("c.service", &["a.service"]));
        assert_eq!(check_together(&[a.clone(), b.clone()]), Ok(()));
        let refused = check_together(&[a.clone(), b, c]).unwrap_err();
        assert_eq!(refused, "a.service and b.service and c.service require each other");
        assert!(check_together(&[a.clone(), a]).is_err_and(|why| why.contains("two files")));
    }
}
