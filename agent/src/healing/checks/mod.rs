//! Runs the checks of services: each in a task of its own, at its own pace, and never longer
//! than it may take. What a result means is decided elsewhere.

mod exec;
mod grpc;
mod http;
mod tcp;

use std::time::Duration;

use holdfast_healer::check::{Check, Question};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Longest reason why a check failed.
const REASON_BYTES: usize = 200;

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// Number of the check, in the order they were given.
    pub(super) check: usize,
    /// What is wrong, in a few words.
    pub(super) result: Result<(), String>,
    /// How long it took.
    pub(super) took: Duration,
}

/// Checks that run. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    // It is what it holds that counts.
    _tasks: JoinSet<()>,
}

/// Begins to run `checks`; what comes of them goes to `results`.
#[must_use]
pub(super) fn run(checks: &[Check], results: &mpsc::Sender<Checked>) -> Running {
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for (number, check) in checks.iter().enumerate() {
        // Spread over the seconds of their interval, so that they do not come as one, and not
        // further: each time that the agent wakes up costs more than the next check does.
        let seconds = check.every.as_secs().max(1);
        let first = start + Duration::from_secs(number as u64 % seconds);
        tasks.spawn(repeat(number, check.clone(), first, results.clone()));
    }
    Running { _tasks: tasks }
}

async fn repeat(number: usize, check: Check, first: Instant, results: mpsc::Sender<Checked>) {
    let mut ticks = interval_at(first, check.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let result = once(&check).await;
        let checked = Checked { check: number, result, took: began.elapsed() };
        if results.send(checked).await.is_err() {
            return;
        }
    }
}

/// Asks once.
///
/// # Errors
///
/// What is wrong, in a few words.
pub(super) async fn once(check: &Check) -> Result<(), String> {
    let asked = async {
        match &check.question {
            Question::Http { url, status, contains } => http::ask(url, *status, contains).await,
            Question::Tcp { address } => tcp::ask(address).await,
            Question::Grpc { address, service } => grpc::ask(address, service).await,
            // It ends its program by itself.
            Question::Exec { command } => exec::ask(command, check.timeout).await,
        }
    };
    // A program is given the time to be killed in.
    let limit = match &check.question {
        Question::Exec { .. } => check.timeout + exec::KILLED_WITHIN,
        _ => check.timeout,
    };
    match timeout(limit, asked).await {
        Ok(result) => result.map_err(|reason| shown(&reason)),
        Err(_) => Err(format!("no answer within {:?}", check.timeout)),
    }
}

/// Fit to be told: one line, and not a long one.
fn shown(reason: &str) -> String {
    let mut shown: String =
        reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_BYTES).collect();
    shown.truncate(shown.trim_end().len());
    shown
}
