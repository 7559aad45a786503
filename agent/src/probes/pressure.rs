//! Pressure stall information (PSI) of the host, from /proc/pressure. A kernel may
//! have it compiled in and switched off; then the probe says how to switch it on.

use std::io;

use nix::errno::Errno;

use super::{Context, Probe};
use crate::catalogue::{
    HOST_CPU_SOME, HOST_IO_FULL, HOST_IO_SOME, HOST_MEMORY_FULL, HOST_MEMORY_SOME, SignalId,
};
use crate::frame::Frame;
use crate::host::file::{Buffer, Source, number};
use crate::kernel::Kernel;

const NS_PER_US: f64 = 1e3;

/// Total stall times in nanoseconds, "some" and "full"; `NaN` where there is none.
pub(super) fn totals(text: &str) -> (f64, f64) {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind));
        number(line.and_then(|line| line.rsplit_once("total=")).map(|(_, total)| total)) * NS_PER_US
    };
    (total("some "), total("full "))
}

struct Pressure {
    buffer: Buffer,
    sources: [(Source, SignalId, Option<SignalId>); 3],
}

pub(super) fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let source = |name: &str| Source::new(context.root.path("proc/pressure").join(name));
    let mut probe = Pressure {
        buffer: Buffer::default(),
        sources: [
            (source("cpu"), HOST_CPU_SOME, None),
            (source("memory"), HOST_MEMORY_SOME, Some(HOST_MEMORY_FULL)),
            (source("io"), HOST_IO_SOME, Some(HOST_IO_FULL)),
        ],
    };
    let [(cpu, ..), ..] = &mut probe.sources;
    match cpu.read(&mut probe.buffer) {
        Ok(_) => Ok(Box::new(probe)),
        Err(error) => Err(reason(&error)),
    }
}

fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "this kernel has no pressure stall information; it needs one built with CONFIG_PSI"
            .to_owned()
    } else if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) {
        "pressure stall information is compiled in but off; boot with psi=1 to switch it on"
            .to_owned()
    } else {
        format!("pressure stall information cannot be read: {error}")
    }
}

impl Probe for Pressure {
    fn read(&mut self, _: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        let mut failure = None;
        let mut read_any = false;
        for (source, some_signal, full_signal) in &mut self.sources {
            match source.read(&mut self.buffer) {
                Ok(text) => {
                    let (some, full) = totals(text);
                    frame.set(*some_signal, 0, some);
                    if let Some(signal) = *full_signal {
                        frame.set(signal, 0, full);
                    }
                    read_any = true;
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if !read_any => Err(reason(&error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::frame::Shape;
    use crate::host::Root;
    use crate::losses::Losses;

    #[test]
    fn totals_of_good_and_odd_text() {
        let text = "some avg10=0.59 avg60=0.89 avg300=1.23 total=123\nfull avg10=0.00 avg60=0 avg300=0 total=4\n";
        assert_eq!(totals(text), (123e3, 4e3));
        for odd in ["", "some", "some total=", "some total=-1", "full avg10=0"] {
            let (some, full) = totals(odd);
            assert!(some.is_nan() && full.is_nan(), "{odd:?}");
        }
        assert_eq!(totals("some avg10=0 total=7").0, 7e3);
    }

    #[test]
    fn a_kernel_without_it_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (root, losses) = (Root::new(dir.path()), Losses::default());
        let context = Context { root: &root, kernel: Err("-"), members: Err("-"), losses: &losses };
        assert!(open(&context).is_err_and(|reason| reason.contains("CONFIG_PSI")));
        assert!(reason(&Errno::EOPNOTSUPP.into()).contains("psi=1"));

        fs::create_dir_all(dir.path().join("proc/pressure")).unwrap();
        fs::write(dir.path().join("proc/pressure/cpu"), "some total=5\n").unwrap();
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 1 });
        let mut probe = open(&context).ok().unwrap();
        probe.read(None, &mut frame).unwrap();
        assert_eq!(frame.get(HOST_CPU_SOME, 0), 5e3);
        assert!(frame.get(HOST_IO_SOME, 0).is_nan());
    }
}
