//! The host from /proc: level 0, works without any privilege.
//!
//! One file for each subject; a subject that cannot be read degrades the probe
//! and nothing else.

mod cpu;
mod disk;
mod links;
mod memory;
mod network;
mod rows;
mod tcp;

use std::io;

use super::{Context, Probe};
use crate::frame::Frame;
use crate::host::file::Buffer;
use crate::kernel::Kernel;

/// Names of the parts, for the sentence about what is missing.
const PARTS: [&str; 4] = ["CPU", "memory", "disk", "network"];

struct Procfs {
    buffer: Buffer,
    cpu: cpu::Cpu,
    memory: memory::Memory,
    disk: disk::Disk,
    network: network::Network,
    failed: [bool; PARTS.len()],
    degraded: Option<String>,
}

pub(super) fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    Ok(Box::new(Procfs {
        buffer: Buffer::default(),
        cpu: cpu::Cpu::new(context.root),
        memory: memory::Memory::new(context.root),
        disk: disk::Disk::new(context.root, context.losses.clone()),
        network: network::Network::new(context.root),
        failed: [false; PARTS.len()],
        degraded: None,
    }))
}

impl Probe for Procfs {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let results = [
            self.cpu.read(&mut self.buffer, frame),
            self.memory.read(&mut self.buffer, frame),
            self.disk.read(&mut self.buffer, kernel, frame),
            self.network.read(&mut self.buffer, frame),
        ];
        let failed = results.each_ref().map(Result::is_err);
        if failed != self.failed {
            self.failed = failed;
            self.degraded = sentence(&results);
        }
        match &self.degraded {
            Some(reason) if failed.iter().all(|&failed| failed) => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }
}

fn sentence(results: &[io::Result<()>; PARTS.len()]) -> Option<String> {
    let missing: Vec<String> = PARTS
        .iter()
        .zip(results)
        .filter_map(|(part, result)| result.as_ref().err().map(|error| format!("{part} ({error})")))
        .collect();
    (!missing.is_empty())
        .then(|| format!("/proc does not tell everything about {}", missing.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::catalogue::{CPU_LOAD, CPU_USER, MEMORY_TOTAL};
    use crate::frame::Shape;
    use crate::host::Root;
    use crate::losses::Losses;

    fn probe(root: &Root) -> Box<dyn Probe> {
        let (losses, none) = (Losses::default(), "not in this test");
        open(&Context { root, kernel: Err(none), members: Err(none), losses: &losses }).unwrap()
    }

    #[test]
    fn what_is_missing_is_said_and_the_rest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        let root = Root::new(dir.path());
        let mut probe = probe(&root);
        let mut frame = Frame::new(Shape { units: 1, devices: 2, interfaces: 2 });
        assert!(probe.read(None, &mut frame).unwrap_err().contains("CPU"));

        fs::write(dir.path().join("proc/stat"), "cpu  1 2 3\n").unwrap();
        fs::write(dir.path().join("proc/loadavg"), "0.25 0.1 0.1 1/99 123\n").unwrap();
        probe.read(None, &mut frame).unwrap();
        assert_eq!(frame.get(CPU_LOAD, 0), 0.25);
        assert!(frame.get(CPU_USER, 0) > 0.0 && frame.get(MEMORY_TOTAL, 0).is_nan());
        let reason = probe.degraded().unwrap();
        assert!(
            !reason.contains("CPU") && reason.contains("memory (") && reason.contains("disk ("),
            "{reason}"
        );
    }
}
