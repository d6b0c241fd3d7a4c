//! Reading a line key by key: the walk that [`Record::decode`](crate::Record::decode) and
//! [`Envelope::read`](crate::Envelope::read) share, and the types of values.
//!
//! Unknown keys are skipped without being decoded, and `null` is absence. Errors carry the key at hand, not the
//! value: a value may hold secrets.

use std::{borrow::Cow, cell::Cell, fmt, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use crate::{DecodeError, fields::Field, frame::SCHEMA, key::Key, time};

/// What was counted, and how much of it.
type Count<'a> = (Cow<'a, str>, u64);

/// What a line is read into.
pub(crate) trait Fields<'de> {
    /// Takes or skips the value of `key`.
    fn take<A: MapAccess<'de>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error>;
}

/// Reads the whole line, and hands each known key to `fields`. Checks `schema` itself; without one it is the first.
pub(crate) fn read<'de>(line: &'de [u8], fields: &mut impl Fields<'de>) -> Result<(), DecodeError> {
    let line = str::from_utf8(line).map_err(|error| DecodeError::NotUtf8 {
        at: error.valid_up_to(),
    })?;
    let place = Place::default();
    let mut json = serde_json::Deserializer::from_str(line);
    Walk { fields, place: &place }
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| place.explain(&error))
}

/// Where the walk is, for errors.
#[derive(Default)]
struct Place {
    key: Cell<Option<Key>>,
    foreign_schema: Cell<Option<u64>>,
}

impl Place {
    fn explain(&self, error: &serde_json::Error) -> DecodeError {
        if let Some(found) = self.foreign_schema.get() {
            return DecodeError::Schema { found };
        }
        let what = match error.classify() {
            Category::Data => {
                return self
                    .key
                    .get()
                    .map_or(DecodeError::NotAnObject, |key| DecodeError::Value {
                        key: key.name(),
                        expected: key.expected(),
                    });
            }
            Category::Eof => "ends too early",
            Category::Syntax | Category::Io => "syntax error",
        };
        DecodeError::NotJson {
            what,
            column: error.column(),
        }
    }
}

struct Walk<'w, F> {
    fields: &'w mut F,
    place: &'w Place,
}

impl<'de, F: Fields<'de>> DeserializeSeed<'de> for Walk<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: Fields<'de>> Visitor<'de> for Walk<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Text<'de>>()? {
            let key = Key::of(&name.0);
            self.place.key.set(key);
            match key {
                None => skip(&mut map)?,
                Some(Key::Schema) => match map.next_value::<Option<u64>>()? {
                    None | Some(SCHEMA) => {}
                    found => {
                        self.place.foreign_schema.set(found);
                        return Err(A::Error::custom("foreign schema"));
                    }
                },
                Some(key) => self.fields.take(key, &mut map)?,
            }
        }
        Ok(())
    }
}

/// Passes over a value.
pub(crate) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// A string; borrowed from the line where it has no escapes.
pub(crate) fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
    Ok(map.next_value::<Option<Text<'de>>>()?.map(|text| text.0))
}

/// A string that is a member of a closed set.
pub(crate) fn name<'de, A: MapAccess<'de>, T: FromStr>(map: &mut A) -> Result<Option<T>, A::Error> {
    let Some(text) = text(map)? else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| A::Error::custom("unknown name"))
}

/// A string of exactly `2 * N` hexadecimal digits.
pub(crate) fn hex<'de, A: MapAccess<'de>, const N: usize>(map: &mut A) -> Result<Option<[u8; N]>, A::Error> {
    let Some(text) = text(map)? else {
        return Ok(None);
    };
    parse_hex(&text)
        .map(Some)
        .ok_or_else(|| A::Error::custom("not hexadecimal"))
}

/// The bytes that exactly `2 * N` hexadecimal digits stand for.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(bytes)
}

const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// An RFC 3339 time, in unix nanoseconds.
pub(crate) fn timestamp<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<u64>, A::Error> {
    let Some(text) = text(map)? else {
        return Ok(None);
    };
    time::parse_timestamp(&text)
        .map(Some)
        .ok_or_else(|| A::Error::custom("not a time"))
}

/// A number of milliseconds. Read from its digits: a floating-point number would lose nanoseconds.
pub(crate) fn millis<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Duration>, A::Error> {
    let Some(number) = map.next_value::<Option<&'de RawValue>>()? else {
        return Ok(None);
    };
    time::parse_millis(number.get())
        .map(Some)
        .ok_or_else(|| A::Error::custom("not milliseconds"))
}

/// An object of strings, in its order.
pub(crate) fn strings<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Vec<Field<'de>>>, A::Error> {
    let entries = map.next_value::<Option<Entries<'de, Text<'de>>>>()?;
    Ok(entries.map(|entries| entries.0.into_iter().map(|(name, value)| (name, value.0)).collect()))
}

/// An object of whole numbers, in its order.
pub(crate) fn counts<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Vec<Count<'de>>>, A::Error> {
    Ok(map.next_value::<Option<Entries<'de, u64>>>()?.map(|entries| entries.0))
}

struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Strings)
    }
}

/// The entries of an object in their order, doubles included.
struct Entries<'a, V>(Vec<(Cow<'a, str>, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Entries<'de, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Objects<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Objects<V> {
            type Value = Entries<'de, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<Text<'de>, V>()? {
                    entries.push((name.0, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Objects(std::marker::PhantomData))
    }
}
