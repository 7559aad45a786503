//! Memory of the host from /proc/meminfo and /proc/vmstat.

use std::io;

use nix::unistd::{SysconfVar, sysconf};

use crate::catalogue::{
    MEMORY_ANON, MEMORY_AVAILABLE, MEMORY_CACHED, MEMORY_DIRTY, MEMORY_FAULTS, MEMORY_FREE,
    MEMORY_MAJOR_FAULTS, MEMORY_SWAP_IN, MEMORY_SWAP_OUT, MEMORY_SWAP_USED, MEMORY_TOTAL,
};
use crate::frame::Frame;
use crate::host::Root;
use crate::host::file::{Buffer, Source, number};

pub(super) struct Memory {
    meminfo: Source,
    vmstat: Source,
    page_bytes: f64,
}

impl Memory {
    pub(super) fn new(root: &Root) -> Self {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().filter(|&n| n > 0).unwrap_or(4096);
        Self {
            meminfo: Source::new(root.path("proc/meminfo")),
            vmstat: Source::new(root.path("proc/vmstat")),
            page_bytes: page as f64,
        }
    }

    pub(super) fn read(&mut self, buffer: &mut Buffer, frame: &mut Frame) -> io::Result<()> {
        meminfo(self.meminfo.read(buffer)?, frame);
        vmstat(self.vmstat.read(buffer)?, self.page_bytes, frame);
        Ok(())
    }
}

fn meminfo(text: &str, frame: &mut Frame) {
    let (mut swap_total, mut swap_free) = (f64::NAN, f64::NAN);
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let bytes = || number(rest.split_ascii_whitespace().next()) * 1024.0;
        let signal = match name {
            "MemTotal" => MEMORY_TOTAL,
            "MemAvailable" => MEMORY_AVAILABLE,
            "MemFree" => MEMORY_FREE,
            "Cached" => MEMORY_CACHED,
            "Dirty" => MEMORY_DIRTY,
            "AnonPages" => MEMORY_ANON,
            "SwapTotal" => {
                swap_total = bytes();
                continue;
            }
            "SwapFree" => {
                swap_free = bytes();
                continue;
            }
            _ => continue,
        };
        frame.set(signal, 0, bytes());
    }
    frame.set(MEMORY_SWAP_USED, 0, swap_total - swap_free);
}

fn vmstat(text: &str, page_bytes: f64, frame: &mut Frame) {
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else { continue };
        let (signal, unit) = match name {
            "pgfault" => (MEMORY_FAULTS, 1.0),
            "pgmajfault" => (MEMORY_MAJOR_FAULTS, 1.0),
            "pswpin" => (MEMORY_SWAP_IN, page_bytes),
            "pswpout" => (MEMORY_SWAP_OUT, page_bytes),
            _ => continue,
        };
        frame.set(signal, 0, number(Some(value)) * unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    fn frame() -> Frame {
        Frame::new(Shape { units: 1, devices: 1, interfaces: 1 })
    }

    #[test]
    fn amounts_become_bytes() {
        let mut frame = frame();
        meminfo(
            "MemTotal:  4 kB\nMemFree: 1 kB\nSwapTotal: 9 kB\nSwapFree: 7 kB\nCached: 3 kB\n",
            &mut frame,
        );
        vmstat(
            "nr_free_pages 1\npgfault 12\npgmajfault 3\npswpin 2\npswpout 0\n",
            4096.0,
            &mut frame,
        );
        for (signal, value) in [
            (MEMORY_TOTAL, 4096.0),
            (MEMORY_FREE, 1024.0),
            (MEMORY_SWAP_USED, 2048.0),
            (MEMORY_CACHED, 3072.0),
            (MEMORY_FAULTS, 12.0),
            (MEMORY_MAJOR_FAULTS, 3.0),
            (MEMORY_SWAP_IN, 8192.0),
            (MEMORY_SWAP_OUT, 0.0),
        ] {
            assert_eq!(frame.get(signal, 0), value, "{}", signal.signal().name);
        }
        assert!(frame.get(MEMORY_AVAILABLE, 0).is_nan(), "an old kernel has none");
    }

    #[test]
    fn odd_text_leaves_signals_unread() {
        let mut frame = frame();
        for text in ["", ":", "MemTotal", "MemTotal: kB", "MemTotal: -4 kB", "SwapTotal: 1 kB"] {
            meminfo(text, &mut frame);
            vmstat(text, 4096.0, &mut frame);
        }
        vmstat("pgfault", 4096.0, &mut frame);
        vmstat("pgfault 1 2", 4096.0, &mut frame);
        for signal in [MEMORY_TOTAL, MEMORY_SWAP_USED, MEMORY_FAULTS] {
            assert!(frame.get(signal, 0).is_nan());
        }
    }
}
