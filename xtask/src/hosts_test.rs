//! `cargo xtask hosts-test`: the packages on a host with real systemd.
//!
//! Installs the .debs as an administrator does and looks at what counts in
//! operation: that the services say themselves when they are ready, run confined
//! as their units say, load every eBPF program with no more rights than that, come
//! back when killed or hung, stop in order, and leave nothing behind when purged.

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_core::clock::BootTime;
use serde_json::Value;

use crate::stop::Stop;
use crate::testhost::{self, Host, Switch, wait};
use crate::{package, shell};

const AGENT: &str = "holdfast-agent.service";
const COLLECTOR: &str = "holdfast-collector.service";
/// How long something may take that should take a second or two.
const SOON: Duration = Duration::from_secs(20);
/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(2);
/// Bits of `CAP_SYSLOG`, `CAP_PERFMON` and `CAP_BPF`.
const AGENT_CAPABILITIES: u64 = 1 << 34 | 1 << 38 | 1 << 39;

/// Which packages.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build profile of the packages
    #[arg(long, default_value = "release")]
    profile: String,
}

/// A check: what it shows, and how.
type Check = (&'static str, fn(&Scene) -> Result<()>);

/// In this order: each begins where the one before ended.
const CHECKS: &[Check] = &[
    ("packages install and both services say that they are ready", installs),
    ("both services run confined", confined),
    ("the fleet shows the host as up", host_is_up),
    ("the kernel's log is read, and no other device can be", log_only),
    ("every eBPF program runs with the unit's own rights", programs_run),
    ("killed services come back", killed_comes_back),
    ("a hung agent is restarted by the watchdog", hung_comes_back),
    ("services stop in order", stops),
    ("removal keeps state and settings", removal_keeps),
    ("purge leaves nothing", purge_leaves_nothing),
];

/// The host and what is installed on it.
struct Scene {
    host: Host,
    stop: Stop,
    debs: Vec<PathBuf>,
}

/// Builds the packages, boots a host and runs all checks on it.
pub(crate) fn run(args: &Args) -> Result<()> {
    testhost::prepare()?;
    let debs = package::debs(&args.profile, &shell::target_dir()?.join("packages"))?;
    let base = testhost::base()?;
    let stop = Stop::listen()?;
    let switch = Switch::new()?;
    let start = BootTime::now();
    let host = Host::start(&base, &switch, 1, &stop)?;
    report(start, "a host with systemd is up");
    let scene = Scene { host, stop, debs };
    for (what, check) in CHECKS {
        let start = BootTime::now();
        if let Err(error) = check(&scene) {
            eprintln!("{}", scene.journal());
            return Err(error.context(format!("not so: {what}")));
        }
        report(start, what);
    }
    let start = BootTime::now();
    scene.host.power_off(&scene.stop)?;
    report(start, "the host powers off");
    Ok(())
}

fn report(start: BootTime, what: &str) {
    println!("{:>6.1} s  {what}", BootTime::now().since(start).as_secs_f64());
}

fn installs(scene: &Scene) -> Result<()> {
    let host = &scene.host;
    let mut inside = Vec::new();
    for deb in &scene.debs {
        inside.push(host.push(deb, "/tmp")?);
    }
    let [agent, collector, cli] = inside.as_slice() else { bail!("not three packages") };
    // Returns once the services are ready: that is what Type=notify is for.
    host.run(["dpkg", "--install", agent, collector, cli])?;
    host.run(["rm", agent, collector, cli])?;
    for unit in [AGENT, COLLECTOR] {
        let state = scene.state(unit)?;
        ensure!(state == "active", "{unit} is {state}");
        ensure!(scene.property(unit, "Type")? == "notify", "{unit} does not notify");
        wait(SOON, &scene.stop, || {
            Ok((!scene.property(unit, "StatusText")?.is_empty()).then_some(()))
        })
        .with_context(|| format!("{unit} tells no status"))?;
        host.run(["systemctl", "is-enabled", unit])?;
    }
    Ok(())
}

fn confined(scene: &Scene) -> Result<()> {
    for (unit, user, capabilities) in
        [(AGENT, "holdfast-agent", AGENT_CAPABILITIES), (COLLECTOR, "holdfast-collector", 0)]
    {
        let pid = scene.property(unit, "MainPID")?;
        let status = scene.host.run(["cat", &format!("/proc/{pid}/status")])?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.with_context(|| format!("{unit} has no {name}"))
        };
        for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
            let bits = u64::from_str_radix(field(set)?, 16)?;
            ensure!(bits == capabilities, "{unit}: {set} is {bits:x}, not {capabilities:x}");
        }
        ensure!(field("NoNewPrivs")? == "1", "{unit} may gain privileges");
        ensure!(field("Seccomp")? == "2", "{unit} has no system call filter");
        let id = scene.host.run(["id", "--user", user])?;
        let own = field("Uid")?.split_whitespace().all(|uid| uid == id.trim());
        ensure!(own, "{unit} does not run as {user}");
        // As its own user in its own mounts: /usr must be read-only even to root there.
        let write =
            scene.host.try_run(["nsenter", "--mount", "--target", &pid, "touch", "/usr/x"])?;
        ensure!(said(&write).contains("Read-only"), "{unit} can write to /usr: {}", said(&write));
    }
    Ok(())
}

fn host_is_up(scene: &Scene) -> Result<()> {
    wait(SOON, &scene.stop, || {
        let hosts = scene.ask(["hosts"])?;
        let up = |host: &Value| host["host"] == scene.host.name() && host["state"] == "up";
        Ok(hosts.as_array().is_some_and(|hosts| hosts.iter().any(up)).then_some(()))
    })
}

/// The probe of the kernel's log works with the unit's own rights, and a process in
/// the unit's cgroup can open no disk, whatever its user and capabilities.
fn log_only(scene: &Scene) -> Result<()> {
    let report = scene.ask(["local", "probes"])?;
    let probes = report["probes"].as_array().context("no probes")?;
    let kmsg = probes.iter().find(|probe| probe["name"] == "kmsg").context("no such probe")?;
    ensure!(kmsg["state"] == "active", "not active: {kmsg}");
    let join = "echo $$ > /sys/fs/cgroup/system.slice/holdfast-agent.service/cgroup.procs";
    let open = |what: &str| {
        scene.host.try_run(["sh", "-c", &format!("{join} && {what}")]).map(|output| said(&output))
    };
    let read = open("exec 3< /dev/kmsg && echo fine")?;
    ensure!(read.contains("fine"), "the log cannot be read: {read}");
    for refused in
        ["exec 3> /dev/kmsg", "mknod /run/holdfast-disk b 7 0; exec 3< /run/holdfast-disk"]
    {
        let answer = open(&format!("{refused} && echo fine"))?;
        ensure!(answer.contains("not permitted"), "{refused}: {answer}");
    }
    scene.host.run(["rm", "-f", "/run/holdfast-disk"]).map(drop)
}

fn programs_run(scene: &Scene) -> Result<()> {
    let report = scene.ask(["local", "probes"])?;
    let probes = report["probes"].as_array().context("no probes")?;
    let of_kernel = |probe: &&Value| probe["level"].as_u64().is_some_and(|level| level > 0);
    let programs: Vec<&Value> = probes
        .iter()
        .filter(of_kernel)
        .flat_map(|probe| probe["programs"].as_array().into_iter().flatten())
        .collect();
    ensure!(!programs.is_empty(), "no eBPF program is known");
    for program in programs {
        ensure!(program["state"] == "active", "not active: {program}");
    }
    for probe in probes.iter().filter(of_kernel) {
        // Where the io controller is, and whether there are trampolines, is the machine's
        // own affair.
        let of_machine = |reason: &str| {
            reason.starts_with("requests are not charged to cgroups")
                || reason.ends_with("so syncs are seen on ext4 only")
        };
        let partly =
            probe["state"] == "degraded" && probe["reason"].as_str().is_some_and(of_machine);
        ensure!(probe["state"] == "active" || partly, "not active: {probe}");
    }
    Ok(())
}

fn killed_comes_back(scene: &Scene) -> Result<()> {
    for unit in [AGENT, COLLECTOR] {
        let pid = scene.property(unit, "MainPID")?;
        scene.signal(&pid, "KILL")?;
        scene.comes_back(unit, &pid)?;
    }
    host_is_up(scene)
}

fn hung_comes_back(scene: &Scene) -> Result<()> {
    // The unit's own 30 s would be long to wait for.
    let short = "mkdir -p /run/systemd/system/holdfast-agent.service.d && \
                 printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/holdfast-agent.service.d/test.conf && \
                 systemctl daemon-reload && systemctl restart holdfast-agent";
    scene.host.run(["sh", "-c", short])?;
    let pid = scene.property(AGENT, "MainPID")?;
    // Kept alive as long as it answers.
    ensure!(!scene.stop.wait(Duration::from_secs(4)), "stopped");
    ensure!(scene.property(AGENT, "MainPID")? == pid, "the agent does not feed the watchdog");
    scene.signal(&pid, "STOP")?;
    scene.comes_back(AGENT, &pid)?;
    scene.host.run(["rm", "-r", "/run/systemd/system/holdfast-agent.service.d"])?;
    scene.host.run(["systemctl", "daemon-reload"])?;
    Ok(())
}

fn stops(scene: &Scene) -> Result<()> {
    for unit in [AGENT, COLLECTOR] {
        let start = BootTime::now();
        scene.host.run(["systemctl", "stop", unit])?;
        let took = BootTime::now().since(start);
        ensure!(took < STOP, "{unit} took {} s to stop", took.as_secs_f64());
        for (property, expected) in
            [("Result", "success"), ("ExecMainStatus", "0"), ("ActiveState", "inactive")]
        {
            let value = scene.property(unit, property)?;
            ensure!(value == expected, "{unit}: {property} is {value}");
        }
    }
    ensure!(
        !scene.host.try_run(["test", "-e", "/run/holdfast/agent.sock"])?.status.success(),
        "the socket is left"
    );
    let hosts = scene.host.try_run(["holdfast", "hosts"])?;
    ensure!(
        hosts.status.code() == Some(3),
        "exit code 3 says that nobody answers: {}",
        said(&hosts)
    );
    scene.host.run(["systemctl", "start", AGENT, COLLECTOR]).map(drop)
}

fn removal_keeps(scene: &Scene) -> Result<()> {
    scene.host.run(["dpkg", "--remove", "holdfast", "holdfast-agent", "holdfast-collector"])?;
    for unit in [AGENT, COLLECTOR] {
        ensure!(scene.state(unit)? != "active", "{unit} still runs");
    }
    for kept in
        ["/var/lib/holdfast/collector", "/etc/holdfast/agent.toml", "/etc/holdfast/collector.toml"]
    {
        scene.host.run(["test", "-e", kept]).with_context(|| format!("{kept} is gone"))?;
    }
    Ok(())
}

fn purge_leaves_nothing(scene: &Scene) -> Result<()> {
    scene.host.run(["dpkg", "--purge", "holdfast", "holdfast-agent", "holdfast-collector"])?;
    let find = ["find", "/", "/run", "/tmp", "-xdev", "-iname", "*holdfast*"];
    let left = scene.host.run(find)?;
    ensure!(left.is_empty(), "left behind: {left}");
    for file in ["/etc/passwd", "/etc/group"] {
        let text = scene.host.run(["cat", file])?;
        ensure!(!text.contains("holdfast"), "{file} still knows us");
    }
    Ok(())
}

impl Scene {
    /// A property of a unit.
    fn property(&self, unit: &str, name: &str) -> Result<String> {
        let text = self.host.run(["systemctl", "show", "--value", "--property", name, unit])?;
        Ok(text.trim().to_owned())
    }

    fn state(&self, unit: &str) -> Result<String> {
        self.property(unit, "ActiveState")
    }

    /// Sends a signal; the host has no kill program, but its shell has.
    fn signal(&self, pid: &str, signal: &str) -> Result<()> {
        self.host.run(["sh", "-c", &format!("kill -{signal} {pid}")]).map(drop)
    }

    /// Waits until a unit runs again as another process than `pid`.
    fn comes_back(&self, unit: &str, pid: &str) -> Result<()> {
        wait(SOON, &self.stop, || {
            let back = self.state(unit)? == "active" && self.property(unit, "MainPID")? != pid;
            Ok(back.then_some(()))
        })
        .with_context(|| format!("{unit} does not come back"))
    }

    /// What the command answers, as JSON.
    fn ask<const N: usize>(&self, arguments: [&str; N]) -> Result<Value> {
        let command = format!("holdfast {} --json", arguments.join(" "));
        let text = self.host.run(["sh", "-c", &command])?;
        serde_json::from_str(&text).with_context(|| format!("{command} printed no JSON"))
    }

    /// What both services have logged.
    fn journal(&self) -> String {
        let journal = self.host.try_run(["journalctl", "--no-pager", "-u", AGENT, "-u", COLLECTOR]);
        journal.map(|output| said(&output)).unwrap_or_default()
    }
}

/// Everything that a command printed.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}
