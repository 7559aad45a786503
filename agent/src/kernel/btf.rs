//! A small reader of BTF, the kernel's own description of its types: where a
//! member lies in its structure, what arguments a tracepoint hands over, and what
//! the values of an enumeration are called.
//!
//! One pass over the raw data remembers where each type begins and which of the
//! wanted names it saw; nothing else is kept, and the whole is dropped after
//! start. Everything read is bounds-checked: the data is input like any other.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Why BTF data cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// Not BTF, of another byte order, or of a version not known.
    #[error("not BTF of version 1 in this machine's byte order")]
    Header,
    /// A record or string reaches beyond the data, or has an unknown kind.
    #[error("malformed at byte {0}")]
    Malformed(usize),
}

/// A member's place in its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Offset from the start of the outermost structure, in bytes.
    pub(super) offset: u32,
    /// Size, in bytes.
    pub(super) bytes: u32,
}

/// What a tracepoint hands to a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prototype {
    /// Id of the tracepoint's type, which a program is loaded for.
    pub(super) id: u32,
    /// Its arguments.
    pub(super) arguments: Vec<Argument>,
}

/// An argument of a tracepoint, as far as we tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Argument {
    /// A pointer to the structure of this name.
    Pointer(String),
    /// `bool`.
    Bool,
    /// A value of the enumeration of this name.
    Enum(String),
    /// A number, or anything else.
    Other,
}

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Longest chain of type definitions, qualifiers and nested anonymous members followed.
const DEPTH: u32 = 32;
/// Size of a type record without what follows by kind.
const RECORD: usize = 12;
/// `BTF_INT_BOOL` in the encoding of an integer.
const BOOL: u32 = 1 << 2;

/// Parsed BTF data.
#[derive(Debug)]
pub(super) struct Btf {
    data: Vec<u8>,
    strings: Range<usize>,
    /// Where the record of each type begins; type 0 is `void` and has none.
    records: Vec<u32>,
    /// Structures, enumerations and type definitions among the wanted names.
    named: HashMap<String, u32>,
    /// Functions among them.
    functions: HashMap<String, u32>,
}

#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    /// Size or another type's id, by kind.
    size_or_type: u32,
}

impl Type {
    fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn entries(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Whether members have their bit size in the offset's upper byte.
    fn has_bitfields(self) -> bool {
        self.info >> 31 == 1
    }
}

impl Btf {
    /// Parses `data`, remembering structures, enumerations, type definitions and
    /// functions named in `wanted`.
    ///
    /// # Errors
    ///
    /// [`Error`] when the data is not whole.
    pub(super) fn parse<'a>(
        data: Vec<u8>,
        wanted: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        let field = |at| u32_at(&data, at).ok_or(Error::Header);
        if field(0)? & 0x00ff_ffff != 0x01_eb9f {
            return Err(Error::Header);
        }
        let header = field(4)? as usize;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(field(offset)? as usize).ok_or(Error::Header)?;
            let end = start.checked_add(field(length)? as usize).ok_or(Error::Header)?;
            if end > data.len() { Err(Error::Header) } else { Ok(start..end) }
        };
        let (types, strings) = (section(8, 12)?, section(16, 20)?);
        let (named, functions) = (HashMap::new(), HashMap::new());
        let mut btf = Self { data, strings, records: vec![0], named, functions };
        let wanted: HashSet<&str> = wanted.into_iter().collect();

        let mut at = types.start;
        while at < types.end {
            let record = btf.record(at).ok_or(Error::Malformed(at))?;
            let end = record_end(record).ok_or(Error::Malformed(at))?;
            if end > types.end {
                return Err(Error::Malformed(at));
            }
            let id = btf.records.len() as u32;
            btf.records.push(at as u32);
            let names = match record.kind() {
                kind::STRUCT | kind::TYPEDEF => Some(&mut btf.named),
                // One without values is a mere announcement.
                kind::ENUM | kind::ENUM64 if record.entries() > 0 => Some(&mut btf.named),
                kind::FUNC => Some(&mut btf.functions),
                _ => None,
            };
            if let Some(names) = names {
                let name = string(&btf.data, &btf.strings, record.name);
                let name = name.ok_or(Error::Malformed(at))?;
                if wanted.contains(name) && !names.contains_key(name) {
                    names.insert(name.to_owned(), id);
                }
            }
            at = end;
        }
        Ok(btf)
    }

    /// Where the member of `path` ("structure.member.member", or ".number" for an element
    /// of an array) lies. `None` when
    /// there is no such member, when it is a bit field, or when the structure was not
    /// among the wanted names.
    #[must_use]
    pub(super) fn member(&self, path: &str) -> Option<Place> {
        let mut parts = path.split('.');
        let mut id = *self.named.get(parts.next()?)?;
        let mut bits = 0u32;
        for name in parts {
            let (member_bits, member) = self.find_part(self.resolve(id)?, name)?;
            bits = bits.checked_add(member_bits)?;
            id = member;
        }
        bits.is_multiple_of(8).then_some(Place { offset: bits / 8, bytes: self.size(id)? })
    }

    /// What the tracepoint `name` hands to a program; `None` when the kernel has
    /// no such tracepoint or `btf_trace_NAME` was not among the wanted names.
    #[must_use]
    pub(super) fn tracepoint(&self, name: &str) -> Option<Prototype> {
        let id = *self.named.get(&format!("btf_trace_{name}"))?;
        let pointer = self.resolve(self.get(id)?.size_or_type)?;
        let function = self.resolve(pointer.size_or_type)?;
        if pointer.kind() != kind::PTR || function.kind() != kind::FUNC_PROTO {
            return None;
        }
        // The first parameter is the tracer's own.
        let arguments = (1..function.entries()).map(|n| {
            let parameter = u32_at(&self.data, function.at + RECORD + n * 8 + 4)?;
            Some(self.argument(parameter))
        });
        Some(Prototype { id, arguments: arguments.collect::<Option<_>>()? })
    }

    /// The enumerators of enumeration `name`, in the order of the kernel's sources;
    /// none when it is not among the wanted names. Values beyond 32 bits are left out.
    #[must_use]
    pub(super) fn enumerators(&self, name: &str) -> Vec<(u32, &str)> {
        let ty = self.named.get(name).and_then(|id| self.get(*id));
        let Some(ty) = ty.filter(|ty| matches!(ty.kind(), kind::ENUM | kind::ENUM64)) else {
            return Vec::new();
        };
        let wide = ty.kind() == kind::ENUM64;
        let each = if wide { 12 } else { 8 };
        let read = |n: usize| {
            let at = ty.at + RECORD + n * each;
            let upper = if wide { u32_at(&self.data, at + 8)? } else { 0 };
            let value = u32_at(&self.data, at + 4)?;
            (upper == 0).then_some((value, self.string(u32_at(&self.data, at)?)?))
        };
        (0..ty.entries()).filter_map(read).collect()
    }

    /// Id of the function of this name; `None` when there is none or it was not among
    /// the wanted names.
    #[must_use]
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        self.functions.get(name).copied()
    }

    fn argument(&self, id: u32) -> Argument {
        let Some(ty) = self.resolve(id) else { return Argument::Other };
        match ty.kind() {
            kind::PTR => {
                let target = self.resolve(ty.size_or_type).and_then(|to| self.string(to.name));
                Argument::Pointer(target.unwrap_or_default().to_owned())
            }
            kind::INT
                if u32_at(&self.data, ty.at + RECORD).is_some_and(|e| e >> 24 & BOOL != 0) =>
            {
                Argument::Bool
            }
            kind::ENUM | kind::ENUM64 => {
                Argument::Enum(self.string(ty.name).unwrap_or_default().to_owned())
            }
            _ => Argument::Other,
        }
    }

    /// Offset in bits and type of member `name` of `ty`, or of the element of that number.
    fn find_part(&self, ty: Type, name: &str) -> Option<(u32, u32)> {
        if ty.kind() != kind::ARRAY {
            return self.find_member(ty, name, DEPTH);
        }
        let element = u32_at(&self.data, ty.at + RECORD)?;
        let elements = u32_at(&self.data, ty.at + RECORD + 8)?;
        let number = name.parse().ok().filter(|number| *number < elements)?;
        let bits = self.size(element)?.checked_mul(8)?.checked_mul(number)?;
        Some((bits, element))
    }

    /// Offset in bits and type of member `name` of `ty` or of its anonymous members.
    fn find_member(&self, ty: Type, name: &str, depth: u32) -> Option<(u32, u32)> {
        if !matches!(ty.kind(), kind::STRUCT | kind::UNION) {
            return None;
        }
        for n in 0..ty.entries() {
            let at = ty.at + RECORD + n * 12;
            let (member, id) = (u32_at(&self.data, at)?, u32_at(&self.data, at + 4)?);
            let mut bits = u32_at(&self.data, at + 8)?;
            let is_bitfield = ty.has_bitfields() && bits >> 24 != 0;
            if ty.has_bitfields() {
                bits &= 0x00ff_ffff;
            }
            let member = self.string(member)?;
            if member == name {
                return (!is_bitfield).then_some((bits, id));
            }
            if member.is_empty() && !is_bitfield && depth > 0 {
                let inner = self.resolve(id).and_then(|t| self.find_member(t, name, depth - 1));
                if let Some((inner_bits, id)) = inner {
                    return Some((bits.checked_add(inner_bits)?, id));
                }
            }
        }
        None
    }

    fn size(&self, id: u32) -> Option<u32> {
        let (mut id, mut elements) = (id, 1u32);
        for _ in 0..DEPTH {
            let ty = self.resolve(id)?;
            match ty.kind() {
                kind::PTR => return elements.checked_mul(size_of::<usize>() as u32),
                kind::ARRAY => {
                    id = u32_at(&self.data, ty.at + RECORD)?;
                    elements = elements.checked_mul(u32_at(&self.data, ty.at + RECORD + 8)?)?;
                }
                kind::INT
                | kind::STRUCT
                | kind::UNION
                | kind::ENUM
                | kind::FLOAT
                | kind::ENUM64 => return elements.checked_mul(ty.size_or_type),
                _ => return None,
            }
        }
        None
    }

    /// The type behind definitions and qualifiers.
    fn resolve(&self, id: u32) -> Option<Type> {
        let mut ty = self.get(id)?;
        for _ in 0..DEPTH {
            match ty.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    ty = self.get(ty.size_or_type)?;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn get(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return None;
        }
        self.record(*self.records.get(id as usize)? as usize)
    }

    fn record(&self, at: usize) -> Option<Type> {
        Some(Type {
            at,
            name: u32_at(&self.data, at)?,
            info: u32_at(&self.data, at + 4)?,
            size_or_type: u32_at(&self.data, at + 8)?,
        })
    }

    fn string(&self, offset: u32) -> Option<&str> {
        string(&self.data, &self.strings, offset)
    }
}

fn string<'a>(data: &'a [u8], strings: &Range<usize>, offset: u32) -> Option<&'a str> {
    let bytes = data.get(strings.clone())?.get(offset as usize..)?;
    std::str::from_utf8(&bytes[..bytes.iter().position(|&b| b == 0)?]).ok()
}

fn record_end(ty: Type) -> Option<usize> {
    let n = ty.entries();
    let extra = match ty.kind() {
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => n * 12,
        kind::ENUM | kind::FUNC_PROTO => n * 8,
        _ => return None,
    };
    ty.at.checked_add(RECORD + extra)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// BTF data that holds nothing but type definitions and functions of the given names at
/// the given ids: what a loader needs to know of the kernel's types to load a
/// program for a tracepoint, without the other hundred thousand.
#[must_use]
pub(super) fn sparse(definitions: &[(u32, String)], functions: &[(u32, String)]) -> Vec<u8> {
    let all = || {
        let definitions = definitions.iter().map(|(id, name)| (*id, name, kind::TYPEDEF));
        definitions.chain(functions.iter().map(|(id, name)| (*id, name, kind::FUNC)))
    };
    let (mut types, mut strings) = (Vec::<u32>::new(), vec![0u8]);
    for id in 1..=all().map(|(id, ..)| id).max().unwrap_or(0) {
        match all().find(|(wanted, ..)| *wanted == id) {
            Some((_, name, kind)) => {
                types.extend([strings.len() as u32, kind << 24, 0]);
                strings.extend(name.bytes().chain([0]));
            }
            None => types.extend([0, kind::PTR << 24, 0]),
        }
    }
    let types_len = (types.len() * 4) as u32;
    let header = [0x0001_eb9f, 24, 0, types_len, types_len, strings.len() as u32];
    header.into_iter().chain(types).flat_map(u32::to_ne_bytes).chain(strings).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds BTF from words and names.
    #[derive(Default)]
    struct Builder {
        types: Vec<u32>,
        strings: Vec<u8>,
    }

    impl Builder {
        fn name(&mut self, name: &str) -> u32 {
            let at = self.strings.len() as u32 + 1;
            self.strings.extend(name.bytes().chain([0]));
            at
        }

        fn add(&mut self, name: &str, kind: u32, entries: u32, size: u32, extra: &[u32]) {
            let name = if name.is_empty() { 0 } else { self.name(name) };
            self.types.extend([name, kind << 24 | entries, size]);
            self.types.extend(extra);
        }

        fn build(self) -> Vec<u8> {
            let len = (self.types.len() * 4) as u32;
            [0x0001_eb9f, 24, 0, len, len, self.strings.len() as u32 + 1]
                .into_iter()
                .chain(self.types)
                .flat_map(u32::to_ne_bytes)
                .chain([0])
                .chain(self.strings)
                .collect()
        }
    }

    fn sample() -> Vec<u8> {
        let mut b = Builder::default();
        let (pid, deep, flag, low) = (b.name("pid"), b.name("deep"), b.name("flag"), b.name("low"));
        b.add("int", kind::INT, 0, 4, &[32]); // 1
        b.add("pid_t", kind::TYPEDEF, 0, 1, &[]); // 2
        b.add("", kind::UNION, 1, 4, &[deep, 2, 0]); // 3
        b.add("", kind::STRUCT, 2, 8, &[0, 1, 0, 0, 3, 32]); // 4
        b.add("task", kind::STRUCT, 3, 24, &[pid, 2, 64, 0, 4, 96, flag, 8, 160]); // 5
        b.add("", kind::PTR, 0, 5, &[]); // 6
        b.add("_Bool", kind::INT, 0, 1, &[BOOL << 24 | 8]); // 7
        b.add("", kind::ARRAY, 0, 0, &[1, 1, 3]); // 8
        b.add("", kind::FUNC_PROTO, 4, 0, &[0, 6, 0, 7, 0, 6, 0, 2]); // 9
        b.add("", kind::PTR, 0, 9, &[]); // 10
        b.add("btf_trace_hook", kind::TYPEDEF, 0, 10, &[]); // 11
        b.add("bits", kind::STRUCT, 1 | 1 << 31, 4, &[low, 1, 3 << 24 | 5]); // 12
        let (one, two, far) = (b.name("ONE"), b.name("TWO"), b.name("FAR"));
        b.add("why", kind::ENUM, 0, 4, &[]); // 13
        b.add("why", kind::ENUM, 2, 4, &[one, 1, two, 2]); // 14
        b.add("wide", kind::ENUM64, 2, 8, &[far, 1, 1, two, 2, 0]); // 15
        b.add("", kind::FUNC_PROTO, 2, 0, &[0, 6, 0, 14]); // 16
        b.add("", kind::PTR, 0, 16, &[]); // 17
        b.add("btf_trace_reason", kind::TYPEDEF, 0, 17, &[]); // 18
        b.build()
    }

    const WANTED: [&str; 6] = ["task", "bits", "btf_trace_hook", "why", "wide", "btf_trace_reason"];

    #[test]
    fn enumerators_by_name() {
        let btf = Btf::parse(sample(), WANTED).unwrap();
        assert_eq!(btf.enumerators("why"), [(1, "ONE"), (2, "TWO")]);
        assert_eq!(btf.enumerators("wide"), [(2, "TWO")], "beyond 32 bits");
        assert!(btf.enumerators("task").is_empty() && btf.enumerators("none").is_empty());
        let reason = btf.tracepoint("reason").unwrap();
        assert_eq!(reason.arguments, [Argument::Enum("why".to_owned())]);
    }

    #[test]
    fn members_nested_and_anonymous() {
        let btf = Btf::parse(sample(), WANTED).unwrap();
        let place = |path| btf.member(path).map(|p| (p.offset, p.bytes));
        assert_eq!(place("task.pid"), Some((8, 4)));
        assert_eq!(place("task.deep"), Some((16, 4)));
        assert_eq!(place("task.flag"), Some((20, 12)));
        assert_eq!(place("task.flag.2"), Some((28, 4)));
        for absent in ["task.flag.3", "task.flag.-1", "task.flag.x", "task.pid.0"] {
            assert_eq!(place(absent), None, "{absent}");
        }
        for absent in ["task.none", "task.pid.none", "none.pid", "bits.low", ""] {
            assert_eq!(place(absent), None, "{absent}");
        }
    }

    #[test]
    fn tracepoints_without_the_tracers_own_parameter() {
        let btf = Btf::parse(sample(), WANTED).unwrap();
        let hook = btf.tracepoint("hook").unwrap();
        assert_eq!(hook.id, 11);
        let task = Argument::Pointer("task".to_owned());
        assert_eq!(hook.arguments, [Argument::Bool, task, Argument::Other]);
        assert_eq!(btf.tracepoint("other"), None);
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_survived() {
        let whole = sample();
        let use_it = |data: Vec<u8>| {
            if let Ok(btf) = Btf::parse(data, WANTED) {
                let _ = (btf.member("task.deep"), btf.member("task.flag"), btf.tracepoint("hook"));
                let _ = (btf.enumerators("why"), btf.enumerators("wide"));
            }
        };
        for end in 0..whole.len() {
            use_it(whole[..end].to_vec());
            for value in [0, 1, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[end] = value;
                use_it(broken);
            }
        }
        assert_eq!(Btf::parse(Vec::new(), []).unwrap_err(), Error::Header);
    }

    #[test]
    fn sparse_data_keeps_ids() {
        let definitions = [(7, "btf_trace_a".to_owned()), (3, "btf_trace_b".to_owned())];
        let data = sparse(&definitions, &[(5, "bpf_iter_c".to_owned())]);
        let btf = Btf::parse(data, ["btf_trace_a", "btf_trace_b", "bpf_iter_c"]).unwrap();
        assert_eq!((btf.named["btf_trace_a"], btf.named["btf_trace_b"]), (7, 3));
        assert_eq!((btf.function("bpf_iter_c"), btf.function("btf_trace_a")), (Some(5), None));
    }
}
