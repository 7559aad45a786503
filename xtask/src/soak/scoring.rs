//! The agent's scoring while nothing is wrong: services that work a little, and the jobs
//! that any host has by day and by night. What is told then is a false alarm. At the end each
//! service falls ill, to see that the agent was not merely deaf.
//!
//! Windows are a second long: nothing the agent knows of is told sooner, or more often.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_core::clock::{self, BootTime};
use serde_json::Value;
use tempfile::TempDir;

use crate::bench::faults::{self, Patient};
use crate::cgroup::{self, Cgroup};
use crate::leash::Leashed;
use crate::provoke::patient::Fault;
use crate::shell;
use crate::stack::{Ports, Programs, Stack};
use crate::stop::Stop;

/// For how long, and how much.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How long, the time to learn included
    #[arg(long, default_value_t = 120)]
    minutes: u64,
    /// Services that work all the time, and fall ill, each in its way, at the end
    #[arg(long, default_value_t = 18)]
    services: u64,
}

/// All units of this soak begin so.
const PREFIX: &str = "holdfast-ordinary-";
const CONFIG: &str = "summary_interval = \"1s\"\n[scoring]\nlearning_time = \"10m\"\n";

/// A job that runs now and then, in a unit of its own, as a timer of systemd would start it.
struct Job {
    name: &'static str,
    /// From one start to the next.
    every: Duration,
    /// When it starts first: not all at once.
    first: Duration,
    /// For `sh -c`, in a folder on a real disk.
    script: &'static str,
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// What hosts do beside their services.
const JOBS: [Job; 6] = [
    Job {
        name: "health",
        every: Duration::from_secs(15),
        first: Duration::from_secs(5),
        script: "cat /proc/loadavg /proc/meminfo; df",
    },
    Job {
        name: "collect",
        every: minutes(1),
        first: Duration::from_secs(20),
        script: "ps -ef; ls -lR /etc; sort -R /etc/services | sort",
    },
    Job {
        name: "rotate",
        every: minutes(5),
        first: minutes(2),
        script: "head -c 24M /dev/urandom > log; gzip -f log; rm -f log.gz",
    },
    Job {
        name: "index",
        every: minutes(10),
        first: minutes(3),
        script: "find /usr -xdev -newer /etc/hostname",
    },
    Job {
        name: "backup",
        every: minutes(15),
        first: minutes(7),
        script: "tar -cf backup.tar /usr/bin /usr/share/perl* && gzip -1 -f backup.tar && sync .; \
                 rm -f backup.tar*",
    },
    Job {
        name: "report",
        every: minutes(20),
        first: minutes(11),
        script: "i=0; while [ $i -lt 400000 ]; do i=$((i + 1)); done",
    },
];

/// A job that is due, and its last run.
struct Timer {
    job: &'static Job,
    due: Duration,
    // It ends before its unit does.
    running: Option<(Leashed, Cgroup)>,
}

impl Timer {
    /// Starts it when it is due and not running any more.
    fn tick(&mut self, age: Duration, folder: &Path) -> Result<()> {
        if let Some((process, _)) = &mut self.running {
            if process.ended().context("a job was lost")?.is_none() {
                return Ok(());
            }
            self.running = None;
        }
        if age < self.due {
            return Ok(());
        }
        self.due = age + self.job.every;
        let unit = Cgroup::create(&format!("{PREFIX}{}.service", self.job.name))?;
        let shell = shell::find("sh").context("no shell")?;
        let script = format!("cd '{}' || exit 1; {}", folder.display(), self.job.script);
        let words = ["-c".into(), OsString::from(script)];
        self.running = Some((Leashed::start(&shell, words, &unit.folders(), None)?, unit));
        Ok(())
    }
}

pub(super) fn run(args: &Args, stop: &Stop) -> Result<()> {
    ensure!(args.minutes > 0, "nothing to do");
    cgroup::sweep(|name| name.starts_with(PREFIX) || name.starts_with(faults::PREFIX))?;
    let scratch = TempDir::with_prefix_in(PREFIX, "/var/tmp").context("no temporary folder")?;
    let mut stack = Stack::start_with(&Programs::build("release")?, Ports::Any, &[], CONFIG, stop)?;
    let mut services = Vec::new();
    let mut faults = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Loss).cycle();
    for (number, fault) in (0..args.services).zip(&mut faults) {
        services.push(Patient::admit(fault, number, scratch.path())?);
    }
    let timer = |job: &'static Job| Timer { job, due: job.first, running: None };
    let mut timers: Vec<Timer> = JOBS.iter().map(timer).collect();
    let time = minutes(args.minutes);
    eprintln!("{} services and {} jobs for {time:?}", services.len(), timers.len());

    let (start, mut told) = (BootTime::now(), BTreeMap::new());
    loop {
        let age = BootTime::now().since(start);
        stack.check()?;
        for timer in &mut timers {
            timer.tick(age, scratch.path())?;
        }
        for episode in stack.ask(&["episodes"])?.as_array().into_iter().flatten() {
            let id = episode["id"].to_string();
            if told.insert(id.clone(), episode.clone()).is_none() {
                eprintln!("after {:.1} min: {id}: {}", age.as_secs_f64() / 60.0, named(episode));
            }
        }
        // What is known when somebody loses patience is worth telling, too.
        if age >= time || stop.wait(Duration::from_secs(1)) {
            break;
        }
    }
    let ran = BootTime::now().since(start);
    println!(
        "{} episodes in {:.1} min, of which nothing was wrong",
        told.len(),
        ran.as_secs_f64() / 60.0
    );
    for episode in told.values() {
        let began = episode["began_unix_ms"].as_u64().unwrap_or_default();
        let ago = clock::unix_ms().saturating_sub(began) / 60_000;
        println!("{ago:>4} min ago: {}", named(episode));
    }
    // Whoever tells nothing may as well be deaf: now something is wrong.
    for service in &mut services {
        let seen = service.suffer(None, &mut stack, stop)?;
        println!("{}: {}", service.unit(), seen);
    }
    Ok(())
}

/// Its parts, each with what explains it first.
fn named(episode: &Value) -> String {
    let parts = episode["parts"].as_array().into_iter().flatten();
    let named = parts.map(|part| {
        let reason = part.pointer("/reasons/0").unwrap_or(&Value::Null);
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        format!("{} ({})", text(&part["instance"]), text(&reason["signal"]))
    });
    named.collect::<Vec<_>>().join(", ")
}
