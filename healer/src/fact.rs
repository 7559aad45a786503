//! What the healer is told.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::clock::BootTime;
use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::operation::{OperationId, Outcome};
use crate::trigger::Trigger;

/// Something that is known now and was not before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fact")]
pub enum Fact {
    /// What systemd says of a unit; of every unit of a service at the start, and whenever it
    /// changes.
    Unit {
        /// The unit.
        unit: Arc<str>,
        /// How it is.
        state: UnitState,
    },
    /// Systemd knows no such unit any more.
    Gone {
        /// The unit.
        unit: Arc<str>,
    },
    /// Whether systemd can be reached: when it cannot, what is known of units is old.
    Systemd {
        /// It can.
        reachable: bool,
    },
    /// The kernel killed a process of the unit for want of memory.
    OutOfMemory {
        /// The unit.
        unit: Arc<str>,
    },
    /// A check changed its mind.
    Check {
        /// The unit.
        unit: Arc<str>,
        /// The check's name.
        check: Arc<str>,
        /// What it says now.
        health: Health,
    },
    /// A rule of resources or the scorer changed its mind.
    Sign {
        /// The unit.
        unit: Arc<str>,
        /// Which.
        sign: Sign,
        /// Whether it is so.
        stands: bool,
    },
    /// A package manager began or ended to change the host.
    Packages {
        /// Whether one is at work.
        busy: bool,
    },
    /// An operation ended.
    Finished {
        /// Which.
        operation: OperationId,
        /// How.
        outcome: Outcome,
    },
    /// An operator says so.
    Order(Order),
    /// A permit was lent, or replaced the one before.
    Permit {
        /// The unit it is for.
        unit: Arc<str>,
        /// How many disruptive actions are left.
        actions: u32,
        /// Until when, on this host's clock.
        #[serde(with = "crate::kept::time")]
        until: BootTime,
    },
}

impl Fact {
    /// The unit it is about; `None` for what is about an operation or the whole host.
    #[must_use]
    pub const fn unit(&self) -> Option<&Arc<str>> {
        match self {
            Self::Unit { unit, .. }
            | Self::Gone { unit }
            | Self::OutOfMemory { unit }
            | Self::Check { unit, .. }
            | Self::Sign { unit, .. }
            | Self::Permit { unit, .. } => Some(unit),
            Self::Order(order) => order.unit(),
            Self::Systemd { .. } | Self::Packages { .. } | Self::Finished { .. } => None,
        }
    }
}

/// What only is likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// Memory reaches the unit's limit soon.
    Leaking,
    /// Its file system is full soon.
    DiskFilling,
    /// Threads of it are stuck in the kernel.
    StuckDState,
    /// An episode of the scorer goes on, major or worse.
    Unusual,
}

/// What a check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It serves.
    Healthy,
    /// It failed as often in a row as it takes.
    Failing,
    /// It comes to no result: that is a failure, too.
    Stalled,
}

/// How systemd sees a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// Its active state.
    pub active: Active,
    /// Why it ended last.
    pub ended: Ended,
    /// A start, stop, restart or reload waits or runs, or systemd starts it again by itself.
    pub job: bool,
    /// It may not be started.
    pub masked: bool,
    /// It can read its configuration again.
    pub can_reload: bool,
    /// Of this run.
    pub invocation: Invocation,
    /// Since when it is active; meaningless while it is not.
    #[serde(with = "crate::kept::time")]
    pub up_since: BootTime,
}

/// Systemd's name for one run of a unit; empty while there is none. What has another one was
/// started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Invocation(u128);

impl Invocation {
    /// Of systemd's sixteen bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl From<Invocation> for String {
    fn from(invocation: Invocation) -> Self {
        format!("{:032x}", invocation.0)
    }
}

impl TryFrom<String> for Invocation {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

/// Active states, as far as they matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Active {
    /// It runs, or did what it had to.
    Active,
    /// It starts, stops or reloads.
    Changing,
    /// It was stopped, or ended without an error.
    Inactive,
    /// It failed.
    Failed,
}

/// Why a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Nothing went wrong, or it did not end.
    Well,
    /// It was restarted too often (`start-limit-hit`).
    StartLimit,
    /// By the kernel, for want of memory (`oom-kill`).
    OutOfMemory,
    /// By a signal, an error, its watchdog or a time-out.
    Badly,
}

/// What an operator can say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum Order {
    /// Do nothing for a while; to the whole host when there is no unit.
    Pause {
        /// The unit.
        unit: Option<Arc<str>>,
        /// For how long; until it is resumed when there is none.
        length: Option<Duration>,
    },
    /// That is known: neither tell it nor do anything about it for a while.
    Silence {
        /// The unit.
        unit: Arc<str>,
        /// What is wrong; anything when there is none.
        trigger: Option<Trigger>,
        /// For how long.
        length: Duration,
    },
    /// Go on, and disregard nothing any more.
    Resume {
        /// The unit.
        unit: Option<Arc<str>>,
    },
    /// Forget what was tried; budgets stay.
    Clear {
        /// The unit.
        unit: Arc<str>,
    },
    /// Do this now, if nothing stands against it.
    Run {
        /// The unit.
        unit: Arc<str>,
        /// What.
        action: Action,
    },
    /// Do what waits for a confirmation.
    Confirm {
        /// The unit.
        unit: Arc<str>,
    },
}

impl Order {
    /// The unit it is about; `None` for the whole host.
    #[must_use]
    pub const fn unit(&self) -> Option<&Arc<str>> {
        match self {
            Self::Pause { unit, .. } | Self::Resume { unit } => unit.as_ref(),
            Self::Silence { unit, .. }
            | Self::Clear { unit }
            | Self::Run { unit, .. }
            | Self::Confirm { unit } => Some(unit),
        }
    }
}
