//! The probe "self": what the agent costs and what it had to drop.

use nix::unistd::{SysconfVar, sysconf};

use holdfast_core::clock;

use super::{Context, Probe};
use crate::catalogue::{AGENT_CPU, AGENT_LOSSES, AGENT_MAPS, AGENT_RSS};
use crate::frame::Frame;
use crate::host::file::{Buffer, Source, number};
use crate::kernel::Kernel;
use crate::losses::Losses;

struct Own {
    buffer: Buffer,
    statm: Source,
    page_bytes: f64,
    losses: Losses,
}

pub(super) fn open(context: &Context<'_>) -> Result<Box<dyn Probe>, String> {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().filter(|&n| n > 0).unwrap_or(4096);
    Ok(Box::new(Own {
        buffer: Buffer::default(),
        statm: Source::new(context.root.path("proc/self/statm")),
        page_bytes: page as f64,
        losses: context.losses.clone(),
    }))
}

impl Probe for Own {
    fn read(&mut self, kernel: Option<&Kernel>, frame: &mut Frame) -> Result<(), String> {
        frame.set(AGENT_CPU, 0, clock::process_cpu().as_nanos() as f64);
        frame.set(AGENT_MAPS, 0, kernel.map_or(0, Kernel::map_bytes) as f64);
        frame.set(AGENT_LOSSES, 0, self.losses.total() as f64);
        if let Ok(statm) = self.statm.read(&mut self.buffer) {
            frame.set(
                AGENT_RSS,
                0,
                number(statm.split_ascii_whitespace().nth(1)) * self.page_bytes,
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;
    use crate::host::Root;
    use crate::losses::Cause;

    #[test]
    fn it_sees_itself() {
        let (root, losses) = (Root::default(), Losses::default());
        losses.add(Cause::Events, 3);
        let context = Context { root: &root, kernel: Err("-"), members: Err("-"), losses: &losses };
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 1 });
        open(&context).ok().unwrap().read(None, &mut frame).unwrap();
        assert!(frame.get(AGENT_CPU, 0) > 0.0 && frame.get(AGENT_RSS, 0) > 4096.0);
        assert_eq!((frame.get(AGENT_LOSSES, 0), frame.get(AGENT_MAPS, 0)), (3.0, 0.0));
    }
}
