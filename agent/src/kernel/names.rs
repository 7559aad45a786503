//! What the running kernel calls the reasons that its hooks give. The numbers
//! shift from one kernel to the next; the names stay.

use holdfast_agent_ebpf::reasons::{
    CORE_DROPS, DROP_ROWS, ERROR_ROWS, RESET_ROWS, SUBSYSTEM_DROPS,
};
use holdfast_proto::limits;
use nix::errno::Errno;

use super::btf::Btf;

/// Names by row, as the programs count; `None` for a row that no value names. Empty
/// where the kernel gives no reason.
#[derive(Debug, Default)]
pub struct Names {
    /// Reasons for drops, by [`drop_row`](holdfast_agent_ebpf::reasons::drop_row).
    pub drops: Vec<Option<Box<str>>>,
    /// Reasons for resets, by [`reset_row`](holdfast_agent_ebpf::reasons::reset_row).
    pub resets: Vec<Option<Box<str>>>,
    /// Error numbers, by [`error_row`](holdfast_agent_ebpf::reasons::error_row).
    pub errors: Vec<Option<Box<str>>>,
    /// What is told of packets that were not dropped, and one more than its number.
    harmless: Vec<(Box<str>, u32)>,
}

impl Names {
    /// The enumeration of reasons for drops.
    pub(super) const DROP: &str = "skb_drop_reason";
    /// The enumeration of reasons for resets.
    pub(super) const RESET: &str = "sk_rst_reason";
    const SUBSYSTEM: &str = "skb_drop_reason_subsys";
    /// All types that names come from.
    pub(super) const TYPES: [&str; 3] = [Self::DROP, Self::RESET, Self::SUBSYSTEM];

    pub(super) fn read(btf: &Btf) -> Self {
        let reasons = btf.enumerators(Self::DROP);
        let core = reasons.iter().filter(|(value, _)| *value < CORE_DROPS);
        let mut drops = rows(core.copied(), DROP_ROWS, "SKB_DROP_REASON_");
        let subsystems = btf.enumerators(Self::SUBSYSTEM);
        let others = subsystems.iter().filter(|(value, _)| (1..SUBSYSTEM_DROPS).contains(value));
        let others = others.map(|&(value, name)| (CORE_DROPS + value, name));
        for (row, name) in
            rows(others, DROP_ROWS, "SKB_DROP_REASON_SUBSYS_").into_iter().enumerate()
        {
            if let (Some(cell), Some(name)) = (drops.get_mut(row), name) {
                *cell = Some(name);
            }
        }
        let harmless = reasons.iter().filter(|(_, name)| !name.starts_with("SKB_DROP_REASON_"));
        Self {
            drops,
            resets: rows(btf.enumerators(Self::RESET).into_iter(), RESET_ROWS, "SK_RST_REASON_"),
            errors: errors(),
            harmless: harmless.map(|&(value, name)| (name.into(), value.wrapping_add(1))).collect(),
        }
    }

    /// Forgets the names of reasons that the hooks do not give.
    pub(super) fn keep(&mut self, drops: bool, resets: bool) {
        if !drops {
            self.drops.clear();
        }
        if !resets {
            self.resets.clear();
        }
    }

    /// One more than the number of a word that does not mean a drop; 0 when the
    /// kernel does not know it.
    pub(super) fn after(&self, word: &str) -> u32 {
        self.harmless.iter().find(|(name, _)| **name == *word).map_or(0, |(_, after)| *after)
    }
}

/// The first name of each value, without `prefix`, within the limits of the wire.
fn rows<'a>(
    values: impl Iterator<Item = (u32, &'a str)>,
    count: u32,
    prefix: &str,
) -> Vec<Option<Box<str>>> {
    let mut rows: Vec<Option<Box<str>>> = vec![None; count as usize];
    for (value, name) in values {
        let short = name.strip_prefix(prefix).unwrap_or(name);
        let short = short.get(..limits::INSTANCE_BYTES).unwrap_or(short);
        // The number of names is no name.
        let named = limits::is_instance(short) && !matches!(short, "MAX" | "NUM");
        if let Some(row) = rows.get_mut(value as usize).filter(|row| named && row.is_none()) {
            *row = Some(short.into());
        }
    }
    rows
}

/// As `errno.h` calls them.
fn errors() -> Vec<Option<Box<str>>> {
    let name = |number| match Errno::from_raw(number) {
        Errno::UnknownErrno => None,
        known => Some(format!("{known:?}").into()),
    };
    (0..ERROR_ROWS as i32).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_prefix_and_odd_ones_are_left_out() {
        let long = format!("P_{}", "x".repeat(limits::INSTANCE_BYTES + 9));
        let values = [
            (0, "P_NOT_SPECIFIED"),
            (1, "P_A\u{7}"),
            (2, "OTHER"),
            (2, "P_AGAIN"),
            (3, "P_MAX"),
            (4, &long),
            (99, "P_BEYOND"),
            (5, ""),
        ];
        let named = rows(values.into_iter(), 6, "P_");
        let named: Vec<_> = named.iter().map(Option::as_deref).collect();
        let cut = "x".repeat(limits::INSTANCE_BYTES);
        assert_eq!(named, [Some("NOT_SPECIFIED"), None, Some("OTHER"), None, Some(&*cut), None]);
    }

    #[test]
    fn errors_have_the_names_of_the_manual() {
        let errors = errors();
        let name = |number: usize| errors[number].as_deref();
        assert_eq!(name(111), Some("ECONNREFUSED"));
        assert_eq!((name(110), name(113)), (Some("ETIMEDOUT"), Some("EHOSTUNREACH")));
        assert_eq!((name(0), name(41), errors.len()), (None, None, ERROR_ROWS as usize));
    }
}
