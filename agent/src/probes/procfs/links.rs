//! Whether each interface has a link, from /sys/class/net.

use std::time::Duration;

use holdfast_core::clock::BootTime;

use crate::catalogue::{NETWORK_CARRIER, NETWORK_CARRIER_CHANGES, Owner};
use crate::frame::Frame;
use crate::host::Root;
use crate::host::file::{Buffer, Source, number};

/// Time from one reading to the next: two files of each interface, and a link that
/// was gone for a shorter time still shows in the number of its changes.
const INTERVAL: Duration = Duration::from_secs(5);

/// The files of a row's interface and what they last said.
#[derive(Debug)]
struct Link {
    generation: u32,
    carrier: Source,
    changes: Source,
    /// Carrier and changes; `NaN` where there is nothing to be had.
    told: (f64, f64),
}

#[derive(Debug)]
pub(super) struct Links {
    root: Root,
    rows: Vec<Option<Link>>,
    due: BootTime,
}

impl Links {
    pub(super) fn new(root: &Root) -> Self {
        Self { root: root.clone(), rows: Vec::new(), due: BootTime::default() }
    }

    /// Reads the links of all interfaces that have a row, when it is time; tells what
    /// is known of them in any case.
    pub(super) fn read(&mut self, buffer: &mut Buffer, frame: &mut Frame) {
        let due = frame.at >= self.due;
        if due {
            self.due = BootTime::new(frame.at.since_boot() + INTERVAL);
        }
        self.rows.resize_with(frame.rows(Owner::Interface).len(), || None);
        // Row 0 is no interface.
        for (row, link) in self.rows.iter_mut().enumerate().skip(1) {
            let Some(entry) = frame.rows(Owner::Interface).get(row).filter(|entry| entry.live)
            else {
                *link = None;
                continue;
            };
            let is_new = link.as_ref().is_none_or(|link| link.generation != entry.generation);
            if is_new {
                // The kernel's names of interfaces have no slash.
                let folder = self.root.path("sys/class/net").join(&*entry.name);
                *link = Some(Link {
                    generation: entry.generation,
                    carrier: Source::new(folder.join("carrier")),
                    changes: Source::new(folder.join("carrier_changes")),
                    told: (f64::NAN, f64::NAN),
                });
            }
            let Some(link) = link else { continue };
            if due || is_new {
                // The carrier of an interface that is switched off is an error to read.
                link.told = (value(&mut link.carrier, buffer), value(&mut link.changes, buffer));
            }
            frame.set(NETWORK_CARRIER, row, link.told.0);
            frame.set(NETWORK_CARRIER_CHANGES, row, link.told.1);
        }
    }
}

fn value(source: &mut Source, buffer: &mut Buffer) -> f64 {
    source.read(buffer).map_or(f64::NAN, |text| number(Some(text.trim())))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::frame::Shape;

    #[test]
    fn a_link_is_followed_and_a_switched_off_interface_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("sys/class/net/eth0");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("carrier_changes"), "3\n").unwrap();
        let mut frame = Frame::new(Shape { units: 1, devices: 1, interfaces: 3 });
        frame.assign(Owner::Interface, 1, "eth0".into());
        let (mut links, mut buffer) = (Links::new(&Root::new(dir.path())), Buffer::default());
        let mut read = |second| {
            frame.begin(BootTime::new(Duration::from_secs(second)));
            links.read(&mut buffer, &mut frame);
            (frame.get(NETWORK_CARRIER, 1), frame.get(NETWORK_CARRIER_CHANGES, 1))
        };
        let (carrier, changes) = read(10);
        assert!(carrier.is_nan() && changes == 3.0);
        fs::write(folder.join("carrier"), "1\n").unwrap();
        fs::write(folder.join("carrier_changes"), "4\n").unwrap();
        assert_eq!(read(14).1, 3.0, "not yet time to look again");
        assert_eq!(read(15), (1.0, 4.0));
    }
}
