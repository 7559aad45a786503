//! Running a program once for each task of the host, at our own time.
#![expect(unsafe_code, reason = "two forms of the bpf system call that no library hands out")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::libc;

/// Commands of the bpf system call, and the attach type of iterators.
const LINK_CREATE: libc::c_long = 28;
const ITER_CREATE: libc::c_long = 33;
const TRACE_ITER: u32 = 28;

/// A pass of an iterator program, ready to be made.
#[derive(Debug)]
pub(super) struct Pass {
    link: OwnedFd,
}

impl Pass {
    /// For the loaded program `program`.
    ///
    /// # Errors
    ///
    /// The kernel refuses it.
    pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<Self> {
        // The program, no target, the attach type, no flags.
        let link = bpf(LINK_CREATE, [program.as_raw_fd().cast_unsigned(), 0, TRACE_ITER, 0])?;
        Ok(Self { link })
    }

    /// Runs the program for everything there is, to the end.
    ///
    /// # Errors
    ///
    /// The kernel ends the pass early.
    pub(super) fn run(&self) -> io::Result<()> {
        // The link, no flags.
        let fd = bpf(ITER_CREATE, [self.link.as_raw_fd().cast_unsigned(), 0, 0, 0])?;
        let mut pass = File::from(fd);
        // Our program writes nothing, so the first read that succeeds is the end. The
        // kernel pauses now and then in a long pass and asks to be called again.
        let mut nothing = [0u8; 64];
        loop {
            match pass.read(&mut nothing) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The bpf system call for a command that gives a descriptor.
fn bpf(command: libc::c_long, attributes: [u32; 4]) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads the attributes, as many bytes as it is told, and both
    // commands take nothing but numbers.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of_val(&attributes))
    };
    let fd = libc::c_int::try_from(fd).ok().filter(|fd| *fd >= 0);
    // SAFETY: a new descriptor that nobody else has.
    fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).ok_or_else(io::Error::last_os_error)
}
