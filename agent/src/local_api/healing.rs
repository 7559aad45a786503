//! What the local API answers about healing, and the orders it takes.

use std::sync::Arc;
use std::time::Duration;

use holdfast_healer::{Action, Active, Health, Look, OperationId, Order, Trigger};
use holdfast_proto::{limits, v1};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::ANSWER_TIMEOUT;
use crate::healing::{Course, Explanation, Request, View};
use crate::uplink::wire::text;

/// Longest pause that can be asked for with an end.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 86_400);

/// Asks the healer; `None` when healing is switched off.
pub(super) type Healer = Option<mpsc::Sender<Request>>;

async fn ask<T>(
    healer: &mpsc::Sender<Request>,
    request: Request,
    answer: oneshot::Receiver<T>,
) -> Result<T, Status> {
    super::ask(healer, request, answer, ANSWER_TIMEOUT, "healer").await
}

fn off() -> Status {
    Status::failed_precondition("healing is switched off (`healing.enabled`)")
}

pub(super) async fn list(healer: &Healer) -> Result<v1::ListServicesResponse, Status> {
    let Some(healer) = healer else {
        return Ok(v1::ListServicesResponse { off: true, ..v1::ListServicesResponse::default() });
    };
    let (sender, answer) = oneshot::channel();
    let view = ask(healer, Request::Look { answer: sender }, answer).await?;
    Ok(v1::ListServicesResponse {
        service: view.services.iter().map(|look| service(look, &view)).collect(),
        problem: view.problems.iter().map(|problem| text(problem)).collect(),
        off: false,
    })
}

pub(super) async fn order(
    healer: &Healer,
    request: v1::OrderHealingRequest,
) -> Result<v1::OrderHealingResponse, Status> {
    let healer = healer.as_ref().ok_or_else(off)?;
    let (sender, answer) = oneshot::channel();
    let order = checked(request)?;
    let done = ask(healer, Request::Order { order, answer: sender }, answer).await?;
    let text = done.map_err(Status::failed_precondition)?;
    Ok(v1::OrderHealingResponse { text })
}

/// The order that is asked for.
fn checked(request: v1::OrderHealingRequest) -> Result<Order, Status> {
    let unit: Option<Arc<str>> = match request.unit.as_str() {
        "" => None,
        unit if limits::is_instance(unit) => Some(unit.into()),
        _ => return Err(Status::invalid_argument("name a unit, such as nginx.service")),
    };
    let one =
        || unit.clone().ok_or_else(|| Status::invalid_argument("name the unit that this is about"));
    use v1::order_healing_request::Order as Asked;
    Ok(match request.order {
        Some(Asked::Pause(v1::PauseHealing { length_ms })) => {
            let length = Some(Duration::from_millis(length_ms)).filter(|length| !length.is_zero());
            if length.is_some_and(|length| length > LONGEST_PAUSE) {
                return Err(Status::invalid_argument("pause for at most 30 days"));
            }
            Order::Pause { unit, length }
        }
        Some(Asked::Silence(v1::SilenceTrigger { trigger, length_ms })) => {
            let length = Duration::from_millis(length_ms);
            if length.is_zero() || length > LONGEST_PAUSE {
                return Err(Status::invalid_argument("say for how long: at most 30 days"));
            }
            Order::Silence { unit: one()?, trigger: named(&trigger)?, length }
        }
        Some(Asked::Resume(_)) => Order::Resume { unit },
        Some(Asked::Clear(_)) => Order::Clear { unit: one()? },
        Some(Asked::Confirm(_)) => Order::Confirm { unit: one()? },
        Some(Asked::Run(v1::RunAction { action })) => {
            let action: Action =
                action.parse().map_err(|error: holdfast_healer::UnknownAction| {
                    Status::invalid_argument(error.to_string())
                })?;
            Order::Run { unit: one()?, action }
        }
        None => return Err(Status::invalid_argument("say what is to be done")),
    })
}

/// The trigger of that name; `None` without one.
fn named(trigger: &str) -> Result<Option<Trigger>, Status> {
    if trigger.is_empty() {
        return Ok(None);
    }
    let found = Trigger::ALL.into_iter().find(|known| known.name() == trigger);
    found.map(Some).ok_or_else(|| {
        let names = Trigger::ALL.map(Trigger::name).join(", ");
        Status::invalid_argument(format!("there is no such trigger; there are {names}"))
    })
}

pub(super) async fn explain(
    healer: &Healer,
    operation: u64,
) -> Result<v1::ExplainOperationResponse, Status> {
    let healer = healer.as_ref().ok_or_else(off)?;
    let (sender, answer) = oneshot::channel();
    let request = Request::Explain { operation: OperationId(operation), answer: sender };
    let found = ask(healer, request, answer).await?;
    let explanation = found.ok_or_else(|| {
        Status::not_found(format!("no operation {operation} is in the journal of this host"))
    })?;
    Ok(explained(explanation))
}

fn signal(course: Course) -> v1::EvidenceSignal {
    v1::EvidenceSignal { name: text(&course.signal), value: course.values }
}

fn explained(explanation: Explanation) -> v1::ExplainOperationResponse {
    let Explanation { unit, unix_ms, course, evidence } = explanation;
    let step =
        |(seconds, said): &(i64, String)| v1::OperationStep { seconds: *seconds, text: text(said) };
    let evidence = evidence.map(|bundle| v1::OperationEvidence {
        unix_ms: bundle.unix_ms,
        cgroup: bundle
            .cgroup
            .iter()
            .map(|(name, value)| v1::Field { name: text(name), value: text(value) })
            .collect(),
        thread: bundle
            .threads
            .iter()
            .map(|thread| v1::EvidenceThread {
                tid: thread.tid,
                name: text(&thread.name),
                state: thread.state.to_string(),
                waits_in: text(&thread.waits_in),
                cpu_ticks: thread.cpu_ticks,
            })
            .collect(),
        log: bundle.log.iter().map(|line| text(line)).collect(),
        missing: bundle.missing.iter().map(|what| text(what)).collect(),
        signal: bundle.signals.into_iter().map(signal).collect(),
        kernel: bundle.kernel.iter().map(|line| text(line)).collect(),
    });
    let step = course.iter().map(step).collect();
    v1::ExplainOperationResponse { unit: text(&unit), unix_ms, step, evidence }
}

fn service(look: &Look, view: &View) -> v1::HealedService {
    let state = match look.state.map(|state| (state.active, state.job)) {
        None => v1::ServiceState::Unspecified,
        Some((Active::Changing, _) | (_, true)) => v1::ServiceState::Changing,
        Some((Active::Active, _)) => v1::ServiceState::Active,
        Some((Active::Inactive, _)) => v1::ServiceState::Inactive,
        Some((Active::Failed, _)) => v1::ServiceState::Failed,
    };
    let reason = |check: &str| {
        let of = view.reasons.iter().find(|(unit, name, _)| *unit == look.unit && name == check);
        of.map(|(_, _, reason)| text(reason)).unwrap_or_default()
    };
    let check = |(name, health): &(Arc<str>, Health)| v1::ServiceCheck {
        name: text(name),
        health: match health {
            Health::Healthy => "healthy",
            Health::Failing => "failing",
            Health::Stalled => "stalled",
        }
        .to_owned(),
        reason: if *health == Health::Healthy { String::new() } else { reason(name) },
    };
    let skipped = look.skipped.iter().map(|skipped| v1::SkippedAction {
        trigger: skipped.trigger.name().to_owned(),
        action: skipped.action.to_string(),
        left_ms: ms(skipped.left),
    });
    let silenced = look.silenced.iter().map(|(trigger, left)| v1::SilencedTrigger {
        trigger: trigger.name().to_owned(),
        left_ms: ms(*left),
    });
    let (held_by, held_why) =
        look.held.as_ref().map_or((String::new(), String::new()), |(guard, why)| {
            (guard.name().to_owned(), text(why))
        });
    let operation = look.operation.as_ref();
    let next = look.next.as_ref();
    v1::HealedService {
        unit: text(&look.unit),
        state: state.into(),
        check: look.checks.iter().map(check).collect(),
        trigger: look.triggers.iter().map(|trigger| trigger.name().to_owned()).collect(),
        next_action: next.map(|(_, action, _)| action.to_string()).unwrap_or_default(),
        next_mode: next.map(|(_, _, mode)| mode.name().to_owned()).unwrap_or_default(),
        held_by,
        held_why,
        operation: operation.map_or(0, |operation| operation.id.0),
        operation_action: operation.map(|of| of.action.to_string()).unwrap_or_default(),
        actions_10m: look.attempts.0,
        limit_10m: look.budget.per_10m,
        actions_24h: look.attempts.1,
        limit_24h: look.budget.per_24h,
        paused: look.paused.is_some(),
        paused_left_ms: look.paused.flatten().map_or(0, ms),
        skipped: skipped.collect(),
        silenced: silenced.collect(),
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::order_healing_request::Order as Asked;

    #[test]
    fn only_what_makes_sense_is_an_order() {
        let of = |unit: &str, order| checked(v1::OrderHealingRequest { unit: unit.into(), order });
        let run = |action: &str| Some(Asked::Run(v1::RunAction { action: action.into() }));
        assert!(of("a.service", run("restart")).is_ok());
        let pause = |length_ms| Some(Asked::Pause(v1::PauseHealing { length_ms }));
        let silence = |trigger: &str, length_ms| {
            Some(Asked::Silence(v1::SilenceTrigger { trigger: trigger.into(), length_ms }))
        };
        assert!(of("a.service", silence("", 1)).is_ok());
        assert!(matches!(of("", pause(0)), Ok(Order::Pause { unit: None, length: None })));
        for (unit, order) in [
            ("", run("restart")),
            ("a.service", run("rm -rf /")),
            ("a\n.service", run("restart")),
            ("", pause(u64::MAX)),
            ("", silence("leaking", 1)),
            ("a.service", silence("leaking", 0)),
            ("a.service", silence("bad luck", 1)),
            ("", Some(Asked::Clear(v1::ClearHealing {}))),
            ("a.service", None),
        ] {
            let refused = of(unit, order).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{unit}");
        }
    }
}
