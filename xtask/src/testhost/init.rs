//! The first process of a test host: lays out its files and becomes systemd.
//!
//! Runs in fresh pid, mount, uts, ipc and cgroup namespaces, and in the host's
//! network namespace. Nothing it mounts is seen outside.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd;

/// Device files that are handed through.
const DEVICES: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "kmsg"];

/// Where the host's files come from.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The host's name
    name: String,
    /// Files shared with other hosts
    base: PathBuf,
    /// An empty folder for its own files
    folder: PathBuf,
}

/// Never returns when all is well.
pub(crate) fn run(args: &Args) -> Result<()> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("mounts cannot be made private")?;
    let root = root(&args.base, &args.folder)?;
    kernel_files(&root)?;
    devices(&root)?;
    temporary(&root)?;
    name(&root, &args.name)?;
    enter(&root)?;
    // The clock and kernel modules are this machine's, not the host's.
    let error = Command::new("setpriv")
        .args(["--bounding-set", "-sys_time,-sys_module", "/lib/systemd/systemd"])
        .env_clear()
        .env("container", "holdfast-test")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .exec();
    Err(error).context("cannot become systemd")
}

/// The base below, what the host writes above in memory.
fn root(base: &Path, folder: &Path) -> Result<PathBuf> {
    mount_new("tmpfs", folder, MsFlags::empty(), "size=512m,mode=755")?;
    let [root, upper, work] = ["root", "upper", "work"].map(|name| folder.join(name));
    for folder in [&root, &upper, &work] {
        fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let (base, upper, work) = (base.display(), upper.display(), work.display());
    let layers = format!("lowerdir={base},upperdir={upper},workdir={work}");
    mount_new("overlay", &root, MsFlags::empty(), &layers)?;
    Ok(root)
}

/// What the kernel shows. Its settings are read-only: they are this machine's.
fn kernel_files(root: &Path) -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_new("proc", &root.join("proc"), safe, "")?;
    let settings = root.join("proc/sys");
    bind(&settings, &settings)?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, &settings, None::<&str>, read_only, None::<&str>)
        .context("/proc/sys cannot be made read-only")?;
    mount_new("sysfs", &root.join("sys"), safe | MsFlags::MS_RDONLY, "")?;
    mount_new("tracefs", &root.join("sys/kernel/tracing"), MsFlags::empty(), "")?;
    mount_new("bpf", &root.join("sys/fs/bpf"), MsFlags::empty(), "mode=700")?;
    // Version 2 alone, rooted at the group we are in.
    mount_new("cgroup2", &root.join("sys/fs/cgroup"), MsFlags::empty(), "")
}

fn devices(root: &Path) -> Result<()> {
    let dev = root.join("dev");
    mount_new("tmpfs", &dev, MsFlags::empty(), "mode=755,size=1m")?;
    for name in DEVICES {
        let (outside, inside) = (Path::new("/dev").join(name), dev.join(name));
        File::create(&inside).with_context(|| format!("cannot create {}", inside.display()))?;
        bind(&outside, &inside)?;
    }
    for folder in ["pts", "shm"] {
        fs::create_dir(dev.join(folder)).context("cannot create folders in /dev")?;
    }
    mount_new(
        "devpts",
        &dev.join("pts"),
        MsFlags::empty(),
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )?;
    mount_new("tmpfs", &dev.join("shm"), MsFlags::empty(), "")?;
    let links = [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ];
    for (target, name) in links {
        symlink(target, dev.join(name)).context("cannot create links in /dev")?;
    }
    Ok(())
}

fn temporary(root: &Path) -> Result<()> {
    mount_new("tmpfs", &root.join("run"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=755")?;
    mount_new("tmpfs", &root.join("tmp"), MsFlags::empty(), "mode=1777")
}

/// The host's name, and an empty machine id, which systemd fills.
fn name(root: &Path, name: &str) -> Result<()> {
    unistd::sethostname(name).context("the host name cannot be set")?;
    fs::write(root.join("etc/hostname"), format!("{name}\n"))
        .context("cannot write /etc/hostname")?;
    let id = root.join("etc/machine-id");
    fs::write(&id, "").context("cannot write /etc/machine-id")?;
    fs::set_permissions(&id, fs::Permissions::from_mode(0o444))
        .context("cannot protect /etc/machine-id")
}

/// Makes `root` the root and lets go of this machine's files.
fn enter(root: &Path) -> Result<()> {
    let old = root.join(".old");
    fs::create_dir(&old).context("cannot create a place for the old root")?;
    unistd::pivot_root(root, &old).context("the root cannot be changed")?;
    unistd::chdir("/").context("the new root cannot be entered")?;
    umount2("/.old", MntFlags::MNT_DETACH).context("the old root cannot be let go")?;
    fs::remove_dir("/.old").context("the old root's place cannot be removed")
}

fn mount_new(kind: &str, place: &Path, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(kind), place, Some(kind), flags, Some(options))
        .with_context(|| format!("cannot mount {kind} at {}", place.display()))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot bind {} to {}", from.display(), to.display()))
}
