//! CPU time, load and task counts from /proc/stat and /proc/loadavg.

use std::io;

use nix::unistd::{SysconfVar, sysconf};

use crate::catalogue::{
    CPU_BLOCKED, CPU_IDLE, CPU_IOWAIT, CPU_IRQ, CPU_LOAD, CPU_RUNNABLE, CPU_STEAL, CPU_SYSTEM,
    CPU_USER, PROC_FORKS, PROC_SWITCHES,
};
use crate::frame::Frame;
use crate::host::Root;
use crate::host::file::{Buffer, Source, number};

pub(super) struct Cpu {
    stat: Source,
    loadavg: Source,
    ns_per_tick: f64,
}

impl Cpu {
    pub(super) fn new(root: &Root) -> Self {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().filter(|&n| n > 0).unwrap_or(100);
        Self {
            stat: Source::new(root.path("proc/stat")),
            loadavg: Source::new(root.path("proc/loadavg")),
            ns_per_tick: 1e9 / ticks as f64,
        }
    }

    pub(super) fn read(&mut self, buffer: &mut Buffer, frame: &mut Frame) -> io::Result<()> {
        stat(self.stat.read(buffer)?, self.ns_per_tick, frame);
        let load = self.loadavg.read(buffer)?.split_ascii_whitespace().next();
        let load = load.and_then(|text| text.parse::<f64>().ok()).filter(|load| load.is_finite());
        frame.set(CPU_LOAD, 0, load.unwrap_or(f64::NAN));
        Ok(())
    }
}

fn stat(text: &str, ns_per_tick: f64, frame: &mut Frame) {
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let signal = match fields.next() {
            Some("cpu") => {
                // user nice system idle iowait irq softirq steal; guest time is part of user.
                let mut ticks = [f64::NAN; 8];
                for cell in &mut ticks {
                    *cell = number(fields.next()) * ns_per_tick;
                }
                let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks;
                frame.set(CPU_USER, 0, user + nice);
                frame.set(CPU_SYSTEM, 0, system);
                frame.set(CPU_IDLE, 0, idle);
                frame.set(CPU_IOWAIT, 0, iowait);
                frame.set(CPU_IRQ, 0, irq + softirq);
                frame.set(CPU_STEAL, 0, steal);
                continue;
            }
            Some("ctxt") => PROC_SWITCHES,
            Some("processes") => PROC_FORKS,
            Some("procs_running") => CPU_RUNNABLE,
            Some("procs_blocked") => CPU_BLOCKED,
            _ => continue,
        };
        frame.set(signal, 0, number(fields.next()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    fn frame_of(text: &str) -> Frame {
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 1 });
        stat(text, 1e7, &mut frame);
        frame
    }

    #[test]
    fn a_kernel_of_today() {
        let frame = frame_of(
            "cpu  10 5 20 1000 30 1 2 4 3 0\ncpu0 10 5 20 1000 30 1 2 4 3 0\nintr 5 1 2\nctxt 77\nbtime 1\n\
             processes 8\nprocs_running 2\nprocs_blocked 1\nsoftirq 1 2\n",
        );
        for (signal, value) in [
            (CPU_USER, 15e7),
            (CPU_SYSTEM, 20e7),
            (CPU_IDLE, 1000e7),
            (CPU_IOWAIT, 30e7),
            (CPU_IRQ, 3e7),
            (CPU_STEAL, 4e7),
            (PROC_SWITCHES, 77.0),
            (PROC_FORKS, 8.0),
            (CPU_RUNNABLE, 2.0),
            (CPU_BLOCKED, 1.0),
        ] {
            assert_eq!(frame.get(signal, 0), value, "{}", signal.signal().name);
        }
    }

    #[test]
    fn odd_text_leaves_signals_unread() {
        for text in
            ["", "cpu", "cpu  x y", "cpu  99999999999999999999999 1 1", "ctxt\nprocesses -1"]
        {
            let frame = frame_of(text);
            for signal in [CPU_USER, CPU_STEAL, PROC_SWITCHES, PROC_FORKS] {
                assert!(frame.get(signal, 0).is_nan(), "{text:?}");
            }
        }
    }

    #[test]
    fn thousands_of_cpus_fit_the_buffer() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        let n = u64::MAX / 4096;
        let mut text = format!("cpu  {n} {n} {n} {n} {n} {n} {n} {n} {n} {n}\n");
        for cpu in 0..4096 {
            text += &format!("cpu{cpu} 999999999 99 999999999 9999999999 9 0 9999999 9 0 0\n");
        }
        text += &format!("intr 5{}\nctxt 77\nprocesses 8\n", " 0".repeat(70_000));
        std::fs::write(dir.path().join("proc/stat"), text).unwrap();
        std::fs::write(dir.path().join("proc/loadavg"), "4096.5 1 1 4096/99999 1\n").unwrap();
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 1 });
        Cpu::new(&Root::new(dir.path())).read(&mut Buffer::default(), &mut frame).unwrap();
        assert_eq!((frame.get(PROC_SWITCHES, 0), frame.get(CPU_LOAD, 0)), (77.0, 4096.5));
        assert!(frame.get(CPU_USER, 0).is_finite() && frame.get(CPU_IDLE, 0) > 0.0);
    }
}
