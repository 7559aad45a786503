//! The checks that run, and what their results mean so far.

use std::sync::Arc;

use holdfast_core::clock::BootTime;
use holdfast_healer::check::{Check, Watch};
use holdfast_healer::config::Service;
use holdfast_healer::{Fact, Health};
use tokio::sync::mpsc;

use super::checks::{self, Checked, Running};

/// Results that may wait.
const RESULTS: usize = 256;

/// All checks of all services.
pub(super) struct Watched {
    checks: Vec<One>,
    results: mpsc::Receiver<Checked>,
    _running: Running,
}

#[derive(Clone)]
struct One {
    unit: Arc<str>,
    name: Arc<str>,
    check: Check,
    watch: Watch,
    /// What the newest result said was wrong.
    reason: Option<String>,
}

impl Watched {
    /// Begins to run the checks of `services`.
    pub(super) fn of(services: &[Service], now: BootTime) -> Self {
        Self::with(services, |_, _| Watch::new(now))
    }

    /// Begins again, with what is known of the checks that are as they were.
    pub(super) fn again(services: &[Service], before: &Self, now: BootTime) -> Self {
        Self::with(services, |unit, check| {
            let same = before.checks.iter().find(|one| *one.unit == *unit && one.check == *check);
            same.map_or_else(|| Watch::new(now), |one| one.watch.clone())
        })
    }

    fn with(services: &[Service], watch: impl Fn(&str, &Check) -> Watch) -> Self {
        let mut all = Vec::new();
        for service in services {
            for check in &service.checks {
                all.push(One {
                    unit: Arc::clone(&service.unit),
                    name: check.name.as_str().into(),
                    watch: watch(&service.unit, check),
                    check: check.clone(),
                    reason: None,
                });
            }
        }
        let checks: Vec<Check> = all.iter().map(|one| one.check.clone()).collect();
        let (to, results) = mpsc::channel(RESULTS);
        Self { checks: all, results, _running: checks::run(&checks, &to) }
    }

    /// The next result; never where nothing is checked.
    pub(super) async fn next(&mut self) -> Option<Checked> {
        match self.results.recv().await {
            Some(checked) => Some(checked),
            None => std::future::pending().await,
        }
    }

    /// Takes in a result; the fact when the check changed its mind.
    pub(super) fn take(&mut self, checked: Checked, now: BootTime) -> Option<Fact> {
        let one = self.checks.get_mut(checked.check)?;
        let is_well = checked.result.is_ok();
        let (unit, check) = (&*one.unit, one.check.shown());
        tracing::trace!(unit, check, took = ?checked.took, is_well, "checked");
        one.reason = checked.result.err();
        let health = one.watch.result(&one.check, is_well, now)?;
        if let Some(reason) = &one.reason {
            tracing::warn!(unit, check, reason, "the check fails");
        }
        Some(one.fact(health))
    }

    /// Takes in that time passes: checks that come to no result.
    pub(super) fn tick(&mut self, now: BootTime) -> Vec<Fact> {
        let stalled = self.checks.iter_mut().filter_map(|one| {
            let health = one.watch.tick(&one.check, now)?;
            one.reason = Some("it comes to no result".to_owned());
            Some(one.fact(health))
        });
        stalled.collect()
    }

    /// What is wrong, by the newest results: unit, check, reason.
    pub(super) fn reasons(&self) -> Vec<(Arc<str>, String, String)> {
        let failing = self.checks.iter().filter_map(|one| {
            Some((Arc::clone(&one.unit), one.name.to_string(), one.reason.clone()?))
        });
        failing.collect()
    }
}

impl One {
    fn fact(&self, health: Health) -> Fact {
        Fact::Check { unit: Arc::clone(&self.unit), check: Arc::clone(&self.name), health }
    }
}
