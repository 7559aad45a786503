//! The proof of the probe of syncs: a file in the state directory is synced so many times.

use std::fs;

use nix::sys::statfs::{EXT4_SUPER_MAGIC, statfs};

use super::spent::Spent;
use super::{Check, Counts, Evidence, Facts, Place, Provoke, Spec, Watch, variant};
use crate::kernel::cells::{load, total};

/// The proof's row of the table.
pub(super) const PROOF: Spec = Spec {
    probe: "sync",
    provokes: "a file that is synced several times",
    disruptive: "",
    prepare,
    count,
    judge,
};

const PROGRAM: &str = "sync_exit";
const SYNCS: u64 = 4;

fn prepare(place: &Place<'_>) -> Result<Provoke, String> {
    let path = place.state_dir.join("attest.synced");
    let made = fs::write(&path, b"synced").and_then(|()| fs::File::open(&path));
    // It lives on without its name for as long as it is open.
    let _ = fs::remove_file(&path);
    let file = made.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    Ok(Box::new(move || {
        let mut spent = Spent::default();
        for _ in 0..SYNCS {
            spent.on(|| file.sync_data()).map_err(|error| format!("no sync: {error}"))?;
        }
        let mut facts = Facts::default();
        facts.set("most", spent.most);
        Ok(facts)
    }))
}

fn count(watch: &Watch<'_>) -> Result<Counts, String> {
    let kernel = watch.kernel;
    // All other forms are those of ext4's tracepoints.
    if variant(kernel, PROGRAM) != "fentry" {
        let shown = watch.state_dir.display();
        let system = statfs(watch.state_dir).map_err(|error| format!("{shown}: {error}"))?;
        if system.filesystem_type() != EXT4_SUPER_MAGIC {
            return Err(format!("the state directory {shown} is not on ext4"));
        }
    }
    let cell = kernel.sync().get(kernel.attest_slot()).ok_or("no row to count in")?;
    Ok(Counts::from([("syncs", total(cell)), ("waited", load(&cell.sum))]))
}

fn judge(evidence: &Evidence<'_>) -> Vec<Check> {
    let most = evidence.facts.get("most");
    vec![
        Check::exactly(PROGRAM, "syncs", SYNCS, evidence.gained("syncs")),
        Check::between(PROGRAM, "time waited", &(1..=most), evidence.gained("waited")),
    ]
}
