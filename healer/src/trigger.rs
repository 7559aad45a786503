//! What is wrong with a service, and what is tried against it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::action::Action;

/// What is wrong with a service.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Systemd gave up on it: it was restarted too often in too short a time.
    CrashLoop,
    /// It ended by a signal or an error, and systemd does not start it again.
    Crashed,
    /// It ran out of memory, and systemd does not start it again.
    OomKilled,
    /// It runs and does not serve: a check fails, or comes to no result.
    Unresponsive,
    /// Its memory grows towards its limit.
    Leaking,
    /// Its file system fills up.
    DiskFilling,
    /// Threads of it are stuck in the kernel.
    StuckDState,
    /// It is unusual, and bad.
    Degraded,
}

/// What a service may do by itself.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What would be done is told.
    Observe,
    /// What should be done waits for an operator.
    Confirm,
    /// It is done.
    Act,
}

impl Mode {
    /// Its name in configuration and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Confirm => "confirm",
            Self::Act => "act",
        }
    }
}

impl Trigger {
    /// All of them, the most certain first: of several the first is acted on.
    pub const ALL: [Self; 8] = [
        Self::CrashLoop,
        Self::OomKilled,
        Self::Crashed,
        Self::Unresponsive,
        Self::StuckDState,
        Self::Leaking,
        Self::DiskFilling,
        Self::Degraded,
    ];

    /// Its name in configuration, journal and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CrashLoop => "crash_loop",
            Self::Crashed => "crashed",
            Self::OomKilled => "oom_killed",
            Self::Unresponsive => "unresponsive",
            Self::Leaking => "leaking",
            Self::DiskFilling => "disk_filling",
            Self::StuckDState => "stuck_d_state",
            Self::Degraded => "degraded",
        }
    }

    /// What is tried unless the service says otherwise, the smallest that can help first.
    #[must_use]
    pub fn ladder(self) -> Vec<Action> {
        use Action::{Escalate, Handover, KillRestart, Reload, Restart};
        match self {
            // It does not run: there is nothing to reload and nothing to kill.
            Self::CrashLoop | Self::Crashed | Self::OomKilled => vec![Restart, Handover, Escalate],
            Self::Unresponsive => vec![Restart, KillRestart, Handover, Escalate],
            Self::Degraded => vec![Reload, Restart, Handover, Escalate],
            Self::Leaking => vec![Restart, Escalate],
            // What the kernel holds cannot be killed.
            Self::StuckDState => vec![Handover, Escalate],
            Self::DiskFilling => vec![Escalate],
        }
    }

    /// What happens unless the service says otherwise: facts are acted on, what is only
    /// likely is told.
    #[must_use]
    pub const fn mode(self) -> Mode {
        match self {
            Self::CrashLoop | Self::Crashed | Self::OomKilled | Self::Unresponsive => Mode::Act,
            Self::Leaking | Self::DiskFilling | Self::StuckDState | Self::Degraded => Mode::Observe,
        }
    }

    /// Whether the service is away because of it.
    #[must_use]
    pub const fn is_down(self) -> bool {
        matches!(self, Self::CrashLoop | Self::Crashed | Self::OomKilled)
    }
}
