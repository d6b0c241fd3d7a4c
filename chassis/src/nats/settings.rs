//! `[nats]`: the server, the stream, and who we are to the server.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use super::subject::{check_stream_name, check_subject};
use super::url::NatsUrls;
use crate::settings::{ByteSize, Misfit, Validate, duration};

/// `[nats]`. `Debug` shows no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSettings {
    /// The servers of the cluster.
    pub url: NatsUrls,
    /// The stream's name.
    #[serde(deserialize_with = "stream_name")]
    pub stream: String,
    /// The stream's subject; the wildcard in it stands for the service ([`super::subject_for`]).
    #[serde(deserialize_with = "subject")]
    pub subject: String,
    /// Where a stream that is created keeps its messages.
    pub storage: StorageType,
    /// How long a stream that is created keeps a message; 0 is for ever.
    #[serde(with = "duration")]
    pub max_age: Duration,
    /// How large a stream that is created may become; the oldest messages go first.
    #[serde(deserialize_with = "stream_bytes")]
    pub stream_max_bytes: ByteSize,
    /// On how many servers of the cluster a stream that is created is kept.
    #[serde(deserialize_with = "replicas")]
    pub stream_replicas: usize,
    /// A credentials file (JWT and seed), as `nsc` writes it.
    pub creds_file: Option<PathBuf>,
    /// A file that holds an NKey user seed.
    pub nkey_file: Option<PathBuf>,
    /// A file that holds a token.
    pub token_file: Option<PathBuf>,
    /// The user that belongs to `password_file`.
    pub user: Option<String>,
    /// A file that holds the password of `user`.
    pub password_file: Option<PathBuf>,
    /// Whether a file of these, or of `tls`, may be missing at the start: it is then waited for as a server is.
    pub wait_for_files: bool,
    /// TLS to the server.
    pub tls: TlsSettings,
}

/// `[nats.tls]`. TLS is used where the server or a `tls://` address asks for it, or `required` does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificates (PEM) that sign the server's; the system's where unset.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate (PEM).
    pub cert_file: Option<PathBuf>,
    /// The key (PEM) of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Whether a connection without TLS is refused.
    pub required: bool,
}

/// Where a stream keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageType {
    /// On disk.
    #[default]
    File,
    /// In memory; lost with the server.
    Memory,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            url: NatsUrls::default(),
            stream: "logs".to_owned(),
            subject: "logs.>".to_owned(),
            storage: StorageType::File,
            max_age: Duration::from_secs(168 * 3600),
            stream_max_bytes: ByteSize::gib(4),
            stream_replicas: 1,
            creds_file: None,
            nkey_file: None,
            token_file: None,
            user: None,
            password_file: None,
            wait_for_files: false,
            tls: TlsSettings::default(),
        }
    }
}

impl Validate for NatsSettings {
    /// The rules between the keys of `[nats]`.
    fn validate(&self) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        let ways = [
            ("nats.creds_file", self.creds_file.is_some()),
            ("nats.nkey_file", self.nkey_file.is_some()),
            ("nats.token_file", self.token_file.is_some()),
            ("nats.password_file", self.password_file.is_some()),
            ("nats.url", self.url.credentials().is_some()),
        ];
        let used: Vec<_> = ways.iter().filter(|(_, used)| *used).map(|(key, _)| *key).collect();
        if used.len() > 1 {
            let message = format!("{} each say who we are; keep one of them", used.join(" and "));
            misfits.push(Misfit::new(used, message));
        }
        for ((key, set), (other, other_set)) in [
            (
                ("nats.user", self.user.is_some()),
                ("nats.password_file", self.password_file.is_some()),
            ),
            (
                ("nats.tls.cert_file", self.tls.cert_file.is_some()),
                ("nats.tls.key_file", self.tls.key_file.is_some()),
            ),
        ] {
            if set != other_set {
                let (given, missing) = if set { (key, other) } else { (other, key) };
                misfits.push(Misfit::new(
                    [given],
                    format!("needs {missing} beside it; set both or neither"),
                ));
            }
        }
        misfits
    }
}

fn stream_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    check_stream_name(&name).map_err(D::Error::custom)?;
    Ok(name)
}

fn subject<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let subject = String::deserialize(deserializer)?;
    check_subject(&subject).map_err(D::Error::custom)?;
    Ok(subject)
}

/// The most copies that JetStream keeps (`StreamMaxReplicas`).
const MAX_REPLICAS: usize = 5;

fn replicas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let replicas = usize::deserialize(deserializer)?;
    if !(1..=MAX_REPLICAS).contains(&replicas) {
        return Err(D::Error::custom(format!(
            "{replicas} is out of range; write 1, or 3 or 5 in a cluster of as many servers"
        )));
    }
    Ok(replicas)
}

/// JetStream counts in signed 64 bits, and takes 0 for "no limit".
fn stream_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size < ByteSize::mib(1) || i64::try_from(size.bytes()).is_err() {
        return Err(D::Error::custom(format!(
            "{size} is out of range; write a size from \"1MiB\", such as \"4GiB\""
        )));
    }
    Ok(size)
}
