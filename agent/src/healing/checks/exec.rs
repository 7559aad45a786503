//! Does a program say so, by ending with 0?

use std::time::Duration;

use super::super::program;

/// How long it takes at most to kill a program whose time is over.
pub(super) const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// Runs `command`; right is that it ends with 0 within `limit`.
pub(super) async fn ask(command: &[String], limit: Duration) -> Result<(), String> {
    let ended = program::run(command, &[], limit).await;
    ended.map_err(|error| format!("it cannot be started: {error}"))?.ok(limit)
}
