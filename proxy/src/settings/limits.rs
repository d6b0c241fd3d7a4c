//! `[limits]`: how much, how many and how long each side may.
//!
//! Invariants:
//! - As many idle connections as are taken by default leave 24 MiB of 128 to the process itself; heads without end and
//!   requests sent ahead hold less (`tests/wall/memory.rs`).

use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use sidelog_chassis::settings::{ByteSize, duration};

use super::number;

/// What pingora's parser takes of a head's fields.
const FIELDS_MAX: usize = 256;
/// What the parser of targets takes.
const TARGET_MAX: u64 = 65_000;
/// Between these, windows make sense: one frame, and what HTTP/2 allows (RFC 9113, 6.9.1).
const WINDOW_RANGE: std::ops::RangeInclusive<u64> = 16_384..=2_147_483_647;

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client connections open at once, of all listeners.
    #[serde(deserialize_with = "number::positive")]
    pub connections_max: u64,
    /// From the first byte of a request's head to its end.
    #[serde(with = "duration::positive")]
    pub header_timeout: Duration,
    /// Bytes of a request's head.
    #[serde(deserialize_with = "header_bytes")]
    pub header_max: ByteSize,
    /// Header fields of a request.
    #[serde(deserialize_with = "header_fields")]
    pub header_fields_max: usize,
    /// Bytes of a request's target.
    #[serde(deserialize_with = "target_bytes")]
    pub target_max: ByteSize,
    /// A connection without a request.
    #[serde(with = "duration::positive")]
    pub downstream_idle_timeout: Duration,
    /// The time over which the rate of an upload is looked at.
    #[serde(with = "duration::positive")]
    pub downstream_read_timeout: Duration,
    /// Bytes per second of an upload, at least.
    pub downstream_rate_min: ByteSize,
    /// An answer that the client doesn't read.
    #[serde(with = "duration::positive")]
    pub downstream_write_timeout: Duration,
    /// Requests that one HTTP/2 connection has open.
    #[serde(deserialize_with = "number::positive")]
    pub h2_streams_max: u32,
    /// Requests that one HTTP/2 connection takes back, in a second.
    #[serde(deserialize_with = "number::positive")]
    pub h2_resets_max: u32,
    /// Bytes of uploads that one HTTP/2 connection may send ahead.
    #[serde(deserialize_with = "window")]
    pub h2_window: ByteSize,
    /// To a connection to the upstream.
    #[serde(with = "duration::positive")]
    pub upstream_connect_timeout: Duration,
    /// Without a byte from, or to, the upstream.
    #[serde(with = "duration::positive")]
    pub upstream_read_timeout: Duration,
    /// An unused connection to the upstream; below the time that the service keeps it.
    #[serde(with = "duration::positive")]
    pub upstream_idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 2_000,
            header_timeout: Duration::from_secs(10),
            header_max: ByteSize::kib(64),
            header_fields_max: 200,
            target_max: ByteSize::kib(16),
            downstream_idle_timeout: Duration::from_secs(50),
            downstream_read_timeout: Duration::from_secs(50),
            downstream_rate_min: ByteSize::new(16),
            downstream_write_timeout: Duration::from_secs(50),
            h2_streams_max: 100,
            h2_resets_max: 200,
            h2_window: ByteSize::kib(256),
            upstream_connect_timeout: Duration::from_secs(5),
            upstream_read_timeout: Duration::from_secs(60),
            upstream_idle_timeout: Duration::from_secs(4),
        }
    }
}

fn header_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size < ByteSize::kib(1) || size > ByteSize::kib(960) {
        return Err(D::Error::custom(format!(
            "{size} is out of range; write 1KiB to 960KiB"
        )));
    }
    Ok(size)
}

fn header_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let fields = usize::deserialize(deserializer)?;
    if fields == 0 || fields > FIELDS_MAX {
        return Err(D::Error::custom(format!(
            "{fields} is out of range; write 1 to {FIELDS_MAX}"
        )));
    }
    Ok(fields)
}

fn target_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size.bytes() == 0 || size.bytes() > TARGET_MAX {
        return Err(D::Error::custom(format!(
            "{size} is out of range; write 1B to {TARGET_MAX}B"
        )));
    }
    Ok(size)
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if !WINDOW_RANGE.contains(&size.bytes()) {
        return Err(D::Error::custom(format!("{size} is out of range; write 16KiB to 2GB")));
    }
    Ok(size)
}
