//! The keys of the file, for people, and the documented default file.

use std::fmt::Write as _;

/// A key of the file, for people.
pub(super) struct Key {
    pub(super) table: &'static str,
    pub(super) name: &'static str,
    /// Its default, as TOML.
    default: &'static str,
    help: &'static str,
}

/// Every key, in the order of the file.
pub(super) const KEYS: &[Key] = &[
    Key {
        table: "",
        name: "host_name",
        default: "\"\"",
        help: "Name of this host in the fleet: letters, digits, `-`, `.` and `_`.\nEmpty: the kernel's node name.",
    },
    Key {
        table: "",
        name: "collector",
        default: "\"http://127.0.0.1:7401\"",
        help: "Where the collector takes agents' streams. Empty: keep to this host.",
    },
    Key {
        table: "",
        name: "socket",
        default: "\"/run/holdfast/agent.sock\"",
        help: "Unix socket for `holdfast local`. Root and the agent's own user may ask.",
    },
    Key {
        table: "",
        name: "metrics",
        default: "\"127.0.0.1:7404\"",
        help: "Address of the agent's own metrics, /metrics and /healthz, over HTTP.",
    },
    Key {
        table: "",
        name: "insecure_plaintext",
        default: "false",
        help: "Allow `metrics` to be an address that other hosts can reach, without TLS.",
    },
    Key {
        table: "",
        name: "state_dir",
        default: "\"/var/lib/holdfast/agent\"",
        help: "Folder of what must survive a restart. One agent at a time holds it.",
    },
    Key {
        table: "",
        name: "summary_interval",
        default: "\"10s\"",
        help: "How often the 1 s samples are summed up and sent: whole seconds, 1s to 60s.",
    },
    Key {
        table: "ebpf",
        name: "enabled",
        default: "true",
        help: "Load eBPF programs. Without them the agent goes on with what files tell.",
    },
    Key {
        table: "ebpf",
        name: "unit_slots",
        default: "256",
        help: "How many units are told apart at once, 2 to 1024; the rest counts as \"other\".\nFewer are had when the maps would not fit into `map_limit`.",
    },
    Key {
        table: "ebpf",
        name: "map_limit",
        default: "\"16 MiB\"",
        help: "Most kernel memory of all maps together, 256 KiB to 256 MiB.",
    },
    Key {
        table: "ebpf",
        name: "disabled",
        default: "[]",
        help: "Programs not to load, by the names that `holdfast local probes` shows.",
    },
    Key {
        table: "ebpf",
        name: "cpu_budget",
        default: "\"1%\"",
        help: "What all programs together may cost, as a share of one core, 0.01% to 100%.\nNear it the dearest probe keeps less detail, visibly, and more again when there is room.",
    },
    Key {
        table: "ebpf",
        name: "measure_interval",
        default: "\"10s\"",
        help: "How often the kernel accounts for the programs' run time, for a tenth of a second;\nmore often when there is more to do. 1s to 5m.",
    },
    Key {
        table: "ebpf",
        name: "regain_after",
        default: "\"1m\"",
        help: "How long there must be room for it before detail is kept again, one step at a time:\n1s to 1h. Up to 15 times as long for detail that had to be given up again and again.",
    },
    Key {
        table: "ebpf",
        name: "pressure_threshold",
        default: "\"5%\"",
        help: "From which share of time stalled for CPU, memory or I/O on a unit is under pressure:\nits details are kept longest.",
    },
    Key {
        table: "ebpf",
        name: "attest",
        default: "true",
        help: "Prove the probes at the start: provoke a few events in a cgroup of the agent's own,\nand see whether each probe sees exactly those.",
    },
    Key {
        table: "scoring",
        name: "enabled",
        default: "true",
        help: "Score how unusual the host and its units are, by their own past.",
    },
    Key {
        table: "scoring",
        name: "promised_false_alarms",
        default: "1.0",
        help: "How many false alarms a week this host may raise, 0.01 to 100: the fewer, the more\nunusual something must be. `holdfast local calibration` shows whether that is kept.",
    },
    Key {
        table: "scoring",
        name: "learning_time",
        default: "\"30m\"",
        help: "History of a unit before it is scored, 1m to 168h, and 200 summaries at least (350 before\nan episode). Until two days are known, something must be the more unusual the less is known.",
    },
    Key {
        table: "healing",
        name: "enabled",
        default: "true",
        help: "Heal the services that have a file in `services`; with none, nothing is touched.",
    },
    Key {
        table: "healing",
        name: "services",
        default: "\"/etc/holdfast/services.d\"",
        help: "Folder of the services: one file each, NAME.toml. Read again on SIGHUP.\n`holdfast-agent config service` prints one with every key.",
    },
    Key {
        table: "healing",
        name: "hooks",
        default: "\"/etc/holdfast/hooks.d\"",
        help: "Folder of the programs that a ladder may name as hook:NAME. Only root may write\nthe folder and what is in it. They run with the agent's own rights.",
    },
    Key {
        table: "healing",
        name: "protected",
        default: "[]",
        help: "Units that are never touched, whatever a service's file says; `name*` is all that\nbegin so. systemd's own, the bus, SSH, the network and this agent always are.",
    },
    Key {
        table: "healing",
        name: "per_10m",
        default: "6",
        help: "Most disruptive actions on this host in ten minutes, all services together: 0 to 100.",
    },
    Key {
        table: "healing",
        name: "per_24h",
        default: "40",
        help: "The same in 24 hours: 0 to 250.",
    },
    Key {
        table: "healing",
        name: "grace",
        default: "\"30s\"",
        help: "For so long after the agent's start nothing is done, for not all is known yet: 0s to 1h.",
    },
];

/// The default file: every key with its help, commented out.
#[must_use]
pub fn default_file() -> String {
    let mut text = String::from(
        "# Configuration of holdfast-agent.\n\
         #\n\
         # Every key is shown with its default. Files in agent.toml.d/*.toml are laid over\n\
         # this one, in the order of their names; flags win over both.\n\
         # `holdfast-agent config check` tells whether all of it can be used.\n",
    );
    let mut table = "";
    for key in KEYS {
        if key.table != table {
            table = key.table;
            let _ = write!(text, "\n[{table}]\n");
        }
        text.push('\n');
        for line in key.help.lines() {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "#{} = {}", key.name, key.default);
    }
    text
}
