//! `[redaction]`: what is never recorded, beside what the built-in lists name.

use std::fmt::{self, Display};
use std::str::FromStr;

use http::HeaderName;
use serde::Serializer;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

/// What is taken out of records and spans. Adds to the built-in lists.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redaction {
    /// Whether anything is taken out at all.
    pub enabled: bool,
    /// Header fields whose values are never recorded, in lower case.
    #[serde(deserialize_with = "header_names")]
    pub headers: Vec<String>,
    /// Names, and places in JSON, whose values are never recorded.
    pub json: Vec<JsonRule>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self {
            enabled: true,
            headers: Vec::new(),
            json: Vec::new(),
        }
    }
}

/// What a route changes of [`Redaction`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedactionOverride {
    /// See [`Redaction::enabled`].
    pub enabled: Option<bool>,
}

/// A name, or a place in JSON documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonRule {
    /// A key anywhere, in any case and joining; also a parameter, a form field, an XML element or attribute.
    Name(String),
    /// A place: `$.user.cards[*].number`.
    Path(JsonPath),
}

/// A place in JSON documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    /// As it was written.
    pub text: String,
    /// From the document's root down, at least one.
    pub steps: Vec<Step>,
}

/// One level down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The value of this key, in any case.
    Key(String),
    /// Every element of an array.
    Elements,
}

impl FromStr for JsonRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(below) = text.strip_prefix('$') {
            let steps = steps(below).ok_or_else(|| {
                format!(
                    "{text:?} is not a path; write keys and [*] from the root down, such as \"$.user.cards[*].number\""
                )
            })?;
            return Ok(Self::Path(JsonPath {
                text: text.to_owned(),
                steps,
            }));
        }
        if !text.chars().any(char::is_alphanumeric) || text.contains(['[', ']', '$', '*']) {
            return Err(format!(
                "{text:?} is neither a name nor a path; write \"password\" or \"$.user.password\""
            ));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

impl Display for JsonRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => f.write_str(&path.text),
        }
    }
}

impl Serialize for JsonRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JsonRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The steps of a path behind its `$`: `.key`, `['key']`, `["key"]` and `[*]`.
fn steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[*]") {
            steps.push(Step::Elements);
            rest = after;
        } else if let Some(quoted) = rest.strip_prefix('[') {
            let quote = quoted.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
            let (key, after) = quoted.get(1..)?.split_once(quote)?;
            steps.push(Step::Key(key.to_owned()));
            rest = after.strip_prefix(']')?;
        } else {
            let key = rest.strip_prefix('.')?;
            let end = key.find(['.', '[']).unwrap_or(key.len());
            let (key, after) = key.split_at_checked(end)?;
            if key.is_empty() || key.contains(['*', ']', '\'', '"']) {
                return None;
            }
            steps.push(Step::Key(key.to_owned()));
            rest = after;
        }
    }
    (!steps.is_empty()).then_some(steps)
}

fn header_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<FieldName>::deserialize(deserializer)?;
    Ok(names.into_iter().map(|FieldName(name)| name).collect())
}

/// A header field's name in lower case.
struct FieldName(String);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.trim().parse::<HeaderName>() {
            Ok(name) => Ok(Self(name.as_str().to_owned())),
            Err(_) => Err(D::Error::custom(format!(
                "{text:?} is not a header field's name; write it without the colon, such as \"x-internal-token\""
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Step {
        Step::Key(text.to_owned())
    }

    #[test]
    fn paths_are_keys_and_elements() {
        let read = |text: &str| match text.parse() {
            Ok(JsonRule::Path(path)) => path.steps,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(
            read("$.user.cards[*].number"),
            [key("user"), key("cards"), Step::Elements, key("number")]
        );
        assert_eq!(read("$[*]['a.b'][\"c\"]"), [Step::Elements, key("a.b"), key("c")]);
    }

    #[test]
    fn what_begins_without_a_dollar_is_a_name() {
        assert_eq!("internal-id".parse(), Ok(JsonRule::Name("internal-id".to_owned())));
    }

    #[test]
    fn bad_rules_are_refused_with_an_example() {
        for bad in [
            "$", "$user", "$.", "$.a[0]", "$.a.*", "$.a[*", "$['a", "", "-", "a[*].b",
        ] {
            let error = bad.parse::<JsonRule>().expect_err(bad);
            assert!(error.contains("; write "), "{bad}: {error}");
        }
    }
}
