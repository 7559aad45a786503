//! Whether a function that programs hang on is called at all: a compiler may have put it
//! into its callers, and nothing that the kernel says of itself tells.

use aya::Ebpf;
use aya::maps::HashMap;
use holdfast_agent_ebpf::maps;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{fdatasync, gettid};

/// Syncs a file in memory, while the program at the entry of `vfs_fsync_range` is attached
/// and the one at its exit is not yet.
///
/// # Errors
///
/// One sentence when the program did not see it.
pub(super) fn sync(ebpf: &mut Ebpf) -> Result<(), String> {
    let file = memfd_create(c"holdfast-trial", MFdFlags::MFD_CLOEXEC)
        .map_err(|error| format!("no file in memory to try syncs on: {error}"))?;
    fdatasync(&file).map_err(|error| format!("a file in memory cannot be synced: {error}"))?;
    let thread = gettid().as_raw().cast_unsigned();
    let map = ebpf.map_mut(maps::SYNCING).map(HashMap::<_, u32, [u64; 2]>::try_from);
    let Some(Ok(mut syncing)) = map else {
        return Err(format!("the eBPF object has no map {}", maps::SYNCING));
    };
    // What began is there until it ends; and nobody will tell its end.
    syncing
        .remove(&thread)
        .map_err(|_| "this kernel's compiler has put vfs_fsync_range into its callers".to_owned())
}
