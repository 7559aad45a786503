//! What services suffer from, and what has to be done about it, and no more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_core::clock::BootTime;

use super::Scenario;
use super::scene::{Scene, Victim};

/// How soon something has to be decided about what is certain.
const SOON: Duration = Duration::from_secs(1);
/// Long enough for anything to be done that must not be.
const IDLE: Duration = Duration::from_secs(8);

pub(super) const ALL: &[Scenario] = &[
    Scenario { name: "crash", shows: "a service that crashed is started once", run: crash },
    Scenario {
        name: "crash-loop",
        shows: "a service that systemd gave up on is started again",
        run: crash_loop,
    },
    Scenario {
        name: "left-to-systemd",
        shows: "a crash that systemd deals with is left to it",
        run: left_to_systemd,
    },
    Scenario { name: "hang", shows: "a service that does not answer is restarted", run: hang },
    Scenario { name: "slow", shows: "a service that answers too late is restarted", run: slow },
    Scenario { name: "leak", shows: "a leak is ended before the kernel does", run: leak },
    Scenario { name: "disk", shows: "a disk that fills up calls a hook", run: disk },
    Scenario { name: "stopped", shows: "what an operator stopped is left alone", run: stopped },
    Scenario { name: "masked", shows: "what is masked is left alone", run: masked },
    Scenario {
        name: "packages",
        shows: "nothing is done while packages are changed, and then it is",
        run: packages,
    },
    Scenario {
        name: "no-help",
        shows: "what does not help is followed by the next rung, to the end",
        run: no_help,
    },
    Scenario { name: "harm", shows: "what makes it worse is not done again", run: harm },
    Scenario { name: "chain", shows: "a database is healed before what requires it", run: chain },
    Scenario { name: "pause", shows: "an operator can pause, resume and order", run: pause },
    Scenario {
        name: "kill-agent",
        shows: "an agent that is killed at any point does nothing twice",
        run: kill_agent,
    },
    Scenario {
        name: "throttle",
        shows: "who takes from a service runs less for a while, and goes on whatever happens",
        run: throttle,
    },
    Scenario {
        name: "silence",
        shows: "what an operator knows of is neither told nor acted on, for a while",
        run: silence,
    },
    Scenario {
        name: "bad-checks",
        shows: "checks that never end, or say megabytes, cost nobody else",
        run: bad_checks,
    },
    Scenario {
        name: "bad-journal",
        shows: "with a damaged journal nothing is done, and that is said",
        run: bad_journal,
    },
    Scenario { name: "second", shows: "a second agent does not start", run: second },
];

fn crash(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-crash", "Restart=no", "")?;
    let before = scene.property(&victim.unit, "InvocationID")?;
    let start = BootTime::now();
    scene.fall_ill(&victim, "crash")?;
    let verdicts = scene.until_judged(&victim, 1)?;
    ensure!(verdicts == ["helped"], "{verdicts:?}");
    ensure!(scene.starts(&victim)? == 2, "started {} times", scene.starts(&victim)?);
    ensure!(scene.property(&victim.unit, "NRestarts")? == "0", "systemd restarted it, too");
    ensure!(scene.property(&victim.unit, "InvocationID")? != before, "it is the same run");
    let delay = scene.decided_after(&victim, start)?;
    ensure!(delay < SOON, "decided after {delay:?}");
    let explained = scene.sh("holdfast explain 1 || holdfast explain 2")?;
    ensure!(explained.contains("helped"), "not explained: {explained}");
    Ok(format!(" (decided after {} ms)", delay.as_millis()))
}

fn crash_loop(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-loop", "Restart=on-failure\nRestartSec=100ms", "")?;
    scene.fall_ill(&victim, "always-exit")?;
    let begun = scene.until("something is done", || {
        let begun = scene.begun(&victim.unit)?;
        Ok((!begun.is_empty()).then_some(begun))
    })?;
    scene.fall_ill(&victim, "")?;
    ensure!(begun[0] == "restart", "{begun:?}");
    scene.until("it serves again", || Ok(scene.serves(&victim)?.then_some(())))?;
    let decided = scene.decisions(&victim.unit)?;
    let first = decided.first().context("nothing was decided")?;
    ensure!(first.decision["operation"]["trigger"] == "crash_loop", "{}", first.decision);
    Ok(String::new())
}

fn left_to_systemd(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-left", "Restart=on-failure\nRestartSec=3s", "")?;
    scene.fall_ill(&victim, "crash")?;
    scene.until("it serves again", || {
        Ok((scene.starts(&victim)? == 2 && scene.serves(&victim)?).then_some(()))
    })?;
    scene.pause(IDLE)?;
    let begun = scene.begun(&victim.unit)?;
    ensure!(begun.is_empty(), "the agent did something, too: {begun:?}");
    ensure!(scene.starts(&victim)? == 2, "started {} times", scene.starts(&victim)?);
    Ok(String::new())
}

fn hang(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-hang", "", "")?;
    let start = BootTime::now();
    scene.fall_ill(&victim, "hang")?;
    scene.until("it serves again", || {
        Ok((scene.starts(&victim)? == 2 && scene.serves(&victim)?).then_some(()))
    })?;
    let took = BootTime::now().since(start);
    let verdicts = scene.until_judged(&victim, 1)?;
    ensure!(verdicts == ["helped"], "{verdicts:?}");
    ensure!(scene.begun(&victim.unit)? == ["restart"], "{:?}", scene.begun(&victim.unit)?);
    Ok(format!(" (served again after {:.1} s; two checks a second apart)", took.as_secs_f64()))
}

fn slow(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-slow", "", "")?;
    scene.fall_ill(&victim, "slow")?;
    let verdicts = scene.until_judged(&victim, 1)?;
    ensure!(verdicts == ["helped"] && scene.starts(&victim)? == 2, "{verdicts:?}");
    Ok(String::new())
}

fn leak(scene: &Scene) -> Result<String> {
    let controllers = scene.sh("cat /sys/fs/cgroup/cgroup.controllers")?;
    if !controllers.split_whitespace().any(|controller| controller == "memory") {
        return Ok(": SKIPPED, the memory controller is not on the unified hierarchy here".into());
    }
    let victim = scene.victim("hf-leak", "MemoryMax=300M", "[modes]\nleaking = \"act\"\n")?;
    scene.fall_ill(&victim, "leak")?;
    scene.until("it is restarted", || Ok((scene.starts(&victim)? == 2).then_some(())))?;
    ensure!(scene.begun(&victim.unit)? == ["restart"], "{:?}", scene.begun(&victim.unit)?);
    ensure!(scene.property(&victim.unit, "Result")? == "success", "it was killed");
    Ok(String::new())
}

fn disk(scene: &Scene) -> Result<String> {
    // What is mounted on a test host later the agent does not see in its own mounts.
    scene
        .sh("mkdir -p /var/lib/hf-disk && mount -t tmpfs -o size=16m tmpfs /var/lib/hf-disk && \
         systemctl restart holdfast-agent")?;
    let hook =
        "#!/bin/sh\necho $HOLDFAST_UNIT $HOLDFAST_TRIGGER > /var/lib/holdfast/agent/hooked\n";
    scene.write("/etc/holdfast/hooks.d/room", hook)?;
    scene.sh("chmod 755 /etc/holdfast/hooks.d/room")?;
    let healed = "folders = [\"/var/lib/hf-disk\"]\n[modes]\ndisk_filling = \"act\"\n\
                  [ladders]\ndisk_filling = [\"hook:room\", \"escalate\"]\n";
    let victim = scene.victim("hf-disk", "", healed)?;
    let mut filled = 0;
    scene.until("the hook has run", || {
        filled += 1;
        let fill =
            format!("dd if=/dev/zero of=/var/lib/hf-disk/{filled} bs=64k count=1 status=none");
        scene.sh(&format!("{fill} || true"))?;
        scene.pause(Duration::from_millis(300))?;
        let hooked = scene.sh("cat /var/lib/holdfast/agent/hooked 2>/dev/null || true")?;
        Ok((hooked.trim() == "hf-disk.service disk_filling").then_some(()))
    })?;
    let used = scene.sh("df --output=pcent /var/lib/hf-disk | tail -1")?;
    scene.sh(
        "umount /var/lib/hf-disk; rm -f /var/lib/holdfast/agent/hooked /etc/holdfast/hooks.d/room",
    )?;
    ensure!(scene.starts(&victim)? == 1, "it was restarted");
    Ok(format!(" (at {})", used.trim()))
}

fn stopped(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-stopped", "", "")?;
    scene.sh("systemctl stop hf-stopped")?;
    nothing_is_done(scene, &victim, 1)
}

fn masked(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-masked", "Restart=no", "")?;
    scene.sh("systemctl mask hf-masked")?;
    scene.fall_ill(&victim, "crash")?;
    let done = nothing_is_done(scene, &victim, 1);
    scene.sh("systemctl unmask hf-masked")?;
    done
}

fn nothing_is_done(scene: &Scene, victim: &Victim, starts: usize) -> Result<String> {
    scene.pause(IDLE)?;
    let begun = scene.begun(&victim.unit)?;
    ensure!(begun.is_empty(), "something was done: {begun:?}");
    ensure!(scene.starts(victim)? == starts, "started {} times", scene.starts(victim)?);
    Ok(String::new())
}

fn packages(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-packages", "Restart=no", "")?;
    scene.sh("systemd-run --quiet --unit hf-dpkg flock /var/lib/dpkg/lock-frontend sleep 1000")?;
    scene.pause(Duration::from_millis(500))?;
    scene.fall_ill(&victim, "crash")?;
    nothing_is_done(scene, &victim, 1)?;
    ensure!(scene.guards(&victim.unit)?.contains(&"packages".to_owned()), "not held by that");
    scene.sh("systemctl stop hf-dpkg")?;
    let verdicts = scene.until_judged(&victim, 1)?;
    ensure!(verdicts == ["helped"] && scene.starts(&victim)? == 2, "{verdicts:?}");
    Ok(String::new())
}

fn no_help(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-no-help", "TimeoutStopSec=5s", "")?;
    scene.fall_ill(&victim, "always-hang")?;
    let expected = ["restart", "kill-restart", "handover", "escalate"];
    let begun = scene.until("everything was tried", || {
        let begun = scene.begun(&victim.unit)?;
        Ok((begun.last().is_some_and(|last| last == "escalate")).then_some(begun))
    })?;
    ensure!(begun == expected, "{begun:?}");
    ensure!(
        scene.verdicts(&victim.unit)? == ["no_effect"; 2],
        "{:?}",
        scene.verdicts(&victim.unit)?
    );
    scene.pause(IDLE)?;
    ensure!(scene.begun(&victim.unit)?.len() == 4, "it goes on for ever");
    ensure!(scene.starts(&victim)? == 3, "started {} times", scene.starts(&victim)?);
    Ok(String::new())
}

fn harm(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-harm", "Restart=no", "")?;
    // It hangs; and the file that is there at its next start lets it die at once.
    scene.fall_ill(&victim, "hang")?;
    scene.until("something is done", || {
        Ok((!scene.begun(&victim.unit)?.is_empty()).then_some(()))
    })?;
    scene.fall_ill(&victim, "always-exit")?;
    let verdicts = scene.until_judged(&victim, 1)?;
    ensure!(verdicts[0] == "harmed", "{verdicts:?}");
    let service = scene.service(&victim)?;
    let skipped = service["skipped"].as_array().context("nothing is skipped")?;
    let of = |skipped: &serde_json::Value| {
        skipped["trigger"] == "unresponsive" && skipped["action"] == "restart"
    };
    ensure!(skipped.iter().any(of), "{service}");
    Ok(String::new())
}

fn chain(scene: &Scene) -> Result<String> {
    let database = scene.victim("hf-db", "", "")?;
    let web = scene.victim("hf-web", "", "requires = [\"hf-db.service\"]")?;
    scene.fall_ill(&web, "hang")?;
    scene.fall_ill(&database, "hang")?;
    scene.until_judged(&database, 1)?;
    scene.until_judged(&web, 1)?;
    let first = |victim: &Victim| -> Result<u64> {
        let decided = scene.decisions(&victim.unit)?;
        let begun = decided.iter().find(|decided| decided.decision["decision"] == "begin");
        Ok(begun.context("nothing was begun")?.at_ns)
    };
    let (database, web) = (first(&database)?, first(&web)?);
    let apart = Duration::from_nanos(web.saturating_sub(database));
    // The verdict on the first is waited for.
    ensure!(apart >= Duration::from_secs(3), "the web server {apart:?} after the database");
    Ok(format!(" (by {:.1} s)", apart.as_secs_f64()))
}

fn pause(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-pause", "Restart=no", "")?;
    scene.sh("holdfast local pause hf-pause --for 1h")?;
    scene.fall_ill(&victim, "crash")?;
    nothing_is_done(scene, &victim, 1)?;
    scene.sh("holdfast local resume hf-pause")?;
    let verdicts = scene.until_judged(&victim, 1)?;
    ensure!(verdicts == ["helped"], "{verdicts:?}");
    let ran = scene.sh("holdfast local run hf-pause restart")?;
    ensure!(ran.contains("began"), "{ran}");
    scene.until("it has run", || Ok((scene.starts(&victim)? == 3).then_some(())))?;
    let refused = scene.sh("holdfast local run dbus restart 2>&1 || true")?;
    ensure!(refused.contains("no service here"), "{refused}");
    Ok(String::new())
}

fn kill_agent(scene: &Scene) -> Result<String> {
    // What others can see of an agent is what it writes, syncs and sends: so these are all the
    // moments at which its end makes a difference. A first crash shows how many there are.
    let trial = scene.victim("hf-kill-trial", "Restart=no", "")?;
    scene.trace_agent(None)?;
    scene.fall_ill(&trial, "crash")?;
    scene.until_judged(&trial, 1)?;
    let points = scene.traced()?;
    let kills = points.len().min(scene.kills as usize);
    let mut killed = 0;
    for round in 0..kills {
        // A service of its own for each, or the back-off would be waited for.
        let victim = scene.victim(&format!("hf-kill-{round}"), "Restart=no", "")?;
        let before = scene.agent()?;
        let point = &points[round * points.len() / kills];
        scene.trace_agent(Some(point))?;
        scene.fall_ill(&victim, "crash")?;
        scene.until("it serves again", || {
            Ok((scene.starts(&victim)? > 1 && scene.serves(&victim)?).then_some(()))
        })?;
        scene.until_judged(&victim, 1)?;
        scene.agent_is_back()?;
        // Where it did a little less than in the first crash that moment never came.
        killed += usize::from(scene.agent()? != before);
        let starts = scene.starts(&victim)?;
        ensure!(starts == 2, "killed at {point}: started {starts} times");
        let verdicts = scene.verdicts(&victim.unit)?;
        ensure!(verdicts == ["helped"], "killed at {point}: {verdicts:?}");
    }
    // The journal of all of that is whole, and decides the same again.
    let replayed = scene
        .sh("holdfast replay --journal /var/lib/holdfast/agent/healing.journal --per-10m 100 \
         --per-24h 250 --grace 2s")?;
    // Of services that have no file any more nothing can be said.
    let others = replayed.lines().any(|line| line.contains("hf-kill"));
    ensure!(!others, "{replayed}");
    ensure!(2 * killed >= kills, "killed {killed} times of {kills} only");
    Ok(format!(" (killed at {killed} of {} moments)", points.len()))
}

fn throttle(scene: &Scene) -> Result<String> {
    let hog = "hf-hog.service";
    scene.write(
        &format!("/run/systemd/system/{hog}"),
        "[Service]\nExecStart=/bin/sh -c 'while :; do :; done'\n",
    )?;
    scene.sh(&format!("systemctl daemon-reload && systemctl start {hog}"))?;
    let folder = format!("/sys/fs/cgroup{}", scene.property(hog, "ControlGroup")?);
    // Seconds of CPU time in three seconds.
    let used = || -> Result<f64> {
        let read = || -> Result<f64> {
            let text = scene.sh(&format!("grep usage_usec {folder}/cpu.stat"))?;
            Ok(text.trim().rsplit(' ').next().context("no number")?.parse::<f64>()? / 1e6)
        };
        let (before, start) = (read()?, BootTime::now());
        scene.pause(Duration::from_secs(3))?;
        Ok((read()? - before) / BootTime::now().since(start).as_secs_f64())
    };
    let alone = used()?;
    let healed =
        format!("culprits = [\"{hog}\"]\n[ladders]\nunresponsive = [\"throttle\", \"restart\"]\n");
    let victim = scene.victim("hf-robbed", "", &healed)?;
    let throttled = || {
        scene.until("it is throttled", || {
            Ok(scene.begun(&victim.unit)?.contains(&"throttle".to_owned()).then_some(()))
        })
    };
    scene.fall_ill(&victim, "hang")?;
    throttled()?;
    let robbed = used()?;
    ensure!(robbed < alone / 2.0, "it used {robbed:.2} cores, and {alone:.2} before");
    // An agent that dies in the middle of it lets everybody go on.
    let pid = scene.agent()?;
    scene.sh(&format!("kill -KILL {pid}"))?;
    scene.agent_is_back()?;
    scene.until("it goes on", || Ok((used()? > 0.8 * alone).then_some(())))?;
    scene.until("the service is restarted", || {
        Ok((scene.starts(&victim)? == 2 && scene.serves(&victim)?).then_some(()))
    })?;
    ensure!(used()? > 0.8 * alone, "it stands still for ever");
    Ok(format!(" (it used {robbed:.2} cores instead of {alone:.2})"))
}

fn silence(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-known", "", "")?;
    scene.sh("holdfast local silence hf-known unresponsive --for 15s")?;
    scene.fall_ill(&victim, "hang")?;
    scene.until("it is ill", || {
        Ok((scene.service(&victim)?["triggers"][0] == "unresponsive").then_some(()))
    })?;
    let service = scene.service(&victim)?;
    ensure!(service["silenced"][0]["trigger"] == "unresponsive", "{service}");
    ensure!(scene.decisions(&victim.unit)?.is_empty(), "something was decided");
    scene.until("it is over", || Ok((scene.starts(&victim)? == 2).then_some(())))?;
    let verdicts = scene.until_judged(&victim, 1)?;
    ensure!(verdicts == ["helped"], "{verdicts:?}");
    Ok(String::new())
}

fn bad_checks(scene: &Scene) -> Result<String> {
    let endless = "[modes]\nunresponsive = \"observe\"\n[[checks]]\nname = \"endless\"\nexec = [\"/bin/sleep\", \"1000\"]\n\
                   every = \"2s\"\ntimeout = \"1s\"\n[[checks]]\nname = \"noisy\"\n\
                   exec = [\"/bin/sh\", \"-c\", \"yes | head -c 8000000 >&2; sleep 1000 & exit 1\"]\n\
                   every = \"2s\"\ntimeout = \"1s\"\n";
    let other = scene.victim("hf-other", "Restart=no", "")?;
    let bad = scene.unwatched("hf-bad", "")?;
    scene.write("/etc/holdfast/services.d/hf-bad.toml", endless)?;
    scene.reload()?;
    let failing = |name: &str| -> Result<bool> {
        let Ok(service) = scene.service(&bad) else { return Ok(false) };
        let checks = service["checks"].as_array().context("no checks")?;
        Ok(checks.iter().any(|check| check["name"] == name && check["health"] != "healthy"))
    };
    scene.until("both fail", || Ok((failing("endless")? && failing("noisy")?).then_some(())))?;
    scene.fall_ill(&other, "crash")?;
    let verdicts = scene.until_judged(&other, 1)?;
    ensure!(verdicts == ["helped"], "{verdicts:?}");
    scene.sh("rm /etc/holdfast/services.d/hf-bad.toml")?;
    scene.reload()?;
    scene.until("nothing of them is left", || {
        let left = scene.sh(
            "for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $file; echo; done 2>/dev/null | \
             grep -c '^/bin/sleep 1000\\|^sleep 1000' || true",
        )?;
        Ok((left.trim() == "0").then_some(()))
    })?;
    ensure!(scene.starts(&bad)? == 1, "it was only to be told");
    Ok(String::new())
}

fn bad_journal(scene: &Scene) -> Result<String> {
    let victim = scene.victim("hf-journal", "Restart=no", "")?;
    let journal = "/var/lib/holdfast/agent/healing.journal";
    scene.sh(&format!(
        "systemctl stop holdfast-agent && cp -p {journal} {journal}.whole && \
         printf X | dd of={journal} bs=1 seek=40 conv=notrunc status=none && \
         systemctl start holdfast-agent"
    ))?;
    scene.agent_is_back()?;
    scene.fall_ill(&victim, "crash")?;
    scene.pause(IDLE)?;
    ensure!(scene.starts(&victim)? == 1, "it was started all the same");
    let told = scene.sh("holdfast local services")?;
    ensure!(told.contains("is damaged") && told.contains("move the file away"), "{told}");
    ensure!(scene.sh("holdfast local status")?.contains("units"), "monitoring does not go on");
    scene.sh(&format!(
        "systemctl stop holdfast-agent && mv {journal}.whole {journal} && \
         systemctl start holdfast-agent"
    ))?;
    let verdicts = scene.until_judged(&victim, 1)?;
    ensure!(verdicts == ["helped"], "{verdicts:?}");
    Ok(String::new())
}

fn second(scene: &Scene) -> Result<String> {
    let said = scene
        .sh("holdfast-agent run --socket /run/second.sock --metrics 127.0.0.1:0 2>&1 || true")?;
    ensure!(said.contains("another agent holds"), "{said}");
    Ok(String::new())
}
