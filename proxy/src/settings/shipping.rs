//! What becomes of an exchange: `[queue]`, `[frame]`, `[publish]`, `[spool]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sidelog_chassis::settings::{ByteSize, duration};

use super::number;

/// `[queue]`: the only door between traffic and shipping.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Over this, exchanges are dropped and counted.
    pub max_bytes: ByteSize,
    /// Over this, exchanges are queued without their bodies.
    pub bodies_max_bytes: ByteSize,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize::mib(32),
            bodies_max_bytes: ByteSize::mib(24),
        }
    }
}

/// `[frame]`: one JetStream message. The first limit that is reached closes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Frame {
    /// Records in a frame.
    #[serde(deserialize_with = "number::positive")]
    pub max_records: u32,
    /// Bytes in a frame; a record that is larger by itself goes alone.
    pub max_bytes: ByteSize,
    /// Time that a frame is held open.
    #[serde(with = "duration")]
    pub linger: Duration,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            max_records: 256,
            max_bytes: ByteSize::kib(256),
            linger: Duration::from_millis(200),
        }
    }
}

/// `[publish]`: frames on their way to JetStream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    /// Frames sent and not yet acknowledged.
    #[serde(deserialize_with = "number::positive")]
    pub window: usize,
    /// A frame that isn't acknowledged in this time is sent again.
    #[serde(with = "duration::positive")]
    pub ack_timeout: Duration,
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            window: 64,
            ack_timeout: Duration::from_secs(5),
        }
    }
}

/// `[spool]`: frames on disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// The folder in which the proxy makes its own; [`Spool::folder`] where unset.
    pub directory: Option<PathBuf>,
    /// Bytes on disk; the oldest frames go first. 0 turns the spool off.
    pub max_bytes: ByteSize,
    /// Time on disk; a frame that is older is dropped.
    #[serde(with = "duration::positive")]
    pub max_age: Duration,
    /// Bytes sent from disk in a second.
    #[serde(deserialize_with = "number::positive")]
    pub replay_rate: ByteSize,
    /// When frames are written to disk.
    pub mode: SpoolMode,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            directory: None,
            max_bytes: ByteSize::mib(256),
            max_age: Duration::from_secs(168 * 3600),
            replay_rate: ByteSize::mib(16),
            mode: SpoolMode::Outage,
        }
    }
}

impl Spool {
    /// `directory`, or `sidelog-spool` in the system's temporary folder.
    pub fn folder(&self) -> PathBuf {
        let default = || std::env::temp_dir().join("sidelog-spool");
        self.directory.clone().unwrap_or_else(default)
    }
}

/// When frames are written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpoolMode {
    /// While NATS is away.
    #[default]
    Outage,
    /// Each, before it is published.
    Always,
}
