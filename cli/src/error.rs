//! What can go wrong, the exit code it leads to, and what to do about it.

use std::io;

/// Exit code of an error of any other kind.
pub(crate) const FAILED: u8 = 1;
/// Exit code of a wrong command line.
pub(crate) const USAGE: u8 = 2;
/// Exit code when nobody answers.
pub(crate) const UNREACHABLE: u8 = 3;

/// Who was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Collector,
    Agent,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Collector => "collector",
            Self::Agent => "agent",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot reach the {peer} at {address}: {reason}")]
    Unreachable { peer: Peer, address: String, reason: String },
    #[error("may not open the agent's socket {address}")]
    Forbidden { address: String },
    #[error("the {peer} at {address} did not answer within {seconds} s")]
    NoAnswer { peer: Peer, address: String, seconds: f64 },
    #[error("the {peer} at {address} ended the answer: {reason}")]
    Ended { peer: Peer, address: String, reason: String },
    #[error("{0}")]
    NotFound(String),
    #[error("the {peer} refused: {message}")]
    Refused { peer: Peer, message: String },
    #[error("{0:?} is no address of a collector")]
    Address(String),
    #[error("the collector at {0} is to be asked over TLS, which this version does not speak")]
    Tls(String),
    #[error("not to be trusted: {0}")]
    NotProven(String),
    #[error("`holdfast top` needs a terminal to draw on")]
    NoTerminal,
    #[error("cannot draw on the terminal: {0}")]
    Terminal(#[source] io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    #[error("cannot write the answer as JSON: {0}")]
    Json(#[source] serde_json::Error),
    #[error("nothing is scored on this host: scoring is switched off")]
    ScoringOff,
    #[error("nothing is healed on this host: healing is switched off")]
    HealingOff,
    #[error("{0}")]
    Replay(String),
    #[error("{}", match .0 {
        Some(id) => format!("no episode {id} is remembered"),
        None => "no episode is remembered".to_owned(),
    })]
    NoEpisode(Option<u64>),
    #[error("{0} of the things above cost this host signals")]
    Missing(usize),
    #[error("{0}")]
    Score(String),
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl Error {
    /// See `holdfast help exit-codes`.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            _ if self.is_broken_pipe() => 0,
            Self::Unreachable { .. }
            | Self::Forbidden { .. }
            | Self::NoAnswer { .. }
            | Self::Ended { .. } => UNREACHABLE,
            Self::Address(_) | Self::Tls(_) | Self::NoTerminal => USAGE,
            _ => FAILED,
        }
    }

    /// One sentence on what to do.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable { peer: Peer::Collector, .. } => {
                "Start the collector, or name another one with --collector or HOLDFAST_COLLECTOR."
            }
            Self::Unreachable { peer: Peer::Agent, .. } => {
                "Start holdfast-agent on this host, or name its socket with --socket or HOLDFAST_SOCKET."
            }
            Self::Forbidden { .. } => {
                "Run this command as root: the agent answers root and its own user only."
            }
            Self::NoAnswer { .. } => "Try again with a longer --timeout, or look at its log.",
            Self::Ended { .. } => "Run the command again once it is back.",
            Self::NotFound(_) => {
                "See `holdfast hosts`, `holdfast units` and `holdfast signals` for what there is."
            }
            Self::NotProven(_) => "Run the command again; if it stays so, report it with --json.",
            Self::Refused { .. } => {
                "Check the arguments, and that both sides have the same version."
            }
            Self::Address(_) | Self::Tls(_) => {
                "Write it as http://HOST:PORT, the port being 7401 by default."
            }
            Self::NoTerminal => {
                "Use `holdfast top --once`, or `holdfast hosts`, where there is none."
            }
            Self::Terminal(_) => "Use `holdfast top --once` instead.",
            Self::Output(_) => "Check that the place it is redirected to has room.",
            Self::Json(_) => "Leave out --json to see the answer as a table.",
            Self::ScoringOff => "Set `scoring.enabled = true` in the agent's configuration.",
            Self::HealingOff => "Set `healing.enabled = true` in the agent's configuration.",
            Self::Replay(_) => "See `holdfast help replay` for what is read.",
            Self::NoEpisode(_) => "See `holdfast episodes` for those there are.",
            Self::Missing(_) => "Each says by what remedy they can be had.",
            Self::Score(_) => "See `holdfast help score` for the tables that can be read.",
            Self::Runtime(_) => "Check the limits on open files and memory of this shell.",
        }
    }

    /// Tells a person on standard error; silent when the reader of a pipe has gone.
    pub(crate) fn report(&self) {
        use io::Write as _;
        if !self.is_broken_pipe() {
            // There is nobody left to tell when standard error is gone.
            let _ = writeln!(io::stderr(), "holdfast: {self}.\n{}", self.advice());
        }
    }

    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_fine() {
        assert_eq!(Error::Output(io::ErrorKind::BrokenPipe.into()).exit_code(), 0);
        assert_eq!(Error::Output(io::ErrorKind::StorageFull.into()).exit_code(), FAILED);
    }
}
