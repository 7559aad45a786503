//! `holdfast local services` and what an operator says about them: `pause`, `resume`, `run`,
//! `clear`, `confirm`; and why an operation was done.

use std::time::Duration;

use holdfast_proto::v1::{self, order_healing_request::Order};
use serde::Serialize;

use crate::{
    cli,
    connection::Agent,
    error::Error,
    measure,
    output::{Look, Output},
    sparkline,
    table::{Table, Tone, left, pairs, right},
    text::clean,
};

/// A service that is healed.
#[derive(Debug, Serialize)]
struct Service {
    unit: String,
    /// "active", "changing", "inactive", "failed" or "unknown".
    state: &'static str,
    checks: Vec<Check>,
    /// What is wrong, the most certain first.
    triggers: Vec<String>,
    /// Null when nothing is next.
    next: Option<Next>,
    /// Null when nothing is under way.
    operation: Option<Operation>,
    actions_10m: u32,
    limit_10m: u32,
    actions_24h: u32,
    limit_24h: u32,
    paused: bool,
    /// Null when it is not paused, or until it is resumed.
    paused_left_seconds: Option<f64>,
    skipped: Vec<Skipped>,
    silenced: Vec<Silenced>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    health: String,
    /// Null when it is well.
    reason: Option<String>,
}

/// What would be done next.
#[derive(Debug, Serialize)]
struct Next {
    action: String,
    mode: String,
    /// Null when nothing stands against it.
    held_by: Option<String>,
    held_why: Option<String>,
}

#[derive(Debug, Serialize)]
struct Operation {
    id: u64,
    action: String,
}

#[derive(Debug, Serialize)]
struct Skipped {
    trigger: String,
    action: String,
    left_seconds: f64,
}

/// What nobody wants to hear about.
#[derive(Debug, Serialize)]
struct Silenced {
    trigger: String,
    left_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Services {
    services: Vec<Service>,
    /// What cannot be used of the configuration, and what keeps all healing back.
    problems: Vec<String>,
}

fn some(text: &str) -> Option<String> {
    Some(clean(text)).filter(|text| !text.is_empty())
}

impl Service {
    fn from_wire(of: &v1::HealedService) -> Self {
        let state = match of.state() {
            v1::ServiceState::Active => "active",
            v1::ServiceState::Changing => "changing",
            v1::ServiceState::Inactive => "inactive",
            v1::ServiceState::Failed => "failed",
            v1::ServiceState::Unspecified => "unknown",
        };
        let check = |check: &v1::ServiceCheck| Check {
            name: clean(&check.name),
            health: clean(&check.health),
            reason: some(&check.reason),
        };
        let skipped = |skipped: &v1::SkippedAction| Skipped {
            trigger: clean(&skipped.trigger),
            action: clean(&skipped.action),
            left_seconds: skipped.left_ms as f64 / 1e3,
        };
        let silenced = |silenced: &v1::SilencedTrigger| Silenced {
            trigger: clean(&silenced.trigger),
            left_seconds: silenced.left_ms as f64 / 1e3,
        };
        let left = (of.paused && of.paused_left_ms > 0).then(|| of.paused_left_ms as f64 / 1e3);
        Self {
            unit: clean(&of.unit),
            state,
            checks: of.check.iter().map(check).collect(),
            triggers: of.trigger.iter().map(|trigger| clean(trigger)).collect(),
            next: some(&of.next_action).map(|action| Next {
                action,
                mode: clean(&of.next_mode),
                held_by: some(&of.held_by),
                held_why: some(&of.held_why),
            }),
            operation: (of.operation > 0)
                .then(|| Operation { id: of.operation, action: clean(&of.operation_action) }),
            actions_10m: of.actions_10m,
            limit_10m: of.limit_10m,
            actions_24h: of.actions_24h,
            limit_24h: of.limit_24h,
            paused: of.paused,
            paused_left_seconds: left,
            skipped: of.skipped.iter().map(skipped).collect(),
            silenced: of.silenced.iter().map(silenced).collect(),
        }
    }

    /// How it does, in one word or a few, and how much that should worry.
    fn health(&self) -> (String, Tone) {
        match self.triggers.first() {
            Some(trigger) => (trigger.clone(), Tone::Bad),
            None if self.state == "active" => ("well".to_owned(), Tone::Good),
            None => ("-".to_owned(), Tone::Faint),
        }
    }

    /// What is done, or why not.
    fn doing(&self) -> String {
        let mut said = match (&self.operation, &self.next) {
            (Some(operation), _) => format!("{} (operation {})", operation.action, operation.id),
            (None, Some(next)) => match &next.held_why {
                Some(why) => format!("{} held back: {why}", next.action),
                None if next.mode == "act" => format!("{} is next", next.action),
                None => format!("{} is next (mode {})", next.action, next.mode),
            },
            (None, None) if !self.triggers.is_empty() => "nothing is left to try".to_owned(),
            (None, None) => String::new(),
        };
        if self.paused {
            let left = self
                .paused_left_seconds
                .map(|seconds| format!(" for {}", measure::span(Duration::from_secs_f64(seconds))));
            let paused = format!("paused{}", left.unwrap_or_default());
            said = if said.is_empty() { paused } else { format!("{paused}; {said}") };
        }
        said
    }
}

pub(crate) async fn list(agent: &mut Agent, output: &mut Output) -> Result<(), Error> {
    let request = v1::ListServicesRequest {};
    let answer = agent.call(async |client| client.list_services(request).await).await?;
    if answer.off {
        return Err(Error::HealingOff);
    }
    let services = Services {
        services: answer.service.iter().map(Service::from_wire).collect(),
        problems: answer.problem.iter().map(|problem| clean(problem)).collect(),
    };
    output.show(&services, table)
}

fn table(of: &Services, look: &Look) -> String {
    let columns = [
        left("SERVICE"),
        left("STATE"),
        left("HEALTH"),
        right("10 MIN"),
        right("24 H"),
        left("DOING"),
    ];
    let mut table = Table::new(look, &columns);
    for service in &of.services {
        let plain = |text: String| (text, Tone::Plain);
        table.toned([
            plain(service.unit.clone()),
            plain(service.state.to_owned()),
            service.health(),
            plain(format!("{}/{}", service.actions_10m, service.limit_10m)),
            plain(format!("{}/{}", service.actions_24h, service.limit_24h)),
            plain(service.doing()),
        ]);
    }
    let mut text = table.finish("No service is healed: none has a file in services.d.");
    for service in &of.services {
        for check in service.checks.iter().filter(|check| check.health != "healthy") {
            let reason = check.reason.as_deref().unwrap_or("no reason was told");
            text.push_str(&format!(
                "\n{}: check {} is {}: {reason}",
                service.unit, check.name, check.health
            ));
        }
        for skipped in &service.skipped {
            let left = measure::span(Duration::from_secs_f64(skipped.left_seconds));
            let Skipped { trigger, action, .. } = skipped;
            text.push_str(&format!(
                "\n{}: {action} did not help against {trigger} and is not tried for {left} (`holdfast local clear {}` forgets that)",
                service.unit, service.unit
            ));
        }
    }
    text.push_str(&silences(&of.services));
    for problem in &of.problems {
        text.push_str(&format!("\nproblem: {problem}"));
    }
    text
}

/// A line for each service that is silenced.
fn silences(services: &[Service]) -> String {
    let mut text = String::new();
    for Service { unit, silenced, .. } in services.iter().filter(|of| !of.silenced.is_empty()) {
        let each = silenced.iter().map(|Silenced { trigger, left_seconds }| {
            format!("{trigger} for {}", measure::span(Duration::from_secs_f64(*left_seconds)))
        });
        let each = each.collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "\n{unit}: silenced: {each} (`holdfast local resume {unit}` ends that)"
        ));
    }
    text
}

/// What came of an order.
#[derive(Debug, Serialize)]
struct Done {
    unit: Option<String>,
    said: String,
}

async fn order(
    agent: &mut Agent,
    output: &mut Output,
    unit: Option<&str>,
    order: Order,
) -> Result<(), Error> {
    let unit = unit.map(full_name);
    let request =
        v1::OrderHealingRequest { unit: unit.clone().unwrap_or_default(), order: Some(order) };
    let answer = agent.call(async |client| client.order_healing(request).await).await?;
    let done = Done { unit, said: clean(&answer.text) };
    output.show(&done, |done, _| {
        let who = done.unit.as_deref().unwrap_or("this host");
        format!("{who}: {}", done.said)
    })
}

/// `.service` may be left out.
fn full_name(unit: &str) -> String {
    if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") }
}

pub(crate) async fn pause(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::Pause,
) -> Result<(), Error> {
    let length = options.length.map_or(0, |length| length.as_millis());
    let length_ms = u64::try_from(length).unwrap_or(u64::MAX);
    let pause = Order::Pause(v1::PauseHealing { length_ms });
    order(agent, output, options.unit.as_deref(), pause).await
}

pub(crate) async fn silence(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::Silence,
) -> Result<(), Error> {
    let length_ms = u64::try_from(options.length.as_millis()).unwrap_or(u64::MAX);
    let trigger = options.trigger.clone().unwrap_or_default();
    let silence = Order::Silence(v1::SilenceTrigger { trigger, length_ms });
    order(agent, output, Some(&options.unit), silence).await
}

pub(crate) async fn resume(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::Resume,
) -> Result<(), Error> {
    let resume = Order::Resume(v1::ResumeHealing {});
    order(agent, output, options.unit.as_deref(), resume).await
}

pub(crate) async fn run(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::RunAction,
) -> Result<(), Error> {
    let run = Order::Run(v1::RunAction { action: options.action.clone() });
    order(agent, output, Some(&options.unit), run).await
}

pub(crate) async fn clear(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::OneService,
) -> Result<(), Error> {
    let clear = Order::Clear(v1::ClearHealing {});
    order(agent, output, Some(&options.unit), clear).await
}

pub(crate) async fn confirm(
    agent: &mut Agent,
    output: &mut Output,
    options: &cli::OneService,
) -> Result<(), Error> {
    let confirm = Order::Confirm(v1::ConfirmAction {});
    order(agent, output, Some(&options.unit), confirm).await
}

/// Why an operation was done.
#[derive(Debug, Serialize)]
struct Explanation {
    operation: u64,
    unit: String,
    unix_ms: u64,
    steps: Vec<Step>,
    /// Null when none was kept.
    evidence: Option<Evidence>,
}

#[derive(Debug, Serialize)]
struct Step {
    /// From the decision on; before it where negative.
    seconds: i64,
    text: String,
}

#[derive(Debug, Serialize)]
struct Evidence {
    unix_ms: u64,
    cgroup: Vec<(String, String)>,
    threads: Vec<Thread>,
    log: Vec<String>,
    kernel: Vec<String>,
    missing: Vec<String>,
    /// In the last five minutes.
    signals: Vec<Signal>,
}

#[derive(Debug, Serialize)]
struct Signal {
    name: String,
    /// The oldest first, ten seconds apart.
    values: Vec<f32>,
}

#[derive(Debug, Serialize)]
struct Thread {
    tid: u32,
    name: String,
    state: String,
    waits_in: String,
    cpu_ticks: u64,
}

impl Evidence {
    fn from_wire(of: &v1::OperationEvidence) -> Self {
        let thread = |thread: &v1::EvidenceThread| Thread {
            tid: thread.tid,
            name: clean(&thread.name),
            state: clean(&thread.state),
            waits_in: clean(&thread.waits_in),
            cpu_ticks: thread.cpu_ticks,
        };
        Self {
            unix_ms: of.unix_ms,
            cgroup: of.cgroup.iter().map(|file| (clean(&file.name), clean(&file.value))).collect(),
            threads: of.thread.iter().map(thread).collect(),
            log: of.log.iter().map(|line| clean(line)).collect(),
            kernel: of.kernel.iter().map(|line| clean(line)).collect(),
            missing: of.missing.iter().map(|what| clean(what)).collect(),
            signals: of
                .signal
                .iter()
                .map(|signal| Signal { name: clean(&signal.name), values: signal.value.clone() })
                .collect(),
        }
    }
}

/// Explains operation `id`.
pub(crate) async fn explain(agent: &mut Agent, output: &mut Output, id: u64) -> Result<(), Error> {
    let request = v1::ExplainOperationRequest { operation: id };
    let answer = agent.call(async |client| client.explain_operation(request).await).await?;
    let explanation = Explanation {
        operation: id,
        unit: clean(&answer.unit),
        unix_ms: answer.unix_ms,
        steps: answer
            .step
            .iter()
            .map(|step| Step { seconds: step.seconds, text: clean(&step.text) })
            .collect(),
        evidence: answer.evidence.as_ref().map(Evidence::from_wire),
    };
    output.show(&explanation, explained)
}

/// Threads and log lines that are shown; all of them are in the JSON.
const SHOWN_THREADS: usize = 8;
const SHOWN_LINES: usize = 12;
const SHOWN_SIGNALS: usize = 8;
/// Values of the last half minute.
const NEWEST: usize = 3;
const CHART: usize = 30;

fn explained(of: &Explanation, look: &Look) -> String {
    let mut text = pairs(&[
        ("operation", of.operation.to_string()),
        ("service", of.unit.clone()),
        ("decided", look.time(of.unix_ms)),
    ]);
    text.push('\n');
    for step in &of.steps {
        text.push_str(&format!("\n{:>+6} s  {}", step.seconds, step.text));
    }
    let Some(evidence) = &of.evidence else { return text };
    text.push_str("\n\nWhat was seen before it was carried out:");
    for thread in evidence.threads.iter().take(SHOWN_THREADS) {
        let Thread { tid, name, state, waits_in, cpu_ticks } = thread;
        text.push_str(&format!("\n  {tid:>7} {state} {name:<16} {cpu_ticks:>8} ticks  {waits_in}"));
    }
    for signal in changed(&evidence.signals) {
        let values: Vec<f64> = signal.values.iter().map(|value| f64::from(*value)).collect();
        let course = sparkline::draw(&values, CHART);
        text.push_str(&format!("\n  {:<32} {course}", signal.name));
    }
    let lines = evidence.log.len().saturating_sub(SHOWN_LINES);
    for line in evidence.log.iter().skip(lines) {
        text.push_str(&format!("\n  {line}"));
    }
    for line in &evidence.kernel {
        text.push_str(&format!("\n  kernel: {line}"));
    }
    for missing in &evidence.missing {
        text.push_str(&format!("\n  not seen: {missing}"));
    }
    text
}

/// The signals that changed most in the last half minute, those first.
fn changed(signals: &[Signal]) -> Vec<&Signal> {
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len().max(1) as f32;
    let change = |signal: &Signal| {
        let values = &signal.values;
        let (before, since) = values.split_at(values.len().saturating_sub(NEWEST));
        ((mean(since) + f32::MIN_POSITIVE) / (mean(before) + f32::MIN_POSITIVE)).ln().abs()
    };
    let mut all: Vec<&Signal> =
        signals.iter().filter(|signal| signal.values.len() > NEWEST).collect();
    all.sort_by(|a, b| change(b).total_cmp(&change(a)));
    all.truncate(SHOWN_SIGNALS);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> v1::HealedService {
        v1::HealedService {
            unit: "db.service".into(),
            state: v1::ServiceState::Failed.into(),
            trigger: vec!["crash_loop".into()],
            next_action: "restart".into(),
            next_mode: "act".into(),
            held_by: "budget".into(),
            held_why: "3 of 3 actions in 10 minutes are used up".into(),
            actions_10m: 3,
            limit_10m: 3,
            ..v1::HealedService::default()
        }
    }

    #[test]
    fn what_is_held_back_is_told_with_the_reason() {
        let service = Service::from_wire(&wire());
        assert_eq!(service.doing(), "restart held back: 3 of 3 actions in 10 minutes are used up");
        assert_eq!(service.health(), ("crash_loop".to_owned(), Tone::Bad));
        let paused = v1::HealedService { paused: true, paused_left_ms: 60_000, ..wire() };
        assert!(Service::from_wire(&paused).doing().starts_with("paused for 1m"));
        let well = v1::HealedService {
            state: v1::ServiceState::Active.into(),
            ..v1::HealedService::default()
        };
        assert_eq!(Service::from_wire(&well).health().1, Tone::Good);
    }

    #[test]
    fn what_changed_most_is_shown_first() {
        let signal = |name: &str, last: f32| Signal {
            name: name.to_owned(),
            values: [vec![1.0; 20], vec![last; NEWEST]].concat(),
        };
        let short = Signal { name: "short".to_owned(), values: vec![1.0] };
        let signals = [signal("same", 1.0), short, signal("less", 0.1), signal("more", 100.0)];
        let names: Vec<&str> = changed(&signals).iter().map(|of| of.name.as_str()).collect();
        assert_eq!(names, ["more", "less", "same"]);
    }

    #[test]
    fn a_unit_may_be_named_in_short() {
        assert_eq!(full_name("db"), "db.service");
        assert_eq!(full_name("app@1.service"), "app@1.service");
    }
}
