//! Keeps what was learnt over a restart of the agent: a file in the state directory,
//! written by a stage of its own, because the sampler must not wait for a disk.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Name of the file in the state directory.
const FILE: &str = "scorer.state";
/// Longest file that is read: what the most subjects take, and some room.
const FILE_BYTES: u64 = 64 << 20;

/// A file's bytes; none before the first.
pub type Saved = Option<Arc<Vec<u8>>>;

/// Where it is kept.
#[derive(Debug, Clone)]
pub struct Keeper {
    path: PathBuf,
}

impl Keeper {
    /// In `state_dir`.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE) }
    }

    /// What was kept; `None` when nothing ever was.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read.
    pub fn load(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::metadata(&self.path) {
            Ok(found) if found.len() > FILE_BYTES => {
                Err(io::Error::other("it is longer than 64 MiB"))
            }
            Ok(_) => fs::read(&self.path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what comes until nothing comes any more: the sampler sends once more when
    /// it ends.
    pub async fn run(self, mut saved: watch::Receiver<Saved>, shutdown: CancellationToken) {
        let mut failed = false;
        loop {
            let last = tokio::select! {
                changed = saved.changed() => changed.is_err(),
                () = shutdown.cancelled() => {
                    // The sampler's last word, then it drops its end.
                    while saved.changed().await.is_ok() {}
                    true
                }
            };
            let newest = saved.borrow_and_update().clone();
            if let Some(bytes) = newest {
                let path = self.path.clone();
                let written = tokio::task::spawn_blocking(move || write(&path, &bytes)).await;
                let error = written.map_err(io::Error::other).and_then(|written| written).err();
                if let Some(error) = error.filter(|_| !failed) {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "what was learnt cannot be kept over a restart");
                    failed = true;
                }
            }
            if last {
                return;
            }
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Readers see the old file or the new one, never half of it, even after a power cut.
    let draft = path.with_extension("state.new");
    let mut file = fs::File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_word_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(dir.path());
        assert_eq!(keeper.load().unwrap(), None);
        let (sender, receiver) = watch::channel(None);
        let stop = CancellationToken::new();
        let run = tokio::spawn(keeper.clone().run(receiver, stop.clone()));
        stop.cancel();
        tokio::task::yield_now().await;
        sender.send_replace(Some(Arc::new(b"learnt".to_vec())));
        drop(sender);
        run.await.unwrap();
        assert_eq!(keeper.load().unwrap().as_deref(), Some(&b"learnt"[..]));
    }
}
