//! Carries out what was decided. Actions are typed, each on the one unit that it was decided
//! for; nothing else can be asked for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_healer::{Action, Operation, Outcome, Trigger};
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use super::program;
use crate::host::systemd::{Error, Job, Systemd};

/// Longest job of systemd that is waited for, hook, and freeze. Less than the time after
/// which an operation counts as over.
const JOB: Duration = Duration::from_secs(150);
const HOOK: Duration = Duration::from_secs(60);
const FROZEN: Duration = Duration::from_secs(10);
/// Who is throttled stands still and runs for so long, in turn, so many times.
const STANDS: Duration = Duration::from_millis(800);
const RUNS: Duration = Duration::from_millis(200);
const TURNS: u32 = 30;

/// Carries out `operation` for `unit`.
pub(super) async fn carry_out(
    systemd: &Systemd,
    hooks: &Path,
    unit: &str,
    culprits: &BTreeSet<Arc<str>>,
    operation: &Operation,
) -> Outcome {
    let trigger = operation.trigger;
    let done = match &operation.action {
        Action::Hook(name) => match hook(hooks, name, unit, operation).await {
            Ok(()) => return Outcome::Done,
            Err(reason) => return Outcome::Failed { reason },
        },
        Action::Reload => systemd.run(Job::Reload, unit, JOB).await,
        Action::Restart => restart(systemd, unit, trigger).await,
        Action::KillRestart => kill_restart(systemd, unit, trigger).await,
        Action::Freeze => freeze(systemd, unit).await,
        Action::Throttle => throttle(systemd, culprits).await,
        Action::Reboot => systemd.reboot().await,
        // To be told is all that there is to it; and the groups that would take it over are
        // the collector's.
        Action::Escalate | Action::Handover => Ok(()),
    };
    match done {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed { reason: error.to_string() },
    }
}

async fn restart(systemd: &Systemd, unit: &str, trigger: Option<Trigger>) -> Result<(), Error> {
    // A unit that was started too often is started again only after this. Not otherwise: it
    // makes a unit that failed look like one that was stopped.
    let gave_up = matches!(trigger, None | Some(Trigger::CrashLoop));
    if gave_up && systemd.properties(unit).await?.active_state == "failed" {
        systemd.reset_failed(unit).await?;
    }
    systemd.run(Job::Restart, unit, JOB).await
}

async fn kill_restart(
    systemd: &Systemd,
    unit: &str,
    trigger: Option<Trigger>,
) -> Result<(), Error> {
    match systemd.signal(unit, Signal::SIGKILL).await {
        // There may be nobody left to kill.
        Ok(()) | Err(Error::Refused(_)) => restart(systemd, unit, trigger).await,
        Err(error) => Err(error),
    }
}

async fn freeze(systemd: &Systemd, unit: &str) -> Result<(), Error> {
    systemd.signal(unit, Signal::SIGSTOP).await?;
    tokio::time::sleep(FROZEN).await;
    systemd.signal(unit, Signal::SIGCONT).await
}

/// Lets `culprits` run a fifth of the time: whatever they take, of CPUs, disks or networks, is
/// less then. An agent that dies meanwhile lets them go on when it is back.
///
/// # Errors
///
/// When none of them can be stopped: the first one's.
async fn throttle(systemd: &Systemd, culprits: &BTreeSet<Arc<str>>) -> Result<(), Error> {
    let mut refused = None;
    for _ in 0..TURNS {
        let mut standing = Vec::new();
        for unit in culprits {
            match systemd.signal(unit, Signal::SIGSTOP).await {
                Ok(()) => standing.push(unit),
                // One that does not run takes nothing.
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let nobody = standing.is_empty();
        tokio::time::sleep(STANDS).await;
        for unit in standing {
            systemd.signal(unit, Signal::SIGCONT).await?;
        }
        if let (true, Some(error)) = (nobody, refused.take()) {
            return Err(error);
        }
        tokio::time::sleep(RUNS).await;
    }
    Ok(())
}

async fn hook(hooks: &Path, name: &str, unit: &str, operation: &Operation) -> Result<(), String> {
    let program = trusted(hooks, name)?;
    let trigger = operation.trigger.map_or("operator", |trigger| trigger.name());
    let variables = [
        ("HOLDFAST_UNIT", unit.to_owned()),
        ("HOLDFAST_TRIGGER", trigger.to_owned()),
        ("HOLDFAST_OPERATION", operation.id.to_string()),
    ];
    let command = [program.display().to_string()];
    let ended = program::run(&command, &variables, HOOK).await;
    let name = program.display();
    ended.map_err(|error| format!("{name} cannot be started: {error}"))?.ok(HOOK)
}

/// The hook `name`, if only root can have put it there.
///
/// # Errors
///
/// What is wrong with it, in plain words.
pub fn trusted(hooks: &Path, name: &str) -> Result<PathBuf, String> {
    let program = hooks.join(name);
    let found = fs::symlink_metadata(&program);
    let found = found.map_err(|error| format!("{}: {error}", program.display()))?;
    if !found.is_file() || found.mode() & 0o111 == 0 {
        return Err(format!("{} is no program (chmod +x it; no links)", program.display()));
    }
    for path in [hooks, &program] {
        let shown = path.display();
        let found = fs::symlink_metadata(path).map_err(|error| format!("{shown}: {error}"))?;
        if !Uid::from_raw(found.uid()).is_root() {
            return Err(format!("{shown} does not belong to root (chown root it)"));
        }
        if found.mode() & 0o022 != 0 {
            return Err(format!("others than root may write {shown} (chmod go-w it)"));
        }
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn only_what_root_alone_can_write_is_a_hook() {
        if !Uid::effective().is_root() {
            return eprintln!("not root: hooks cannot be made");
        }
        let dir = tempfile::tempdir().unwrap();
        let hooks = dir.path();
        let write = |name: &str, mode| {
            fs::write(hooks.join(name), "#!/bin/true\n").unwrap();
            fs::set_permissions(hooks.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        write("good", 0o755);
        assert_eq!(trusted(hooks, "good"), Ok(hooks.join("good")));
        write("writable", 0o775);
        write("plain", 0o644);
        write("foreign", 0o755);
        chown(hooks.join("foreign"), Some(65_534), None).unwrap();
        symlink(hooks.join("good"), hooks.join("link")).unwrap();
        for (name, part) in [
            ("writable", "chmod go-w"),
            ("plain", "no program"),
            ("foreign", "belong to root"),
            ("link", "no program"),
            ("none", "No such file"),
        ] {
            let error = trusted(hooks, name).unwrap_err();
            assert!(error.contains(part), "{name}: {error}");
        }
        fs::set_permissions(hooks, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(trusted(hooks, "good").unwrap_err().contains("chmod go-w"));
    }
}
