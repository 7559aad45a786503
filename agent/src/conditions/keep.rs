//! Keeps the conditions over a restart of the agent: a small file in the state
//! directory, written by a stage of its own, because the disk it is on may be what
//! is broken and the sampler must not wait for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Saved;

/// Name of the file in the state directory.
const FILE: &str = "conditions.json";
/// Longest file that is read.
const FILE_BYTES: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    boot_id: String,
    standing: Vec<Saved>,
}

/// Where conditions are kept.
#[derive(Debug, Clone)]
pub struct Keeper {
    path: PathBuf,
    boot_id: String,
}

impl Keeper {
    /// In `state_dir`, for the boot `boot_id` (empty when that is not known: then
    /// nothing is believed to be of this boot).
    #[must_use]
    pub fn new(state_dir: &Path, boot_id: &str) -> Self {
        Self { path: state_dir.join(FILE), boot_id: boot_id.to_owned() }
    }

    /// What stood when the agent last ran, and whether that was in this boot. A file
    /// that cannot be understood counts as empty: it is said in the log.
    #[must_use]
    pub fn load(&self) -> (Vec<Saved>, bool) {
        let read = || -> io::Result<Kept> {
            if fs::metadata(&self.path)?.len() > FILE_BYTES {
                return Err(io::Error::other("it is longer than 1 MiB"));
            }
            Ok(serde_json::from_slice(&fs::read(&self.path)?)?)
        };
        match read() {
            Ok(kept) => {
                let same = !self.boot_id.is_empty() && kept.boot_id == self.boot_id;
                (kept.standing, same)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), true),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "the conditions of the last run are not known");
                (Vec::new(), true)
            }
        }
    }

    /// Writes what changes until `shutdown`, and then what is newest.
    pub async fn run(self, mut saved: watch::Receiver<Vec<Saved>>, shutdown: CancellationToken) {
        loop {
            let last = tokio::select! {
                changed = saved.changed() => changed.is_err(),
                () = shutdown.cancelled() => true,
            };
            if saved.has_changed().unwrap_or(true) || !last {
                let standing = saved.borrow_and_update().clone();
                let keeper = self.clone();
                let written = tokio::task::spawn_blocking(move || keeper.write(standing)).await;
                if let Ok(Err(error)) = written {
                    tracing::warn!(%error, "the conditions cannot be kept over a restart");
                }
            }
            if last {
                return;
            }
        }
    }

    fn write(&self, standing: Vec<Saved>) -> io::Result<()> {
        let kept = Kept { boot_id: self.boot_id.clone(), standing };
        // Readers see the old file or the new one, never half of it.
        let draft = self.path.with_extension("json.new");
        fs::write(&draft, serde_json::to_vec(&kept)?)?;
        fs::rename(&draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Vec<Saved> {
        vec![Saved {
            kind: "disk.io_error".into(),
            instance: "sda".into(),
            detail: "x".into(),
            first_ns: 1,
            last_ns: 2,
            count: 3,
        }]
    }

    #[tokio::test]
    async fn what_was_sent_last_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(dir.path(), "boot-1");
        assert_eq!(keeper.load(), (vec![], true));
        let (sender, receiver) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        let run = tokio::spawn(keeper.clone().run(receiver, stop.clone()));
        sender.send_replace(saved());
        stop.cancel();
        run.await.unwrap();
        assert_eq!(keeper.load(), (saved(), true));
        assert_eq!(Keeper::new(dir.path(), "boot-2").load(), (saved(), false));
        assert_eq!(Keeper::new(dir.path(), "").load(), (saved(), false));
        for odd in ["", "{}", "[1]", "{\"boot_id\":\"boot-1\",\"standing\":[{}]}"] {
            fs::write(dir.path().join(FILE), odd).unwrap();
            assert_eq!(keeper.load(), (vec![], true), "{odd}");
        }
    }

    #[tokio::test]
    async fn nothing_is_written_where_nothing_changed() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(dir.path(), "boot-1");
        let (_sender, receiver) = watch::channel(Vec::new());
        let stop = CancellationToken::new();
        stop.cancel();
        keeper.run(receiver, stop).await;
        assert!(!dir.path().join(FILE).exists());
    }
}
