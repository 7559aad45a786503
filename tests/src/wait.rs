//! Waiting for what must happen.

use std::time::Duration;

use anyhow::{Context, Result};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);

/// Looks until `look` finds something, for at most [`PATIENCE`].
///
/// # Errors
///
/// The error of `look`, or that `what` did not happen in time.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    within(PATIENCE, what, look).await
}

/// Looks until `look` finds something, for at most `limit`.
///
/// # Errors
///
/// The error of `look`, or that `what` did not happen in time.
pub async fn within<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(STEP).await;
        }
    };
    tokio::time::timeout(limit, looking)
        .await
        .with_context(|| format!("not within {limit:?}: {what}"))?
}
