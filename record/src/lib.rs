//! The contract between sidelog's proxy and consumer: record, frame and their encoding.
//!
//! ```text
//! exchange ── Record ──encode──► JSON line ──FrameBuilder──► Frame ──► JetStream message
//!                                    ▲                                        │
//!             Envelope, Record ◄─────┴──────────── frame::lines ◄─────────────┘
//! ```
//!
//! - [`Record`] is one HTTP exchange, or one loss; its keys are OpenTelemetry semantic conventions where one exists.
//! - [`Envelope`] is the few fields that a store indexes, read without decoding the rest.
//! - [`frame`] is many records as one message: newline-delimited JSON and three headers.
//! - [`Level`], [`End`] and [`Omitted`] are closed sets: a new name is a new schema.
//!
//! Invariants, each with the test that guards it:
//!
//! - This crate does no I/O and reads no clock: both times of a record are fixed at capture.
//! - Encoding is deterministic (`tests/golden.rs`), so a redelivered record is the same bytes.
//! - Encoding never fails and never exceeds [`MAX_ENCODED`] (`tests/properties.rs`: `an_encoded_record_stays_within_the_bound`).
//! - Decoding gives back what was encoded (`decoding_gives_back_what_was_encoded`), and answers an error, never a panic,
//!   to any other bytes (`any_bytes_decode_or_are_refused`).
//! - The short way to an envelope gives what the long one gives (`tests/envelope.rs`).
//! - Records of earlier versions and of other programs decode (`tests/golden.rs`).

mod closed_set;
mod decode;
mod encode;
mod end;
mod envelope;
mod error;
mod escape;
mod fields;
mod fit;
mod found;
pub mod frame;
mod json;
mod key;
mod level;
mod omitted;
mod reader;
mod record;
mod time;

pub use closed_set::UnknownName;
pub use encode::MAX_ENCODED;
pub use end::End;
pub use envelope::Envelope;
pub use error::DecodeError;
pub use level::Level;
pub use omitted::Omitted;
pub use record::{Body, Message, Record};
