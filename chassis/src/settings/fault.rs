//! Why a value isn't what its key wants: serde's errors in words that say what to write instead.

use std::fmt::{self, Display};

use serde::de::{Expected, Unexpected};

use super::problem::Place;
use super::tree::Node;

/// Why a node isn't what its key wants.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Option<Place>,
    pub(super) path: Option<String>,
    /// The key that isn't there, where that is what is wrong.
    pub(super) missing: Option<&'static str>,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(message: String) -> Self {
        Self {
            place: None,
            path: None,
            missing: None,
            message,
        }
    }

    /// Says which node it is about, unless that is known more exactly.
    pub(super) fn of(mut self, node: &Node) -> Self {
        if self.path.is_none() {
            self.path = Some(node.path.clone());
            self.place = Some(node.place.clone());
        }
        self
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, not {}", wanted(expected), shown(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let choices: Vec<_> = expected.iter().map(|choice| format!("{choice:?}")).collect();
        Self::new(format!("expected {}, not {variant:?}", choices.join(" or ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let message = match closest(field, expected) {
            Some(key) => format!("unknown key, did you mean {key:?}?"),
            None if expected.is_empty() => "unknown key; there are none here".to_owned(),
            None => format!("unknown key; the keys here are {}", expected.join(", ")),
        };
        Self::new(message)
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            missing: Some(field),
            ..Self::new(format!("the key {field:?} is missing"))
        }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("the key {field:?} is there twice; remove one"))
    }
}

/// The known key that was probably meant.
fn closest(field: &str, known: &'static [&'static str]) -> Option<&'static str> {
    let scored = known.iter().map(|key| (strsim::damerau_levenshtein(field, key), *key));
    let (distance, key) = scored.min()?;
    (distance <= 1 + key.len() / 4).then_some(key)
}

/// What a type wants, with an example where serde's own words have none.
fn wanted(expected: &dyn Expected) -> String {
    let words = expected.to_string();
    match words.as_str() {
        "a boolean" => "true or false".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" | "u64" | "usize" => "a whole number, such as 4".to_owned(),
        "f32" | "f64" => "a number, such as 0.5".to_owned(),
        "a string" => "a string, such as \"text\"".to_owned(),
        "a sequence" => "a list, such as [\"a\", \"b\"]".to_owned(),
        text if text.starts_with("struct ") => "a table with keys".to_owned(),
        _ => words,
    }
}

fn shown(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(flag) => flag.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}
