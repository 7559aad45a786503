//! Real kernels to try: what this Debian serves, fetched through apt and kept in the
//! cache folder, unpacked to what a virtual machine needs of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Modules that a virtual machine needs for block devices, file systems and what a host
/// would load by itself, unless the kernel has them built in. What they depend on comes by itself.
const MODULES: &[&str] = &["loop", "ext4", "xfs", "tcp_diag"];

/// File that says for which modules a kernel was unpacked.
const WANTED: &str = "wanted";

/// A kernel, unpacked.
pub(crate) struct Kernel {
    /// Series and flavour: "6.1", "6.12-cloud", "6.1-rt".
    pub(crate) name: String,
    /// Name and version as the kernel itself gives it.
    pub(crate) release: String,
    folder: PathBuf,
}

impl Kernel {
    /// The bootable image.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Names and contents of its modules, in the order they are to be loaded.
    pub(crate) fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let folder = self.folder.join("modules");
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).context("no folder of modules")? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let read = |name: String| {
            let bytes = fs::read(folder.join(&name)).with_context(|| format!("module {name}"))?;
            Ok((name, bytes))
        };
        names.into_iter().map(read).collect()
    }
}

/// Where whole descriptions of kernels are collected, for fixtures.
pub(crate) fn descriptions() -> Result<PathBuf> {
    Ok(cache()?.join("descriptions"))
}

/// The newest kernel of each series and flavour that apt serves and `filter` names
/// (its beginning), fetched.
pub(crate) fn offered(filter: Option<&str>) -> Result<Vec<Kernel>> {
    let wanted: Vec<Package> = packages()?
        .into_iter()
        .filter(|package| filter.is_none_or(|filter| is_meant(&package.name, filter)))
        .collect();
    if wanted.is_empty() {
        bail!(
            "apt serves no kernel image{} for x86-64: is this Debian, and has `apt-get update` run?",
            filter.map(|filter| format!(" {filter}")).unwrap_or_default()
        );
    }
    wanted.iter().map(Package::fetch).collect()
}

/// "6.1" means all flavours of 6.1 and none of 6.12.
fn is_meant(name: &str, filter: &str) -> bool {
    name.strip_prefix(filter).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

struct Package {
    name: String,
    release: String,
    /// Its numbers in order, to find the newest.
    version: Vec<u64>,
}

impl Package {
    /// From a package's name, such as `linux-image-6.1.0-56-cloud-amd64-unsigned`.
    fn parse(package: &str) -> Option<Self> {
        let release = package.strip_prefix("linux-image-")?.strip_suffix("-unsigned")?;
        let rest = release.strip_suffix("-amd64")?;
        let (version, flavour) = ["-cloud", "-rt"]
            .iter()
            .find_map(|flavour| Some((rest.strip_suffix(flavour)?, *flavour)))
            .unwrap_or((rest, ""));
        let numbers: Vec<u64> = version
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty())
            .map_while(|digits| digits.parse().ok())
            .collect();
        let [major, minor, ..] = numbers.as_slice() else { return None };
        let name = format!("{major}.{minor}{flavour}");
        Some(Self { name, release: release.to_owned(), version: numbers })
    }

    fn fetch(&self) -> Result<Kernel> {
        let folder = cache()?.join(&self.release);
        // Unpacked for other modules: once more.
        let kept = fs::read_to_string(folder.join(WANTED)).unwrap_or_default();
        if kept != MODULES.join(" ") {
            let _ = fs::remove_dir_all(&folder);
            self.unpack(&folder)?;
        }
        Ok(Kernel { name: self.name.clone(), release: self.release.clone(), folder })
    }

    fn unpack(&self, folder: &Path) -> Result<()> {
        let cache = cache()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let package = format!("linux-image-{}-unsigned", self.release);
        let archive = || -> Result<Option<PathBuf>> {
            for entry in fs::read_dir(&cache)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name.starts_with(&format!("{package}_")) && name.ends_with(".deb") {
                    return Ok(Some(cache.join(name)));
                }
            }
            Ok(None)
        };
        if archive()?.is_none() {
            eprintln!("{}: fetching {package}", self.name);
            let mut apt = Command::new("apt-get");
            shell::output(apt.args(["download", "--quiet", &package]).current_dir(&cache))?;
        }
        let archive = archive()?.with_context(|| format!("apt left no file of {package}"))?;

        eprintln!("{}: unpacking {}", self.name, self.release);
        let whole = tempfile::tempdir_in(&cache).context("no folder to unpack in")?;
        let unpacked = whole.path().join("all");
        let kept = whole.path().join("kept");
        fs::create_dir_all(kept.join("modules"))?;
        shell::output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
        let image = unpacked.join(format!("boot/vmlinuz-{}", self.release));
        fs::rename(&image, kept.join("vmlinuz")).context("the package holds no image")?;
        self.keep_modules(&unpacked, &kept.join("modules"))?;
        fs::write(kept.join(WANTED), MODULES.join(" ")).context("cannot note the modules")?;
        // Only a whole kernel gets the name; the packed one is needed no more.
        fs::rename(&kept, folder).with_context(|| format!("cannot name {}", folder.display()))?;
        fs::remove_file(&archive).context("the package cannot be removed")
    }

    /// Copies what [`MODULES`] need, numbered in the order of loading.
    fn keep_modules(&self, unpacked: &Path, to: &Path) -> Result<()> {
        let tool = |name: &str| {
            let path = shell::find(name).with_context(|| format!("no {name}: install kmod"))?;
            Ok::<_, anyhow::Error>(Command::new(path))
        };
        shell::output(tool("depmod")?.arg("-b").arg(unpacked).arg(&self.release))?;
        let mut order: Vec<PathBuf> = Vec::new();
        for module in MODULES {
            let mut modprobe = tool("modprobe")?;
            modprobe.arg("-d").arg(unpacked).args(["-S", &self.release, "--show-depends", module]);
            // Cloud kernels leave some out: then what needs it is not tried there.
            let Ok(needs) = shell::output(&mut modprobe) else { continue };
            for path in needs.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let path = PathBuf::from(path.split_whitespace().next().unwrap_or_default());
                if !order.contains(&path) {
                    order.push(path);
                }
            }
        }
        for (n, path) in order.iter().enumerate() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let plain = name.trim_end_matches(".xz");
            let copy = to.join(format!("{n:02}-{plain}"));
            fs::copy(path, to.join(format!("{n:02}-{name}"))).with_context(|| name.to_string())?;
            if plain != name {
                shell::output(Command::new("xz").arg("-d").arg(copy.with_extension("ko.xz")))?;
            }
        }
        Ok(())
    }
}

/// The newest package of each name.
fn packages() -> Result<Vec<Package>> {
    let names = shell::output(Command::new("apt-cache").args(["pkgnames", "linux-image-"]))?;
    Ok(newest(names.lines().filter_map(Package::parse)))
}

fn newest(packages: impl Iterator<Item = Package>) -> Vec<Package> {
    let mut all: Vec<Package> = packages.collect();
    // By series as numbers, so that 6.12 comes after 6.1.
    all.sort_by(|a, b| {
        let series = |p: &Package| p.version.iter().take(2).copied().collect::<Vec<_>>();
        (series(a), &a.name, &b.version).cmp(&(series(b), &b.name, &a.version))
    });
    all.dedup_by(|later, earlier| later.name == earlier.name);
    all
}

fn cache() -> Result<PathBuf> {
    Ok(shell::cache()?.join("kernels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_flavour() {
        let names = [
            "linux-image-6.12.117+deb12-amd64-unsigned",
            "linux-image-6.1.0-9-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-amd64-unsigned",
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-amd64",
            "linux-image-6.12.117+deb12-rt-amd64-unsigned",
        ];
        let newest: Vec<_> = newest(names.into_iter().filter_map(Package::parse))
            .into_iter()
            .map(|package| (package.name, package.release))
            .collect();
        let expected = [
            ("6.1", "6.1.0-56-amd64"),
            ("6.1-cloud", "6.1.0-56-cloud-amd64"),
            ("6.12", "6.12.117+deb12-amd64"),
            ("6.12-rt", "6.12.117+deb12-rt-amd64"),
        ];
        assert_eq!(newest, expected.map(|(n, r)| (n.to_owned(), r.to_owned())));
    }

    #[test]
    fn a_series_is_no_beginning_of_another() {
        assert!(is_meant("6.1-cloud", "6.1") && is_meant("6.1", "6.1"));
        assert!(!is_meant("6.12", "6.1") && !is_meant("6.1", "6.1-rt"));
    }
}
