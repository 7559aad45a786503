//! Writes of a known number, past the page cache.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use holdfast_agent::catalogue::{
    DISK_ERRORS, DISK_FLUSH_LATENCY, DISK_READ_LATENCY, DISK_WRITE_LATENCY, DISK_WRITE_QUEUE,
    DISK_WRITE_SERVICE, DISK_WRITE_SIZE, UNIT_DISK_ERRORS, UNIT_IN_FLIGHT, UNIT_WRITE_LATENCY,
    UNIT_WRITE_REQUESTED,
};
use holdfast_agent::kernel::cells::load;
use holdfast_core::clock::BootTime;
use holdfast_tests::{Unit, need};
use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use crate::rig::{ROW, Rig, SLOT};

const WRITES: u64 = 1_000;
const BLOCK: usize = 4096;
const FILE_BLOCKS: u64 = 256;
/// Seen a few times in a million completions, on a loaded host: the tracer sees one
/// that two independently loaded programs both do not, without the kernel counting
/// it as skipped. The cause is not known.
const UNDELIVERED: u64 = 1;
/// Writes under way while the two counts are read.
const QUIET: u64 = 20;
const ATTEMPTS: u32 = 8;

#[test]
fn writes_of_a_loop_device_are_counted_exactly() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let Some(device) = Loop::attach(&filled(folder.path())?)? else {
        need::skip("needs loop devices");
        return Ok(());
    };
    let number = device.number()?;
    rig.watch_device(&number)?;
    rig.tick()?;
    let skipped = rig.lost("ebpf.program_skipped");
    let start = Disk::now(&rig, &number)?;
    let spent = write(&device.0)?;
    rig.tick()?;
    let own = Disk::now(&rig, &number)?.since(&start);
    let skipped = rig.lost("ebpf.program_skipped") - skipped;

    // Nobody else uses the device, so there is no background.
    ensure!(own.kernel_bytes == WRITES * BLOCK as u64, "{} bytes, by the kernel", own.kernel_bytes);
    let (counted, least) = (own.writes, WRITES - UNDELIVERED - skipped);
    ensure!((least..=WRITES).contains(&counted), "{counted} writes, {skipped} skipped");
    ensure!(own.bytes == counted * BLOCK as u64, "{} bytes", own.bytes);
    // The device's own worker has to be woken for each request, so the writer waits
    // for more than the device.
    let (took, most) = (own.ns as f64, spent.at_most);
    ensure!((0.3 * most..=most).contains(&took), "{took} ns, the writer says {most}");
    ensure!(rig.value(DISK_ERRORS, ROW) == 0.0, "{} errors", rig.value(DISK_ERRORS, ROW));
    ensure!(rig.lost("ebpf.request_unstamped") == 0, "requests without a stamp");

    // One read, to see that it is told from a write.
    let mut page = Page::new();
    open(&device.0, OFlag::O_DIRECT)?.read_exact_at(page.bytes(), 0)?;
    rig.tick()?;
    let reads = rig.histogram(DISK_READ_LATENCY, ROW).total();
    ensure!(reads >= 1, "no read was counted");
    Ok(())
}

#[test]
fn a_units_writes_are_its_own_and_queue_and_service_add_up() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let Some(device) = Loop::attach(&filled(folder.path())?)? else {
        need::skip("needs loop devices");
        return Ok(());
    };
    rig.watch_device(&device.number()?)?;
    let unit = Unit::create("writes")?;
    rig.watch_unit(&unit)?;
    rig.tick()?;
    // Ours, and of nobody's unit.
    write(&device.0)?;
    rig.tick()?;
    let others = rig.histogram(DISK_WRITE_LATENCY, ROW);
    ensure!(rig.histogram(UNIT_WRITE_LATENCY, SLOT).total() == 0, "charged to a bystander");

    let status = unit.run(&format!(
        "dd if=/dev/zero of={} bs=4096 count=256 oflag=direct,dsync conv=notrunc 2>&1",
        device.0.display()
    ))?;
    ensure!(status.success(), "{status}");
    rig.tick()?;
    let (all, mine) =
        (rig.histogram(DISK_WRITE_LATENCY, ROW), rig.histogram(UNIT_WRITE_LATENCY, SLOT));
    let (count, sum) = (all.total() - others.total(), all.sum - others.sum);
    ensure!(mine.total() == count && mine.sum == sum, "{} of {count} writes", mine.total());
    ensure!((FILE_BLOCKS - UNDELIVERED..=FILE_BLOCKS).contains(&count), "{count} writes");
    let bytes = rig.value(UNIT_WRITE_REQUESTED, SLOT);
    ensure!(bytes == (count * BLOCK as u64) as f64, "{bytes} bytes");
    ensure!(rig.value(UNIT_DISK_ERRORS, SLOT) == 0.0, "errors");

    // Every write has both parts, and nothing is between them.
    let (queue, service) =
        (rig.histogram(DISK_WRITE_QUEUE, ROW), rig.histogram(DISK_WRITE_SERVICE, ROW));
    ensure!(queue.total() == all.total() && service.total() == all.total(), "a part is missing");
    ensure!(queue.sum + service.sum == all.sum, "{} + {}", queue.sum, service.sum);
    ensure!(queue.sum > 0 && service.sum > queue.sum, "{} in the queue", queue.sum);

    // What the unit had in flight: its bytes for as long as the device had them.
    let cell = rig.kernel.unit_block(ROW, SLOT).context("no cell")?;
    ensure!(load(&cell.requests) == count && load(&cell.wait_ns) == sum, "not the device's");
    let in_flight = rig.value(UNIT_IN_FLIGHT, SLOT);
    let most = BLOCK as f64 * sum as f64 / 1e9;
    ensure!((0.2 * most..=most).contains(&in_flight), "{in_flight} of {most} byte seconds");
    ensure!(rig.lost("ebpf.request_stamp_overwritten") == 0, "a stamp was lost");
    Ok(())
}

#[test]
fn a_device_that_is_taken_away_under_load_leaves_nothing_behind() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = filled(folder.path())?;
    let unit = Unit::create("unplug")?;
    rig.watch_unit(&unit)?;
    for round in 0..3 {
        let Some(device) = Loop::attach(&path)? else {
            need::skip("needs loop devices");
            return Ok(());
        };
        rig.watch_device(&device.number()?)?;
        rig.tick()?;
        let before = rig.histogram(UNIT_WRITE_LATENCY, SLOT).total();
        // The shell keeps the device open, so that nobody else gets its number.
        let path = device.0.display();
        let writes = "bs=4096 count=64 oflag=direct conv=notrunc";
        let mut writer = unit.start(&format!(
            "exec 3<>{path} 2>/dev/null; while :; do dd if=/dev/zero of={path} {writes}; done"
        ))?;
        more_writes(&mut rig, before + 500)?;
        let backing = Path::new("/sys/dev/block").join(device.number()?).join("loop/backing_file");
        ensure!(backing.exists(), "{} is missing", backing.display());
        // Detached while it is in use: it goes with its last user, amid a write.
        drop(device);
        more_writes(&mut rig, before + 1000)?;
        fs::write(unit.folder().join("cgroup.kill"), "1")?;
        let _killed = writer.wait()?;
        let start = BootTime::now();
        while backing.exists() {
            ensure!(BootTime::now().since(start) < Duration::from_secs(20), "it does not go away");
        }
        rig.tick()?;
        // Nothing of it is still charged, or taken for another request.
        let (disk, own) =
            (rig.histogram(DISK_WRITE_LATENCY, ROW), rig.histogram(UNIT_WRITE_LATENCY, SLOT));
        ensure!(own.total() > before + 1000, "{} writes in round {round}", own.total());
        let service = rig.histogram(DISK_WRITE_SERVICE, ROW);
        ensure!(service.total() == disk.total(), "{} of {}", service.total(), disk.total());
        for cause in ["ebpf.request_stamp_overwritten", "ebpf.interval_negative"] {
            ensure!(rig.lost(cause) == 0, "{cause}: {}", rig.lost(cause));
        }
    }
    Ok(())
}

#[test]
fn writes_of_the_repositorys_disk_are_counted_within_background() -> Result<()> {
    let Some(mut rig) = Rig::start()? else { return Ok(()) };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = filled(folder.path())?;
    let disk = fs::metadata(&path)?.dev();
    let number = format!("{}:{}", major(disk), minor(disk));
    if !Path::new("/sys/dev/block").join(&number).exists() {
        need::skip("needs the build folder on a disk of its own number (ext4, xfs)");
        return Ok(());
    }
    rig.watch_device(&number)?;
    File::open(&path)?.sync_all()?;

    write(&path)?;

    // Others use the disk and the CPUs, too: a quiet moment is looked for. What is
    // exact is asserted in every moment.
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        rig.tick()?;
        let start = Disk::now(&rig, &number)?;
        let spent = write(&path)?;
        rig.tick()?;
        let own = Disk::now(&rig, &number)?.since(&start);

        // At least ours; at most what the kernel itself counts, which is also what
        // the file system writes of its own for ours.
        let (writes, kernel) = (own.writes, own.kernel_writes);
        let seen_or_lost = writes + UNDELIVERED + rig.lost("ebpf.program_skipped");
        ensure!(
            seen_or_lost >= WRITES && writes <= kernel + QUIET,
            "{writes} writes, kernel {kernel}"
        );
        let (bytes, kernel) = (own.bytes as f64, own.kernel_bytes as f64);
        ensure!((bytes - kernel).abs() <= 0.02 * kernel, "{bytes} bytes, by the kernel {kernel}");

        let took = own.ns as f64;
        if (0.85 * spent.at_least..=1.15 * spent.at_most).contains(&took) {
            return Ok(());
        }
        seen.push(format!("{took} ns, the writer says {spent:?}"));
    }
    let others = background(&mut rig)?;
    ensure!(others > QUIET, "never within 15 %, and nobody else writes: {seen:?}");
    eprintln!("others write too much to compare times: {seen:?}");
    Ok(())
}

/// Ticks until the unit has written so often.
fn more_writes(rig: &mut Rig, wanted: u64) -> Result<()> {
    let start = BootTime::now();
    while rig.histogram(UNIT_WRITE_LATENCY, SLOT).total() < wanted {
        ensure!(BootTime::now().since(start) < Duration::from_secs(20), "it writes too little");
        rig.tick()?;
    }
    Ok(())
}

/// Writes of others in about as long a time as [`write`] takes.
fn background(rig: &mut Rig) -> Result<u64> {
    rig.tick()?;
    let before = writes(rig).0.0;
    let start = BootTime::now();
    while BootTime::now().since(start) < Duration::from_millis(500) {
        std::thread::yield_now();
    }
    rig.tick()?;
    Ok(writes(rig).0.0 - before)
}

/// What was written to a disk so far.
struct Disk {
    writes: u64,
    bytes: u64,
    /// Of writes and flushes together.
    ns: u64,
    kernel_writes: u64,
    kernel_bytes: u64,
}

impl Disk {
    fn now(rig: &Rig, number: &str) -> Result<Self> {
        let (write, flush) = writes(rig);
        let stat = fs::read_to_string(format!("/sys/dev/block/{number}/stat"))?;
        // The fifth number: writes. The seventh: sectors of 512 bytes written.
        let stat: Vec<u64> = stat.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [_, _, _, _, kernel_writes, _, sectors, ..] = *stat else { bail!("an odd stat file") };
        Ok(Self {
            writes: write.0,
            bytes: rig.histogram(DISK_WRITE_SIZE, ROW).sum,
            ns: write.1 + flush.1,
            kernel_writes,
            kernel_bytes: sectors * 512,
        })
    }

    fn since(&self, start: &Self) -> Self {
        Self {
            writes: self.writes - start.writes,
            bytes: self.bytes - start.bytes,
            ns: self.ns - start.ns,
            kernel_writes: self.kernel_writes - start.kernel_writes,
            kernel_bytes: self.kernel_bytes - start.kernel_bytes,
        }
    }
}

/// Number and time of writes, and of flushes.
fn writes(rig: &Rig) -> ((u64, u64), (u64, u64)) {
    let of = |id| {
        let histogram = rig.histogram(id, ROW);
        (histogram.total(), histogram.sum)
    };
    (of(DISK_WRITE_LATENCY), of(DISK_FLUSH_LATENCY))
}

/// A file whose blocks are all written already, so that writing changes no metadata.
fn filled(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("blocks");
    fs::write(&path, vec![1u8; BLOCK * FILE_BLOCKS as usize])?;
    File::open(&path)?.sync_all()?;
    Ok(path)
}

fn open(path: &Path, flags: OFlag) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// What a thread knows of the time it waited for a disk, in nanoseconds.
#[derive(Debug)]
struct Spent {
    /// Without the time it was on a CPU.
    at_least: f64,
    /// With it: a part of that was spent on the way into a request.
    at_most: f64,
}

/// Writes [`WRITES`] blocks, each to the medium, and says how long that took,
/// without the time this thread waited for a CPU.
fn write(path: &Path) -> Result<Spent> {
    let file = open(path, OFlag::O_DIRECT | OFlag::O_DSYNC)?;
    let mut page = Page::new();
    let (start, (ran, queued)) = (BootTime::now(), schedule()?);
    for n in 0..WRITES {
        // Never next to the one before, so that no two become one request.
        let block = (n * 7) % FILE_BLOCKS;
        file.write_all_at(page.bytes(), block * BLOCK as u64)?;
    }
    let (ran, queued) = {
        let end = schedule()?;
        (end.0 - ran, end.1 - queued)
    };
    let at_most = BootTime::now().since(start).as_nanos() as f64 - queued;
    Ok(Spent { at_least: at_most - ran, at_most })
}

/// How long this thread was on a CPU and waited for one; zeros where the kernel does
/// not tell.
fn schedule() -> Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    let mut next = || numbers.next().transpose().map(Option::unwrap_or_default);
    Ok((next()?, next()?))
}

/// Memory that begins where a block of the device may.
struct Page(Vec<u8>);

impl Page {
    fn new() -> Self {
        Self(vec![2; 2 * BLOCK])
    }

    fn bytes(&mut self) -> &mut [u8] {
        let skip = self.0.as_ptr().align_offset(BLOCK);
        &mut self.0[skip..skip + BLOCK]
    }
}

/// A file as a block device.
pub(crate) struct Loop(PathBuf);

impl Loop {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn attach(file: &Path) -> Result<Option<Self>> {
        if !need::program("losetup") || !Path::new("/dev/loop-control").exists() {
            return Ok(None);
        }
        let mut losetup = Command::new("losetup");
        let output = losetup.args(["--find", "--show", "--direct-io=on"]).arg(file).output()?;
        let device = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Some(Self(device.trim().into())))
    }

    fn number(&self) -> Result<String> {
        let device = fs::metadata(&self.0)?.rdev();
        Ok(format!("{}:{}", major(device), minor(device)))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _status = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}
