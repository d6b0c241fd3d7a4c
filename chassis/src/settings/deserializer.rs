//! From values with places to a typed value, and from serde's errors to problems.
//!
//! A value from a variable is a text that becomes what its key wants: `true`, a number, a comma-separated list or a TOML
//! one, an inline table.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::Fault;
use super::problem::Problem;
use super::tree::{Node, Tree, Value, from_value, join};

/// A file with more wrong keys than this shows the first ones.
const MAX_PROBLEMS: usize = 50;

/// Reads the tree as an `S`. What is wrong is taken out of the tree and read again without, so that all of it is found.
pub(super) fn read<S: DeserializeOwned>(tree: &mut Tree, problems: &mut Vec<Problem>) -> Option<S> {
    let mut refused = Vec::new();
    while problems.len() < MAX_PROBLEMS {
        let fault = match S::deserialize(Reader(&tree.root)) {
            Ok(settings) => return Some(settings),
            Err(fault) => fault,
        };
        let path = fault.path.unwrap_or_default();
        let place = fault.place.unwrap_or_else(|| tree.root.place.clone());
        // A key that was refused for its value is missing now; that is no second problem.
        let told = fault.missing.is_some_and(|key| refused.contains(&join(&path, key)));
        if !told {
            problems.push(Problem::of_key(place, &path, fault.message));
        }
        if !tree.remove(&path) {
            return None;
        }
        refused.push(path);
    }
    None
}

/// Reads a node.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a Node);

impl Reader<'_> {
    /// A text from a variable, parsed as `T`; every other value as it is.
    fn number<'de, V: Visitor<'de>, T: std::str::FromStr>(
        self,
        visitor: V,
        visit: impl FnOnce(V, T) -> Result<V::Value, Fault>,
    ) -> Result<V::Value, Fault>
    where
        Self: Deserializer<'de, Error = Fault>,
    {
        match &self.0.value {
            Value::Text(text) => match text.trim().parse() {
                Ok(number) => visit(visitor, number).map_err(|fault| fault.of(self.0)),
                Err(_) => self.deserialize_any(visitor),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    /// A text that holds a TOML value, as a node.
    fn inline(self, text: &str) -> Option<Node> {
        let value = text.parse().ok()?;
        Some(from_value(&self.0.path, &self.0.place, value))
    }
}

macro_rules! numbers {
    ($($method:ident $type:ty => $visit:ident,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.number(visitor, |visitor, number: $type| visitor.$visit(number))
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let result = match &self.0.value {
            Value::Text(text) | Value::String(text) | Value::Datetime(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(flag) => visitor.visit_bool(*flag),
            Value::List(list) => visitor.visit_seq(Elements(list.iter())),
            Value::Table(table) => visitor.visit_map(Entries {
                entries: table.iter(),
                value: None,
            }),
        };
        result.map_err(|fault| fault.of(self.0))
    }

    numbers! {
        deserialize_bool bool => visit_bool,
        deserialize_i8 i64 => visit_i64,
        deserialize_i16 i64 => visit_i64,
        deserialize_i32 i64 => visit_i64,
        deserialize_i64 i64 => visit_i64,
        deserialize_u8 u64 => visit_u64,
        deserialize_u16 u64 => visit_u64,
        deserialize_u32 u64 => visit_u64,
        deserialize_u64 u64 => visit_u64,
        deserialize_f32 f64 => visit_f64,
        deserialize_f64 f64 => visit_f64,
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Text(text) = &self.0.value else {
            return self.deserialize_any(visitor);
        };
        if text.trim_start().starts_with('[') {
            let Some(node) = self.inline(text) else {
                return self.deserialize_any(visitor);
            };
            return Reader(&node).deserialize_any(visitor);
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let nodes: Vec<_> = parts.map(|part| text_node(self.0, part)).collect();
        visitor
            .visit_seq(Elements(nodes.iter()))
            .map_err(|fault| fault.of(self.0))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Value::Text(text) = &self.0.value else {
            return self.deserialize_any(visitor);
        };
        match self.inline(text).filter(|node| matches!(node.value, Value::Table(_))) {
            Some(node) => Reader(&node).deserialize_any(visitor),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self).map_err(|fault| fault.of(self.0))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let result = match &self.0.value {
            Value::Text(text) | Value::String(text) => visitor.visit_enum(Choice(text.trim())),
            other => {
                let choices: Vec<_> = variants.iter().map(|choice| format!("{choice:?}")).collect();
                Err(Fault::new(format!(
                    "expected {}, not {}",
                    choices.join(" or "),
                    other.kind()
                )))
            }
        };
        result.map_err(|fault| fault.of(self.0))
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

fn text_node(parent: &Node, text: &str) -> Node {
    Node {
        path: parent.path.clone(),
        place: parent.place.clone(),
        value: Value::Text(text.to_owned()),
    }
}

struct Elements<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let read = |node| seed.deserialize(Reader(node)).map_err(|fault| fault.of(node));
        self.0.next().map(read).transpose()
    }
}

struct Entries<'a> {
    entries: std::collections::btree_map::Iter<'a, String, Node>,
    value: Option<&'a Node>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, node)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some(node);
        let key: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| fault.of(node))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let node = self
            .value
            .take()
            .ok_or_else(|| Fault::new("a value without a key".to_owned()))?;
        seed.deserialize(Reader(node)).map_err(|fault| fault.of(node))
    }
}

/// The name of an enum's variant; none of them holds a value.
struct Choice<'a>(&'a str);

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Fault> {
        Err(Fault::new(format!("{:?} takes a value", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Fault> {
        Err(Fault::new(format!("{:?} takes values", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(self, _fields: &'static [&'static str], _visitor: V) -> Result<V::Value, Fault> {
        Err(Fault::new(format!("{:?} takes keys", self.0)))
    }
}
