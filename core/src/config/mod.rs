//! Strict, layered configuration files.
//!
//! A program has one TOML file and beside it a folder of drop-ins (`agent.toml`
//! and `agent.toml.d/*.toml`). Drop-ins are laid over the file in the order of
//! their names: tables are merged, anything else is replaced. A key nobody knows
//! is an error, so that a misspelt limit is never silently not a limit; each
//! error names file, line and column. Nothing here knows what the keys mean.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

mod de;
mod tree;

pub use tree::Place;

/// Largest configuration file that is read, in bytes.
pub const FILE_BYTES: u64 = 1024 * 1024;
/// Most drop-ins of one file.
pub const DROP_INS: usize = 256;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that must be there, or is there, could not be read.
    #[error("cannot read configuration {}", path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is larger than [`FILE_BYTES`].
    #[error("configuration {} is larger than {FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A folder holds more files than may be in it.
    #[error("{} holds more than {most} files", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// How many may be in it.
        most: usize,
    },
    /// Not TOML.
    #[error("malformed configuration in {place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong there.
        message: String,
    },
    /// A key that means nothing.
    #[error("unknown key `{key}` in {place}; {hint}")]
    UnknownKey {
        /// The key with the tables it is in, joined by dots.
        key: String,
        /// Where.
        place: Place,
        /// The nearest valid key, or all of them.
        hint: String,
    },
    /// A key whose value has the wrong type or is out of bounds.
    #[error("wrong value for `{key}` in {place}: {message}")]
    Value {
        /// The key with the tables it is in, joined by dots.
        key: String,
        /// Where.
        place: Place,
        /// What was expected, and what was found.
        message: String,
    },
}

/// Reads the configuration of a program.
///
/// `named` is the file a person asked for, which must exist; without it the file
/// at `default` is read if it exists. Drop-ins of either are laid over it. Without
/// any file the result is `T::default()`.
///
/// # Errors
///
/// See [`Error`]; the first fault found is reported.
pub fn load<T: DeserializeOwned + Default>(
    named: Option<&Path>,
    default: &Path,
) -> Result<T, Error> {
    let path = named.unwrap_or(default);
    let mut files = Vec::new();
    match read(path) {
        Ok(text) => files.push((path.to_owned(), text)),
        Err(Error::Read { source, .. })
            if named.is_none() && source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    for drop_in in drop_ins(path)? {
        let text = read(&drop_in)?;
        files.push((drop_in, text));
    }
    merge(&files)
}

/// Reads a configuration from `text`; `path` is only named in errors.
///
/// # Errors
///
/// As [`load`].
pub fn parse<T: DeserializeOwned + Default>(path: &Path, text: &str) -> Result<T, Error> {
    merge(&[(path.to_owned(), text.as_bytes().to_vec())])
}

fn merge<T: DeserializeOwned + Default>(files: &[(PathBuf, Vec<u8>)]) -> Result<T, Error> {
    let mut merged: Option<tree::Node> = None;
    for (path, text) in files {
        let layer = tree::parse(path, text)?;
        match &mut merged {
            Some(base) => base.overlay(layer),
            None => merged = Some(layer),
        }
    }
    match merged {
        Some(root) => de::from_tree(root),
        None => Ok(T::default()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut text))
        .map_err(failed)?;
    if text.len() as u64 > FILE_BYTES {
        return Err(Error::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// The drop-ins of `path`, by name; none when their folder does not exist.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    files_in(Path::new(&folder), DROP_INS)
}

/// What is in a file, or why that cannot be read.
pub type Contents = Result<Vec<u8>, Error>;

/// The files of a folder in which each stands for itself, by name: `*.toml`, at most `most` of
/// them, each with what is in it or why that cannot be read. None when the folder does not
/// exist.
///
/// # Errors
///
/// When the folder cannot be read, or holds more files than that.
pub fn folder(path: &Path, most: usize) -> Result<Vec<(PathBuf, Contents)>, Error> {
    let files = files_in(path, most)?;
    Ok(files.into_iter().map(|file| (file.clone(), read(&file))).collect())
}

fn files_in(folder: &Path, most: usize) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        // Editors leave hidden copies behind; package managers leave `*.toml.dpkg-old`.
        let name = Path::new(&name);
        let hidden = name.as_os_str().as_encoded_bytes().starts_with(b".");
        if !hidden && name.extension().is_some_and(|e| e == "toml") {
            found.push(folder.join(name));
        }
        if found.len() > most {
            return Err(Error::TooMany { path: folder.to_owned(), most });
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Config {
        summary_interval: u32,
        collector: Collector,
        names: Vec<String>,
        level: Option<Level>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Collector {
        url: String,
        retries: u8,
        ratio: f64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Level {
        Low,
        VeryHigh,
    }

    fn check(text: &str, expected: &str) {
        let error = parse::<Config>(Path::new("/etc/a.toml"), text).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest() {
        check(
            "# one\n\n  summary_intervall = 3\n",
            "unknown key `summary_intervall` in /etc/a.toml:3:3; did you mean `summary_interval`?",
        );
        check(
            "[collector]\nurl = 'x'\nretrys = 1\n",
            "unknown key `collector.retrys` in /etc/a.toml:3:1; did you mean `retries`?",
        );
        check(
            "[zzzzzzzzz]\n",
            "unknown key `zzzzzzzzz` in /etc/a.toml:1:2; valid here are `summary_interval`, \
             `collector`, `names`, `level`",
        );
    }

    #[test]
    fn wrong_values_say_what_was_expected() {
        check(
            "summary_interval = 'often'\n",
            "wrong value for `summary_interval` in /etc/a.toml:1:20: expected a whole number \
             from 0 to 4294967295, found string \"often\"",
        );
        check(
            "collector = { retries = 256 }\n",
            "wrong value for `collector.retries` in /etc/a.toml:1:25: expected a whole number \
             from 0 to 255, found integer `256`",
        );
        check(
            "names = ['a', 'b',\n  7]\n",
            "wrong value for `names` in /etc/a.toml:2:3: expected a string, found integer `7`",
        );
        check(
            "level = 'very-hihg'\n",
            "wrong value for `level` in /etc/a.toml:1:9: unknown value `very-hihg`; did you mean \
             `very-high`?",
        );
        check(
            "collector = 3\n",
            "wrong value for `collector` in /etc/a.toml:1:13: expected a table, found an \
             integer",
        );
    }

    #[test]
    fn malformed_files_are_placed() {
        for (text, place) in [
            ("a = \n", "/etc/a.toml:1:5"),
            ("x = 1\nx = 2\n", "/etc/a.toml:2:1"),
            ("\n[a\n", "/etc/a.toml:2:3"),
            ("summary_interval = 99999999999999999999999999999999999999999", "/etc/a.toml:1:20"),
        ] {
            let error = parse::<Config>(Path::new("/etc/a.toml"), text).unwrap_err().to_string();
            assert!(error.contains(&format!("in {place}: ")), "{text:?}: {error}");
        }
        let error = merge::<Config>(&[(PathBuf::from("/etc/a.toml"), b"ok = 1\n  \xff".to_vec())]);
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "malformed configuration in /etc/a.toml:2:3: not UTF-8");
    }

    #[test]
    fn drop_ins_merge_in_name_order_and_keep_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("c.toml");
        let drop_ins = folder.path().join("c.toml.d");
        fs::create_dir(&drop_ins).unwrap();
        fs::write(&base, "summary_interval = 1\ncollector = { url = 'a', retries = 1 }").unwrap();
        fs::write(drop_ins.join("20.toml"), "collector.retries = 3\nnames = ['n']").unwrap();
        fs::write(drop_ins.join("10.toml"), "collector.retries = 2\nnames = ['m', 'o']").unwrap();
        fs::write(drop_ins.join("30.toml.bak"), "nonsense").unwrap();
        fs::write(drop_ins.join(".40.toml"), "nonsense").unwrap();

        let config: Config = load(Some(&base), Path::new("/nowhere")).unwrap();
        assert_eq!((config.summary_interval, config.collector.retries), (1, 3));
        assert_eq!((config.collector.url.as_str(), config.names.len()), ("a", 1));

        fs::write(drop_ins.join("50.toml"), "collector = false").unwrap();
        let error = load::<Config>(None, &base).unwrap_err().to_string();
        assert!(error.contains("50.toml:1:13"), "{error}");
    }

    #[test]
    fn a_named_file_must_exist_and_the_default_need_not() {
        let missing = Path::new("/nonexistent/holdfast.toml");
        assert_eq!(load::<Config>(None, missing).unwrap(), Config::default());
        assert!(matches!(load::<Config>(Some(missing), missing), Err(Error::Read { .. })));
    }

    #[test]
    fn files_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, vec![b'\n'; FILE_BYTES as usize]).unwrap();
        assert!(load::<Config>(Some(&path), &path).is_ok());
        fs::write(&path, vec![b'\n'; FILE_BYTES as usize + 1]).unwrap();
        assert!(matches!(load::<Config>(Some(&path), &path), Err(Error::TooLarge { .. })));
    }
}
