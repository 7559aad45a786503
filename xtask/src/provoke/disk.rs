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
    let path = scratch.join("holdfast-demo-disk");
    let file = open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    // An open file without a name goes away with the process.
    std::fs::remove_file(&path).with_context(|| format!("cannot unlink {}", path.display()))?;

    let mut memory = vec![0x5A; READ_BYTES + ALIGNMENT];
    let skip = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let buffer = memory.get_mut(skip..skip + READ_BYTES).context("no aligned buffer")?;
    for offset in (0..FILE_BYTES).step_by(READ_BYTES) {
        file.write_all_at(buffer, offset).context("cannot fill the file")?;
    }
    let mut offset = 0;
    loop {
        for _ in 0..10 {
            let block = buffer.get(..WRITE_BYTES).unwrap_or_default();
            file.write_all_at(block, offset).context("cannot write")?;
            file.read_exact_at(buffer, offset).context("cannot read")?;
            offset = (offset + READ_BYTES as u64) % FILE_BYTES;
        }
        pause(Duration::from_millis(40));
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
