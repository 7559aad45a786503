//! What can be done for a service.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a hook.
const HOOK_BYTES: usize = 64;

/// What can be done for a service, typed: nothing else can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Action {
    /// Reads its configuration again, where the unit can.
    Reload,
    /// Restarts it, as its unit says.
    Restart,
    /// Kills it without asking, and starts it.
    KillRestart,
    /// Stops its tasks where they are, and lets them go on.
    Freeze,
    /// Lets the units that take from it run a part of the time only, for a while.
    Throttle,
    /// Runs a named program of the root-owned folder of hooks.
    Hook(String),
    /// Asks that another host takes over.
    Handover,
    /// Boots the host.
    Reboot,
    /// Tells people.
    Escalate,
}

/// Whom an action can hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blast {
    /// Nobody.
    Nothing,
    /// The unit itself.
    Unit,
    /// The whole host.
    Host,
}

impl Action {
    /// Whom it can hurt.
    #[must_use]
    pub const fn blast(&self) -> Blast {
        match self {
            Self::Escalate | Self::Reload => Blast::Nothing,
            Self::Restart
            | Self::KillRestart
            | Self::Freeze
            | Self::Throttle
            | Self::Handover
            | Self::Hook(_) => Blast::Unit,
            Self::Reboot => Blast::Host,
        }
    }

    /// Whether the service may be away for a while because of it. Such actions take from
    /// budgets, and need a permit where a fleet has some.
    #[must_use]
    pub fn is_disruptive(&self) -> bool {
        self.blast() > Blast::Nothing
    }

    /// Whether the host itself carries it out; else it is only told.
    #[must_use]
    pub const fn is_repair(&self) -> bool {
        !matches!(self, Self::Escalate | Self::Handover)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
            Self::KillRestart => "kill-restart",
            Self::Freeze => "freeze",
            Self::Throttle => "throttle",
            Self::Hook(name) => return write!(f, "hook:{name}"),
            Self::Handover => "handover",
            Self::Reboot => "reboot",
            Self::Escalate => "escalate",
        })
    }
}

/// A text that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no action; there are reload, restart, kill-restart, freeze, throttle, hook:NAME, handover, reboot and escalate"
)]
pub struct UnknownAction(String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Ok(match text {
            "reload" => Self::Reload,
            "restart" => Self::Restart,
            "kill-restart" => Self::KillRestart,
            "freeze" => Self::Freeze,
            "throttle" => Self::Throttle,
            "handover" => Self::Handover,
            "reboot" => Self::Reboot,
            "escalate" => Self::Escalate,
            _ => match text.strip_prefix("hook:") {
                Some(name) if is_hook_name(name) => Self::Hook(name.to_owned()),
                _ => {
                    let shown = text.chars().filter(|c| !c.is_control()).take(HOOK_BYTES);
                    return Err(UnknownAction(shown.collect()));
                }
            },
        })
    }
}

/// A plain file name: letters, digits, `-`, `_` and `.`, and no dot in front.
fn is_hook_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=HOOK_BYTES).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

impl TryFrom<String> for Action {
    type Error = UnknownAction;

    fn try_from(text: String) -> Result<Self, UnknownAction> {
        text.parse()
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        action.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let hook = Action::Hook("flush-cache.sh".into());
        for action in
            [Action::Reload, Action::KillRestart, Action::Throttle, Action::Escalate, hook]
        {
            assert_eq!(action.to_string().parse(), Ok(action));
        }
    }

    #[test]
    fn nothing_else_is_an_action() {
        let long = format!("hook:{}", "x".repeat(65));
        for text in ["", "Restart", "hook:", "hook:../x", "hook:.x", "hook:a b", "rm -rf /", &long]
        {
            assert!(text.parse::<Action>().is_err(), "{text}");
        }
        let error = "a\u{1b}[31m".parse::<Action>().unwrap_err().to_string();
        assert!(error.starts_with("`a[31m` is no action"), "{error}");
    }
}
