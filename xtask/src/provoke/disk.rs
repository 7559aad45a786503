//! Disk load: requests that really go to a device, one after the other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::pause;

const FILE_BYTES: u64 = 16 << 20;
const WRITE_BYTES: usize = 4 << 10;
const READ_BYTES: usize = 64 << 10;
/// What direct I/O wants of addresses, offsets and sizes, everywhere.
const ALIGNMENT: usize = 4 << 10;

pub(super) fn run(scratch: &Path) -> Result<()> {
    let mut writer = Writer::create(scratch)?;
    loop {
        for _ in 0..10 {
            writer.write(1)?;
            writer.read()?;
        }
        pause(Duration::from_millis(40));
    }
}

/// A file that is written and read past the page cache. It has no name, so it goes away
/// with the process.
pub(crate) struct Writer {
    file: File,
    memory: Vec<u8>,
    skip: usize,
    offset: u64,
}

impl Writer {
    /// Makes the file in `folder` and fills it, so that later writes change no metadata.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        let path = folder.join("holdfast-demo-disk");
        let file = open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        std::fs::remove_file(&path).with_context(|| format!("cannot unlink {}", path.display()))?;
        let memory = vec![0x5A; READ_BYTES + ALIGNMENT];
        let skip = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let buffer = memory.get(skip..skip + READ_BYTES).context("no aligned buffer")?;
        for offset in (0..FILE_BYTES).step_by(READ_BYTES) {
            file.write_all_at(buffer, offset).context("cannot fill the file")?;
        }
        Ok(Self { file, memory, skip, offset: 0 })
    }

    /// Writes 4 KiB `times` times, each to another place.
    pub(crate) fn write(&mut self, times: u64) -> Result<()> {
        for _ in 0..times {
            let block = self.memory.get(self.skip..self.skip + WRITE_BYTES).unwrap_or_default();
            self.file.write_all_at(block, self.offset).context("cannot write")?;
            self.offset = (self.offset + READ_BYTES as u64) % FILE_BYTES;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let buffer = self.memory.get_mut(self.skip..self.skip + READ_BYTES).unwrap_or_default();
        self.file.read_exact_at(buffer, self.offset).context("cannot read")
    }
}

/// Opens past the page cache; a file system that cannot do that still has to make
/// each write durable.
fn open(path: &Path) -> io::Result<File> {
    let open = |flags: OFlag| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags((flags | OFlag::O_DSYNC).bits())
            .open(path)
    };
    match open(OFlag::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => open(OFlag::empty()),
        other => other,
    }
}
