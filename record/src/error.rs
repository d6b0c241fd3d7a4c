//! Why a line is not a record.

use thiserror::Error;

use crate::frame::SCHEMA;

/// Why a line cannot be read as a record. Texts name keys and places, never values: a record may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The line is not UTF-8.
    #[error("not UTF-8: the byte at {at} fits no character")]
    NotUtf8 {
        /// Offset of the first bad byte, from 0.
        at: usize,
    },
    /// The line is not JSON, or JSON that was cut off, or followed by something else.
    #[error("not JSON: {what} at column {column}")]
    NotJson {
        /// What is wrong: `ends too early` or `syntax error`.
        what: &'static str,
        /// Where, from 1.
        column: usize,
    },
    /// The line is JSON, but not an object.
    #[error("not a JSON object")]
    NotAnObject,
    /// The record is of a schema that this version does not know.
    #[error(
        "schema {found} is not supported, only {SCHEMA} is; upgrade sidelog, or set \"schema\": {SCHEMA} where the record is made"
    )]
    Schema {
        /// The value of `schema`.
        found: u64,
    },
    /// The value of a known key has another type, or is outside its closed set.
    #[error("the value of \"{key}\" must be {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What its value must be.
        expected: &'static str,
    },
    /// The record says nothing of when it was made.
    #[error("neither \"observed_timestamp\" nor \"timestamp\" is present")]
    NoTime,
}

impl DecodeError {
    /// Every [`reason`](Self::reason).
    pub const REASONS: [&'static str; 6] = ["not_utf8", "not_json", "not_an_object", "schema", "value", "no_time"];

    /// A short name for counting, one per variant.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::Schema { .. } => "schema",
            Self::Value { .. } => "value",
            Self::NoTime => "no_time",
        }
    }
}
