//! What the kernel says about an open map or program beside its system call:
//! memory, and runs it had to skip.

use std::os::fd::{AsRawFd, BorrowedFd};

/// The number named `field`; `None` when the kernel does not say.
///
/// This is the agent's own descriptor, so the path is not below any root.
pub(super) fn number(fd: BorrowedFd<'_>, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    parse(&text, field)
}

fn parse(text: &str, field: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn numbers_by_whole_name() {
        let text = "memlock_x:\t1\nmemlock:\t4096\nfrozen:\tyes\n";
        assert_eq!(parse(text, "memlock"), Some(4096));
        assert_eq!(parse(text, "frozen"), None);
        assert_eq!(parse(text, "absent"), None);
    }
}
