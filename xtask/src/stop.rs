//! Ctrl-C and its kin as an event, so that children are always stopped and
//! temporary state is always removed.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// Tells when the person, or whatever started us, wants an end.
pub(crate) struct Stop {
    asked: Receiver<()>,
}

impl Stop {
    /// From now on SIGINT, SIGTERM and SIGHUP no longer end this process by themselves.
    ///
    /// Call it on the main thread before others are started. Children inherit the
    /// blocked signals: start them through [`crate::leash`], which unblocks them.
    pub(crate) fn listen() -> Result<Self> {
        let signals = signals();
        signals.thread_block().context("signals cannot be blocked")?;
        let (send, asked) = channel();
        thread::spawn(move || while signals.wait().is_ok() && send.send(()).is_ok() {});
        Ok(Self { asked })
    }

    /// Waits for at most `limit`; true when the end is wanted.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        !matches!(self.asked.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
    }
}

/// Undoes for this process what [`Stop::listen`] did for its parent.
pub(crate) fn restore() -> Result<()> {
    signals().thread_unblock().context("signals cannot be unblocked")
}

fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}
