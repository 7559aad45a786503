//! The few system calls of the worker for which there is no safe wrapper.
#![expect(unsafe_code, reason = "fork, raw exits and socket options without a wrapper")]

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Runs `child` in a new process named `name`, which must end by itself; returns the
/// process once it has ended, and how.
///
/// The caller must have one thread only; the worker has.
pub(super) fn in_child(name: &CStr, child: impl FnOnce() -> i32) -> io::Result<(Pid, WaitStatus)> {
    // SAFETY: this process has one thread, so its copy is whole and may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok((child, waitpid(child, None)?)),
        ForkResult::Child => {
            let _ = nix::sys::prctl::set_name(name);
            let code = child();
            exit_process(code)
        }
    }
}

/// Sleeps.
#[expect(clippy::disallowed_methods, reason = "the worker has nothing else to do meanwhile")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Whether process ids are here what eBPF programs say: those of the first namespace
/// (`PROC_PID_INIT_INO` of the kernel).
pub(super) fn ids_are_the_kernels() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|ns| ns.as_os_str() == "pid:[4026531836]")
}

/// Ends the process at once, without handlers.
pub(super) fn exit_process(code: i32) -> ! {
    // SAFETY: never returns, touches no memory.
    unsafe { libc::_exit(code) }
}

/// Ends this thread alone with a status of its own, as a process that never heard of
/// groups does.
pub(super) fn exit_thread(code: i32) -> ! {
    // SAFETY: the thread's stack stays mapped, as nobody joins it.
    unsafe { libc::syscall(libc::SYS_exit, code) };
    exit_process(code)
}

/// Lets the socket drop every packet that arrives.
pub(super) fn drop_all(socket: &impl AsRawFd) -> io::Result<()> {
    // "Return 0": keep nothing of any packet (BPF_RET | BPF_K).
    let mut code = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    // The kernel copies the program before this returns.
    set(socket.as_raw_fd(), libc::SO_ATTACH_FILTER, &program)
}

/// Takes the filter away again.
pub(super) fn drop_none(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket.as_raw_fd(), libc::SO_DETACH_FILTER, &0i32)
}

fn set<T>(socket: RawFd, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is as long as is said, and only read.
    let done = unsafe {
        libc::setsockopt(socket, libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Segments that a TCP socket has sent again since it connected
/// (`tcpi_total_retrans` of `struct tcp_info`).
pub(super) fn retransmits(socket: &impl AsRawFd) -> io::Result<u32> {
    const TOTAL_RETRANSMITS: usize = 100;
    let mut info = [0u8; 104];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = info.get(TOTAL_RETRANSMITS..length as usize).and_then(|b| b.first_chunk());
    bytes.map(|b| u32::from_ne_bytes(*b)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
