//! The agent's kernel side and probes, driven by hand: no sampler, no clock.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use holdfast_agent::catalogue::{Owner, SignalId};
use holdfast_agent::frame::{Frame, Histogram, Shape};
use holdfast_agent::host::Root;
use holdfast_agent::kernel::{Kernel, Options};
use holdfast_agent::losses::Losses;
use holdfast_agent::probes::{Context, PROBES, Probe};
use holdfast_core::clock::BootTime;
use holdfast_tests::{Unit, need};
use nix::fcntl::{Flock, FlockArg};

/// The unit under test always has this slot.
pub(crate) const SLOT: usize = 1;
/// The device under test always has this row.
pub(crate) const ROW: usize = 1;

/// The loaded programs and everything that reads them.
pub(crate) struct Rig {
    /// The loaded programs.
    pub(crate) kernel: Kernel,
    probes: Vec<(&'static str, Box<dyn Probe>)>,
    frame: Frame,
    _alone: Option<Flock<File>>,
}

impl Rig {
    /// Loads everything; `None` when this machine cannot, which has then been said.
    pub(crate) fn start() -> Result<Option<Self>> {
        if !need::ebpf() {
            return Ok(None);
        }
        // First: what other tests do must not be seen.
        let alone = alone()?;
        let mut rig = Self::beside(&[])?;
        rig._alone = Some(alone);
        rig.tick()?;
        Ok(Some(rig))
    }

    /// Loads everything but `disabled`, beside a rig that runs already.
    pub(crate) fn beside(disabled: &[&str]) -> Result<Self> {
        let disabled = disabled.iter().map(ToString::to_string).collect();
        let options = Options { disabled, ..Options::default() };
        let root = Root::default();
        let kernel = Kernel::start(&options, &root).map_err(|reason| anyhow!(reason))?;
        let shape =
            Shape { units: kernel.unit_slots(), devices: kernel.device_rows(), interfaces: 1 };
        let losses = Losses::default();
        let context = Context {
            root: &root,
            kernel: Ok(&kernel),
            members: Err("no units here"),
            losses: &losses,
        };
        let mut probes = Vec::new();
        for spec in PROBES.iter().filter(|spec| spec.level > 0) {
            let probe = (spec.open)(&context).map_err(|reason| anyhow!("{}: {reason}", spec.name));
            probes.push((spec.name, probe?));
        }
        Ok(Self { kernel, probes, frame: Frame::new(shape), _alone: None })
    }

    /// Reads every probe.
    pub(crate) fn tick(&mut self) -> Result<()> {
        self.frame.begin(BootTime::now());
        for (name, probe) in &mut self.probes {
            let read = probe.read(Some(&self.kernel), &mut self.frame);
            read.map_err(|reason| anyhow!("{name}: {reason}"))?;
        }
        Ok(())
    }

    /// Gives [`SLOT`] to `unit`.
    pub(crate) fn watch_unit(&mut self, unit: &Unit) -> Result<u64> {
        let cgroup_id = fs::metadata(unit.folder())?.ino();
        self.frame.assign(Owner::Unit, SLOT, unit.name.as_str().into());
        self.kernel.assign_unit(cgroup_id, SLOT)?;
        Ok(cgroup_id)
    }

    /// Gives [`ROW`] to the disk that `number` ("major:minor") is, or is a part of.
    pub(crate) fn watch_device(&mut self, number: &str) -> Result<()> {
        let (major, minor) = disk_of(number)?;
        self.frame.assign(Owner::Device, ROW, "disk".into());
        Ok(self.kernel.assign_device(major, minor, ROW)?)
    }

    /// The value of a scalar signal.
    pub(crate) fn value(&self, id: SignalId, row: usize) -> f64 {
        self.frame.get(id, row)
    }

    /// The value of a signal for a label; 0 as long as the label was not met.
    pub(crate) fn label(&self, id: SignalId, name: &str) -> f64 {
        let rows = self.frame.rows(Owner::Label);
        let row = rows.iter().position(|row| row.live && &*row.name == name);
        row.map(|row| self.frame.get(id, row)).filter(|value| !value.is_nan()).unwrap_or(0.0)
    }

    /// The sum of a signal over all labels, those without a row included.
    pub(crate) fn labels(&self, id: SignalId) -> f64 {
        let rows = 0..self.frame.rows(Owner::Label).len();
        rows.map(|row| self.frame.get(id, row)).filter(|value| !value.is_nan()).sum()
    }

    /// A distribution as it is now.
    pub(crate) fn histogram(&self, id: SignalId, row: usize) -> Histogram {
        self.frame.histogram(id, row).cloned().unwrap_or_default()
    }

    /// How often something of this cause was dropped.
    pub(crate) fn lost(&self, cause: &str) -> u64 {
        let losses = self.kernel.losses();
        losses.iter().find(|(name, _)| *name == cause).map_or(u64::MAX, |(_, count)| *count)
    }
}

/// The disk that `number` ("major:minor") is, or is a part of.
pub(crate) fn disk_of(number: &str) -> Result<(u32, u32)> {
    let folder = Path::new("/sys/dev/block").join(number).canonicalize()?;
    let is_part = folder.join("partition").exists();
    let disk = if is_part { folder.parent().context("no disk")? } else { &folder };
    let number = fs::read_to_string(disk.join("dev"))?;
    let (major, minor) = number.trim().split_once(':').context("an odd device number")?;
    Ok((major.parse()?, minor.parse()?))
}

/// Waits until no other test of this kind runs, in this process or another.
pub(crate) fn alone() -> Result<Flock<File>> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-tests.lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}
