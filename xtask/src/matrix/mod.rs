//! `cargo xtask matrix`: the agent on real kernels, in virtual machines.
//!
//! Each kernel that Debian serves is booted with a static build of the agent inside.
//! The agent runs three times under a small load: as root, with exactly the capabilities
//! of its packaged unit under the kernel's own settings, and as root with nothing but
//! the forms for kernels that do not describe their types. The answer is a table of
//! kernel and probe. It takes minutes: no part of CI.

pub(crate) mod archive;
mod judge;
pub(crate) mod kernels;
pub(crate) mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::shell;
use archive::Archive;
use judge::Run;
use kernels::Kernel;

/// A loaded machine emulates slowly.
const LIMIT: Duration = Duration::from_secs(900);
const TARGET: &str = "x86_64-unknown-linux-gnu";
const UNIT: &str = "packaging/systemd/holdfast-agent.service";
/// How the agent runs, in this order, and its configuration.
const WHO: [(&str, &str); 3] =
    [("root", UNLIMITED), ("unit", UNLIMITED), (judge::CLASSIC, UNTYPED)];
/// Nothing is shed for being dear: in an emulation, everything is.
const UNLIMITED: &str = "[ebpf]\ncpu_budget = \"100%\"\n";
/// The same, without the programs that need types.
const UNTYPED: &str = "[ebpf]\ncpu_budget = \"100%\"\ndisabled = [\"tp_btf\", \"fentry\"]\n";

/// Which kernels, and how to say it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only kernels of this series, or series and flavour: 6.1, 6.12-cloud
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Print everything as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Keep what each machine gave in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// Boots kernel after kernel; an error when a probe that should work does not.
pub(crate) fn run(args: &Args) -> Result<()> {
    let programs = build()?;
    let disk = disk()?;
    let script = include_str!("guest-matrix.sh").replace("CAPS", &capabilities()?);
    let (mut runs, mut lost) = (Vec::new(), Vec::new());
    for kernel in kernels::offered(args.kernel.as_deref())? {
        eprintln!("{}: booting {}", kernel.name, kernel.release);
        let mut archive = Archive::default();
        furnish(&mut archive, &kernel, &script)?;
        for (who, configuration) in WHO {
            archive.file(&format!("etc/{who}.toml"), configuration.as_bytes());
        }
        archive.file("disk.img", &disk);
        for program in &programs {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            archive.program(&format!("usr/bin/{name}"), program)?;
        }
        let setpriv = shell::find("setpriv").context("no setpriv: install util-linux")?;
        archive.program("usr/bin/setpriv", &setpriv)?;

        let folder = tempfile::tempdir().context("no temporary folder")?;
        let results = match &args.keep {
            Some(keep) => keep.join(&kernel.name),
            None => folder.path().to_owned(),
        };
        // A kernel that does not come up keeps the others from nothing.
        let done = machine::run(&kernel, archive, &results, LIMIT).and_then(|()| {
            WHO.iter().map(|(who, _)| Run::read(&kernel, who, &results)).collect::<Result<Vec<_>>>()
        });
        match done {
            Ok(both) => runs.extend(both),
            Err(error) => lost.push(format!("{error:#}")),
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&runs)?);
    } else {
        print!("{}", judge::table(&runs));
    }
    let complaints: Vec<String> = runs.iter().flat_map(Run::complaints).chain(lost).collect();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// Puts into `archive` what every machine needs: the tools, the kernel's modules, and
/// a first process that does `script`.
pub(crate) fn furnish(archive: &mut Archive, kernel: &Kernel, script: &str) -> Result<()> {
    let busybox = shell::find("busybox").context("no busybox: apt-get install busybox-static")?;
    for folder in ["proc", "sys", "dev", "tmp", "run", "sbin", "usr/sbin"] {
        archive.folder(folder);
    }
    archive.program("bin/busybox", &busybox)?;
    archive.program("bin/tar", &busybox)?;
    for (name, module) in kernel.modules()? {
        archive.file(&format!("modules/{name}"), &module);
    }
    let begin = include_str!("guest-begin.sh");
    archive.script("init", &format!("{begin}\n{script}\n{}", include_str!("guest-end.sh")));
    Ok(())
}

/// Agent and CLI without any library that the machine would have to have.
fn build() -> Result<[PathBuf; 2]> {
    let mut cargo = shell::cargo(["build", "--release", "--target", TARGET])?;
    cargo.args(["-p", "holdfast-agent", "-p", "holdfast-cli"]);
    shell::run(cargo.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let folder = shell::target_dir()?.join(TARGET).join("release");
    Ok([folder.join("holdfast-agent"), folder.join("holdfast")])
}

/// An empty disk with ext4 on it.
fn disk() -> Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new().context("no temporary file")?;
    file.as_file().set_len(16 << 20)?;
    let mkfs = shell::find("mkfs.ext4").context("no mkfs.ext4: install e2fsprogs")?;
    shell::output(Command::new(mkfs).arg("-qF").arg(file.path()))?;
    fs::read(file.path()).context("the disk cannot be read")
}

/// The capabilities of the packaged unit, in the words of setpriv: "+bpf,+perfmon".
fn capabilities() -> Result<String> {
    let path: &Path = &shell::root()?.join(UNIT);
    let unit =
        fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    words(&unit)
}

fn words(unit: &str) -> Result<String> {
    let of = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let (ambient, bounding) = (of("AmbientCapabilities="), of("CapabilityBoundingSet="));
    if ambient != bounding || ambient.is_empty() {
        bail!("{UNIT} gives {ambient:?} and leaves {bounding:?}: this job knows no such unit");
    }
    let word = |name: &str| format!("+{}", name.trim_start_matches("CAP_").to_lowercase());
    Ok(ambient.split_whitespace().map(word).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_capabilities_are_understood() {
        assert!(capabilities().unwrap().contains("+bpf,+perfmon"));
        let unit = "AmbientCapabilities=CAP_BPF CAP_NET_RAW\nCapabilityBoundingSet=";
        assert_eq!(words(&format!("{unit}CAP_BPF CAP_NET_RAW\n")).unwrap(), "+bpf,+net_raw");
        assert!(words(&format!("{unit}CAP_BPF\n")).is_err());
    }
}
