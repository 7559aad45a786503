//! The worker: a process that does what it is told, so that the agent can see whether
//! its probes see it.
//!
//! It joins its cgroup, then answers lines on its standard input, "prepare PROBE" and
//! "go", with one line of JSON each. It ends with its input, and with the agent.

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::Path;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{Facts, PROOFS, Place, Provoke};

/// The agent's subcommand that is this program's other life.
pub const COMMAND: &str = "attest-worker";

/// What the worker answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// Done, and this is what it was.
    Done(Facts),
    /// It cannot be done here: why.
    Cannot(String),
}

/// Joins `cgroup` and does as told until nobody tells any more.
///
/// # Errors
///
/// When the cgroup cannot be joined, or nobody listens.
pub fn run(cgroup: &Path, state_dir: &Path, effort: u32) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let joined = fs::write(cgroup.join("cgroup.procs"), "0");
    let refused = |error| Answer::Cannot(format!("the worker cannot join its cgroup: {error}"));
    say(&joined.map_or_else(refused, |()| Answer::Done(Facts::default())))?;

    let place = Place { cgroup, state_dir, effort };
    let mut ready: Option<Provoke> = None;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.split_once(' ') {
            Some(("prepare", probe)) => {
                // What the last one still held is let go first.
                ready = None;
                let proof = PROOFS.iter().find(|proof| proof.probe == probe);
                let prepared = proof
                    .ok_or_else(|| format!("there is no proof of {probe}"))
                    .and_then(|proof| (proof.prepare)(&place));
                prepared.map(|provoke| {
                    ready = Some(provoke);
                    Facts::default()
                })
            }
            _ => match &mut ready {
                Some(provoke) => provoke(),
                None => Err("nothing was prepared".to_owned()),
            },
        };
        say(&answer.map_or_else(Answer::Cannot, Answer::Done))?;
    }
    Ok(())
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}
