//! NATS: the connection, and the stream that proxy and consumer must agree on.
//!
//! Invariants:
//! - a program starts without a NATS server and connects when there is one (`chassis/tests/nats.rs`)
//! - a dead server is noticed within 15 seconds, also when it doesn't close the connection
//! - an existing stream is never changed

mod connection;
mod events;
mod identity;
mod settings;
mod stream;
mod stream_config;
mod subject;
pub mod url;

pub use connection::{Connection, connect};
pub use settings::{NatsSettings, StorageType, TlsSettings};
pub use stream::{StreamError, ensure_stream};
pub use subject::{InvalidSubject, check_stream_name, check_subject, covers, subject_for};
