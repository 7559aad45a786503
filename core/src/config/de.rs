//! From the merged tree to a program's own type, strictly.
//!
//! Structs accept exactly the keys they have, whether or not they say so
//! themselves. A fault takes the place of the innermost key or value around it.

use std::{collections::btree_map, fmt};

use serde::{
    de::{
        self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer,
        MapAccess, SeqAccess, Unexpected, Visitor, value::StringDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{
    Error, Place,
    tree::{Entry, Node, Value},
};

pub(super) fn from_tree<T: DeserializeOwned>(root: Node) -> Result<T, Error> {
    let fallback = root.place.clone();
    T::deserialize(root).map_err(|fault| {
        let (key, place) = (fault.path.join("."), fault.place.unwrap_or(fallback));
        match fault.kind {
            Kind::UnknownKey { hint } => Error::UnknownKey { key, place, hint },
            Kind::Value(message) => Error::Value { key, place, message },
        }
    })
}

/// What went wrong, gathering its place and its key on the way out of the tree.
#[derive(Debug)]
pub(super) struct Fault {
    path: Vec<String>,
    place: Option<Place>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    UnknownKey { hint: String },
    Value(String),
}

impl Fault {
    fn value(message: String) -> Self {
        Self { path: Vec::new(), place: None, kind: Kind::Value(message) }
    }

    fn at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    fn inside(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::UnknownKey { hint } => write!(f, "unknown key; {hint}"),
            Kind::Value(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::value(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::value(format!("expected {}, found {found}", in_words(&expected.to_string())))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, valid: &'static [&'static str]) -> Self {
        Self::value(format!("unknown value `{variant}`; {}", hint(variant, valid)))
    }

    fn unknown_field(key: &str, valid: &'static [&'static str]) -> Self {
        let kind = Kind::UnknownKey { hint: hint(key, valid) };
        Self { path: vec![key.to_owned()], place: None, kind }
    }

    fn missing_field(key: &'static str) -> Self {
        Self::value(format!("the key `{key}` is missing"))
    }
}

/// A Rust type's name as a person would say it; anything else as it is.
fn in_words(expected: &str) -> String {
    match expected {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        _ => expected.to_owned(),
    }
}

/// The valid name nearest to `name` if one is near, else all of them.
fn hint(name: &str, valid: &[&str]) -> String {
    let near = |candidate: &&&str| strsim::osa_distance(name, candidate);
    match valid.iter().min_by_key(near) {
        Some(best) if near(&best) <= 1 + best.chars().count() / 3 => {
            format!("did you mean `{best}`?")
        }
        Some(_) => format!("valid here are `{}`", valid.join("`, `")),
        None => "no key is valid here".to_owned(),
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let place = self.place;
        match self.value {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(number) => match (i64::try_from(number), u64::try_from(number)) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_u64(number),
                _ => Err(Fault::value("integer out of range".to_owned())),
            },
            Value::Float(number) => visitor.visit_f64(number),
            Value::Boolean(flag) => visitor.visit_bool(flag),
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Table(table) => {
                visitor.visit_map(Entries { entries: table.into_iter(), value: None })
            }
        }
        .map_err(|fault| fault.at(&place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        // TOML has no null: a key that is there has a value.
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Table(table) = &self.value else {
            let message = format!("expected a table, found {}", self.value.kind());
            return Err(Fault::value(message).at(&self.place));
        };
        // In the order of the file, so that the first fault is the topmost.
        let unknown = table.iter().filter(|(name, _)| !fields.contains(&name.as_str()));
        if let Some((name, entry)) = unknown.min_by_key(|(_, entry)| entry.key.clone()) {
            return Err(<Fault as de::Error>::unknown_field(name, fields).at(&entry.key));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::String(text) = self.value else { return self.deserialize_any(visitor) };
        let variant: StringDeserializer<Fault> = text.into_deserializer();
        visitor.visit_enum(variant).map_err(|fault| fault.at(&self.place))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items(std::vec::IntoIter<Node>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Entries {
    entries: btree_map::IntoIter<String, Entry>,
    /// The entry whose key was just read.
    value: Option<(String, Entry)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some((name, entry)) = self.entries.next() else { return Ok(None) };
        let key: StringDeserializer<Fault> = name.clone().into_deserializer();
        let key = seed.deserialize(key).map_err(|fault| fault.at(&entry.key))?;
        self.value = Some((name, entry));
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((name, entry)) = self.value.take() else {
            return Err(Fault::value("a value was asked for before its key".to_owned()));
        };
        seed.deserialize(entry.node).map_err(|fault| fault.inside(&name))
    }
}
