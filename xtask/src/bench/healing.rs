//! How soon services are healed, beside monit with its smallest cycle, and what it costs the
//! agent to watch 200 of them.
//!
//! All of it happens on a test host with real systemd. Each fault is of a service of its own,
//! so that no run waits for the back-off of the one before.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_core::clock::BootTime;

use super::{Options, Row, median};
use crate::healing_test::scene::{Scene, Victim, Watcher};
use crate::package;
use crate::shell;
use crate::stop::Stop;
use crate::testhost::{self, Host, Switch};

const RUNS: u64 = 20;
/// Services that are watched for what that costs, and for how long.
const SERVICES: u32 = 200;
const COST: Duration = Duration::from_secs(60);
/// How long after a change it is not looked at.
const SETTLED: Duration = Duration::from_secs(10);
/// What monit needs beyond the test host's files.
const MONIT: [&str; 2] = ["libssl3", "monit"];

pub(super) fn run(options: &Options, stop: &Stop) -> Result<Vec<Row>> {
    testhost::prepare()?;
    let debs = package::debs("release", &shell::target_dir()?.join("packages"))?;
    let switch = Switch::new()?;
    let host = Host::start(&testhost::base()?, &switch, 1, stop)?;
    let scene = Scene::new(host, Stop::listen()?, &debs, 0)?;
    let runs = options.runs.unwrap_or(RUNS);
    let mut rows = Vec::new();
    for (name, illness, service) in
        [("crash", "crash", "Restart=no"), ("failed check", "hang", "TimeoutStopSec=5s")]
    {
        let mut ours = Seen::default();
        for number in 0..runs {
            eprintln!("{name} {} of {runs}", number + 1);
            let victim = scene.victim(&format!("hf-{illness}-{number}"), service, "")?;
            let start = BootTime::now();
            ours.add(trial(&scene, &victim, illness)?);
            ours.decided.push(scene.decided_after(&victim, start)?.as_secs_f64());
            scene.clean_up()?;
        }
        let limit = if illness == "crash" { 1.0 } else { 3.0 };
        rows.extend(ours.rows(name, "ours", limit));
    }
    rows.push(
        Row::new("200 services, agent's CPU for them", cost(&scene)?, "% of a core").at_most(0.5),
    );
    match install_monit(&scene) {
        Ok(()) => {
            for (name, illness, service) in
                [("crash", "crash", "Restart=no"), ("failed check", "hang", "TimeoutStopSec=5s")]
            {
                let mut theirs = Seen::default();
                for number in 0..runs {
                    eprintln!("monit, {name} {} of {runs}", number + 1);
                    let name = format!("hf-monit-{illness}-{number}");
                    let victim = scene.unwatched(&name, service)?;
                    scene.watch(Watcher::Monit, &victim)?;
                    theirs.add(trial(&scene, &victim, illness)?);
                    scene.clean_up()?;
                }
                rows.extend(theirs.rows(name, "monit", f64::NAN));
            }
        }
        Err(error) => eprintln!("monit is left out: {error:#}"),
    }
    scene.power_off()?;
    Ok(rows)
}

/// What was seen of one kind of fault.
#[derive(Default)]
struct Seen {
    /// From the fault to the decision.
    decided: Vec<f64>,
    /// From the fault until it was served again.
    served: Vec<f64>,
    starts: usize,
}

impl Seen {
    fn add(&mut self, (served, starts): (Duration, usize)) {
        self.served.push(served.as_secs_f64());
        self.starts += starts;
    }

    /// What is decided shall be so within `limit` seconds; one start a fault is right.
    fn rows(mut self, fault: &str, whose: &str, limit: f64) -> Vec<Row> {
        let mut rows = Vec::new();
        if !self.decided.is_empty() {
            self.decided.sort_by(f64::total_cmp);
            let last = self.decided.last().copied().unwrap_or(f64::NAN);
            let name = format!("{fault}, {whose}: decided after, median");
            rows.push(Row::new(name, median(self.decided), "s"));
            let name = format!("{fault}, {whose}: decided after, longest");
            rows.push(Row::new(name, last, "s").at_most(limit));
        }
        let faults = self.served.len();
        let longest = self.served.iter().copied().fold(f64::NAN, f64::max);
        let name = format!("{fault}, {whose}: served again after, median");
        rows.push(Row::new(name, median(self.served), "s"));
        rows.push(Row::new(format!("{fault}, {whose}: served again after, longest"), longest, "s"));
        let wrong = self.starts.saturating_sub(faults);
        rows.push(Row::new(format!("{fault}, {whose}: starts too many"), wrong as f64, "starts"));
        rows
    }
}

/// Lets a service fall ill; how long it was away, and how often it was started for that.
fn trial(scene: &Scene, victim: &Victim, illness: &str) -> Result<(Duration, usize)> {
    let before = scene.starts(victim)?;
    let start = BootTime::now();
    scene.fall_ill(victim, illness)?;
    scene.until("it serves again", || {
        Ok((scene.starts(victim)? > before && scene.serves(victim)?).then_some(()))
    })?;
    let away = BootTime::now().since(start);
    // Whoever restarts too much does so soon after.
    scene.pause(Duration::from_secs(5))?;
    Ok((away, scene.starts(victim)? - before))
}

/// What the agent uses more of a core, in percent, when it heals many services, with a check
/// of each every five seconds, than when it only watches their units.
fn cost(scene: &Scene) -> Result<f64> {
    let server = scene.unwatched("hf-server", "")?;
    scene.sh(&format!(
        "printf '[Service]\\nExecStart=/bin/sleep infinity\\n' > /run/systemd/system/hf-idle@.service && \
         systemctl daemon-reload && systemctl start $(seq -f 'hf-idle@%.0f.service' {SERVICES})"
    ))?;
    scene.pause(SETTLED)?;
    let without = scene.agent_cpu(COST)?;
    scene.sh(&format!(
        "for n in $(seq {SERVICES}); do printf 'unit = \"hf-idle@%s.service\"\\n[[checks]]\\nname = \"http\"\\n\
         http = \"http://127.0.0.1:{}/\"\\nevery = \"5s\"\\n' $n > /etc/holdfast/services.d/idle-$n.toml; done",
        server.port
    ))?;
    scene.reload()?;
    scene.pause(SETTLED)?;
    let with = scene.agent_cpu(COST)?;
    eprintln!("{:.2} % of a core with them, {:.2} % without", 100.0 * with, 100.0 * without);
    scene.sh("systemctl stop 'hf-idle@*.service'; rm -f /run/systemd/system/hf-idle@.service")?;
    scene.clean_up()?;
    Ok(100.0 * (with - without))
}

fn install_monit(scene: &Scene) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    for package in MONIT {
        shell::output(Command::new("apt-get").args(["download", package]).current_dir(&folder))?;
    }
    let mut debs: Vec<_> = std::fs::read_dir(&folder)?.flatten().map(|file| file.path()).collect();
    debs.sort();
    for deb in debs {
        let inside = scene.push(&deb, "/tmp")?;
        scene.sh(&format!("dpkg --install '{inside}'"))?;
    }
    scene.sh("systemctl stop monit; systemctl stop holdfast-agent").map(drop)
}
