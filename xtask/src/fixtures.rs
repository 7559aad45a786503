//! `cargo xtask fixtures`: what the kernels that Debian serves say of their types and
//! tracepoints, cut down to what the programs use, for the tests of the agent.
//!
//! Each kernel is booted once and asked; what it said whole is kept in the cache, so
//! that after a new row of a table only the cutting is done again. The cutting itself
//! is the agent's: it knows what its programs use.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::matrix::archive::Archive;
use crate::matrix::kernels::{self, Kernel};
use crate::matrix::{furnish, machine};
use crate::shell;

/// What the test of the agent reads.
const SOURCES: &str = "HOLDFAST_KERNEL_SOURCES";
const TEST: &str = "kernel::fixtures::every_kernel_is_understood_as_reviewed";

/// Groups of tracepoints that are kept whole in the cache.
const GROUPS: &[&str] = &[
    "block",
    "cgroup",
    "compaction",
    "exceptions",
    "ext4",
    "filemap",
    "iocost",
    "irq",
    "jbd2",
    "kmem",
    "memcg",
    "migrate",
    "mce",
    "napi",
    "net",
    "oom",
    "page_pool",
    "power",
    "qdisc",
    "ras",
    "raw_syscalls",
    "rcu",
    "sched",
    "signal",
    "skb",
    "sock",
    "task",
    "tcp",
    "thermal",
    "timer",
    "udp",
    "vmscan",
    "workqueue",
    "writeback",
    "xfs",
];

const LIMIT: Duration = Duration::from_secs(600);

/// Which kernels.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only kernels of this series, or series and flavour: 6.1, 6.12-cloud
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Ask the kernels again, even those that have been asked
    #[arg(long)]
    fresh: bool,
}

/// Asks what has not been asked and cuts all fixtures anew.
pub(crate) fn run(args: &Args) -> Result<()> {
    let sources = kernels::descriptions()?;
    let mut silent = Vec::new();
    for kernel in kernels::offered(args.kernel.as_deref())? {
        let folder = sources.join(&kernel.name);
        let known = fs::read_to_string(folder.join("release")).unwrap_or_default();
        if args.fresh || known.trim() != kernel.release {
            // One that does not answer keeps the others from nothing.
            if let Err(error) = describe(&kernel, &folder) {
                silent.push(format!("{error:#}"));
                let _ = fs::remove_dir_all(&folder);
            }
        }
    }
    describe_this(&sources)?;
    let mut test = shell::cargo(["test", "-p", "holdfast-agent", "--lib", "--", "--exact", TEST])?;
    shell::run(test.env(SOURCES, &sources))?;
    ensure!(silent.is_empty(), "not asked:\n{}", silent.join("\n"));
    Ok(())
}

fn describe(kernel: &Kernel, folder: &Path) -> Result<()> {
    eprintln!("{}: asking {}", kernel.name, kernel.release);
    let mut archive = Archive::default();
    let script = include_str!("matrix/guest-describe.sh").replace("GROUPS", &GROUPS.join(" "));
    furnish(&mut archive, kernel, &script)?;
    let _ = fs::remove_dir_all(folder);
    machine::run(kernel, archive, folder, LIMIT)
}

/// The kernel that runs here: one that Debian does not serve, perhaps.
fn describe_this(sources: &Path) -> Result<()> {
    let system = nix::sys::utsname::uname().context("the kernel's name cannot be read")?;
    let release = String::from_utf8_lossy(system.release().as_bytes()).into_owned();
    // What follows is the name of a build and changes with every one.
    let version = release.split('-').next().unwrap_or_default();
    let series: Vec<&str> = version.split('.').take(2).collect();
    let folder = sources.join(series.join("."));
    let known = fs::read_to_string(folder.join("release")).unwrap_or_default();
    if folder.is_dir() && !known.trim().starts_with(version) {
        eprintln!("{version}: Debian's kernel of this series is taken instead of the running one");
        return Ok(());
    }
    let events = Path::new("/sys/kernel/tracing/events");
    if !events.is_dir() {
        eprintln!("{version}: left out, because tracefs is not mounted or not readable here");
        return Ok(());
    }
    let put = |relative: &str, from: &Path| -> Result<()> {
        let to = folder.join(relative);
        fs::create_dir_all(to.parent().unwrap_or(&folder))?;
        let bytes = fs::read(from).with_context(|| format!("{}", from.display()))?;
        fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))
    };
    put("sys/kernel/btf/vmlinux", Path::new("/sys/kernel/btf/vmlinux"))?;
    for group in GROUPS {
        for entry in fs::read_dir(events.join(group)).into_iter().flatten().flatten() {
            let format = entry.path().join("format");
            if format.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                put(&format!("sys/kernel/tracing/events/{group}/{name}/format"), &format)?;
            }
        }
    }
    fs::write(folder.join("release"), format!("{version}\n")).context("cannot write the release")
}
