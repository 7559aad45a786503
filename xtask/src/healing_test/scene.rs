//! The host that is healed, and what can be seen of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_core::clock::BootTime;
use serde_json::Value;

use crate::shell;
use crate::stop::Stop;
use crate::testhost::{Host, wait};

/// Where services keep their files, the agent its journal.
const FOLDER: &str = "/var/lib/hf";
const JOURNAL: &str = "/var/lib/holdfast/agent/healing.journal";
const AGENT: &str = "holdfast-agent.service";
const TRACE: &str = "/run/hf-trace";
/// Longest that anything is waited for.
const LONG: Duration = Duration::from_secs(90);
/// As quick as can be: nothing is waited for that need not be.
const CONFIG: &str = "collector = \"\"\n[healing]\ngrace = \"2s\"\nper_10m = 100\nper_24h = 250\n\
                      [scoring]\nenabled = false\n";
/// The same for a service.
const QUICK: &str = "min_uptime = \"1s\"\njudged_after = \"3s\"\n";

/// A host with the agent on it.
pub(crate) struct Scene {
    host: Host,
    stop: Stop,
    /// How often the agent is killed while it heals.
    pub(crate) kills: u32,
    next_port: Cell<u16>,
}

/// Who heals a service.
#[derive(Clone, Copy)]
pub(crate) enum Watcher<'a> {
    /// The agent, with these lines in the service's file.
    Agent { healed: &'a str },
    /// Another program.
    Monit,
}

/// A service under test.
pub(crate) struct Victim {
    name: String,
    pub(crate) unit: String,
    pub(crate) port: u16,
    folder: String,
}

impl Scene {
    pub(crate) fn new(host: Host, stop: Stop, debs: &[PathBuf], kills: u32) -> Result<Self> {
        // Not by its path: a build meanwhile may have replaced the file.
        let ourselves = host.push(Path::new(shell::OURSELVES), "/usr/local/bin")?;
        host.run(["mv", &ourselves, "/usr/local/bin/xtask"])?;
        host.run(["mkdir", "-p", FOLDER, "/etc/holdfast/agent.toml.d"])?;
        let scene = Self { host, stop, kills, next_port: Cell::new(8_000) };
        scene.write("/etc/holdfast/agent.toml.d/test.toml", CONFIG)?;
        let mut inside = Vec::new();
        for deb in debs.iter().filter(|deb| !deb.display().to_string().contains("collector")) {
            inside.push(scene.host.push(deb, "/tmp")?);
        }
        let [first, second] = inside.as_slice() else { bail!("not two packages") };
        scene.host.run(["dpkg", "--install", first, second])?;
        Ok(scene)
    }

    /// Writes a file on the host.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let quoted = text.replace('\'', "'\\''");
        self.sh(&format!("printf '%s' '{quoted}' > {path}")).map(drop)
    }

    pub(crate) fn sh(&self, command: &str) -> Result<String> {
        self.host.run(["sh", "-c", command])
    }

    /// Starts a service, with these lines in the unit's `[Service]`, that nobody heals.
    pub(crate) fn unwatched(&self, name: &str, service: &str) -> Result<Victim> {
        let port = self.next_port.get();
        self.next_port.set(port + 1);
        let (unit, folder) = (format!("{name}.service"), format!("{FOLDER}/{name}"));
        self.sh(&format!("mkdir -p {folder}"))?;
        self.write(
            &format!("/run/systemd/system/{unit}"),
            &format!(
                "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=3\n[Service]\n\
                 ExecStart=/usr/local/bin/xtask victim --port {port} --folder {folder}\n{service}\n"
            ),
        )?;
        self.sh(&format!("systemctl daemon-reload && systemctl start {unit}"))?;
        let victim = Victim { name: name.to_owned(), unit, port, folder };
        self.until("it serves", || Ok(self.serves(&victim)?.then_some(())))?;
        Ok(victim)
    }

    /// Starts a service that the agent heals, with these lines in its file and an HTTP check
    /// each second.
    pub(crate) fn victim(&self, name: &str, service: &str, healed: &str) -> Result<Victim> {
        let victim = self.unwatched(name, service)?;
        self.watch(Watcher::Agent { healed }, &victim)?;
        Ok(victim)
    }

    /// Lets somebody heal a service.
    pub(crate) fn watch(&self, watcher: Watcher<'_>, victim: &Victim) -> Result<()> {
        let Victim { name, unit, port, .. } = victim;
        match watcher {
            Watcher::Agent { healed } => {
                let check = format!(
                    "[[checks]]\nname = \"health\"\nhttp = \"http://127.0.0.1:{port}/\"\n\
                     contains = \"ok\"\nevery = \"1s\"\ntimeout = \"500ms\"\n"
                );
                let file = format!("/etc/holdfast/services.d/{name}.toml");
                self.write(&file, &format!("{QUICK}{healed}\n{check}"))?;
                self.reload()?;
                self.until("it is well", || {
                    let Ok(service) = self.service(victim) else { return Ok(None) };
                    let up = service["state"] == "active"
                        && service["triggers"].as_array().is_some_and(Vec::is_empty);
                    Ok(up.then_some(()))
                })?;
                // Young services are left alone.
                self.pause(Duration::from_millis(2_500))
            }
            Watcher::Monit => {
                let config = format!(
                    "set daemon 1\nset pidfile /run/monit.pid\nset statefile /run/monit.state\n\
                     set idfile /run/monit.id\n\
                     check process {name} matching \"victim --port {port}\"\n\
                     start program = \"/bin/systemctl start {unit}\"\n\
                     stop program = \"/bin/systemctl stop {unit}\"\n\
                     if failed port {port} protocol http with timeout 1 seconds for 2 cycles then restart\n"
                );
                self.write("/etc/monit-test", &config)?;
                self.sh("chmod 600 /etc/monit-test && systemctl stop hf-monitor 2>/dev/null; \
                         systemd-run --quiet --collect --unit hf-monitor monit -I -c /etc/monit-test")?;
                self.pause(Duration::from_secs(4))
            }
        }
    }

    /// What the agent used of a core over `length`, as a share.
    pub(crate) fn agent_cpu(&self, length: Duration) -> Result<f64> {
        let used = || -> Result<f64> {
            let pid = self.property(AGENT, "MainPID")?;
            let stat = self.sh(&format!("cat /proc/{pid}/stat"))?;
            let (_, rest) = stat.rsplit_once(") ").context("no statistics")?;
            let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<f64>);
            Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
        };
        let before = used()?;
        self.pause(length)?;
        Ok((used()? - before) / length.as_secs_f64())
    }

    /// The agent reads its services again.
    pub(crate) fn reload(&self) -> Result<()> {
        self.sh("systemctl reload holdfast-agent").map(drop)
    }

    /// Makes a service ill, or well with an empty word.
    pub(crate) fn fall_ill(&self, victim: &Victim, illness: &str) -> Result<()> {
        self.write(&format!("{}/illness", victim.folder), illness)
    }

    /// How often a service has started.
    pub(crate) fn starts(&self, victim: &Victim) -> Result<usize> {
        Ok(self.sh(&format!("cat {}/starts", victim.folder))?.lines().count())
    }

    /// What the agent says of a service.
    pub(crate) fn service(&self, victim: &Victim) -> Result<Value> {
        let services: Value = serde_json::from_str(&self.sh("holdfast local services --json")?)?;
        let all = services["services"].as_array().context("no services")?;
        let of = all.iter().find(|service| service["unit"] == victim.unit.as_str());
        of.cloned().with_context(|| format!("{} is not healed: {services}", victim.unit))
    }

    /// A property of a unit.
    pub(crate) fn property(&self, unit: &str, name: &str) -> Result<String> {
        let text = self.host.run(["systemctl", "show", "--value", "--property", name, unit])?;
        Ok(text.trim().to_owned())
    }

    /// Whether a service answers.
    pub(crate) fn serves(&self, victim: &Victim) -> Result<bool> {
        let ask = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && \
             timeout 0.4 cat <&3 | grep -q ok",
            victim.port
        );
        Ok(self.host.try_run(["bash", "-c", &ask])?.status.success())
    }

    /// What the agent decided for a unit, in the order it did.
    pub(crate) fn decisions(&self, unit: &str) -> Result<Vec<Decided>> {
        let mut decided = Vec::new();
        for line in self.sh(&format!("cat {JOURNAL}"))?.lines() {
            let (_, body) = line.split_once(' ').context("a line without a checksum")?;
            let entry: Value = serde_json::from_str(body)?;
            let decision = &entry["decision"];
            if entry["entry"] == "decided" && decision["unit"] == unit {
                decided.push(Decided {
                    at_ns: entry["at"].as_u64().unwrap_or(0),
                    decision: decision.clone(),
                });
            }
        }
        Ok(decided)
    }

    /// Actions that were begun for a unit.
    pub(crate) fn begun(&self, unit: &str) -> Result<Vec<String>> {
        let begun = |decided: Decided| {
            (decided.decision["decision"] == "begin").then(|| {
                decided.decision["operation"]["action"].as_str().unwrap_or_default().to_owned()
            })
        };
        Ok(self.decisions(unit)?.into_iter().filter_map(begun).collect())
    }

    /// From `start`, on this machine's clock, which is the host's, to the first action that was
    /// begun for a service.
    pub(crate) fn decided_after(&self, victim: &Victim, start: BootTime) -> Result<Duration> {
        let decided = self.decisions(&victim.unit)?;
        let begun = decided.iter().find(|decided| decided.decision["decision"] == "begin");
        let begun = Duration::from_nanos(begun.context("nothing was begun")?.at_ns);
        Ok(begun.saturating_sub(start.since_boot()))
    }

    /// Verdicts on what was done for a unit.
    pub(crate) fn verdicts(&self, unit: &str) -> Result<Vec<String>> {
        let verdict = |decided: Decided| {
            let verdict = decided.decision["verdict"].as_str()?;
            Some(verdict.to_owned())
        };
        Ok(self.decisions(unit)?.into_iter().filter_map(verdict).collect())
    }

    /// Guards that held something back for a unit.
    pub(crate) fn guards(&self, unit: &str) -> Result<Vec<String>> {
        let guard = |decided: Decided| Some(decided.decision["guard"].as_str()?.to_owned());
        Ok(self.decisions(unit)?.into_iter().filter_map(guard).collect())
    }

    /// Waits until `look` finds something.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait(LONG, &self.stop, look).with_context(|| format!("waiting until {what}"))
    }

    /// Waits until there are `many` verdicts; all of them.
    pub(crate) fn until_judged(&self, victim: &Victim, many: usize) -> Result<Vec<String>> {
        self.until("it is judged", || {
            let verdicts = self.verdicts(&victim.unit)?;
            Ok((verdicts.len() >= many).then_some(verdicts))
        })
    }

    pub(crate) fn pause(&self, length: Duration) -> Result<()> {
        ensure!(!self.stop.wait(length), "stopped");
        Ok(())
    }

    /// Which process the agent is.
    pub(crate) fn agent(&self) -> Result<String> {
        self.property(AGENT, "MainPID")
    }

    /// Writes down what the agent does from now on that others can see; and kills it when it
    /// is about to do what `until` says.
    pub(crate) fn trace_agent(&self, until: Option<&Point>) -> Result<()> {
        let pid = self.agent()?;
        let kill = until.map_or_else(String::new, |Point { call, number }| {
            format!("-e inject={call}:signal=KILL:when={number}")
        });
        let calls = Point::CALLS.join(",");
        self.sh(&format!(
            "systemctl stop hf-trace 2>/dev/null; systemctl reset-failed {AGENT}; \
             systemd-run --quiet --collect --unit hf-trace \
             strace -f -qq -o {TRACE} -e trace={calls} {kill} -p {pid}"
        ))?;
        self.until("the agent is traced", || {
            let tracer = self.sh(&format!("grep TracerPid: /proc/{pid}/status"))?;
            Ok((!tracer.trim_end().ends_with("\t0")).then_some(()))
        })
    }

    /// What the agent did since it is traced; ends that. Calls are counted for each of its
    /// threads, as the tracer counts them.
    pub(crate) fn traced(&self) -> Result<Vec<Point>> {
        self.sh("systemctl stop hf-trace")?;
        let trace = self.sh(&format!("cat {TRACE}"))?;
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in trace.lines() {
            // `THREAD  write(5, "...`
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let call = rest.trim_start().split_once('(').map(|(call, _)| call);
            if let Some(call) = call.filter(|call| Point::CALLS.contains(call)) {
                *counts.entry((call, thread)).or_default() += 1;
            }
        }
        let most = |call| {
            let of_call = counts.iter().filter(move |((of, _), _)| *of == call);
            of_call.map(|(_, count)| *count).max().unwrap_or_default()
        };
        let points = Point::CALLS
            .into_iter()
            .flat_map(|call| (1..=most(call)).map(move |number| Point { call, number }));
        let points: Vec<Point> = points.collect();
        ensure!(!points.is_empty(), "the agent did nothing: {trace}");
        Ok(points)
    }

    /// Waits until the agent is there.
    pub(crate) fn agent_is_back(&self) -> Result<()> {
        self.until("the agent is back", || {
            // While it is being started it cannot be reloaded.
            let active = self.property(AGENT, "ActiveState")? == "active";
            let answers = || self.host.try_run(["holdfast", "local", "services"]);
            Ok((active && answers()?.status.success()).then_some(()))
        })
    }

    /// Takes all services away, so that the next scenario begins with none.
    pub(crate) fn clean_up(&self) -> Result<()> {
        self.sh(&format!(
            "rm -f /etc/holdfast/services.d/*; systemctl stop hf-monitor hf-dpkg hf-trace 2>/dev/null; cd /run/systemd/system && \
             for unit in hf-*.service; do [ -e $unit ] || continue; \
             systemctl unmask --quiet $unit; systemctl stop $unit; \
             systemctl reset-failed $unit 2>/dev/null; rm -f $unit; done; \
             systemctl daemon-reload; rm -rf {FOLDER}/*; \
             systemctl reset-failed holdfast-agent; systemctl start holdfast-agent"
        ))?;
        self.agent_is_back()?;
        self.reload()
    }

    /// The end of the agent's log.
    pub(crate) fn tail(&self) -> String {
        let tail = ["journalctl", "--no-pager", "-n", "60", "-u", AGENT];
        self.host.run(tail).unwrap_or_else(|error| error.to_string())
    }

    pub(crate) fn push(&self, from: &Path, to: &str) -> Result<String> {
        self.host.push(from, to)
    }

    pub(crate) fn power_off(self) -> Result<()> {
        self.host.power_off(&self.stop)
    }
}

/// Something that the agent does: a system call, and the how manieth of a thread.
pub(crate) struct Point {
    call: &'static str,
    number: usize,
}

impl Point {
    const CALLS: [&str; 5] = ["write", "writev", "fdatasync", "sendmsg", "sendto"];
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.number)
    }
}

/// A decision of the agent.
pub(crate) struct Decided {
    /// On the boot-time clock.
    pub(crate) at_ns: u64,
    pub(crate) decision: Value,
}
