//! `[loki]`: the store, and the batches whatever the store is.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sidelog_chassis::settings::{ByteSize, duration};

use super::PushUrl;

/// `[loki]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LokiSettings {
    /// The push endpoint.
    pub url: PushUrl,
    /// `X-Scope-OrgID`.
    pub tenant: Option<String>,
    /// HTTP basic authentication.
    pub basic_auth: Option<BasicAuth>,
    /// A file with a bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// TLS to the store.
    pub tls: LokiTls,
    /// The longest a push may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// A batch is pushed when it holds this many bytes of lines.
    pub batch_max_bytes: ByteSize,
    /// A batch is pushed when its first message has waited this long.
    #[serde(with = "duration")]
    pub batch_wait: Duration,
    /// Batches that are pushed at a time.
    pub concurrency: usize,
    /// The wait before the first retry; it doubles with each further one.
    #[serde(with = "duration")]
    pub backoff_min: Duration,
    /// The longest wait between retries, unless the store asks for a longer one.
    #[serde(with = "duration")]
    pub backoff_max: Duration,
    /// Distinct values of the label `service`; the rest is `other`.
    pub max_services: usize,
    /// The longest line that the store takes.
    pub line_max: ByteSize,
}

impl Default for LokiSettings {
    fn default() -> Self {
        Self {
            url: PushUrl::default(),
            tenant: None,
            basic_auth: None,
            bearer_token_file: None,
            tls: LokiTls::default(),
            timeout: Duration::from_secs(10),
            batch_max_bytes: ByteSize::mib(1),
            batch_wait: Duration::from_secs(1),
            concurrency: 4,
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            max_services: 100,
            line_max: ByteSize::kib(256),
        }
    }
}

/// `[loki.basic_auth]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The user.
    pub user: String,
    /// A file with the password.
    pub password_file: PathBuf,
}

/// `[loki.tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LokiTls {
    /// The certificates (PEM) that sign the store's; the system's where unset.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate (PEM).
    pub cert_file: Option<PathBuf>,
    /// The key (PEM) of `cert_file`.
    pub key_file: Option<PathBuf>,
}
