//! Programs that others use for the same purpose, measured beside ours.
//!
//! They come from Debian. One that is missing is said to be missing, and its rows
//! are left out.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_core::clock::BootTime;
use tempfile::TempDir;

use super::Row;
use crate::debian;
use crate::leash::Leashed;
use crate::shell;
use crate::stop::Stop;

/// How long a tool may take to compile its programs.
const START_LIMIT: Duration = Duration::from_secs(60);

const PACKAGES: &[&str] =
    &["prometheus-node-exporter", "sysstat", "libbpf-tools", "bpfcc-tools", "bpftrace", "bpftool"];

/// Installs all peers.
pub(crate) fn install() -> Result<()> {
    debian::install("the comparison needs other tools", PACKAGES)
}

/// Says that a peer is missing, and how to get it.
pub(crate) fn missing(name: &str, package: &str) {
    eprintln!("{name} is not installed (package {package}, or --install-peers): left out");
}

/// node_exporter with its default collectors, listening on loopback.
pub(crate) struct NodeExporter {
    pub(crate) process: Leashed,
    port: u16,
}

impl NodeExporter {
    /// `None` when it is not installed.
    pub(crate) fn start() -> Result<Option<Self>> {
        let names = ["prometheus-node-exporter", "node_exporter"];
        let Some(program) = names.iter().find_map(|name| shell::find(name)) else {
            missing("node_exporter", "prometheus-node-exporter");
            return Ok(None);
        };
        // It cannot tell which port it got, so it is given one that was free just now.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let port = listener.local_addr()?.port();
        drop(listener);
        let address = OsString::from(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Leashed::start(&program, [address], &[], None)?;
        Ok(Some(Self { process, port }))
    }

    /// Fetches its metrics once, as Prometheus does.
    pub(crate) fn scrape(&self) -> Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .context("node_exporter does not listen")?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("node_exporter does not answer")?;
        ensure!(answer.len() > 1000, "node_exporter answered with next to nothing");
        Ok(())
    }
}

/// A tool that watches the kernel for the same purpose as one of our programs.
pub(crate) struct Tracer {
    /// What the rows call it.
    pub(crate) name: &'static str,
    program: &'static str,
    package: &'static str,
    arguments: &'static [&'static str],
    /// Its programs' names hold this.
    pub(crate) part: &'static str,
    /// Does not say when it traces.
    silent: bool,
    /// At most this share of its cost may ours be, where we have set ourselves that.
    our_share: Option<f64>,
}

impl Tracer {
    /// Those of Debian that watch the scheduler.
    pub(crate) const SCHEDULER: &[Self] = &[
        Self {
            name: "runqlat",
            program: "runqlat",
            package: "libbpf-tools",
            arguments: &[],
            part: "sched_",
            silent: false,
            our_share: Some(0.25),
        },
        Self {
            name: "runqlat (bcc)",
            program: "runqlat-bpfcc",
            package: "bpfcc-tools",
            arguments: &[],
            part: "sched_",
            silent: false,
            our_share: None,
        },
        Self {
            name: "runqlat.bt",
            program: "bpftrace",
            package: "bpftrace",
            arguments: &["/usr/sbin/runqlat.bt"],
            part: "sched_",
            silent: false,
            our_share: None,
        },
        Self {
            name: "offcputime",
            program: "offcputime",
            package: "libbpf-tools",
            arguments: &[],
            part: "sched_",
            silent: true,
            our_share: Some(0.1),
        },
    ];

    /// Those of Debian that watch block I/O.
    pub(crate) const BLOCK: &[Self] = &[Self {
        name: "biolatency",
        program: "biolatency",
        package: "libbpf-tools",
        arguments: &["-Q"],
        part: "block_",
        silent: false,
        our_share: Some(1.0 / 3.0),
    }];

    /// Our cost beside the tool's, where that could be measured.
    pub(crate) fn compared(&self, ours: f64, theirs: Option<f64>, unit: &'static str) -> Vec<Row> {
        let Some(theirs) = theirs else { return Vec::new() };
        let ratio = Row::new(format!("net, ours / {}", self.name), ours / theirs, "ratio");
        let ratio = match self.our_share {
            Some(share) => ratio.at_most(share),
            None => ratio,
        };
        vec![Row::new(format!("{}, net", self.name), theirs, unit), ratio]
    }

    /// Whether it is there and works on this kernel; says so when not.
    pub(crate) fn works(&self, stop: &Stop) -> bool {
        if shell::find(self.program).is_none() {
            missing(self.name, self.package);
            return false;
        }
        match self.start(stop) {
            Ok(_) => true,
            Err(error) => {
                eprintln!("{} does not work here, and is left out: {error:#}", self.name);
                false
            }
        }
    }

    /// Starts it and waits until it traces.
    pub(crate) fn start(&self, stop: &Stop) -> Result<Running> {
        let program = shell::find(self.program).context("the tool is gone")?;
        let folder = TempDir::with_prefix("holdfast-bench-").context("no temporary folder")?;
        let log = folder.path().join("log");
        // Both would keep their first line to themselves: Python, and the C library.
        let env = shell::find("env").context("no program env")?;
        let mut arguments: Vec<OsString> =
            ["PYTHONUNBUFFERED=1", "stdbuf", "-oL"].map(OsString::from).to_vec();
        arguments.push(program.into_os_string());
        for argument in self.arguments {
            arguments.push(match argument.strip_suffix(".bt") {
                Some(_) => without_headers(Path::new(argument), folder.path())?.into(),
                None => argument.into(),
            });
        }
        let mut process = Leashed::start(&env, arguments, &[], Some(&log))?;
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let start = BootTime::now();
        while !(said().contains("Tracing") || self.silent && holds_link(process.pid())) {
            let last = || said().lines().last().unwrap_or_default().to_owned();
            process.check().with_context(last)?;
            let waited = BootTime::now().since(start);
            ensure!(waited < START_LIMIT, "{} does not trace after {waited:?}", self.name);
            ensure!(!stop.wait(Duration::from_millis(50)), "stopped");
        }
        // It says so just before the last program is attached.
        ensure!(!stop.wait(Duration::from_secs(1)), "stopped");
        Ok(Running { _process: process, _folder: folder })
    }
}

/// The script of bpftrace takes one constant from kernel headers, which a host
/// that runs it rarely has.
fn without_headers(script: &Path, folder: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(script)
        .with_context(|| format!("cannot read {}", script.display()))?
        .replace("#include <linux/sched.h>", "")
        .replace("TASK_RUNNING", "0");
    let copy = folder.join("script.bt");
    fs::write(&copy, text).context("cannot write a script")?;
    Ok(copy)
}

/// Whether the process has attached an eBPF program.
fn holds_link(pid: u32) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| target.as_os_str() == "anon_inode:bpf_link")
}

/// A tool that traces; ended when dropped.
pub(crate) struct Running {
    _process: Leashed,
    _folder: TempDir,
}

/// sadc, sampling once a second into `file`; `None` when it is not installed.
pub(crate) fn start_sadc(file: &Path) -> Result<Option<Leashed>> {
    let places = ["/usr/lib/sysstat/sadc", "/usr/lib64/sa/sadc", "/usr/lib/sa/sadc"];
    let Some(program) = places.iter().map(PathBuf::from).find(|path| path.is_file()) else {
        missing("sadc", "sysstat");
        return Ok(None);
    };
    Leashed::start(&program, ["1".into(), file.into()], &[], None).map(Some)
}
