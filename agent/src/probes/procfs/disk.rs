//! Block devices from /proc/diskstats. Whole devices only: a partition's requests
//! are its device's too.
//!
//! This is where devices get their rows, for the eBPF block probe as well: the
//! kernel side is told the row of each device number.

use std::collections::HashMap;
use std::fs;
use std::io;

use super::rows::Rows;
use crate::catalogue::{
    DISK_BUSY, DISK_IN_FLIGHT, DISK_READ_BYTES, DISK_READS, DISK_WRITE_BYTES, DISK_WRITES, Owner,
    SignalId,
};
use crate::frame::Frame;
use crate::host::Root;
use crate::host::file::{Buffer, Source, number};
use crate::kernel::Kernel;
use crate::losses::{Cause, Losses};

/// Column after the device's name, factor to the signal's unit of measure, signal.
/// Sectors are 512 bytes whatever the device says.
const COLUMNS: [(usize, f64, SignalId); 6] = [
    (0, 1.0, DISK_READS),
    (2, 512.0, DISK_READ_BYTES),
    (4, 1.0, DISK_WRITES),
    (6, 512.0, DISK_WRITE_BYTES),
    (8, 1.0, DISK_IN_FLIGHT),
    (9, 1e6, DISK_BUSY),
];
/// Most devices without a row that are remembered.
const KNOWN: usize = 4096;

/// Why a device has no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rowless {
    Partition,
    /// No medium, never used: loop and RAM devices that nobody set up.
    Idle,
    /// No row was left.
    Overflow,
}

/// Devices without a row: why, and under which name. A number may be given to
/// another device, as those of NVMe partitions are.
type Rowlesses = HashMap<(u32, u32), (Rowless, Box<str>)>;

pub(super) struct Disk {
    root: Root,
    diskstats: Source,
    rows: Rows,
    rowless: Rowlesses,
    /// The devices that row 0 stood for at the last tick.
    others: Vec<(u32, u32)>,
    losses: Losses,
}

impl Disk {
    pub(super) fn new(root: &Root, losses: Losses) -> Self {
        Self {
            root: root.clone(),
            diskstats: Source::new(root.path("proc/diskstats")),
            rows: Rows::new(Owner::Device),
            rowless: HashMap::new(),
            others: Vec::new(),
            losses,
        }
    }

    pub(super) fn read(
        &mut self,
        buffer: &mut Buffer,
        kernel: Option<&Kernel>,
        frame: &mut Frame,
    ) -> io::Result<()> {
        let text = self.diskstats.read(buffer)?;
        let mut other = [0.0; COLUMNS.len()];
        let mut others = Vec::new();
        self.rows.begin(frame);
        for line in text.lines() {
            let Some(device) = Device::parse(line) else { continue };
            let row = match self.rows.find(device.name) {
                Some(row) => Some(row),
                None => match place(&self.root, &mut self.rowless, &device) {
                    Some(Rowless::Partition | Rowless::Idle) => continue,
                    Some(Rowless::Overflow) => None,
                    None => take(
                        &mut self.rows,
                        &mut self.rowless,
                        &device,
                        kernel,
                        &self.losses,
                        frame,
                    ),
                },
            };
            if row.is_none() {
                others.push(device.number);
            }
            for ((cell, value), (_, _, signal)) in other.iter_mut().zip(device.values).zip(COLUMNS)
            {
                match row {
                    Some(row) => frame.set(signal, row, value),
                    None => *cell += value,
                }
            }
        }
        if self.rows.end(frame) {
            // A row is free: whoever found none may try again.
            self.rowless.retain(|_, (reason, _)| *reason != Rowless::Overflow);
        }
        // One device more or less would look like all its requests in one second.
        let same = others == self.others;
        self.others = others;
        if same && !self.others.is_empty() {
            for (value, (_, _, signal)) in other.into_iter().zip(COLUMNS) {
                frame.set(signal, 0, value);
            }
        }
        Ok(())
    }
}

struct Device<'a> {
    number: (u32, u32),
    name: &'a str,
    values: [f64; COLUMNS.len()],
}

impl<'a> Device<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let number_of = |field: Option<&str>| field?.parse::<u32>().ok();
        let device = (number_of(fields.next())?, number_of(fields.next())?);
        let name = fields.next()?;
        let mut values = [f64::NAN; COLUMNS.len()];
        let mut next = 0;
        for (value, (column, factor, _)) in values.iter_mut().zip(COLUMNS) {
            *value = number(fields.nth(column - next)) * factor;
            next = column + 1;
        }
        Some(Self { number: device, name, values })
    }

    fn was_used(&self) -> bool {
        self.values.iter().any(|&value| value > 0.0)
    }
}

/// Why `device` gets no row; `None` when it shall have one.
fn place(root: &Root, rowless: &mut Rowlesses, device: &Device<'_>) -> Option<Rowless> {
    match rowless.get(&device.number) {
        Some((Rowless::Idle, name)) if **name == *device.name && device.was_used() => {
            rowless.remove(&device.number);
            return None;
        }
        Some((known, name)) if **name == *device.name => return Some(*known),
        Some(_) | None => {}
    }
    // "/" in a device's name is "!" in sysfs.
    let directory = root.path("sys/class/block").join(device.name.replace('/', "!"));
    let is_partition = directory.join("partition").exists();
    let has_size = fs::read_to_string(directory.join("size")).is_ok_and(|size| size.trim() != "0");
    let reason = if is_partition {
        Rowless::Partition
    } else if device.was_used() || has_size && !device.name.starts_with("ram") {
        return None;
    } else {
        Rowless::Idle
    };
    remember(rowless, device, reason);
    Some(reason)
}

fn take(
    rows: &mut Rows,
    rowless: &mut Rowlesses,
    device: &Device<'_>,
    kernel: Option<&Kernel>,
    losses: &Losses,
    frame: &mut Frame,
) -> Option<usize> {
    let Some(row) = rows.take(device.name, frame) else {
        losses.add(Cause::Devices, 1);
        remember(rowless, device, Rowless::Overflow);
        return None;
    };
    let (major, minor) = device.number;
    if let Some(kernel) = kernel
        && kernel.assign_device(major, minor, row).is_err()
    {
        losses.add(Cause::Devices, 1);
    }
    Some(row)
}

fn remember(rowless: &mut Rowlesses, device: &Device<'_>, reason: Rowless) {
    // Numbers are reused: after that many, look at all of them again.
    if rowless.len() >= KNOWN {
        rowless.clear();
    }
    rowless.insert(device.number, (reason, device.name.into()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Shape;

    struct Host {
        dir: tempfile::TempDir,
        disk: Disk,
        frame: Frame,
        losses: Losses,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let losses = Losses::default();
            let disk = Disk::new(&Root::new(dir.path()), losses.clone());
            let frame = Frame::new(Shape { units: 1, devices: 3, interfaces: 1 });
            Self { dir, disk, frame, losses }
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&mut self, diskstats: &str) {
            self.write("proc/diskstats", diskstats);
            self.disk.read(&mut Buffer::default(), None, &mut self.frame).unwrap();
        }

        fn name(&self, row: usize) -> &str {
            &self.frame.rows(Owner::Device)[row].name
        }
    }

    #[test]
    fn whole_devices_only_in_their_units() {
        let mut host = Host::new();
        host.write("sys/class/block/vda1/partition", "1\n");
        host.write("sys/class/block/loop0/size", "0\n");
        host.write("sys/class/block/vdb/size", "2048\n");
        host.read(
            "7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n254 0 vda 10 1 80 5 20 2 160 9 3 44 50 1 1 1 1\n\
             254 1 vda1 10 1 80 5 20 2 160 9 0 44 50\n254 16 vdb 0 0 0 0 0 0 0 0 0 0 0\n",
        );
        assert_eq!((host.name(1), host.name(2)), ("vda", "vdb"));
        for (signal, value) in [
            (DISK_READS, 10.0),
            (DISK_READ_BYTES, 40960.0),
            (DISK_WRITES, 20.0),
            (DISK_WRITE_BYTES, 81920.0),
            (DISK_IN_FLIGHT, 3.0),
            (DISK_BUSY, 44e6),
        ] {
            assert_eq!(host.frame.get(signal, 1), value, "{}", signal.signal().name);
        }
        // The loop device wakes up when all rows are taken: it counts as "other".
        host.read("7 0 loop0 5 0 8 0 0 0 0 0 0 0 0\n254 0 vda 10 1 80\n254 16 vdb 0\n");
        assert_eq!(host.losses.total(), 1);
        assert!(host.frame.get(DISK_READS, 0).is_nan(), "no sum of others to compare with yet");
        host.read("7 0 loop0 6 0 8 0 0 0 0 0 0 0 0\n254 0 vda 10 1 80\n254 16 vdb 0\n");
        assert_eq!((host.frame.get(DISK_READS, 0), host.losses.total()), (6.0, 1));
        assert!(host.frame.get(DISK_WRITES, 1).is_nan(), "a line cut short");
    }

    #[test]
    fn odd_text_leaves_signals_unread() {
        let mut host = Host::new();
        host.read("");
        host.read(
            "254\nx y z\n254 0\n99999999999 0 vdx 1\n254 0 vda x -1 99999999999999999999999\n",
        );
        assert!(host.name(1).is_empty(), "nothing readable, so idle");
    }

    #[test]
    fn a_device_that_comes_back_begins_anew() {
        let mut host = Host::new();
        host.read(
            "8 0 sda 900 0 8 0 0 0 0 0 0 0 0\n8 16 sdb 1 0 8 0 0 0 0 0 0 0 0\n8 32 sdc 70 0 8 0\n",
        );
        let before = host.frame.rows(Owner::Device)[1].generation;
        assert_eq!((host.name(1), host.name(2), host.losses.total()), ("sda", "sdb", 1));
        host.read("8 16 sdb 1 0 8 0 0 0 0 0 0 0 0\n8 32 sdc 71 0 8 0\n");
        assert!(!host.frame.rows(Owner::Device)[1].live);
        // The row is free, and sdc had found none.
        host.read("8 16 sdb 1 0 8 0 0 0 0 0 0 0 0\n8 32 sdc 72 0 8 0\n");
        assert_eq!((host.name(1), host.frame.get(DISK_READS, 1)), ("sdc", 72.0));
        host.read("8 16 sdb 1 0 8 0 0 0 0 0 0 0 0\n");
        host.read("8 0 sda 2 0 8 0 0 0 0 0 0 0 0\n8 16 sdb 1 0 8 0 0 0 0 0 0 0 0\n");
        let row = &host.frame.rows(Owner::Device)[1];
        assert_eq!((&*row.name, row.generation), ("sda", before + 2));
    }

    #[test]
    fn a_number_that_is_given_to_another_device_is_looked_at_again() {
        let mut host = Host::new();
        host.write("sys/class/block/nvme0n1p1/partition", "1\n");
        host.read("259 1 nvme0n1p1 5 0 8 0 0 0 0 0 0 0 0\n");
        assert_eq!(host.name(1), "");
        host.read("259 1 nvme1n1 5 0 8 0 0 0 0 0 0 0 0\n");
        assert_eq!(host.name(1), "nvme1n1");
    }
}
