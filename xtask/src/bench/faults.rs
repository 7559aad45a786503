//! What the agent finds unusual: services of a real host fall ill, one after the other, and
//! the agent has to tell, soon, and to name the right kind of signal first.
//!
//! Every service is there and well from the beginning, so that the agent knows what is
//! usual for it; each falls ill once. Windows are a second long, and twenty minutes
//! are all the history there is before the first one does.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fmt, fs};

use anyhow::{Context, Result, bail};
use holdfast_core::clock::{self, BootTime};
use serde_json::Value;
use tempfile::TempDir;

use super::{Options, Row, median};
use crate::cgroup::{self, Cgroup};
use crate::leash::Leashed;
use crate::provoke::patient::Fault;
use crate::shell;
use crate::stack::{Ports, Programs, Stack};
use crate::stop::Stop;

const RUNS: u64 = 20;
pub(crate) const PREFIX: &str = "holdfast-fault-";
const CONFIG: &str =
    "summary_interval = \"1s\"\n[ebpf]\ncpu_budget = \"20%\"\n[scoring]\nlearning_time = \"5m\"\n";
/// How long everything is well first, in seconds.
const WELL: u64 = 1_200;
/// How long a service is ill at most, how long still once that is told, and how long is
/// waited before the next one is.
const ILL: Duration = Duration::from_secs(30);
const TOLD: Duration = Duration::from_secs(4);
const REST: Duration = Duration::from_secs(6);
/// The first port of those that talk over a network that loses packets.
const PORT: u64 = 5_000;

pub(super) fn run(options: &Options, stop: &Stop) -> Result<Vec<Row>> {
    cgroup::sweep(|name| name.starts_with(PREFIX))?;
    let runs = options.runs.unwrap_or(RUNS);
    let scratch = TempDir::with_prefix_in(PREFIX, "/var/tmp").context("no temporary folder")?;
    let network = Network::new().map_err(|error| eprintln!("loss is left out: {error:#}")).ok();
    let mut stack = Stack::start_with(&Programs::build("release")?, Ports::Any, &[], CONFIG, stop)?;
    let mut patients = Vec::new();
    for number in 0..runs {
        for fault in Fault::ALL {
            if fault != Fault::Loss || network.is_some() {
                patients.push(Patient::admit(fault, number, scratch.path())?);
            }
        }
    }
    let well = options.seconds.unwrap_or(WELL);
    eprintln!("{} services are well for {well} s", patients.len());
    let before = clock::unix_ms();
    rest(Duration::from_secs(well), &mut stack, stop)?;
    let untroubled = told_since(&mut stack, before)?;
    let mut seen = Vec::new();
    for patient in &mut patients {
        seen.push((patient.fault, patient.suffer(network.as_ref(), &mut stack, stop)?));
    }
    let mut rows = vec![Row::new("nothing wrong, episodes told", untroubled as f64, "episodes")];
    for fault in Fault::ALL {
        let of: Vec<&Seen> = seen.iter().filter(|(of, _)| *of == fault).map(|(_, s)| s).collect();
        if !of.is_empty() {
            rows.extend(summary(fault, &of));
        }
    }
    Ok(rows)
}

/// What the agent told of one illness.
pub(crate) struct Seen {
    /// How long it took; `None` when it told nothing.
    delay: Option<f64>,
    /// The signal it named first, of the service.
    signal: String,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.delay {
            Some(delay) => write!(f, "told after {delay:.1} s, {} first", self.signal),
            None => f.write_str("not told"),
        }
    }
}

fn summary(fault: Fault, seen: &[&Seen]) -> Vec<Row> {
    let name = fault.name();
    let told: Vec<f64> = seen.iter().filter_map(|seen| seen.delay).collect();
    let right = |seen: &&&Seen| {
        fault.subsystems().iter().any(|subsystem| seen.signal.starts_with(subsystem))
    };
    let percent = |count: usize, of: usize| 100.0 * count as f64 / of.max(1) as f64;
    let named = seen.iter().filter(|seen| seen.delay.is_some()).filter(right).count();
    vec![
        Row::new(format!("{name}, told"), percent(told.len(), seen.len()), "%"),
        Row::new(format!("{name}, right subsystem first"), percent(named, told.len()), "%"),
        Row::new(format!("{name}, delay (median)"), median(told), "s"),
    ]
}

/// A service that will fall ill once.
pub(crate) struct Patient {
    fault: Fault,
    number: u64,
    unit: String,
    ill: PathBuf,
    // It ends before its group does.
    processes: Vec<Leashed>,
    _groups: Vec<Cgroup>,
}

impl Patient {
    /// A service that is well for now; what it writes is in `scratch`.
    pub(crate) fn admit(fault: Fault, number: u64, scratch: &Path) -> Result<Self> {
        let unit = format!("{PREFIX}{}-{number}.service", fault.name());
        let ill = scratch.join(format!("{}-{number}.ill", fault.name()));
        let group = Cgroup::create(&unit)?;
        let mut words: Vec<OsString> = ["patient".into(), fault.name().into()].into();
        words.extend(["--ill".into(), ill.clone().into(), "--scratch".into(), scratch.into()]);
        let mut patient =
            Self { fault, number, unit, ill, processes: Vec::new(), _groups: Vec::new() };
        if fault == Fault::Loss {
            let peer = format!("{}:{}", Network::FAR, PORT + number);
            // Whom it talks to is no part of it.
            let mut answers = words.clone();
            answers.extend(["--answer".into(), peer.clone().into()]);
            patient.processes.push(Network::start("far", answers, &[])?);
            words.extend(["--peer".into(), peer.into()]);
            patient.processes.push(Network::start("near", words, &group.folders())?);
        } else {
            let ourselves = Path::new(shell::OURSELVES);
            patient.processes.push(Leashed::start(ourselves, words, &group.folders(), None)?);
        }
        patient._groups.push(group);
        Ok(patient)
    }

    /// Its unit.
    pub(crate) fn unit(&self) -> &str {
        &self.unit
    }

    /// Is ill for a while.
    pub(crate) fn suffer(
        &mut self,
        network: Option<&Network>,
        stack: &mut Stack,
        stop: &Stop,
    ) -> Result<Seen> {
        for process in &mut self.processes {
            process.check()?;
        }
        let (began, since) = (BootTime::now(), clock::unix_ms());
        match network.filter(|_| self.fault == Fault::Loss) {
            Some(network) => network.lose(PORT + self.number)?,
            None => fs::write(&self.ill, "").context("cannot make it ill")?,
        }
        let mut seen = Seen { delay: None, signal: String::new() };
        let over = |seen: &Seen| {
            let limit = seen.delay.map_or(ILL, |delay| Duration::from_secs_f64(delay) + TOLD);
            BootTime::now().since(began) >= limit
        };
        while !over(&seen) {
            rest(Duration::from_millis(250), stack, stop)?;
            let answer = stack.ask(&["episodes"])?;
            if seen.delay.is_none() && told(&answer, &self.unit, since).next().is_some() {
                seen.delay = Some(BootTime::now().since(began).as_secs_f64());
            }
            // What is named at its loudest.
            if let Some(signal) = told(&answer, &self.unit, since).last() {
                signal.clone_into(&mut seen.signal);
            }
        }
        match network.filter(|_| self.fault == Fault::Loss) {
            Some(network) => network.mend()?,
            None => fs::remove_file(&self.ill).context("cannot make it well")?,
        }
        eprintln!("{}: {seen}", self.unit);
        rest(REST, stack, stop)?;
        Ok(seen)
    }
}

/// The first signal of each part of `unit` that joined an episode since then, or became
/// worse than before.
fn told<'a>(answer: &'a Value, unit: &'a str, since: u64) -> impl Iterator<Item = &'a str> {
    let parts = answer.as_array().into_iter().flatten();
    let parts = parts.flat_map(|episode| episode["parts"].as_array().into_iter().flatten());
    parts
        .filter(move |part| part["instance"] == unit)
        .filter(move |part| part["loudest_unix_ms"].as_u64().is_some_and(|at| at >= since))
        .filter_map(|part| part.pointer("/reasons/0/signal")?.as_str())
}

/// Episodes that began since then.
fn told_since(stack: &mut Stack, since: u64) -> Result<usize> {
    let answer = stack.ask(&["episodes"])?;
    let episodes = answer.as_array().context("no list of episodes")?;
    let began = |of: &&Value| of["began_unix_ms"].as_u64().is_some_and(|at| at >= since);
    Ok(episodes.iter().filter(began).count())
}

fn rest(time: Duration, stack: &mut Stack, stop: &Stop) -> Result<()> {
    if stop.wait(time) {
        bail!("stopped");
    }
    stack.check()
}

/// Two ends of a cable; the far one can lose what comes in.
pub(crate) struct Network;

impl Network {
    const FAR: &str = "10.78.0.2";

    fn new() -> Result<Self> {
        Self::remove();
        let network = Self;
        ip(&["netns", "add", "holdfast-near"])?;
        ip(&["netns", "add", "holdfast-far"])?;
        let veth = ["link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns"];
        ip(&[&["-n", "holdfast-near"][..], &veth, &["holdfast-far"]].concat())?;
        for (end, address) in [("near", "10.78.0.1/24"), ("far", "10.78.0.2/24")] {
            let name = format!("holdfast-{end}");
            ip(&["-n", &name, "address", "add", address, "dev", "veth0"])?;
            ip(&["-n", &name, "link", "set", "veth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        network.mend()?;
        Ok(network)
    }

    fn start(end: &str, words: Vec<OsString>, folders: &[PathBuf]) -> Result<Leashed> {
        let ip = shell::find("ip").context("no program `ip`: install iproute2")?;
        let name = format!("holdfast-{end}");
        // By its place: what `/proc/self/exe` is there is `ip`.
        let ourselves = std::env::current_exe().context("where is this program?")?;
        let first = ["netns".into(), "exec".into(), name.into(), ourselves.into()];
        Leashed::start(Path::new(&ip), first.into_iter().chain(words), folders, None)
    }

    /// A third of what comes for `port` is lost from now on.
    fn lose(&self, port: u64) -> Result<()> {
        self.rules(&format!("tcp dport {port} numgen random mod 100 < 33 drop"))
    }

    fn mend(&self) -> Result<()> {
        self.rules("accept")
    }

    fn rules(&self, rule: &str) -> Result<()> {
        let rules = format!(
            "table inet holdfast\ndelete table inet holdfast\ntable inet holdfast {{\n chain in {{\n \
             type filter hook input priority 0\n {rule}\n }}\n}}\n"
        );
        let file = tempfile::NamedTempFile::new().context("no file for the rules")?;
        fs::write(file.path(), rules).context("cannot write the rules")?;
        let nft = shell::find("nft").context("no program `nft`: install nftables")?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", "holdfast-far"]).arg(nft).arg("-f").arg(file.path());
        shell::output(&mut command).map(drop)
    }

    fn remove() {
        for name in ["holdfast-near", "holdfast-far"] {
            // What is not there need not go.
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        Self::remove();
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    shell::output(Command::new("ip").args(arguments)).map(drop)
}
