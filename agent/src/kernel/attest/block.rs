//! The proof of the block probe: reads and writes of a known number and size, past
//! the page cache, of a file in the state directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use holdfast_agent_ebpf::cells::{BlockCell, Histogram, operation};
use holdfast_agent_ebpf::histogram::bucket_of;
use nix::fcntl::OFlag;

use super::spent::Spent;
use super::{Check, Counts, Evidence, Facts, Place, Provoke, Spec, Watch};
use crate::kernel::cells::{load, total};

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "block",
    provokes: "reads and writes of 20 KiB past the page cache",
    disruptive: "",
    prepare,
    count,
    judge,
};

const PROGRAM: &str = "block_rq_complete";
/// The last word of the form in which requests themselves say whose they are.
const BY_REQUEST: &str = "request";
const ISSUE: &str = "block_rq_issue";
/// A size that is rare, so that few requests of others share its bucket.
const SIZE: usize = 20 * 1024;
/// Far enough apart that no two become one request.
const STRIDE: usize = 64 * 1024;
const WRITES: u64 = 16;
const READS: u64 = 6;
/// What a device's memory must be aligned to.
const ALIGN: usize = 4096;

/// Removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn prepare(place: &Place<'_>) -> Result<Provoke, String> {
    let path = place.state_dir.join("attest.scratch");
    let failed = |error: io::Error| format!("{} cannot be written: {error}", path.display());
    let scratch = Scratch(path.clone());
    // Written once, so that what follows changes no metadata.
    let places = WRITES as usize;
    fs::write(&path, vec![1u8; places * STRIDE]).map_err(failed)?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(failed)?;
    let direct = OFlag::O_DIRECT.bits();
    let file = OpenOptions::new().read(true).write(true).custom_flags(direct).open(&path);
    let file = file.map_err(|error| {
        format!("the file system of {} has no direct I/O: {error}", place.state_dir.display())
    })?;
    let effort = u64::from(place.effort);
    Ok(Box::new(move || {
        let failed = |error: io::Error| format!("{}: {error}", scratch.0.display());
        let mut memory = vec![2u8; SIZE + ALIGN];
        let skip = memory.as_ptr().align_offset(ALIGN);
        let buffer = memory.get_mut(skip..skip + SIZE).ok_or("no aligned memory")?;
        let mut facts = Facts::default();
        let at = |n: u64| (n % WRITES) * STRIDE as u64;
        let mut spent = Spent::default();
        let done = spent.on(|| {
            (0..WRITES * effort).try_for_each(|n| file.write_all_at(buffer, at(n)))?;
            (0..READS * effort).try_for_each(|n| file.read_exact_at(buffer, at(n)))
        });
        done.map_err(failed)?;
        facts.set("most", spent.most);
        facts.set("least", spent.least);
        facts.set("writes", WRITES * effort);
        facts.set("reads", READS * effort);
        Ok(facts)
    }))
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let disk = watch.disk.map_err(str::to_owned)?;
    let mut counts = Counts::new();
    let mut add = |name, n: u64| {
        let sum = counts.entry(name).or_insert(0u64);
        *sum = sum.wrapping_add(n);
    };
    // The kernel's own counts first and last would be later than ours: read together.
    let stat = fs::read_to_string(&disk.stat)
        .map_err(|error| format!("{} cannot be read: {error}", disk.stat.display()))?;
    let stat: Vec<u64> = stat.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let &[_, _, _, read_ms, _, _, _, write_ms, ..] = stat.as_slice() else {
        return Err(format!("{} has an unknown form", disk.stat.display()));
    };
    add("kernel.ms", read_ms + write_ms);
    let size = |cell: &BlockCell, kind: usize| of_size(&cell.size[kind]);
    for cell in watch.kernel.block().of_row(disk.row) {
        add("writes", size(cell, operation::WRITE));
        add("reads", size(cell, operation::READ));
        let (write, read) = (&cell.latency[operation::WRITE], &cell.latency[operation::READ]);
        add("latencies", total(write) + total(read));
        add("all", total(&cell.size[operation::WRITE]) + total(&cell.size[operation::READ]));
        add("latency", load(&write.sum).wrapping_add(load(&read.sum)));
        for part in cell.queue.iter().chain(&cell.service) {
            add("parts", total(part));
            add("parts.sum", load(&part.sum));
        }
    }
    let kernel = watch.kernel;
    let unit = kernel.unit_disk().get(kernel.attest_slot()).ok_or("no row to count in")?;
    add("unit.errors", load(&unit.errors));
    add("unit.written", load(&unit.bytes[operation::WRITE]));
    add("unit.read", load(&unit.bytes[operation::READ]));
    add("unit.writes", total(&unit.latency[operation::WRITE]));
    add("unit.reads", total(&unit.latency[operation::READ]));
    add("unit.latency", unit.latency.iter().map(|of_kind| load(&of_kind.sum)).sum());
    // Disks beyond share row 0.
    let row = if disk.row < kernel.shared_devices() { disk.row } else { 0 };
    let shared = kernel.unit_block(row, kernel.attest_slot());
    add("unit.requests", shared.map_or(0, |cell| load(&cell.requests)));
    add("unit.waited", shared.map_or(0, |cell| load(&cell.wait_ns)));
    for slot in 0..=kernel.attest_slot() {
        let cell = kernel.unit_block(row, slot);
        add("units.requests", cell.map_or(0, |cell| load(&cell.requests)));
        add("units.waited", cell.map_or(0, |cell| load(&cell.wait_ns)));
    }
    Ok(counts)
}

/// Requests of the bucket that [`SIZE`] falls into.
fn of_size(sizes: &Histogram) -> u64 {
    let bucket = sizes.counts.get(bucket_of(SIZE as u64) as usize);
    bucket.map_or(0, |count| count.load(Ordering::Relaxed).into())
}

/// Where the io controller says whose a request is, it names the nearest cgroup that it is
/// enabled for. The worker's own is none, so which row its requests are in is not known;
/// that all requests of the disk are in some unit's row is.
fn of_all_units(evidence: &Evidence<'_>, own: u64) -> Vec<Check> {
    let gained = |name| evidence.gained(name);
    let (all, charged, waited) = (gained("all"), gained("units.requests"), gained("latency"));
    let mut checks = vec![Check::at_least(ISSUE, "requests of all units", own, charged)];
    // Only where nobody else used the disk, nor one that shares its row.
    if all == own && charged == all {
        let seen = gained("units.waited");
        checks.push(Check::time(ISSUE, "latency of all units", waited, &(waited..=waited), seen));
    }
    checks
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let gained = |name| evidence.gained(name);
    let facts = &evidence.facts;
    let (least, most, all) = (facts.get("least"), facts.get("most"), gained("all"));
    let took = gained("latency");
    // The kernel adds up the same times in whole milliseconds, for reads and writes.
    let kernel = gained("kernel.ms") * 1_000_000;
    let room = kernel / 100 + 2_000_000;
    let range = kernel.saturating_sub(room)..=kernel + room;
    let mut checks = vec![
        Check::at_least(PROGRAM, "writes of 20 KiB", facts.get("writes"), gained("writes")),
        Check::at_least(PROGRAM, "reads of 20 KiB", facts.get("reads"), gained("reads")),
        Check::exactly(PROGRAM, "latencies", all, gained("latencies")),
        Check::time(PROGRAM, "latency by the kernel's own account", kernel, &range, took),
        Check::between(PROGRAM, "latency by the caller", &(least / 4..=u64::MAX), took),
    ];
    // Where nobody else used the disk, one after the other cannot take longer than all.
    if all == facts.get("writes") + facts.get("reads") {
        checks.push(Check::between(PROGRAM, "latency of no others", &(least / 4..=most), took));
        // A request is in the queue first and on the device then.
        let parts = gained("parts.sum");
        checks.push(Check::exactly(
            ISSUE,
            "times in queue and on device",
            2 * all,
            gained("parts"),
        ));
        checks.push(Check::time(ISSUE, "both together", took, &(took..=took), parts));
    }
    let (writes, reads) = (facts.get("writes"), facts.get("reads"));
    if (evidence.variant)(ISSUE).ends_with(BY_REQUEST) {
        checks.extend(of_all_units(evidence, writes + reads));
        return checks;
    }
    // What the worker alone did.
    let size = SIZE as u64;
    let waited = gained("unit.latency");
    checks.extend([
        Check::exactly(ISSUE, "own writes", writes, gained("unit.writes")),
        Check::exactly(ISSUE, "own reads", reads, gained("unit.reads")),
        Check::exactly(ISSUE, "own bytes written", writes * size, gained("unit.written")),
        Check::exactly(ISSUE, "own bytes read", reads * size, gained("unit.read")),
        Check::exactly(ISSUE, "own errors", 0, gained("unit.errors")),
        Check::exactly(ISSUE, "own requests of the disk", writes + reads, gained("unit.requests")),
        Check::time(
            ISSUE,
            "own latency by disk",
            waited,
            &(waited..=waited),
            gained("unit.waited"),
        ),
        Check::between(ISSUE, "own latency by the caller", &(least / 4..=most), waited),
    ]);
    checks
}
