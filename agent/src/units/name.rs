//! The name of the unit that a cgroup belongs to, from its path. Pure.

use holdfast_proto::limits;

/// The name of the cgroup at the root of the hierarchy.
pub const ROOT: &str = "-.slice";

/// Unit types that have processes of their own, as suffixes of unit names.
const SUFFIXES: [&str; 6] = [".service", ".scope", ".socket", ".mount", ".swap", ".timer"];
const SLICE: &str = ".slice";

/// What a cgroup's path says about its unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The unit's name, or the path of a cgroup outside any unit.
    pub text: String,
    /// Whether the cgroup belongs to a slice directly, which has processes only by exception.
    pub is_slice: bool,
    /// Whether the cgroup is the unit's own, not one below it.
    pub is_top: bool,
}

/// Names the cgroup at `path`, relative to the root of the hierarchy and empty for
/// the root itself.
///
/// The deepest component that is a unit other than a slice names it, else the
/// deepest slice, else the path.
#[must_use]
pub fn of(path: &str) -> Name {
    if path.is_empty() {
        return Name { text: ROOT.to_owned(), is_slice: true, is_top: true };
    }
    let components = || path.rsplit('/').enumerate();
    let ends_in = |component: &str, suffix: &str| {
        component.strip_suffix(suffix).is_some_and(|prefix| !prefix.is_empty())
    };
    let unit = components().find(|(_, name)| SUFFIXES.iter().any(|suffix| ends_in(name, suffix)));
    let slice = || components().find(|(_, name)| ends_in(name, SLICE));
    let (text, is_slice, is_top) = match (unit, slice) {
        (Some((depth, name)), _) => (unescape(name), false, depth == 0),
        (None, slice) => match slice() {
            Some((depth, name)) => (unescape(name), true, depth == 0),
            None => (path, false, true),
        },
    };
    Name { text: clean(text), is_slice, is_top }
}

/// systemd puts `_` before names that would clash with the kernel's own files.
fn unescape(name: &str) -> &str {
    name.strip_prefix('_').filter(|rest| !rest.starts_with('.')).unwrap_or(name)
}

/// Fit for the wire: without control characters, the end kept when it is too long.
pub(crate) fn clean(text: &str) -> String {
    let mut start = text.len().saturating_sub(limits::INSTANCE_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let tail = text.get(start..).unwrap_or_default();
    // A control character may be two bytes long, its replacement is one.
    tail.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_unit_names_a_cgroup() {
        for (path, text, is_slice, is_top) in [
            ("", "-.slice", true, true),
            ("system.slice", "system.slice", true, true),
            ("system.slice/ssh.service", "ssh.service", false, true),
            ("system.slice/docker-0a.scope/init", "docker-0a.scope", false, false),
            (
                "user.slice/user-0.slice/user@0.service/app.slice/x.service",
                "x.service",
                false,
                true,
            ),
            ("user.slice/user-0.slice/user@0.service/app.slice", "user@0.service", false, false),
            ("user.slice/user-0.slice", "user-0.slice", true, true),
            ("system.slice/bare", "system.slice", true, false),
            ("tb/h1", "tb/h1", false, true),
            ("docker/abc", "docker/abc", false, true),
            ("system.slice/_cpu.service", "cpu.service", false, true),
            (".service", ".service", false, true),
            ("a.target", "a.target", false, true),
        ] {
            assert_eq!(of(path), Name { text: text.to_owned(), is_slice, is_top }, "{path}");
        }
    }

    #[test]
    fn any_name_fits_the_wire() {
        for path in ["a\u{1b}[2J", "x\u{85}.service", &"é".repeat(400), &"d/".repeat(300)] {
            assert!(limits::is_instance(&of(path).text), "{path:?}");
        }
    }
}
