//! systemd over D-Bus: how units are, when they change, and what it is asked to do for them.
//!
//! Source: `org.freedesktop.systemd1(5)`. Units are subscribed to, not polled. Whatever is
//! asked of the manager is a typed call on one unit; jobs that are waiting are never
//! replaced (mode `fail`).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_stream::StreamExt;
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath};

const MANAGER: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const SERVICE_INTERFACE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const UNITS: &str = "/org/freedesktop/systemd1/unit";
/// A manager that does not answer for so long is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// Signals that may wait.
const QUEUED: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();
/// The error of a unit that there is not.
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Why systemd cannot be asked, or did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The bus, or the manager on it, cannot be reached.
    #[error("cannot reach systemd over D-Bus: {0}")]
    Bus(String),
    /// The manager may not do that for us, or cannot.
    #[error("systemd refuses: {0}")]
    Refused(String),
    /// A job was made, and did not end well.
    #[error("the {what} of {unit} ended as `{result}`")]
    Job {
        /// What was asked for.
        what: &'static str,
        /// For which unit.
        unit: String,
        /// systemd's word for how it ended.
        result: String,
    },
    /// A job did not end in time; it goes on.
    #[error("the {what} of {unit} takes longer than {limit:?}")]
    TooLong {
        /// What was asked for.
        what: &'static str,
        /// For which unit.
        unit: String,
        /// How long was waited.
        limit: Duration,
    },
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, detail, _) => {
                Self::Refused(detail.unwrap_or_else(|| name.to_string()))
            }
            zbus::Error::FDO(error) => Self::Refused(error.to_string()),
            error => Self::Bus(error.to_string()),
        }
    }
}

/// What systemd says of a unit, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load_state: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active_state: String,
    /// `running`, `dead`, `auto-restart` and many more.
    pub sub_state: String,
    /// How a service ended: `success`, `exit-code`, `signal`, `core-dump`, `watchdog`,
    /// `timeout`, `oom-kill`, `start-limit-hit` and some more.
    pub result: String,
    /// How often systemd has started a service again by itself since somebody else did.
    pub restarts: u32,
    /// Number of its job that waits or runs; 0 for none.
    pub job: u32,
    /// It can be reloaded.
    pub can_reload: bool,
    /// Of this run; zeros while there is none.
    pub invocation: [u8; 16],
    /// Its cgroup, from the root of the hierarchy; empty while it has none, as a service that
    /// does not run.
    pub control_group: String,
    /// When it became active, in microseconds of `CLOCK_MONOTONIC`; 0 for never.
    pub active_enter_monotonic_us: u64,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Something about this unit.
    Unit(Arc<str>),
    /// All units may be others now: the manager has read its files again.
    All,
}

/// What may be asked of the manager for one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Starts it.
    Start,
    /// Stops it, if it runs, and starts it.
    Restart,
    /// Lets it read its configuration again.
    Reload,
}

impl Job {
    const fn method(self) -> &'static str {
        match self {
            Self::Start => "StartUnit",
            Self::Restart => "RestartUnit",
            Self::Reload => "ReloadUnit",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }
}

/// A connection to the manager.
#[derive(Debug, Clone)]
pub struct Systemd {
    bus: Connection,
}

/// What the manager tells by itself.
pub struct Changes {
    units: MessageStream,
    manager: MessageStream,
}

impl Systemd {
    /// Connects to the system's bus, and subscribes.
    ///
    /// # Errors
    ///
    /// [`Error::Bus`] where there is no bus or no manager on it.
    pub async fn connect() -> Result<(Self, Changes), Error> {
        let connect = zbus::connection::Builder::system().method_timeout(PATIENCE).build();
        let bus = tokio::time::timeout(PATIENCE, connect)
            .await
            .map_err(|_| Error::Bus("the bus does not answer".to_owned()))??;
        let of_units = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(MANAGER)
            .interface(PROPERTIES)
            .member("PropertiesChanged")
            .path_namespace(UNITS)
            .build()?;
        let of_manager = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(MANAGER)
            .interface(MANAGER_INTERFACE)
            .member("Reloading")
            .path(MANAGER_PATH)
            .build()?;
        let units = MessageStream::for_match_rule(of_units, &bus, Some(QUEUED)).await?;
        let manager = MessageStream::for_match_rule(of_manager, &bus, Some(QUEUED)).await?;
        let systemd = Self { bus };
        systemd.manager("Subscribe", &()).await?;
        Ok((systemd, Changes { units, manager }))
    }

    async fn manager<B>(&self, method: &str, body: &B) -> Result<Message, Error>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        Ok(self
            .bus
            .call_method(Some(MANAGER), MANAGER_PATH, Some(MANAGER_INTERFACE), method, body)
            .await?)
    }

    /// How a unit is. One that systemd does not know has `not-found` as its load state.
    ///
    /// # Errors
    ///
    /// When the manager does not answer.
    pub async fn properties(&self, unit: &str) -> Result<Properties, Error> {
        let path = unit_path(unit);
        let found = Properties {
            load_state: match self.get(&path, UNIT_INTERFACE, "LoadState").await {
                Err(Error::Refused(why)) if why.contains(NO_SUCH_UNIT) => "not-found".to_owned(),
                found => found?,
            },
            ..Properties::default()
        };
        if found.load_state == "not-found" {
            return Ok(found);
        }
        // One after the other, so it can change meanwhile. How it ended is read after whether it
        // ended: a newer reason of the same end does no harm, an older one would.
        let of_unit = UNIT_INTERFACE;
        let active_state = self.get(&path, of_unit, "ActiveState").await?;
        let sub_state = self.get(&path, of_unit, "SubState").await?;
        let (job, _): (u32, OwnedObjectPath) = self.get(&path, of_unit, "Job").await?;
        let invocation: Vec<u8> = self.get(&path, of_unit, "InvocationID").await?;
        let (result, restarts, control_group) = match unit.ends_with(".service") {
            true => (
                self.get(&path, SERVICE_INTERFACE, "Result").await?,
                self.get(&path, SERVICE_INTERFACE, "NRestarts").await?,
                self.get(&path, SERVICE_INTERFACE, "ControlGroup").await?,
            ),
            false => Default::default(),
        };
        Ok(Properties {
            active_state,
            sub_state,
            job,
            can_reload: self.get(&path, of_unit, "CanReload").await?,
            active_enter_monotonic_us: self
                .get(&path, of_unit, "ActiveEnterTimestampMonotonic")
                .await?,
            // Empty while there is none.
            invocation: invocation.try_into().unwrap_or_default(),
            result,
            restarts,
            control_group,
            ..found
        })
    }

    async fn get<T>(&self, path: &str, interface: &str, name: &str) -> Result<T, Error>
    where
        T: TryFrom<zbus::OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        let asked = (interface, name);
        let call = self.bus.call_method(Some(MANAGER), path, Some(PROPERTIES), "Get", &asked);
        let body = call.await?.body();
        let value: zbus::OwnedVariant = body.deserialize()?;
        Ok(T::try_from(value).map_err(Into::into)?)
    }

    /// Has a job done, and waits for its end, up to `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the manager makes no such job, or another one stands in its
    /// way; [`Error::Job`] and [`Error::TooLong`] for how it ends.
    pub async fn run(&self, job: Job, unit: &str, limit: Duration) -> Result<(), Error> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(MANAGER)
            .interface(MANAGER_INTERFACE)
            .member("JobRemoved")
            .arg(2, unit)
            .build()?;
        // Listened to before it is asked for: a job can be over at once.
        let mut removed = MessageStream::for_match_rule(rule, &self.bus, Some(QUEUED)).await?;
        let made = self.manager(job.method(), &(unit, "fail")).await?.body();
        let path: OwnedObjectPath = made.deserialize()?;
        let ended = async {
            while let Some(message) = removed.next().await {
                let body = message?.body();
                let (_, of, _, result): (u32, OwnedObjectPath, &str, String) =
                    body.deserialize()?;
                if of == path {
                    return Ok(result);
                }
            }
            Err(Error::Bus("the connection ended".to_owned()))
        };
        let (what, unit) = (job.name(), unit.to_owned());
        match tokio::time::timeout(limit, ended).await {
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) => Err(Error::Job { what, unit, result }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::TooLong { what, unit, limit }),
        }
    }

    /// Sends all processes of a unit a signal at once.
    ///
    /// # Errors
    ///
    /// When the manager refuses.
    pub async fn signal(&self, unit: &str, signal: Signal) -> Result<(), Error> {
        self.manager("KillUnit", &(unit, "all", signal as i32)).await.map(drop)
    }

    /// Forgets that a unit failed, and how often it was started lately.
    ///
    /// # Errors
    ///
    /// When the manager refuses.
    pub async fn reset_failed(&self, unit: &str) -> Result<(), Error> {
        self.manager("ResetFailedUnit", &(unit,)).await.map(drop)
    }

    /// Boots the host, as `systemctl reboot` does.
    ///
    /// # Errors
    ///
    /// When the login manager refuses.
    pub async fn reboot(&self) -> Result<(), Error> {
        let (path, interface) = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager");
        let call = self.bus.call_method(
            Some("org.freedesktop.login1"),
            path,
            Some(interface),
            "Reboot",
            &(false,),
        );
        Ok(call.await.map(drop)?)
    }
}

impl Changes {
    /// What changed next; `None` when the connection ended.
    pub async fn next(&mut self) -> Option<Changed> {
        loop {
            tokio::select! {
                message = self.units.next() => {
                    let message = message?.ok()?;
                    let header = message.header();
                    let unit = header.path().and_then(|path| unit_of(path.as_str()));
                    if let Some(unit) = unit {
                        return Some(Changed::Unit(unit.into()));
                    }
                }
                message = self.manager.next() => {
                    let body = message?.ok()?.body();
                    // Told when it begins and when it is over.
                    if matches!(body.deserialize::<bool>(), Ok(false)) {
                        return Some(Changed::All);
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

/// The object of a unit: what is no letter or digit is written as `_` and two hexadecimal
/// digits; so is a digit in front.
fn unit_path(unit: &str) -> String {
    let mut path = format!("{UNITS}/");
    for (n, byte) in unit.bytes().enumerate() {
        let plain = byte.is_ascii_alphabetic() || (n > 0 && byte.is_ascii_digit());
        if plain {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// The unit of an object.
fn unit_of(path: &str) -> Option<String> {
    let escaped = path.strip_prefix(UNITS)?.strip_prefix('/')?;
    let mut unit = Vec::with_capacity(escaped.len());
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'_' {
            unit.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        unit.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_by_their_paths() {
        let path = "/org/freedesktop/systemd1/unit/web_401_2eservice";
        assert_eq!(unit_path("web@1.service"), path);
        for unit in ["web@1.service", "a-b_c.service", "0.service", "x\\x2dy.mount"] {
            assert_eq!(unit_of(&unit_path(unit)).as_deref(), Some(unit));
        }
        for path in ["/", "/org/freedesktop/systemd1/job/1", &format!("{UNITS}/a_2"), UNITS] {
            assert_eq!(unit_of(path), None, "{path}");
        }
    }
}
