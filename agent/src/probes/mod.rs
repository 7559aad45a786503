//! Probes: everything that yields signals.
//!
//! A probe reads its source once a tick and writes what it read into the frame.
//! It is one file and one row of [`PROBES`]. Level 0 probes read files and always
//! work; level 2 probes read what eBPF programs counted ([`crate::kernel`]).

use crate::frame::Frame;
use crate::host::Root;
use crate::kernel::Kernel;

/// What a probe needs to open its source.
pub struct Context<'a> {
    /// Where the host's /proc, /sys and cgroups are.
    pub root: &'a Root,
    /// The loaded eBPF programs; `None` when eBPF cannot be used here, with the reason.
    pub kernel: Result<&'a Kernel, &'a str>,
}

/// An opened source of signals.
pub trait Probe {
    /// Reads the source and writes into `frame`. Signals that cannot be read
    /// stay `NaN`.
    ///
    /// # Errors
    ///
    /// When nothing at all could be read: one plain sentence, shown as the
    /// probe's reason until a later read works.
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String>;

    /// What is missing although the probe works; `None` when nothing is.
    fn degraded(&self) -> Option<&str> {
        None
    }
}

/// One row of the probe table.
pub struct Spec {
    /// Name, as in `catalogue::Signal::probe`.
    pub name: &'static str,
    /// What it watches, in one sentence.
    pub doc: &'static str,
    /// 0: files only. 2: eBPF with kernel BTF.
    pub level: u8,
    /// eBPF programs it reads, by program name; empty at level 0.
    pub programs: &'static [&'static str],
    /// Opens the source; the error is one plain sentence that says why it cannot
    /// be had and, where there is a way, how to get it.
    pub open: fn(&Context<'_>) -> Result<Box<dyn Probe>, String>,
}
