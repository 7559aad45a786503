//! From facts to findings. Pure.

use super::facts::{Access, Facts};
use super::{Finding, State};
use crate::probes::PROBES;

const SYS_ADMIN: u32 = 21;
const SYSLOG: u32 = 34;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
/// Memory of the agent without its maps, with room to spare.
const AGENT_BYTES: u64 = 64 << 20;
/// Clocks that are read with one instruction or so.
const FAST_CLOCKS: [&str; 5] =
    ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "riscv_clocksource"];
/// Controllers whose files tell of units, with the signals that come from them.
const CONTROLLERS: [(&str, &str); 4] = [
    ("cpu", "cpu.throttled.*"),
    ("memory", "memory.current, memory.limit.*, memory.faults.major"),
    ("io", "disk.read.bytes, disk.write.bytes"),
    ("pids", "process.tasks"),
];

impl Facts {
    fn has(&self, capability: u32) -> bool {
        self.capabilities.is_some_and(|bits| bits >> capability & 1 == 1)
    }

    fn may_load(&self) -> bool {
        self.has(SYS_ADMIN) || self.has(BPF) && self.has(PERFMON)
    }

    /// What the agent can build on here: 0 files, 1 eBPF on classic tracepoints, 2
    /// eBPF with the kernel's own types, 3 diverted functions as well.
    #[must_use]
    pub fn level(&self) -> u8 {
        let closed = self.lockdown.as_deref() == Some("confidentiality");
        match (self.may_load() && !closed, self.btf, self.tracefs) {
            (true, Access::Usable, _) => 2 + u8::from(self.trampolines),
            (true, _, Access::Usable) => 1,
            _ => 0,
        }
    }
}

/// The page, most important first.
pub(super) fn judge(facts: &Facts, map_limit: u64) -> Vec<Finding> {
    vec![
        level(facts),
        capabilities(facts),
        lockdown(facts),
        btf(facts),
        tracefs(facts),
        paranoid(facts),
        unprivileged(facts),
        statistics(facts),
        jit(facts),
        cgroups(facts),
        controllers(facts),
        psi(facts),
        kernel_log(facts),
        memory(facts, map_limit),
        clock(facts),
    ]
}

fn ok(name: &'static str, value: impl Into<String>) -> Finding {
    let value = value.into();
    Finding { name, state: State::Ok, value, cost: String::new(), remedy: String::new() }
}

fn bad(
    name: &'static str,
    state: State,
    value: impl Into<String>,
    cost: impl Into<String>,
    remedy: impl Into<String>,
) -> Finding {
    Finding { name, state, value: value.into(), cost: cost.into(), remedy: remedy.into() }
}

/// The probes that go without eBPF, in one sentence.
fn without_ebpf() -> String {
    let names: Vec<_> =
        PROBES.iter().filter(|probe| probe.level > 0).map(|probe| probe.name).collect();
    format!("the probes {} are off; files still tell the rest", names.join(", "))
}

fn level(facts: &Facts) -> Finding {
    let release = if facts.kernel_release.is_empty() { "unknown" } else { &facts.kernel_release };
    let (level, means) = match facts.level() {
        0 => (0, "files only"),
        1 => (1, "eBPF without the kernel's types, which no probe makes use of yet"),
        2 => (2, "eBPF with the kernel's types"),
        _ => (3, "eBPF with the kernel's types, and functions that can be diverted"),
    };
    let value = format!("{release}, level {level} of 3: {means}");
    if level >= 2 {
        return ok("kernel", value);
    }
    bad("kernel", State::Missing, value, without_ebpf(), "see what is missing below")
}

fn capabilities(facts: &Facts) -> Finding {
    const NAME: &str = "capabilities";
    let known = [
        (BPF, "CAP_BPF"),
        (PERFMON, "CAP_PERFMON"),
        (SYSLOG, "CAP_SYSLOG"),
        (SYS_ADMIN, "CAP_SYS_ADMIN"),
    ];
    let names = |wanted: bool| {
        let names = known.iter().filter(|(bit, _)| facts.has(*bit) == wanted);
        names.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    };
    let has = names(true);
    let value = if has.is_empty() { "none of use".to_owned() } else { has };
    if facts.may_load() {
        return ok(NAME, value);
    }
    let missing = format!("{value}; not {}", names(false));
    let remedy = "AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYSLOG in the service's unit, as \
                  packaged, or run as root";
    bad(NAME, State::Missing, missing, without_ebpf(), remedy)
}

fn lockdown(facts: &Facts) -> Finding {
    match facts.lockdown.as_deref() {
        Some("confidentiality") => bad(
            "lockdown",
            State::Missing,
            "confidentiality",
            format!("programs may not read the kernel's memory: {}", without_ebpf()),
            "boot with lockdown=integrity",
        ),
        mode => ok("lockdown", mode.unwrap_or("none")),
    }
}

fn btf(facts: &Facts) -> Finding {
    match facts.btf {
        Access::Usable => ok("BTF", "/sys/kernel/btf/vmlinux"),
        Access::Denied => bad(
            "BTF",
            State::Missing,
            "/sys/kernel/btf/vmlinux may not be read",
            without_ebpf(),
            "let the agent read /sys/kernel/btf (chmod a+r, or the container's mounts)",
        ),
        _ => bad(
            "BTF",
            State::Missing,
            "this kernel does not describe its types",
            without_ebpf(),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

fn tracefs(facts: &Facts) -> Finding {
    let cost = "only programs that fall back to classic tracepoints lose their fall-back";
    match facts.tracefs {
        Access::Usable => ok("tracefs", "mounted and readable"),
        Access::Denied => bad(
            "tracefs",
            State::Warn,
            "mounted, but may not be read",
            cost,
            "mount -o remount,gid=holdfast-agent,mode=750 /sys/kernel/tracing, where it matters",
        ),
        _ => bad(
            "tracefs",
            State::Warn,
            "not mounted",
            cost,
            "mount -t tracefs nodev /sys/kernel/tracing, where it matters",
        ),
    }
}

fn paranoid(facts: &Facts) -> Finding {
    const NAME: &str = "perf events";
    let Some(level) = facts.perf_event_paranoid else { return ok(NAME, "no setting") };
    let value = format!("kernel.perf_event_paranoid={level}");
    if level <= 2 || facts.has(SYS_ADMIN) {
        return ok(NAME, value);
    }
    bad(
        NAME,
        State::Warn,
        value,
        "classic tracepoints are refused; programs use the kernel's typed ones first and seldom need them",
        "sysctl kernel.perf_event_paranoid=2, where `local probes` shows a program off",
    )
}

fn unprivileged(facts: &Facts) -> Finding {
    // With its capabilities the agent does not depend on it.
    let value = match facts.unprivileged_bpf_disabled {
        None => "no setting".to_owned(),
        Some(value) => {
            format!("kernel.unprivileged_bpf_disabled={value}, which the agent does not depend on")
        }
    };
    ok("other users", value)
}

fn statistics(facts: &Facts) -> Finding {
    match facts.bpf_stats {
        Some(0) | None => ok("statistics", "off but while programs are measured"),
        Some(_) => bad(
            "statistics",
            State::Warn,
            "kernel.bpf_stats_enabled=1",
            "some 50 ns more for each run of each eBPF program on this host",
            "sysctl kernel.bpf_stats_enabled=0",
        ),
    }
}

fn jit(facts: &Facts) -> Finding {
    match facts.jit {
        Some(0) => bad(
            "JIT",
            State::Warn,
            "net.core.bpf_jit_enable=0",
            "eBPF programs are interpreted and cost several times as much",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => ok("JIT", "on"),
        None => ok("JIT", "not known to this user, so as the kernel was built"),
    }
}

fn cgroups(facts: &Facts) -> Finding {
    match (facts.cgroup2, facts.cgroup1.is_empty()) {
        (true, true) => ok("cgroups", "unified"),
        (true, false) => {
            ok("cgroups", format!("hybrid; version 1 holds {}", facts.cgroup1.join(", ")))
        }
        (false, _) => bad(
            "cgroups",
            State::Missing,
            "no unified hierarchy is mounted",
            "no signal can be told apart by unit",
            "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
    }
}

fn controllers(facts: &Facts) -> Finding {
    const NAME: &str = "controllers";
    let absent: Vec<_> = CONTROLLERS
        .iter()
        .filter(|(name, _)| !facts.controllers.iter().any(|has| has == name))
        .collect();
    let list = |of: &[String]| if of.is_empty() { "none".to_owned() } else { of.join(" ") };
    if !absent.is_empty() {
        let signals: Vec<_> = absent.iter().map(|(_, signals)| *signals).collect();
        return bad(
            NAME,
            State::Missing,
            format!("on the unified hierarchy: {}", list(&facts.controllers)),
            format!("units lack {}", signals.join(", ")),
            "boot with systemd.unified_cgroup_hierarchy=1, which moves the controllers there",
        );
    }
    // io and memory accounting of units is the service manager's to switch on.
    let idle: Vec<_> = CONTROLLERS
        .iter()
        .filter(|(name, _)| !facts.delegated.iter().any(|has| has == name))
        .collect();
    if idle.is_empty() {
        return ok(NAME, list(&facts.delegated));
    }
    let signals: Vec<_> = idle.iter().map(|(_, signals)| *signals).collect();
    bad(
        NAME,
        State::Missing,
        format!("handed on to units: {}", list(&facts.delegated)),
        format!("units lack {}", signals.join(", ")),
        "DefaultCPUAccounting=, DefaultMemoryAccounting=, DefaultIOAccounting= and \
         DefaultTasksAccounting=yes in /etc/systemd/system.conf, then systemctl daemon-reexec",
    )
}

fn psi(facts: &Facts) -> Finding {
    let cost = "cpu.pressure.*, memory.pressure.* and disk.pressure.* of the host and of units";
    match facts.psi {
        Access::Usable => ok("pressure", "pressure stall information is on"),
        Access::Off => {
            bad("pressure", State::Missing, "compiled in but off", cost, "boot with psi=1")
        }
        Access::Denied => bad(
            "pressure",
            State::Missing,
            "may not be read",
            cost,
            "let the agent read /proc/pressure",
        ),
        Access::Absent => bad(
            "pressure",
            State::Missing,
            "not in this kernel, or off",
            cost,
            "use a kernel built with CONFIG_PSI=y and boot with psi=1",
        ),
    }
}

fn kernel_log(facts: &Facts) -> Finding {
    let cost =
        "conditions such as disk.io_error, filesystem.error and cpu.soft_lockup, and kernel.log.*";
    let restricted = facts.dmesg_restrict.unwrap_or_default() > 0;
    match facts.kmsg {
        Access::Usable => ok("kernel log", "/dev/kmsg can be read"),
        Access::Denied => bad(
            "kernel log",
            State::Missing,
            if restricted {
                "restricted (kernel.dmesg_restrict=1)"
            } else {
                "/dev/kmsg may not be read"
            },
            cost,
            "AmbientCapabilities=CAP_SYSLOG and DeviceAllow=/dev/kmsg r in the service's unit, as packaged",
        ),
        _ => bad(
            "kernel log",
            State::Missing,
            "there is no /dev/kmsg here",
            cost,
            "DevicePolicy=closed in the service's unit in place of PrivateDevices=yes, as packaged, or pass the device to the container",
        ),
    }
}

fn memory(facts: &Facts, map_limit: u64) -> Finding {
    const NAME: &str = "memory limit";
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let Some(limit) = facts.memory_limit else { return ok(NAME, "none") };
    let need = AGENT_BYTES.saturating_add(map_limit);
    if limit >= need {
        return ok(
            NAME,
            format!("{} for the agent, {} of it for maps", mib(limit), mib(map_limit)),
        );
    }
    bad(
        NAME,
        State::Warn,
        format!("{} for the agent and its maps", mib(limit)),
        "maps may be refused, or the agent killed and started again",
        format!("MemoryMax={}M in the service's unit, or a smaller ebpf.map_limit", need >> 20),
    )
}

fn clock(facts: &Facts) -> Finding {
    let source = facts.clock_source.as_str();
    if source.is_empty() || FAST_CLOCKS.contains(&source) {
        return ok("clock", if source.is_empty() { "not known" } else { source });
    }
    bad(
        "clock",
        State::Warn,
        source,
        "each reading takes a microsecond or so, in every program that needs the time",
        "see why the kernel left its fast clock (dmesg | grep -i clocksource)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        Facts {
            kernel_release: "6.12.1".into(),
            capabilities: Some(1 << BPF | 1 << PERFMON | 1 << SYSLOG),
            btf: Access::Usable,
            tracefs: Access::Usable,
            perf_event_paranoid: Some(2),
            jit: Some(1),
            cgroup2: true,
            controllers: list("cpu io memory pids"),
            delegated: list("cpu io memory pids"),
            psi: Access::Usable,
            kmsg: Access::Usable,
            clock_source: "tsc".into(),
            ..Facts::default()
        }
    }

    /// What is not fine, with its state.
    fn complaints(facts: &Facts) -> Vec<(&'static str, State)> {
        let findings = judge(facts, 4 << 20);
        for finding in &findings {
            let fine = finding.state == State::Ok;
            assert!(!finding.value.is_empty(), "{finding:?}");
            assert_eq!(
                (fine, fine),
                (finding.cost.is_empty(), finding.remedy.is_empty()),
                "{finding:?}"
            );
        }
        let bad = findings.iter().filter(|finding| finding.state != State::Ok);
        bad.map(|finding| (finding.name, finding.state)).collect()
    }

    #[test]
    fn a_good_host_has_nothing_to_complain_of() {
        assert_eq!(complaints(&good()), []);
        assert_eq!((good().level(), Facts { trampolines: true, ..good() }.level()), (2, 3));
        assert!(
            super::super::text(&judge(&good(), 1))
                .starts_with("ok      kernel        6.12.1, level 2")
        );
    }

    #[test]
    fn each_missing_thing_is_told_with_cost_and_remedy() {
        use State::{Missing, Warn};
        for (facts, expected) in [
            (
                Facts { capabilities: Some(1 << BPF), ..good() },
                vec![("kernel", Missing), ("capabilities", Missing)],
            ),
            (
                Facts {
                    capabilities: Some(1 << SYS_ADMIN),
                    perf_event_paranoid: Some(4),
                    ..good()
                },
                vec![],
            ),
            (
                Facts { lockdown: Some("confidentiality".into()), ..good() },
                vec![("kernel", Missing), ("lockdown", Missing)],
            ),
            (Facts { lockdown: Some("integrity".into()), ..good() }, vec![]),
            (Facts { btf: Access::Absent, ..good() }, vec![("kernel", Missing), ("BTF", Missing)]),
            (
                Facts { btf: Access::Denied, tracefs: Access::Denied, ..good() },
                vec![("kernel", Missing), ("BTF", Missing), ("tracefs", Warn)],
            ),
            (Facts { tracefs: Access::Absent, ..good() }, vec![("tracefs", Warn)]),
            (Facts { perf_event_paranoid: Some(3), ..good() }, vec![("perf events", Warn)]),
            (
                Facts { bpf_stats: Some(1), jit: Some(0), ..good() },
                vec![("statistics", Warn), ("JIT", Warn)],
            ),
            (
                Facts { cgroup2: false, controllers: vec![], ..good() },
                vec![("cgroups", Missing), ("controllers", Missing)],
            ),
            (
                Facts { cgroup1: vec!["memory".into()], controllers: vec!["cpu".into()], ..good() },
                vec![("controllers", Missing)],
            ),
            (Facts { delegated: vec![], ..good() }, vec![("controllers", Missing)]),
            (
                Facts { psi: Access::Off, kmsg: Access::Denied, dmesg_restrict: Some(1), ..good() },
                vec![("pressure", Missing), ("kernel log", Missing)],
            ),
            (
                Facts { psi: Access::Absent, kmsg: Access::Absent, ..good() },
                vec![("pressure", Missing), ("kernel log", Missing)],
            ),
            (Facts { memory_limit: Some(32 << 20), ..good() }, vec![("memory limit", Warn)]),
            (Facts { memory_limit: Some(128 << 20), ..good() }, vec![]),
            (Facts { clock_source: "hpet".into(), ..good() }, vec![("clock", Warn)]),
        ] {
            assert_eq!(complaints(&facts), expected, "{facts:?}");
        }
        assert!(complaints(&Facts::default()).len() >= 7, "a host that tells nothing");
    }
}
