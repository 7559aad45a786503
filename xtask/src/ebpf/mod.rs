//! `cargo xtask ebpf`: builds the eBPF object that the agent embeds.
//!
//! The object is kept in the repository, so that a plain `cargo build` needs no
//! BPF toolchain; beside it lies a digest of what it was built from, so that a
//! stale object is noticed. The same sources and tools give the same bytes,
//! wherever the repository lies.

mod digest;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::shell;
use digest::Digest;
use toolchain::Toolchain;

/// Where the shipped object is, from the repository's root.
const OBJECT: &str = "agent-ebpf/object/holdfast.bpf.o";
const TARGET: &str = "bpfel-unknown-none";

/// What to do with the object.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build nothing; fail when the shipped object is not that of the sources
    #[arg(long)]
    check: bool,
    /// Put the object there instead of into the repository
    #[arg(long, value_name = "PATH", conflicts_with = "check")]
    out: Option<PathBuf>,
}

/// Builds or checks the object.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        check()?;
        println!("{OBJECT} is that of the sources");
        return Ok(());
    }
    let root = shell::root()?;
    let shipped = root.join(OBJECT);
    let object = args.out.as_deref().unwrap_or(&shipped);
    let toolchain = Toolchain::get()?;
    eprintln!("building with {}", toolchain.describe());
    build(&root, &toolchain, object)?;
    if args.out.is_none() {
        let digest = Digest::of(&root, object)?;
        fs::write(digest_path(object), digest.text(&toolchain.describe()))?;
    }
    eprintln!("wrote {} ({} bytes)", object.display(), fs::metadata(object)?.len());
    Ok(())
}

/// An error when the shipped object is not that of the sources.
pub(crate) fn check() -> Result<()> {
    let root = shell::root()?;
    let object = root.join(OBJECT);
    let path = digest_path(&object);
    let kept = fs::read_to_string(&path)
        .with_context(|| format!("{} cannot be read: run `cargo xtask ebpf`", path.display()))?;
    match Digest::of(&root, &object)?.difference(&kept) {
        Some(what) => bail!("{OBJECT} is stale: {what}; run `cargo xtask ebpf`"),
        None => Ok(()),
    }
}

fn digest_path(object: &Path) -> PathBuf {
    let mut name = object.as_os_str().to_owned();
    name.push(".sources");
    name.into()
}

fn build(root: &Path, toolchain: &Toolchain, object: &Path) -> Result<()> {
    let target_dir = shell::target_dir()?.join("ebpf");
    let places = places(root, toolchain)?;
    let remap = places.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}"));
    let flags = ["--cfg=bpf_target_arch=\"x86_64\"", "-Cdebuginfo=2", "-Ctarget-cpu=v3"];
    let flags: Vec<String> = flags
        .into_iter()
        .map(str::to_owned)
        .chain(["-Clink-arg=--btf".to_owned()])
        .chain(remap)
        .collect();

    let mut cargo = shell::cargo(["build", "--locked", "--profile", "bpf", "--target", TARGET])?;
    cargo
        .args(["-Z", "build-std=core", "--package", "holdfast-agent-ebpf"])
        .args(["--features", "programs", "--bin", "programs", "--target-dir"])
        .arg(&target_dir)
        // Building the core library is not stable; the compiler itself is a release.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &toolchain.rustc)
        .env("PATH", toolchain.search_path()?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    shell::run(&mut cargo)?;

    let linked = target_dir.join(TARGET).join("bpf/programs");
    if let Some(folder) = object.parent() {
        fs::create_dir_all(folder)?;
    }
    // The kernel wants the types (.BTF), nobody wants the rest of the debug information.
    let mut strip = Command::new(toolchain.llvm("llvm-objcopy"));
    strip.args(["--strip-debug", "--remove-section=.rel.BTF*"]).arg(&linked).arg(object);
    shell::run(&mut strip)?;
    refuse_machine_paths(object, &places)
}

/// Folders of this machine, and what stands for them in the object.
fn places(root: &Path, toolchain: &Toolchain) -> Result<Vec<(String, String)>> {
    let mut places = vec![(root.to_owned(), "/holdfast"), (toolchain.library.clone(), "/rust")];
    // Where the compiler's link to its library leads.
    places.push((toolchain.library.canonicalize()?, "/rust"));
    let cargo_home = match std::env::var_os("CARGO_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let registries = fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten();
    places.push((cargo_home, "/cargo"));
    // The name of a registry's folder tells which registry it is. Of several
    // replacements that fit, the compiler takes the last.
    places.extend(registries.flatten().map(|registry| (registry.path(), "/cargo")));
    Ok(places.into_iter().map(|(from, to)| (from.display().to_string(), to.to_owned())).collect())
}

fn refuse_machine_paths(object: &Path, places: &[(String, String)]) -> Result<()> {
    let bytes = fs::read(object)?;
    for (from, _) in places {
        let found = bytes.windows(from.len()).any(|window| window == from.as_bytes());
        ensure!(!found, "the object holds a path of this machine: {from}");
    }
    Ok(())
}
