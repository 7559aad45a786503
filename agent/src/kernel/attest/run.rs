//! Drives the worker through the proofs, step by step: whoever owns the kernel side
//! waits for [`ready`](Attestation::ready) beside everything else, then calls
//! [`advance`](Attestation::advance), which never blocks.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::ground::{Disk, Ground};
use super::verdict::{self, Outcome, Verdict};
use super::worker::{self, Answer};
use super::{Check, Counts, Evidence, Facts, PROOFS, Spec, Watch, variant};
use crate::host::Root;
use crate::kernel::{Kernel, KernelEvent, State};

/// Longest answer of the worker that is taken.
const LONGEST: usize = 64 * 1024;
/// How often the worker is looked at while it comes to rest, and how long at most.
const LOOK: Duration = Duration::from_millis(1);
const RESTLESS: Duration = Duration::from_secs(1);
const TOO_BUSY: &str = "the host is too busy: what was provoked does not come to rest";
/// How long events of the kernel may be on their way.
const EVENTS_LATE: Duration = Duration::from_millis(300);
/// How long the worker may take to end by itself.
const LEAVE: Duration = Duration::from_millis(500);
/// A proof that fails is made again: hosts are busy.
const ATTEMPTS: u32 = 3;

/// What to prove, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The probes to prove, in any order.
    pub probes: Vec<&'static str>,
    /// The program that is started as the worker, with the arguments before its own.
    pub program: PathBuf,
    /// Where the worker may write a file.
    pub state_dir: PathBuf,
    /// Whether to provoke what leaves traces, too.
    pub disruptive: bool,
    /// How much to provoke; 1 at the agent's start.
    pub effort: u32,
    /// All of it takes at most so long.
    pub limit: Duration,
}

/// What is waited for.
enum Phase {
    /// The worker joins its cgroup.
    Joins,
    /// The worker makes the present proof ready.
    Prepares,
    /// Nothing moves any more, so that counting can begin.
    Calms(Rest),
    /// The worker provokes.
    Provokes(Counts),
    /// Nothing moves any more, so that the counting can end.
    Ends(Counts, Facts, Rest),
    /// The worker ends.
    Leaves(Instant),
    /// Nothing.
    Over,
}

/// Whether the worker has come to rest.
struct Rest {
    since: Instant,
    arrivals: Option<u64>,
}

impl Rest {
    fn begin() -> Self {
        Self { since: Instant::now(), arrivals: None }
    }

    /// Looks once; true when it slept at two looks and did not run in between.
    fn look(&mut self, worker: u32) -> bool {
        let now = arrivals_if_asleep(worker);
        let calm = now.is_some() && now == self.arrivals;
        self.arrivals = now;
        calm
    }

    /// Whether it was looked at for long enough.
    fn is_given_up(&self) -> bool {
        self.since.elapsed() > RESTLESS
    }
}

/// Proofs under way. Dropping it ends the worker and removes its cgroup.
pub struct Attestation {
    options: Options,
    ground: Ground,
    disk: Result<Disk, String>,
    worker: Child,
    channel: UnixStream,
    heard: Vec<u8>,
    phase: Phase,
    /// When the present phase is due, where it is not the worker that is waited for.
    due: Option<Instant>,
    deadline: Instant,
    next: usize,
    attempt: u32,
    events: Vec<KernelEvent>,
    outcomes: Vec<Outcome>,
}

impl std::fmt::Debug for Attestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attestation").field("ground", &self.ground).finish_non_exhaustive()
    }
}

impl Attestation {
    /// Makes the cgroup and starts the worker. Must be called within the runtime.
    ///
    /// # Errors
    ///
    /// One sentence why nothing can be proven here at all.
    pub fn start(kernel: &Kernel, root: &Root, options: Options) -> Result<Self, String> {
        let ground = Ground::make(root)?;
        let disk = Disk::of(&options.state_dir, root, kernel);
        kernel.assign_attest(ground.id).map_err(|error| error.to_string())?;
        let started = start_worker(&options, &ground);
        let (worker, channel) = started.map_err(|error| {
            kernel.release_unit(ground.id);
            format!("the worker {} cannot be started: {error}", options.program.display())
        })?;
        let deadline = Instant::now() + options.limit;
        Ok(Self {
            options,
            ground,
            disk,
            worker,
            channel,
            heard: Vec::new(),
            phase: Phase::Joins,
            due: None,
            deadline,
            next: 0,
            attempt: 1,
            events: Vec::new(),
            outcomes: Vec::new(),
        })
    }

    /// The worker's cgroup: nothing that happens in it is the host's own.
    #[must_use]
    pub fn cgroup_id(&self) -> u64 {
        self.ground.id
    }

    /// Takes note of an event of the worker's cgroup.
    pub fn take(&mut self, event: KernelEvent) {
        self.events.push(event);
        // A flood would be a fault of ours; more than this no proof compares.
        self.events.truncate(64);
    }

    /// Waits until [`advance`](Self::advance) has something to do. Dropping the future
    /// loses nothing.
    pub async fn ready(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            // A failed wait is found again by the read that follows.
            None => drop(timeout_at(self.deadline, self.channel.ready(Interest::READABLE)).await),
        }
    }

    /// Goes on as far as can be without waiting. The outcomes, when all is done.
    pub fn advance(&mut self, kernel: &Kernel) -> Option<Vec<Outcome>> {
        if matches!(self.phase, Phase::Over) {
            return Some(std::mem::take(&mut self.outcomes));
        }
        if Instant::now() >= self.deadline && !matches!(self.phase, Phase::Leaves(_)) {
            self.give_up("it took too long");
        }
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Joins => match self.hear() {
                None => self.phase = Phase::Joins,
                Some(Ok(_)) => self.begin_next(kernel),
                Some(Err(reason)) => self.give_up(&reason),
            },
            Phase::Prepares => match self.hear() {
                None => self.phase = Phase::Prepares,
                Some(Ok(_)) => self.wait_for_rest(Phase::Calms(Rest::begin())),
                Some(Err(reason)) => self.settle(kernel, Verdict::Unproven(reason), Vec::new()),
            },
            Phase::Calms(mut rest) => {
                if rest.look(self.worker.id()) {
                    self.provoke(kernel);
                } else if rest.is_given_up() {
                    let verdict = Verdict::Unproven(TOO_BUSY.to_owned());
                    self.settle(kernel, verdict, Vec::new());
                } else {
                    self.wait_for_rest(Phase::Calms(rest));
                }
            }
            Phase::Provokes(before) => match self.hear() {
                None => self.phase = Phase::Provokes(before),
                Some(Ok(facts)) => self.wait_for_rest(Phase::Ends(before, facts, Rest::begin())),
                Some(Err(reason)) => self.settle(kernel, Verdict::Unproven(reason), Vec::new()),
            },
            Phase::Ends(before, facts, mut rest) => {
                let told = self.events.len() >= facts.events || rest.since.elapsed() > EVENTS_LATE;
                if rest.look(self.worker.id()) && told {
                    self.conclude(kernel, &before, facts);
                } else if rest.is_given_up() {
                    let verdict = Verdict::Unproven(TOO_BUSY.to_owned());
                    self.settle(kernel, verdict, Vec::new());
                } else {
                    self.wait_for_rest(Phase::Ends(before, facts, rest));
                }
            }
            Phase::Leaves(until) => {
                let gone = !matches!(self.worker.try_wait(), Ok(None));
                if gone || Instant::now() >= until {
                    kernel.release_unit(self.ground.id);
                    return Some(std::mem::take(&mut self.outcomes));
                }
                self.due = Some(Instant::now() + LOOK);
                self.phase = Phase::Leaves(until);
            }
            Phase::Over => {}
        }
        None
    }

    fn wait_for_rest(&mut self, phase: Phase) {
        self.due = Some(Instant::now() + LOOK);
        self.phase = phase;
    }

    /// Begins with the next proof that was asked for and can be made.
    fn begin_next(&mut self, kernel: &Kernel) {
        while let Some(spec) = PROOFS.get(self.next) {
            let wanted = self.options.probes.contains(&spec.probe);
            let refused = if !wanted {
                None
            } else if !spec.disruptive.is_empty() && !self.options.disruptive {
                Some(spec.disruptive.to_owned())
            } else {
                (spec.count)(&self.watch(kernel)).err()
            };
            match refused {
                None if wanted => {
                    let line = format!("prepare {}\n", spec.probe);
                    return self.tell(&line, Phase::Prepares);
                }
                None => {}
                Some(reason) => {
                    self.outcomes.push(outcome(spec, Verdict::Unproven(reason), Vec::new(), 0));
                }
            }
            self.next += 1;
        }
        self.leave();
    }

    fn provoke(&mut self, kernel: &Kernel) {
        self.events.clear();
        let Some(spec) = PROOFS.get(self.next) else { return self.leave() };
        match (spec.count)(&self.watch(kernel)) {
            Ok(before) => self.tell("go\n", Phase::Provokes(before)),
            Err(reason) => self.settle(kernel, Verdict::Unproven(reason), Vec::new()),
        }
    }

    fn conclude(&mut self, kernel: &Kernel, before: &Counts, facts: Facts) {
        let Some(spec) = PROOFS.get(self.next) else { return self.leave() };
        let after = match (spec.count)(&self.watch(kernel)) {
            Ok(after) => after,
            Err(reason) => return self.settle(kernel, Verdict::Unproven(reason), Vec::new()),
        };
        let since = |(name, n): (&'static str, u64)| {
            (name, n.wrapping_sub(before.get(name).copied().unwrap_or_default()))
        };
        let variant = |name: &str| variant(kernel, name);
        let evidence = Evidence {
            gained: after.into_iter().map(since).collect(),
            facts,
            events: std::mem::take(&mut self.events),
            variant: &variant,
        };
        let runs = |check: &Check| {
            kernel.programs().iter().any(|p| p.name == check.program && p.state == State::Active)
        };
        let checks: Vec<Check> = (spec.judge)(&evidence).into_iter().filter(runs).collect();
        self.settle(kernel, verdict::of(&checks), checks);
    }

    /// Writes the present proof's outcome down, or makes it again.
    fn settle(&mut self, kernel: &Kernel, verdict: Verdict, checks: Vec<Check>) {
        let again = matches!(verdict, Verdict::Failed(_)) && self.attempt < ATTEMPTS;
        if again {
            tracing::debug!(?verdict, "a proof failed and is made again");
            self.attempt += 1;
        } else {
            let attempts = std::mem::replace(&mut self.attempt, 1);
            if let Some(spec) = PROOFS.get(self.next) {
                self.outcomes.push(outcome(spec, verdict, checks, attempts));
            }
            self.next += 1;
        }
        self.begin_next(kernel);
    }

    /// Everything that is not proven yet stays so.
    fn give_up(&mut self, reason: &str) {
        for spec in PROOFS.iter().skip(self.next) {
            if self.options.probes.contains(&spec.probe) {
                let verdict = Verdict::Unproven(reason.to_owned());
                self.outcomes.push(outcome(spec, verdict, Vec::new(), 0));
            }
        }
        self.next = PROOFS.len();
        self.leave();
    }

    fn leave(&mut self) {
        // The worker ends with its input; what it cannot be told, dropping it does.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.channel),
            nix::sys::socket::Shutdown::Both,
        );
        self.due = Some(Instant::now() + LOOK);
        self.phase = Phase::Leaves(Instant::now() + LEAVE);
    }

    fn watch<'a>(&'a self, kernel: &'a Kernel) -> Watch<'a> {
        let disk = self.disk.as_ref().map_err(String::as_str);
        let state_dir = &self.options.state_dir;
        Watch { kernel, worker: self.worker.id(), state_dir, disk }
    }

    fn tell(&mut self, line: &str, then: Phase) {
        match self.channel.try_write(line.as_bytes()) {
            Ok(n) if n == line.len() => {
                self.due = None;
                self.phase = then;
            }
            _ => self.give_up("the worker takes no orders"),
        }
    }

    /// The worker's answer; `None` while there is none.
    fn hear(&mut self) -> Option<Result<Facts, String>> {
        let mut chunk = [0; 4096];
        loop {
            match self.channel.try_read(&mut chunk) {
                Ok(0) => return Some(Err("the worker ended before its time".to_owned())),
                Ok(n) => self.heard.extend(chunk.iter().take(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Some(Err(format!("the worker cannot be heard: {error}"))),
            }
            if self.heard.len() > LONGEST {
                return Some(Err("the worker says too much".to_owned()));
            }
        }
        let end = self.heard.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.heard.drain(..=end).collect();
        Some(match serde_json::from_slice(&line) {
            Ok(Answer::Done(facts)) => Ok(facts),
            Ok(Answer::Cannot(reason)) => Err(reason),
            Err(error) => Err(format!("the worker cannot be understood: {error}")),
        })
    }
}

impl Drop for Attestation {
    fn drop(&mut self) {
        // Most often it has ended already; then both do nothing.
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

fn outcome(spec: &Spec, verdict: Verdict, checks: Vec<Check>, attempts: u32) -> Outcome {
    Outcome { probe: spec.probe, provoked: spec.provokes, verdict, checks, attempts }
}

fn start_worker(options: &Options, ground: &Ground) -> io::Result<(Child, UnixStream)> {
    let (ours, its) = Pair::pair()?;
    ours.set_nonblocking(true)?;
    let (input, output) = (OwnedFd::from(its.try_clone()?), OwnedFd::from(its));
    let arguments = [
        OsString::from(worker::COMMAND),
        "--cgroup".into(),
        ground.folder.clone().into(),
        "--state-dir".into(),
        options.state_dir.clone().into(),
        "--effort".into(),
        options.effort.to_string().into(),
    ];
    let child = Command::new(&options.program)
        .args(arguments)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .spawn()?;
    Ok((child, UnixStream::from_std(ours)?))
}

/// How often the tasks of `process` were switched to so far; `None` when one of them runs.
fn arrivals_if_asleep(process: u32) -> Option<u64> {
    let mut arrivals = 0u64;
    for task in fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten() {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let state = stat.rsplit_once(") ")?.1;
        if !state.starts_with(['S', 'D']) {
            return None;
        }
        let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        arrivals += schedstat.split_whitespace().nth(2).and_then(|n| n.parse().ok()).unwrap_or(0);
    }
    Some(arrivals)
}
