//! Cuts BTF data down to the types that somebody asks for, for fixtures: the same
//! data as the kernel's, but a few KiB of it.
//!
//! Kept are the wanted members with everything that their places and sizes follow
//! from, the tracepoints' prototypes, and whole enumerations. A structure keeps its
//! size and loses the members that nobody asked for; a pointer keeps the name of
//! what it leads to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Btf, DEPTH, RECORD, Type, kind, u32_at};

/// What to keep.
pub(in crate::kernel) struct Wanted<'a> {
    /// Members, as "structure.member.member".
    pub(in crate::kernel) members: Vec<&'a str>,
    /// Tracepoints.
    pub(in crate::kernel) tracepoints: Vec<&'a str>,
    /// Functions, of which only the name is kept.
    pub(in crate::kernel) functions: Vec<&'a str>,
    /// Enumerations, with all their values.
    pub(in crate::kernel) enums: Vec<&'a str>,
}

/// The part of `data` that is wanted; what the kernel does not have is left out.
pub(in crate::kernel) fn trim(data: Vec<u8>, wanted: &Wanted<'_>) -> Result<Vec<u8>, super::Error> {
    let definitions: Vec<_> =
        wanted.tracepoints.iter().map(|hook| format!("btf_trace_{hook}")).collect();
    let structures = wanted.members.iter().filter_map(|path| path.split('.').next());
    let names = definitions.iter().map(String::as_str).chain(wanted.functions.iter().copied());
    let btf = Btf::parse(data, names.chain(structures))?;
    let mut cut = Cut { btf: &btf, kept: BTreeMap::new() };
    for path in &wanted.members {
        cut.member(path);
    }
    for definition in &definitions {
        cut.tracepoint(definition);
    }
    for name in &wanted.functions {
        if let Some(id) = btf.function(name) {
            cut.keep(id);
        }
    }
    for name in &wanted.enums {
        cut.enumeration(name);
    }
    Ok(cut.write())
}

struct Cut<'a> {
    btf: &'a Btf,
    /// Types that are kept, and which of their entries.
    kept: BTreeMap<u32, BTreeSet<usize>>,
}

impl Cut<'_> {
    fn member(&mut self, path: &str) -> Option<()> {
        // All or nothing: half a path is of no use.
        self.btf.member(path)?;
        let mut parts = path.split('.');
        let mut id = *self.btf.named.get(parts.next()?)?;
        for name in parts {
            id = self.step(id, name, DEPTH)?;
        }
        self.keep(id);
        Some(())
    }

    /// Keeps what leads from type `id` to its member `name`; the member's type.
    fn step(&mut self, id: u32, name: &str, depth: u32) -> Option<u32> {
        let id = self.behind(id)?;
        let ty = self.btf.get(id)?;
        if ty.kind() == kind::ARRAY {
            // An element, by its number.
            return u32_at(&self.btf.data, ty.at + RECORD);
        }
        if !matches!(ty.kind(), kind::STRUCT | kind::UNION) {
            return None;
        }
        for n in 0..ty.entries() {
            let [called, member, _] = self.entry(ty, n)?;
            let called = self.btf.string(called)?;
            let found = if called == name {
                Some(member)
            } else if called.is_empty() && depth > 0 && self.leads_to(member, name, depth) {
                self.step(member, name, depth - 1)
            } else {
                None
            };
            if let Some(found) = found {
                self.keep(member);
                self.kept.entry(id).or_default().insert(n);
                return Some(found);
            }
        }
        None
    }

    /// Whether an anonymous member has `name`: what is looked through in vain is not kept.
    fn leads_to(&self, member: u32, name: &str, depth: u32) -> bool {
        let ty = self.btf.resolve(member);
        ty.is_some_and(|ty| self.btf.find_member(ty, name, depth - 1).is_some())
    }

    fn tracepoint(&mut self, definition: &str) -> Option<()> {
        let id = *self.btf.named.get(definition)?;
        self.keep(id);
        let pointer = self.btf.get(self.behind(id)?)?;
        let function = self.behind(pointer.size_or_type)?;
        let ty = self.btf.get(function)?;
        let parameters = 0..ty.entries();
        for n in parameters.clone() {
            self.keep(u32_at(&self.btf.data, ty.at + RECORD + n * 8 + 4)?);
        }
        self.kept.entry(function).or_default().extend(parameters);
        Some(())
    }

    fn enumeration(&mut self, name: &str) {
        for id in 1..self.btf.records.len() as u32 {
            let Some(ty) = self.btf.get(id) else { continue };
            if matches!(ty.kind(), kind::ENUM | kind::ENUM64)
                && self.btf.string(ty.name) == Some(name)
            {
                self.kept.entry(id).or_default().extend(0..ty.entries());
                return;
            }
        }
    }

    /// Keeps a type and what its size follows from.
    fn keep(&mut self, id: u32) {
        let Some(ty) = self.btf.get(id) else { return };
        if self.kept.contains_key(&id) {
            return;
        }
        self.kept.insert(id, BTreeSet::new());
        match ty.kind() {
            kind::ARRAY => {
                for at in [0, 4] {
                    if let Some(of) = u32_at(&self.btf.data, ty.at + RECORD + at) {
                        self.keep(of);
                    }
                }
            }
            kind::STRUCT | kind::UNION => {}
            _ if is_reference(ty) => self.keep(ty.size_or_type),
            _ => {}
        }
    }

    /// The id of the type behind definitions and qualifiers; keeps them.
    fn behind(&mut self, id: u32) -> Option<u32> {
        let mut id = id;
        for _ in 0..DEPTH {
            let ty = self.btf.get(id)?;
            self.keep(id);
            if matches!(ty.kind(), kind::PTR | kind::FUNC_PROTO) || !is_reference(ty) {
                return Some(id);
            }
            id = ty.size_or_type;
        }
        None
    }

    fn entry(&self, ty: Type, n: usize) -> Option<[u32; 3]> {
        let at = ty.at + RECORD + n * 12;
        let word = |k: usize| u32_at(&self.btf.data, at + k * 4);
        Some([word(0)?, word(1)?, word(2)?])
    }

    fn write(&self) -> Vec<u8> {
        let ids: HashMap<u32, u32> = self.kept.keys().copied().zip(1..).collect();
        let of = |old: u32| ids.get(&old).copied().unwrap_or(0);
        let mut strings = Strings::default();
        let mut types: Vec<u32> = Vec::new();
        for (id, entries) in &self.kept {
            let Some(ty) = self.btf.get(*id) else { continue };
            let word = |k: usize| u32_at(&self.btf.data, ty.at + RECORD + k * 4).unwrap_or(0);
            let mut name = |at: u32| strings.add(self.btf.string(at).unwrap_or_default());
            let target = if is_reference(ty) { of(ty.size_or_type) } else { ty.size_or_type };
            let counted = (ty.info & 0xffff_0000) | entries.len() as u32;
            match ty.kind() {
                kind::STRUCT | kind::UNION => {
                    types.extend([name(ty.name), counted, target]);
                    for n in entries {
                        types.extend([name(word(n * 3)), of(word(n * 3 + 1)), word(n * 3 + 2)]);
                    }
                }
                kind::FUNC_PROTO => {
                    types.extend([name(ty.name), counted, target]);
                    for n in entries {
                        types.extend([name(word(n * 2)), of(word(n * 2 + 1))]);
                    }
                }
                kind::ENUM => {
                    types.extend([name(ty.name), counted, target]);
                    for n in entries {
                        types.extend([name(word(n * 2)), word(n * 2 + 1)]);
                    }
                }
                kind::ENUM64 => {
                    types.extend([name(ty.name), counted, target]);
                    for n in entries {
                        types.extend([name(word(n * 3)), word(n * 3 + 1), word(n * 3 + 2)]);
                    }
                }
                kind::ARRAY => {
                    types.extend([
                        name(ty.name),
                        ty.info,
                        target,
                        of(word(0)),
                        of(word(1)),
                        word(2),
                    ]);
                }
                kind::INT => types.extend([name(ty.name), ty.info, target, word(0)]),
                _ => types.extend([name(ty.name), ty.info, target]),
            }
        }
        let length = (types.len() * 4) as u32;
        let header = [0x0001_eb9f, 24, 0, length, length, strings.bytes.len() as u32];
        header.into_iter().chain(types).flat_map(u32::to_ne_bytes).chain(strings.bytes).collect()
    }
}

/// Whether the record's last word is another type's id.
fn is_reference(ty: Type) -> bool {
    matches!(
        ty.kind(),
        kind::PTR
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FUNC_PROTO
            | kind::TYPE_TAG
    )
}

/// A string section, each string once.
struct Strings {
    bytes: Vec<u8>,
    known: HashMap<String, u32>,
}

impl Default for Strings {
    fn default() -> Self {
        Self { bytes: vec![0], known: HashMap::from([(String::new(), 0)]) }
    }
}

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        if let Some(at) = self.known.get(text) {
            return *at;
        }
        let at = self.bytes.len() as u32;
        self.bytes.extend(text.bytes().chain([0]));
        self.known.insert(text.to_owned(), at);
        at
    }
}
