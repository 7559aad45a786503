//! What watching block I/O costs: the kernel's accounting of our programs and of
//! `biolatency`, each less that of an empty program, over the same direct writes.

use anyhow::{Result, bail};

use super::accounting::{self, EMPTY, Loaded};
use super::peers::Tracer;
use super::{Options, Row};
use crate::provoke::{Writer, ping_pong};
use crate::shell;
use crate::stop::Stop;

/// Writes of one load. Each is a request to the device; what the file system adds to
/// them is the same for all.
const WRITES: u64 = 4_000;
/// Knows what the tool knows: how long requests took, by device.
const LATENCY: &[&str] = &["block_rq_complete"];
/// Knows also queue and service time apart and whose the requests were.
const WHOLE: &[&str] = &["block_rq_insert", "block_rq_issue", "block_rq_complete"];

pub(super) fn run(_: &Options, stop: &Stop) -> Result<Vec<Row>> {
    let loader = accounting::build_loader()?;
    let mut writer = Writer::create(&shell::target_dir()?)?;
    writer.write(WRITES)?;
    let empty = Loaded::start(&loader, &[EMPTY])?.cost(|| ping_pong(WRITES))?;
    let mut net = |programs: &[&str]| -> Result<f64> {
        let cost = Loaded::start(&loader, programs)?.cost(|| writer.write(WRITES))?;
        Ok(cost.net(&empty, WRITES as f64))
    };
    let (latency, whole) = (net(LATENCY)?, net(WHOLE)?);
    let mut rows = vec![
        Row::new("accounting of an empty program", empty.ns_per_run(), "ns/run"),
        Row::new("ours, latency by device, net", latency, "ns/write"),
        Row::new("ours, with queue, service and units, net", whole, "ns/write"),
    ];
    for tool in Tracer::BLOCK {
        eprintln!("{}", tool.name);
        if stop.wait(std::time::Duration::ZERO) {
            bail!("stopped");
        }
        if !tool.works(stop) {
            continue;
        }
        let cost = {
            let _running = tool.start(stop)?;
            accounting::tool_cost(&loader, tool.part, || writer.write(WRITES))?
        };
        let theirs = cost.map(|cost| cost.net(&empty, WRITES as f64));
        rows.extend(tool.compared(latency, theirs, "ns/write"));
        if let Some(theirs) = theirs {
            let name = format!("net, ours with all that it tells / {}", tool.name);
            rows.push(Row::new(name, whole / theirs, "ratio"));
        }
    }
    Ok(rows)
}
