//! Real TCP sockets of a unit, as the kernel's socket diagnostics tell of them.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use holdfast_agent::catalogue::{
    HOST_RTT, Owner, SignalId, UNIT_ACCEPT_FILL, UNIT_ACCEPT_LIMIT, UNIT_ACCEPT_USED, UNIT_RTT,
    UNIT_SOCKETS_ESTABLISHED,
};
use holdfast_agent::frame::{Frame, Shape};
use holdfast_agent::host::Root;
use holdfast_agent::losses::Losses;
use holdfast_agent::probes::{Context, PROBES, Probe};
use holdfast_agent::units::{Members, SharedMembers};
use holdfast_core::clock::BootTime;
use holdfast_tests::{Unit, need, wait};

use crate::rig::SLOT;
use crate::role;

/// The probe by itself: it needs no eBPF.
struct Poller {
    probe: Box<dyn Probe>,
    frame: Frame,
    losses: Losses,
    now: BootTime,
}

impl Poller {
    fn start(unit: &Unit) -> Result<Self> {
        let cgroup_id = fs::metadata(unit.folder())?.ino();
        let members: SharedMembers = Rc::new(RefCell::new(Members::default()));
        members.borrow_mut().slots.insert(cgroup_id, SLOT);
        let (root, losses) = (Root::default(), Losses::default());
        let context =
            Context { root: &root, kernel: Err("-"), members: Ok(&members), losses: &losses };
        let spec = PROBES.iter().find(|spec| spec.name == "sockets").context("no such probe")?;
        let probe = (spec.open)(&context).map_err(|reason| anyhow!(reason))?;
        let mut frame = Frame::new(Shape { units: 3, devices: 1, interfaces: 1 });
        frame.assign(Owner::Unit, 0, "other".into());
        frame.assign(Owner::Unit, SLOT, unit.name.as_str().into());
        Ok(Self { probe, frame, losses, now: BootTime::now() })
    }

    /// One poll, to its end: the time it wants passes at once. A minute is the longest
    /// from one poll to the next, and a tick brings at least one piece.
    fn poll(&mut self) -> Result<()> {
        self.now = BootTime::new(self.now.since_boot() + Duration::from_secs(60));
        for _ in 0..200 {
            self.tick()?;
        }
        ensure!(self.probe.degraded().is_none(), "{:?}", self.probe.degraded());
        ensure!(self.losses.total() == 0, "{:?}", self.losses.counts());
        Ok(())
    }

    fn tick(&mut self) -> Result<()> {
        self.now = BootTime::new(self.now.since_boot() + Duration::from_millis(1));
        self.frame.begin(self.now);
        self.probe.read(None, &mut self.frame).map_err(|reason| anyhow!(reason))
    }

    fn unit(&self, id: SignalId) -> f64 {
        self.frame.get(id, SLOT)
    }
}

/// A process that is killed in the end.
struct Role(Child);

impl Drop for Role {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

#[tokio::test]
async fn a_full_accept_queue_is_seen_and_is_the_units() -> Result<()> {
    if !need::root() {
        return Ok(());
    }
    const BACKLOG: u32 = 7;
    let unit = Unit::create("listens")?;
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("address");
    let role = format!("listen {BACKLOG} {}", report.display());
    let _role = Role(role::start(&unit, None, &role)?);
    let address: SocketAddr = written(&report).await?.parse()?;
    let mut poller = Poller::start(&unit)?;
    poller.poll()?;
    let queue = |poller: &Poller| {
        (
            poller.unit(UNIT_ACCEPT_USED),
            poller.unit(UNIT_ACCEPT_LIMIT),
            poller.unit(UNIT_ACCEPT_FILL),
        )
    };
    ensure!(queue(&poller) == (0.0, BACKLOG.into(), 0.0), "{:?}", queue(&poller));

    // The kernel lets one more wait than was asked for.
    let streams: Result<Vec<_>, _> = (0..=BACKLOG).map(|_| TcpStream::connect(address)).collect();
    let streams = streams?;
    poller.poll()?;
    let full = (f64::from(BACKLOG) + 1.0, f64::from(BACKLOG), 1.0);
    ensure!(queue(&poller) == full, "{:?} instead of {full:?}", queue(&poller));
    let established = poller.unit(UNIT_SOCKETS_ESTABLISHED);
    ensure!(established == f64::from(BACKLOG) + 1.0, "{established} established");
    drop(streams);
    Ok(())
}

#[test]
fn the_round_trip_time_of_a_connection_is_its_units() -> Result<()> {
    if !need::root() {
        return Ok(());
    }
    const ROUNDS: u32 = 200;
    let unit = Unit::create("chats")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let role = format!("chat {ROUNDS} {}", listener.local_addr()?);
    let _role = Role(role::start(&unit, None, &role)?);
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    for _ in 0..ROUNDS {
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
    let mut poller = Poller::start(&unit)?;
    poller.poll()?;
    let histogram = |poller: &Poller, id, row| poller.frame.histogram(id, row).cloned();
    let of_unit = histogram(&poller, UNIT_RTT, SLOT).context("no histogram")?;
    ensure!(of_unit.total() == 1, "{} values of one connection", of_unit.total());
    ensure!((1_000..1_000_000_000).contains(&of_unit.sum), "{} ns", of_unit.sum);
    ensure!(poller.unit(UNIT_SOCKETS_ESTABLISHED) == 1.0, "one connection");
    // This end of the connection is another unit's.
    let of_host = histogram(&poller, HOST_RTT, 0).context("no histogram")?;
    ensure!(of_host.total() >= 2, "{} values", of_host.total());
    let of_others = histogram(&poller, UNIT_RTT, 0).context("no histogram")?;
    ensure!(of_others.total() == of_host.total() - 1, "{} of others", of_others.total());

    // Between polls the gauges stay, and a connection is not counted again.
    poller.tick()?;
    ensure!(poller.unit(UNIT_SOCKETS_ESTABLISHED) == 1.0, "forgotten between polls");
    let again = histogram(&poller, UNIT_RTT, SLOT).map(|histogram| histogram.total());
    ensure!(again == Some(1), "{again:?} values");
    Ok(())
}

/// Waits until a role has written its report.
async fn written(path: &Path) -> Result<String> {
    wait::until("the role's report", async || {
        Ok(fs::read_to_string(path).ok().filter(|text| !text.is_empty()))
    })
    .await
}
