//! How many events of each probe there are now, from what files tell: known whether
//! its programs are attached or not, and over whole seconds.

use super::Plan;
use crate::catalogue::SignalId;
use crate::frame::Frame;

/// Events per second between two frames; `None` where files do not tell.
#[must_use]
pub fn rate(plan: &Plan, previous: &Frame, current: &Frame) -> Option<f64> {
    let seconds = current.at.since(previous.at).as_secs_f64();
    if plan.events.is_empty() || seconds <= 0.0 {
        return None;
    }
    let mut sum = None;
    for gained in plan.events.iter().filter_map(|id| gained(*id, previous, current)) {
        sum = Some(sum.unwrap_or(0.0) + gained);
    }
    sum.map(|sum| sum / seconds)
}

/// What a counter gained, over all rows of its owner that were there before; `None`
/// when it was read in none.
fn gained(id: SignalId, previous: &Frame, current: &Frame) -> Option<f64> {
    let owner = id.signal().owner;
    let rows = previous.rows(owner).iter().zip(current.rows(owner)).enumerate();
    let mut sum = None;
    for (row, _) in rows.filter(|(_, (was, is))| is.live && was.generation == is.generation) {
        let difference = current.get(id, row) - previous.get(id, row);
        // Not a number: not read. Negative: the counter began again.
        if difference >= 0.0 {
            sum = Some(sum.unwrap_or(0.0) + difference);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_core::clock::BootTime;

    use super::*;
    use crate::catalogue::{DISK_READS, DISK_WRITES, Owner, PROC_SWITCHES};
    use crate::frame::Shape;
    use crate::governor::plan;

    #[test]
    fn rates_of_the_host_and_of_all_devices() {
        let frame = |second: u64, switches: f64, reads: [f64; 2]| {
            let mut frame = Frame::new(Shape { units: 1, devices: 3, interfaces: 1 });
            frame.at = BootTime::new(Duration::from_secs(second));
            frame.set(PROC_SWITCHES, 0, switches);
            for (row, reads) in (1..).zip(reads) {
                frame.assign(Owner::Device, row, "disk".into());
                frame.set(DISK_READS, row, reads);
                frame.set(DISK_WRITES, row, 10.0);
            }
            frame
        };
        let (before, after) = (frame(10, 100.0, [5.0, 50.0]), frame(12, 300.0, [9.0, 58.0]));
        assert_eq!(rate(&plan("sched"), &before, &after), Some(100.0));
        assert_eq!(rate(&plan("block"), &before, &after), Some(6.0));
        assert_eq!(rate(&plan("tcp"), &before, &after), None, "files do not tell");
        assert_eq!(rate(&plan("sched"), &after, &after), None, "no time has passed");

        let unread = frame(14, f64::NAN, [1.0, 60.0]);
        assert_eq!(rate(&plan("sched"), &after, &unread), None);
        assert_eq!(rate(&plan("block"), &after, &unread), Some(1.0), "one began again");
        let mut other = frame(14, 0.0, [9.0, 60.0]);
        other.assign(Owner::Device, 2, "another".into());
        other.set(DISK_READS, 2, 1e9);
        assert_eq!(rate(&plan("block"), &after, &other), Some(0.0), "another disk's count");
    }
}
