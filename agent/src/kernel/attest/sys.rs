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

/// A process that does nothing until it is let go, which ends it.
pub(super) struct Idler(pub(super) Pid);

impl Drop for Idler {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

/// Starts a process that does `act` and then nothing more. As with [`in_child`], the
/// caller must have no other thread that holds a lock.
pub(super) fn idler(act: impl FnOnce()) -> io::Result<Idler> {
    // SAFETY: the copy runs nothing but `act` and sleeps.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Idler(child)),
        ForkResult::Child => {
            end_with_parent();
            act();
            sleep_on()
        }
    }
}

/// Starts a process and waits uninterruptibly (for everything but its own end by a
/// signal) until that ends, which it does with its parent only.
pub(super) fn wait_for_a_sleeper() {
    let flags = libc::c_long::from(libc::CLONE_VFORK | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child has a copy of everything, as with fork.
    if unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } == 0 {
        end_with_parent();
        sleep_on();
    }
}

fn end_with_parent() {
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
}

fn sleep_on() -> ! {
    loop {
        pause(Duration::from_secs(1));
        if nix::unistd::getppid() == Pid::from_raw(1) {
            exit_process(0);
        }
    }
}

/// A file whose pages are not in memory, mapped: who looks at one has a major fault.
pub(super) struct Cold {
    memory: std::ptr::NonNull<u8>,
    file: std::fs::File,
}

// SAFETY: the memory is only read, and mapped for as long as this lives.
unsafe impl Send for Cold {}
// SAFETY: as above.
unsafe impl Sync for Cold {}

impl Cold {
    const PAGE: usize = 4096;
    /// Pages there are.
    pub(super) const PAGES: usize = 32;

    /// Makes one in `folder`; its name is gone at once.
    pub(super) fn make(folder: &std::path::Path) -> io::Result<Self> {
        let path = folder.join("attest.cold");
        let made = std::fs::write(&path, vec![1u8; Self::PAGES * Self::PAGE])
            .and_then(|()| std::fs::File::open(&path));
        let _ = std::fs::remove_file(&path);
        let file = made?;
        file.sync_all()?;
        // SAFETY: a new mapping, of a length that the file has.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::PAGES * Self::PAGE,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping from above; one page at a time is read.
        unsafe { libc::madvise(memory, Self::PAGES * Self::PAGE, libc::MADV_RANDOM) };
        let memory = std::ptr::NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, file })
    }

    /// Takes all pages out of memory that nobody has looked at since.
    pub(super) fn cool(&self) {
        // SAFETY: the file is open; the kernel may do as it likes.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }

    /// Looks at some pages.
    pub(super) fn touch(&self, pages: std::ops::Range<usize>) {
        for page in pages.filter(|page| *page < Self::PAGES) {
            // SAFETY: within the mapping; the file does not shrink.
            unsafe { self.memory.as_ptr().add(page * Self::PAGE).read_volatile() };
        }
    }
}

impl Drop for Cold {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nobody else has.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), Self::PAGES * Self::PAGE) };
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
