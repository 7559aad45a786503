//! Who is blamed: among several units one is a known aggressor, and `holdfast blame`
//! has to name it first for the unit that suffers.
//!
//! Each run has a victim, some bystanders and an aggressor of random sizes, in units
//! of their own that did not exist before. Agent and command line are the real ones.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::{Options, Row, median};
use crate::cgroup::Cgroup;
use crate::leash::Leashed;
use crate::shell;
use crate::stack::{Ports, Programs, Stack};
use crate::stop::Stop;

const RUNS: u64 = 40;
/// Most runs of a hundred in which somebody else may be named first.
const MISSED_PERCENT: f64 = 5.0;
/// The units are there, and what they do alone has been seen.
const SETTLE: Duration = Duration::from_millis(2200);
const PREFIX: &str = "holdfast-blame-";
/// Enough that the governor gives up nothing: a hard enough fight for a CPU, or other work
/// on the machine, costs depth, and then the answer is why it is not known.
const CONFIG: &str = "[ebpf]\ncpu_budget = \"20%\"\n";
/// Memory that all units of a run share.
const SHARED_BYTES: u64 = 160 << 20;

/// What is fought for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    Cpu,
    Disk,
    Memory,
}

impl Scene {
    const ALL: [Self; 3] = [Self::Cpu, Self::Disk, Self::Memory];

    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }

    /// How long the aggressor is at work. How much memory units have is not looked at
    /// each second where cgroups do not tell.
    fn attack(self) -> Duration {
        match self {
            Self::Cpu | Self::Disk => Duration::from_millis(3200),
            Self::Memory => Duration::from_secs(12),
        }
    }
}

/// What one run has shown.
enum Verdict {
    /// The aggressor is first, with this share of the wait; and whether something else
    /// that runs on this host caused even more.
    First { share: f64, outdone: bool },
    /// Somebody else is, as the answer says.
    Missed(String),
    /// The agent says why it cannot tell.
    Unknown(String),
}

pub(super) fn run(options: &Options, stop: &Stop) -> Result<Vec<Row>> {
    crate::cgroup::sweep(|name| name.starts_with(PREFIX))?;
    let mut stack = Stack::start_with(&Programs::build("dev")?, Ports::Any, &[], CONFIG, stop)?;
    let runs = options.runs.unwrap_or(RUNS);
    let mut rows = Vec::new();
    for scene in Scene::ALL {
        rows.extend(scene_rows(scene, runs, &mut stack, stop)?);
    }
    Ok(rows)
}

fn scene_rows(scene: Scene, runs: u64, stack: &mut Stack, stop: &Stop) -> Result<Vec<Row>> {
    let name = scene.name();
    let (mut missed, mut outdone_by_others, mut shares) = (0, 0, Vec::new());
    for number in 0..runs {
        let verdict = play(scene, number, stack, stop);
        match verdict.with_context(|| format!("{name}, run {number}"))? {
            Verdict::First { share, outdone } => {
                shares.push(100.0 * share);
                outdone_by_others += u32::from(outdone);
            }
            Verdict::Missed(answer) => {
                missed += 1;
                eprintln!("{name}, run {number}: {answer}");
            }
            Verdict::Unknown(reason) => {
                eprintln!("{name} is left out: {reason}");
                return Ok(Vec::new());
            }
        }
    }
    let percent = |count: u32| 100.0 * f64::from(count) / runs.max(1) as f64;
    Ok(vec![
        Row::new(format!("{name}, runs"), runs as f64, "runs"),
        Row::new(format!("{name}, aggressor not first"), percent(missed), "%")
            .at_most(MISSED_PERCENT),
        Row::new(format!("{name}, rest of the host caused more"), percent(outdone_by_others), "%"),
        Row::new(format!("{name}, share of the aggressor"), median(shares), "%"),
    ])
}

/// Units that live for one run, each with what runs in it.
struct Cast<'a> {
    scene: Scene,
    number: u64,
    /// A group that all share, where that is what is fought for.
    shared: Option<&'a Path>,
    scratch: &'a Path,
    // Processes are stopped before their groups are removed.
    processes: Vec<Leashed>,
    groups: Vec<Cgroup>,
}

impl Cast<'_> {
    /// What the names of this run's units begin with.
    fn prefix(&self) -> String {
        format!("{PREFIX}{}-{}-", self.scene.name(), self.number)
    }

    fn unit(&self, role: &str) -> String {
        format!("{}{role}.service", self.prefix())
    }

    /// Starts as many processes as there are lists of words, all in the unit of `role`.
    fn enter(&mut self, role: &str, processes: &[Vec<String>]) -> Result<()> {
        let group = Cgroup::create(&self.unit(role))?;
        let mut folders: Vec<PathBuf> = self.shared.map(Path::to_path_buf).into_iter().collect();
        folders.extend(group.folders());
        for words in processes {
            let words = ["neighbour"].into_iter().map(str::to_owned).chain(words.iter().cloned());
            let words = words.map(OsString::from);
            self.processes.push(Leashed::start(
                Path::new(shell::OURSELVES),
                words,
                &folders,
                None,
            )?);
        }
        self.groups.push(group);
        Ok(())
    }

    fn file(&self, role: &str, number: u64) -> String {
        self.scratch.join(format!("{role}-{number}")).to_string_lossy().into_owned()
    }

    fn victim(&self, random: &mut Random, cpu: u64) -> Vec<String> {
        match self.scene {
            Scene::Cpu => words(&["work"], &[cpu, random.of(500, 3000), random.of(5000, 20_000)]),
            Scene::Disk => {
                let sizes = [random.of(1, 4) * 4096, random.of(2000, 8000)];
                words(&["read", &self.file("victim", 0)], &sizes)
            }
            Scene::Memory => {
                let bytes = SHARED_BYTES * random.of(50, 65) / 100;
                words(&["reread", &self.file("victim", 0)], &[bytes])
            }
        }
    }

    fn bystander(&self, random: &mut Random, number: u64) -> Vec<String> {
        match self.scene {
            Scene::Cpu | Scene::Memory => {
                words(&["work"], &[random.cpu(), random.of(100, 1500), random.of(10_000, 40_000)])
            }
            Scene::Disk => {
                let sizes = [random.of(1, 4) * 4096, random.of(10_000, 40_000)];
                words(&["write", &self.file("bystander", number)], &sizes)
            }
        }
    }

    fn aggressor(&self, random: &mut Random, cpu: u64) -> Vec<Vec<String>> {
        match self.scene {
            Scene::Cpu => (0..random.of(1, 4)).map(|_| words(&["spin"], &[cpu])).collect(),
            Scene::Disk => (0..random.of(1, 3))
                .map(|number| {
                    let bytes = random.of(1, 4) << 20;
                    words(&["write", &self.file("aggressor", number)], &[bytes, 0])
                })
                .collect(),
            Scene::Memory => {
                vec![words(&["grow"], &[SHARED_BYTES * random.of(50, 70) / 100])]
            }
        }
    }
}

fn words(first: &[&str], numbers: &[u64]) -> Vec<String> {
    let numbers = numbers.iter().map(u64::to_string);
    first.iter().map(|word| (*word).to_owned()).chain(numbers).collect()
}

fn play(scene: Scene, number: u64, stack: &mut Stack, stop: &Stop) -> Result<Verdict> {
    // The same runs each time.
    let mut random = Random(number * 3 + scene as u64 + 1);
    let scratch = TempDir::with_prefix_in("holdfast-blame-", "/var/tmp")
        .context("no temporary folder can be made")?;
    let shared = match scene {
        Scene::Memory => {
            let mut group = Cgroup::create(&format!("{PREFIX}memory-{number}-shared.slice"))?;
            group.limit_memory(SHARED_BYTES)?;
            Some(group)
        }
        Scene::Cpu | Scene::Disk => None,
    };
    let Some(limit) =
        shared.as_ref().map(Cgroup::memory_folder).map_or(Some(None), |folder| folder.map(Some))
    else {
        let reason = "it needs the memory controller on a hierarchy of version 1";
        return Ok(Verdict::Unknown(reason.to_owned()));
    };
    let mut cast = Cast {
        scene,
        number,
        shared: limit,
        scratch: scratch.path(),
        processes: Vec::new(),
        groups: Vec::new(),
    };
    let cpu = random.cpu();
    let victim = cast.victim(&mut random, cpu);
    cast.enter("victim", &[victim])?;
    for bystander in 0..random.of(2, 4) {
        let load = cast.bystander(&mut random, bystander);
        cast.enter(&format!("bystander{bystander}"), &[load])?;
    }
    rest(SETTLE, stop)?;
    let aggressor = cast.aggressor(&mut random, cpu);
    cast.enter("aggressor", &aggressor)?;
    rest(scene.attack(), stop)?;
    stack.check()?;
    for process in &mut cast.processes {
        process.check()?;
    }
    let victim = cast.unit("victim");
    let answer = stack.ask(&["blame", &victim, "--resource", scene.name(), "--last", "20s"])?;
    judge(&answer, &cast.prefix(), &cast.unit("aggressor"))
}

fn rest(time: Duration, stop: &Stop) -> Result<()> {
    if stop.wait(time) {
        bail!("stopped");
    }
    Ok(())
}

/// Whom of the run's neighbours `answer` names first. The rest of the host may be
/// busier than any of them, which is no fault of the answer.
fn judge(answer: &Value, prefix: &str, aggressor: &str) -> Result<Verdict> {
    let waits = answer.pointer("/resources/0").context("no resource in the answer")?;
    if let Some(reason) = waits["reason"].as_str() {
        return Ok(Verdict::Unknown(reason.to_owned()));
    }
    let culprits = waits["culprits"].as_array().context("no culprits in the answer")?;
    let others = || culprits.iter().filter(|culprit| culprit["itself"] == false);
    let is_ours =
        |culprit: &&Value| culprit["unit"].as_str().is_some_and(|name| name.starts_with(prefix));
    let first = others().find(is_ours);
    Ok(match first {
        Some(first) if first["unit"] == aggressor => Verdict::First {
            share: first["share"].as_f64().unwrap_or(f64::NAN),
            outdone: others().next() != Some(first),
        },
        _ => Verdict::Missed(waits.to_string()),
    })
}

/// A small generator (splitmix64): the same numbers for the same seed.
struct Random(u64);

impl Random {
    /// A number from `low` to `high`, both included.
    fn of(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        low + (z ^ (z >> 31)) % (high - low + 1)
    }

    fn cpu(&mut self) -> u64 {
        let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.of(0, cpus as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AGGRESSOR: &str = "holdfast-blame-cpu-0-aggressor.service";

    fn verdict(culprits: &Value) -> Verdict {
        let answer = json!({ "resources": [{ "reason": null, "culprits": culprits }] });
        judge(&answer, "holdfast-blame-cpu-0-", AGGRESSOR).unwrap()
    }

    #[test]
    fn the_victim_and_the_rest_of_the_host_are_left_aside() {
        let of = |unit: &str, itself| json!({ "unit": unit, "itself": itself, "share": 0.3 });
        let own = of("holdfast-blame-cpu-0-victim.service", true);
        let (bad, good) = (of(AGGRESSOR, false), of("holdfast-blame-cpu-0-b.service", false));
        let first = verdict(&json!([own, bad, good, of("other", false)]));
        assert!(matches!(first, Verdict::First { share: 0.3, outdone: false }));
        let first = verdict(&json!([of("-.slice", false), bad, good]));
        assert!(matches!(first, Verdict::First { outdone: true, .. }));
        assert!(matches!(verdict(&json!([own, good, bad])), Verdict::Missed(_)));
        assert!(matches!(verdict(&json!([])), Verdict::Missed(_)));
        let unknown = json!({ "resources": [{ "reason": "why", "culprits": [] }] });
        let unknown = judge(&unknown, "holdfast-blame-cpu-0-", AGGRESSOR).unwrap();
        assert!(matches!(unknown, Verdict::Unknown(reason) if reason == "why"));
    }

    #[test]
    fn random_numbers_stay_within_and_differ() {
        let mut random = Random(7);
        let numbers: Vec<u64> = (0..100).map(|_| random.of(3, 9)).collect();
        assert!(numbers.iter().all(|n| (3..=9).contains(n)));
        assert!((3..=9).all(|n| numbers.contains(&n)));
        assert_eq!(Random(7).of(0, 1 << 40), Random(7).of(0, 1 << 40));
    }
}
