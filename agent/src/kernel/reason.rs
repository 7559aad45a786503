//! Why the kernel said no, in a sentence that an operator can act on.

use std::error::Error;
use std::io;

use super::programs::{Kind, Program};
use crate::host::Root;

/// The capabilities that eBPF tracing needs, by bit and name.
const CAP_PERFMON: (u32, &str) = (38, "CAP_PERFMON");
const CAP_BPF: (u32, &str) = (39, "CAP_BPF");
const CAP_SYS_ADMIN: u32 = 21;

/// What of the privileges for eBPF is missing; `None` when nothing.
pub(super) fn missing_privilege(root: &Root) -> Option<String> {
    let status = std::fs::read_to_string(root.path("proc/self/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    missing_capabilities(u64::from_str_radix(mask.trim(), 16).ok()?)
}

fn missing_capabilities(effective: u64) -> Option<String> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    if has(CAP_SYS_ADMIN) {
        return None;
    }
    let missing: Vec<_> = [CAP_BPF, CAP_PERFMON]
        .iter()
        .filter(|(bit, _)| !has(*bit))
        .map(|(_, name)| *name)
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "the agent may not use eBPF: it lacks {}; run it as root or give it these capabilities",
            missing.join(" and ")
        )
    })
}

/// Says why `program` could not be loaded and attached.
pub(super) fn explain_attach(
    error: &(dyn Error + 'static),
    program: &Program,
    root: &Root,
) -> String {
    if program.kind == Kind::Raw && number(error) == Some(nix::errno::Errno::ENOENT as i32) {
        let hook = program.hook;
        return format!("this kernel has no tracepoint {hook} now: its module may not be loaded");
    }
    explain(error, root)
}

/// Says what `error` means, looking at the host where that helps.
pub(super) fn explain(error: &(dyn Error + 'static), root: &Root) -> String {
    let text = chain(error).last().map(ToString::to_string).unwrap_or_default();
    match number(error).map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EPERM | nix::errno::Errno::EACCES) => {
            refused(root, &verdict(error))
        }
        Some(nix::errno::Errno::ENOMEM) => {
            "the kernel has no memory for it: the agent's memory limit may be too low".to_owned()
        }
        Some(nix::errno::Errno::EINVAL | nix::errno::Errno::E2BIG) => {
            format!("this kernel's verifier refuses it{}", verdict(error))
        }
        Some(nix::errno::Errno::ENOSYS) => "this kernel is built without eBPF".to_owned(),
        Some(nix::errno::Errno::EBUSY) => "another program holds the hook".to_owned(),
        _ => format!("the kernel refuses it: {text}"),
    }
}

/// The number of the system call's error that is behind it.
fn number(error: &(dyn Error + 'static)) -> Option<i32> {
    chain(error).find_map(|e| e.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error)
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| <dyn Error>::source(*e))
}

fn refused(root: &Root, verdict: &str) -> String {
    if let Some(missing) = missing_privilege(root) {
        return missing;
    }
    let lockdown = std::fs::read_to_string(root.path("sys/kernel/security/lockdown"));
    if lockdown.is_ok_and(|modes| modes.contains("[confidentiality]")) {
        return "the kernel is locked down (confidentiality), which forbids eBPF to read its memory"
            .to_owned();
    }
    if verdict.is_empty() {
        "the kernel forbids it in spite of the agent's capabilities: a seccomp filter, a security module or a container may stand in the way".to_owned()
    } else {
        format!("this kernel's verifier refuses it{verdict}")
    }
}

/// The verifier's own last words, if there are any.
fn verdict(error: &(dyn Error + 'static)) -> String {
    let log = chain(error).find_map(|e| match e.downcast_ref::<aya::programs::ProgramError>() {
        Some(aya::programs::ProgramError::LoadError { verifier_log, .. }) => {
            Some(verifier_log.to_string())
        }
        _ => None,
    });
    log.as_deref().and_then(last_words).map(|words| format!(": {words}")).unwrap_or_default()
}

/// The last line of a verifier's log that is not about its statistics.
fn last_words(log: &str) -> Option<&str> {
    log.lines().rev().map(str::trim).filter(|line| !line.is_empty()).find(|line| {
        !["processed ", "verification time", "stack depth", "peak_states"]
            .iter()
            .any(|statistics| line.starts_with(statistics))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_by_name() {
        assert_eq!(missing_capabilities(u64::MAX), None);
        assert_eq!(missing_capabilities(1 << 21), None);
        assert_eq!(missing_capabilities(1 << 38 | 1 << 39), None);
        let both = missing_capabilities(0).unwrap();
        assert!(both.contains("CAP_BPF and CAP_PERFMON"), "{both}");
        let one = missing_capabilities(1 << 39).unwrap();
        assert!(one.contains("CAP_PERFMON") && !one.contains("CAP_BPF"), "{one}");
    }

    #[test]
    fn error_numbers_become_sentences() {
        let root = Root::new("/nonexistent");
        let say = |number| explain(&io::Error::from_raw_os_error(number), &root);
        assert!(say(1).contains("forbids it"));
        assert!(say(12).contains("memory limit"));
        assert!(say(22).contains("verifier"));
        assert!(!say(2).contains("os error 1"));
    }

    #[test]
    fn the_verifiers_last_words() {
        let log = "0: R1=ctx\ninvalid access to off=4\nprocessed 3 insns (limit 1000000)\n\n";
        assert_eq!(last_words(log), Some("invalid access to off=4"));
        assert_eq!(last_words("processed 3 insns\n"), None);
    }
}
