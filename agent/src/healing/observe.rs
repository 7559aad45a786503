//! What systemd says of a unit, as the healer sees it.

use std::time::Duration;

use holdfast_core::clock::BootTime;
use holdfast_healer::{Active, Ended, Invocation, UnitState};

use crate::host::systemd::Properties;

/// Two times of the same start differ by less than this: clocks are not read at once.
const SAME: Duration = Duration::from_millis(100);

/// How a unit is; `None` when systemd knows none of that name. `ahead` is how much the
/// boot-time clock is ahead of the monotonic one: time in suspend.
#[must_use]
pub(super) fn state(
    found: &Properties,
    ahead: Duration,
    before: Option<&UnitState>,
) -> Option<UnitState> {
    if matches!(found.load_state.as_str(), "" | "not-found") {
        return None;
    }
    let active = match found.active_state.as_str() {
        "active" => Active::Active,
        "inactive" => Active::Inactive,
        "failed" => Active::Failed,
        // What there will be in future is no reason to act.
        _ => Active::Changing,
    };
    let ended = match found.result.as_str() {
        "" | "success" => Ended::Well,
        "start-limit-hit" => Ended::StartLimit,
        "oom-kill" => Ended::OutOfMemory,
        // When it gives up, systemd goes on to say how the last attempt ended.
        _ if found.restarts > 0 => Ended::StartLimit,
        _ => Ended::Badly,
    };
    let invocation = Invocation::new(found.invocation);
    let up_since =
        BootTime::new(Duration::from_micros(found.active_enter_monotonic_us).saturating_add(ahead));
    let known = before.filter(|before| before.invocation == invocation);
    let up_since = match known {
        Some(known) if difference(known.up_since, up_since) < SAME => known.up_since,
        _ => up_since,
    };
    Some(UnitState {
        active,
        ended,
        job: found.job != 0 || found.sub_state.contains("auto-restart"),
        masked: found.load_state == "masked",
        can_reload: found.can_reload,
        invocation,
        up_since,
    })
}

fn difference(a: BootTime, b: BootTime) -> Duration {
    a.since(b).max(b.since(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Properties {
        Properties {
            load_state: "loaded".into(),
            active_state: "active".into(),
            sub_state: "running".into(),
            result: "success".into(),
            invocation: [7; 16],
            active_enter_monotonic_us: 5_000_000,
            ..Properties::default()
        }
    }

    #[test]
    fn words_of_systemd_become_states() {
        let of = |change: &dyn Fn(&mut Properties)| {
            let mut found = running();
            change(&mut found);
            state(&found, Duration::ZERO, None)
        };
        let up = of(&|_| {}).unwrap();
        assert_eq!((up.active, up.ended, up.job), (Active::Active, Ended::Well, false));
        assert_eq!(of(&|found| found.load_state = "not-found".into()), None);
        let masked = of(&|found| found.load_state = "masked".into()).unwrap();
        assert!(masked.masked);
        for (word, active) in [
            ("inactive", Active::Inactive),
            ("failed", Active::Failed),
            ("activating", Active::Changing),
            ("reloading", Active::Changing),
            ("something new", Active::Changing),
        ] {
            assert_eq!(of(&|found| found.active_state = word.into()).unwrap().active, active);
        }
        for (word, ended) in [
            ("start-limit-hit", Ended::StartLimit),
            ("oom-kill", Ended::OutOfMemory),
            ("core-dump", Ended::Badly),
            ("watchdog", Ended::Badly),
        ] {
            assert_eq!(of(&|found| found.result = word.into()).unwrap().ended, ended);
        }
        let gave_up = of(&|found| {
            (found.active_state, found.result, found.restarts) =
                ("failed".into(), "exit-code".into(), 3);
        });
        assert_eq!(gave_up.unwrap().ended, Ended::StartLimit);
        assert!(of(&|found| found.job = 3).unwrap().job);
        for word in ["auto-restart", "auto-restart-queued", "failed-before-auto-restart"] {
            assert!(of(&|found| found.sub_state = word.into()).unwrap().job);
        }
    }

    #[test]
    fn the_same_start_has_the_same_time() {
        let ahead = Duration::from_secs(100);
        let first = state(&running(), ahead, None).unwrap();
        assert_eq!(first.up_since, BootTime::new(Duration::from_secs(105)));
        let late = ahead + Duration::from_micros(300);
        assert_eq!(state(&running(), late, Some(&first)), Some(first));
        let other = Properties { invocation: [8; 16], ..running() };
        assert_ne!(state(&other, late, Some(&first)).unwrap().up_since, first.up_since);
    }
}
