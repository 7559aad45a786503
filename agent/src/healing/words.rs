//! Decisions as events, in plain words.

use std::sync::Arc;

use holdfast_healer::{Action, Decision, Operation, OperationId, Outcome, Trigger, Verdict};

use crate::report::Severity;
use crate::teller::Fact;

/// What is told of a decision.
#[must_use]
pub(super) fn event(decision: &Decision) -> Fact {
    match decision {
        Decision::Begin { unit, operation } => begun(unit, operation),
        Decision::Would { unit, trigger, action } => {
            let message =
                format!("{unit} {}: {action} would be next (mode observe)", ill(*trigger));
            let fields = of(Some(*trigger), action, None);
            fact("healing.would", Severity::Warning, unit, message, fields)
        }
        Decision::Ask { unit, trigger, action } => {
            let message = format!(
                "{unit} {}: {action} waits for `holdfast local confirm {unit}`",
                ill(*trigger)
            );
            let fields = of(Some(*trigger), action, None);
            fact("healing.asks", Severity::Warning, unit, message, fields)
        }
        Decision::Held { unit, trigger, action, guard, why } => {
            let wrong = trigger.map_or_else(|| "an operator asked".to_owned(), |t| ill(t).into());
            let message = format!("{unit} {wrong}, but {action} is held back: {why}");
            let mut fields = of(*trigger, action, None);
            fields.push(("guard", guard.clone()));
            fact("healing.held", Severity::Warning, unit, message, fields)
        }
        Decision::Judged { unit, operation, verdict } => judged(unit, operation, *verdict),
        Decision::Lost { unit, operation, why } => {
            let message = format!("operation {operation} for {unit} was not carried out: {why}");
            let fields = vec![("operation", operation.to_string())];
            fact("healing.lost", Severity::Info, unit, message, fields)
        }
    }
}

fn begun(unit: &Arc<str>, operation: &Operation) -> Fact {
    let Operation { id, action, trigger, .. } = operation;
    let why = trigger.map_or("an operator asked for it", ill);
    let fields = of(*trigger, action, Some(*id));
    match action {
        Action::Escalate => {
            let message = format!("{unit} {why}, and nothing that may be done helps");
            fact("healing.escalated", Severity::Critical, unit, message, fields)
        }
        Action::Handover => {
            let message = format!("{unit} {why}: another host should take over");
            fact("healing.handover", Severity::Critical, unit, message, fields)
        }
        action => {
            let message = format!("{action} of {unit} begins: it {why}");
            fact("healing.began", Severity::Warning, unit, message, fields)
        }
    }
}

fn judged(unit: &Arc<str>, operation: &Operation, verdict: Verdict) -> Fact {
    let Operation { id, action, trigger, .. } = operation;
    let mut fields = of(*trigger, action, Some(*id));
    fields.push(("verdict", verdict.name().to_owned()));
    let (severity, message) = match verdict {
        Verdict::Helped => (Severity::Info, format!("{action} of {unit} helped")),
        Verdict::NoEffect => (Severity::Warning, format!("{action} of {unit} had no effect")),
        Verdict::Harmed => (
            Severity::Critical,
            format!("{action} of {unit} made it worse, and is not tried again"),
        ),
    };
    fact("healing.judged", severity, unit, message, fields)
}

/// What is told when an operation ended otherwise than well.
#[must_use]
pub(super) fn failed(unit: &Arc<str>, id: OperationId, outcome: &Outcome) -> Option<Fact> {
    let (Outcome::Failed { reason } | Outcome::Dropped { reason }) = outcome else { return None };
    let message = format!("operation {id} for {unit} did not work: {reason}");
    let fields = vec![("operation", id.to_string())];
    Some(fact("healing.failed", Severity::Warning, unit, message, fields))
}

/// What is wrong, as the end of a sentence that begins with the unit.
#[must_use]
pub(super) const fn ill(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::CrashLoop => "crashes again and again, and systemd gave up on it",
        Trigger::Crashed => "crashed",
        Trigger::OomKilled => "ran out of memory and was killed",
        Trigger::Unresponsive => "runs but does not serve",
        Trigger::StuckDState => "hangs in the kernel",
        Trigger::Leaking => "will run into its memory limit soon",
        Trigger::DiskFilling => "will have filled its disk soon",
        Trigger::Degraded => "does not behave as usual",
    }
}

fn of(
    trigger: Option<Trigger>,
    action: &Action,
    id: Option<OperationId>,
) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("trigger", trigger.map_or("operator", Trigger::name).to_owned()),
        ("action", action.to_string()),
    ];
    fields.extend(id.map(|id| ("operation", id.to_string())));
    fields
}

fn fact(
    kind: &'static str,
    severity: Severity,
    unit: &Arc<str>,
    message: String,
    fields: Vec<(&'static str, String)>,
) -> Fact {
    Fact { unit: Arc::clone(unit), fields, ..Fact::new(kind, severity, message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_done_is_told_with_the_reason() {
        let held = Decision::Held {
            unit: "db.service".into(),
            trigger: Some(Trigger::CrashLoop),
            action: Action::Restart,
            guard: "budget".into(),
            why: "3 of 3 actions in 10 minutes are used up".into(),
        };
        let told = event(&held);
        assert_eq!((told.kind, &*told.unit), ("healing.held", "db.service"));
        assert_eq!(
            told.message,
            "db.service crashes again and again, and systemd gave up on it, but restart is held \
             back: 3 of 3 actions in 10 minutes are used up"
        );
        assert!(told.fields.contains(&("guard", "budget".to_owned())));
        assert!(failed(&"a.service".into(), OperationId(3), &Outcome::Done).is_none());
    }
}
