//! Active checks: what they ask, and when their answers mean that a service is ill. Who asks
//! is somebody else.

use std::time::Duration;

use holdfast_core::clock::BootTime;

use crate::fact::Health;
use crate::safeguard::{Safeguard, stands};

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// An answer over HTTP with the right status.
    Http {
        /// `http://HOST[:PORT]/PATH`; HTTPS is for a program to check.
        url: String,
        /// Statuses that are right, from and to.
        status: (u16, u16),
        /// What the first 64 KiB of the answer must contain.
        contains: String,
    },
    /// A connection that is accepted.
    Tcp {
        /// `HOST:PORT`.
        address: String,
    },
    /// `SERVING`, by the health protocol of gRPC.
    Grpc {
        /// `HOST:PORT`.
        address: String,
        /// The service asked about; the whole server when empty.
        service: String,
    },
    /// A program that ends with 0.
    Exec {
        /// Program and arguments; no shell reads them.
        command: Vec<String>,
    },
}

/// A check of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name within the service.
    pub name: String,
    /// What is asked.
    pub question: Question,
    /// How often.
    pub every: Duration,
    /// For how long an answer is waited for.
    pub timeout: Duration,
    /// How many failures in a row mean that it fails.
    pub failures: u32,
    /// How many successes in a row mean that it does not any more.
    pub successes: u32,
}

impl Check {
    /// What is asked, for people: without a password.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.question {
            Question::Http { url, .. } => without_credentials(url),
            Question::Tcp { address } | Question::Grpc { address, .. } => address.clone(),
            // Arguments may be secret.
            Question::Exec { command } => command.first().cloned().unwrap_or_default(),
        }
    }

    /// Without any result for so long it is stalled.
    #[must_use]
    pub fn patience(&self) -> Duration {
        2 * self.every + self.timeout
    }
}

fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{path}"),
        None => url.to_owned(),
    }
}

/// Follows the results of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    health: Health,
    /// Results in a row that say otherwise.
    against: u32,
    /// When there was a result last.
    last: BootTime,
}

impl Watch {
    /// Of a check that begins now: well until something is known.
    #[must_use]
    pub const fn new(now: BootTime) -> Self {
        Self { health: Health::Healthy, against: 0, last: now }
    }

    /// What it says.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Takes in a result; what it says now, when that is something else.
    pub fn result(&mut self, check: &Check, is_well: bool, now: BootTime) -> Option<Health> {
        self.last = now;
        let (other, needed) = match (self.health, is_well) {
            (Health::Healthy, false) => (Health::Failing, check.failures),
            // It answers again, and what it answers is a failure.
            (Health::Stalled, false) => (Health::Failing, 1),
            (Health::Failing | Health::Stalled, true) => (Health::Healthy, check.successes),
            (Health::Healthy, true) | (Health::Failing, false) => {
                self.against = 0;
                return None;
            }
        };
        self.against += 1;
        (self.against >= needed).then(|| self.turn(other))
    }

    /// Takes in that time passes: a check that comes to no result fails, too.
    pub fn tick(&mut self, check: &Check, now: BootTime) -> Option<Health> {
        let stalled = self.health != Health::Stalled && now.since(self.last) > check.patience();
        (stalled && stands(Safeguard::StallsFail)).then(|| self.turn(Health::Stalled))
    }

    fn turn(&mut self, health: Health) -> Health {
        (self.health, self.against) = (health, 0);
        health
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::new(Duration::from_secs(seconds))
    }

    fn check() -> Check {
        Check {
            name: "http".into(),
            question: Question::Tcp { address: "127.0.0.1:80".into() },
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            failures: 2,
            successes: 2,
        }
    }

    #[test]
    fn it_takes_several_results_to_change_its_mind() {
        let (check, mut watch) = (check(), Watch::new(at(0)));
        let mut said = Vec::new();
        for (n, well) in
            [false, true, false, false, false, true, false, true, true].iter().enumerate()
        {
            said.extend(watch.result(&check, *well, at(n as u64)).map(|health| (n, health)));
        }
        assert_eq!(said, [(3, Health::Failing), (8, Health::Healthy)]);
    }

    #[test]
    fn no_result_is_a_result_in_the_end() {
        let (check, mut watch) = (check(), Watch::new(at(0)));
        assert_eq!(watch.tick(&check, at(12)), None);
        assert_eq!(watch.tick(&check, at(13)), Some(Health::Stalled));
        assert_eq!(watch.tick(&check, at(99)), None, "said once");
        assert_eq!(watch.result(&check, false, at(100)), Some(Health::Failing));
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = |url: &str| {
            let question =
                Question::Http { url: url.into(), status: (200, 299), contains: String::new() };
            Check { question, ..check() }.shown()
        };
        assert_eq!(shown("http://me:pw@h:80/x?a@b"), "http://***@h:80/x?a@b");
        assert_eq!(shown("http://me:p@w@h"), "http://***@h");
        assert_eq!(shown("http://h/x@y"), "http://h/x@y");
    }
}
