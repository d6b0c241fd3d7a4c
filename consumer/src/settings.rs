//! The consumer's settings: every key, its default, and what must fit together.
//!
//! `config/consumer.toml` documents them; a test holds it equal to [`Settings::default`].

mod loki;
mod push_url;
mod rules;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use sidelog_chassis::admin::AdminSettings;
use sidelog_chassis::logging::LogSettings;
use sidelog_chassis::nats::{NatsSettings, check_stream_name, check_subject};
use sidelog_chassis::settings::{ByteSize, Program, Variable, as_text, duration};

pub use loki::{BasicAuth, LokiSettings, LokiTls};
pub use push_url::{PushUrl, PushUrlError};

/// The consumer as [`sidelog_chassis::settings::load`] knows it.
pub const PROGRAM: Program = Program {
    name: "sidelog-consumer",
    variables: &[
        variable("NATS_URL", "nats.url"),
        variable("NATS_STREAM", "nats.stream"),
        variable("NATS_SUBJECT", "nats.subject"),
        variable("NATS_STORAGE_TYPE", "nats.storage"),
        variable("NATS_MAX_AGE", "nats.max_age"),
        variable("LOKI_URL", "loki.url"),
    ],
};

/// `config/consumer.toml`: every key with its default.
pub const DEFAULTS: &str = include_str!("../../config/consumer.toml");

const fn variable(name: &'static str, key: &'static str) -> Variable {
    Variable {
        name,
        key,
        convert: as_text,
    }
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where records come from: server, stream, credentials.
    pub nats: NatsSettings,
    /// How they are fetched.
    pub source: SourceSettings,
    /// Which store they go to.
    pub sink: SinkSettings,
    /// The store, if it is Loki, and the batches, whatever it is.
    pub loki: LokiSettings,
    /// Where lines go that no store takes.
    pub dead_letter: DeadLetterSettings,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin: AdminSettings,
    /// The process's own log.
    pub log: LogSettings,
    /// The end of the process.
    pub shutdown: ShutdownSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nats: NatsSettings::default(),
            source: SourceSettings::default(),
            sink: SinkSettings::default(),
            loki: LokiSettings::default(),
            dead_letter: DeadLetterSettings::default(),
            admin: AdminSettings {
                address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9902)),
            },
            log: LogSettings::default(),
            shutdown: ShutdownSettings::default(),
        }
    }
}

/// `[source]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceSettings {
    /// The durable's name; consumers with the same name share the work.
    #[serde(deserialize_with = "stream_name")]
    pub durable: String,
    /// After this long without a word from a consumer its messages are delivered again.
    #[serde(with = "duration")]
    pub ack_wait: Duration,
    /// Messages that all consumers of the durable together may hold, those included that were given back and stay away.
    pub max_ack_pending: u32,
    /// Bytes of messages that this process may hold.
    pub memory_max: ByteSize,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            durable: "sidelog-consumer".to_owned(),
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 131_072,
            memory_max: ByteSize::mib(16),
        }
    }
}

/// `[sink]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinkSettings {
    /// Which store.
    pub kind: SinkKind,
    /// The file of the `file` sink.
    pub path: Option<PathBuf>,
    /// When a file is synced.
    pub sync: SyncPolicy,
    /// A file that would become larger is renamed, and a new one begun; 0 is never.
    pub rotate_bytes: ByteSize,
    /// A file that is older when it is written to is renamed, and a new one begun; 0 is never.
    #[serde(with = "duration")]
    pub rotate_after: Duration,
    /// Renamed files that are kept, the newest; 0 is all.
    pub keep: usize,
}

impl Default for SinkSettings {
    fn default() -> Self {
        Self {
            kind: SinkKind::default(),
            path: None,
            sync: SyncPolicy::default(),
            rotate_bytes: ByteSize::gib(1),
            rotate_after: Duration::ZERO,
            keep: 0,
        }
    }
}

/// When the `file` sink syncs what it wrote to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncPolicy {
    /// With each batch, before its messages are acknowledged: a machine that loses power loses nothing.
    #[default]
    Batch,
    /// When the system does: a process that is killed loses nothing, a machine that loses power the last seconds.
    System,
}

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// Loki, or what takes Loki's push protocol.
    #[default]
    Loki,
    /// NDJSON, appended to a file.
    File,
    /// NDJSON on standard output.
    Stdout,
}

/// `[dead_letter]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetterSettings {
    /// The stream's name.
    #[serde(deserialize_with = "stream_name")]
    pub stream: String,
    /// The stream's subject; the wildcard stands for the service.
    #[serde(deserialize_with = "subject")]
    pub subject: String,
    /// How large the stream may become when it is created; the oldest lines go first.
    pub max_bytes: ByteSize,
}

impl Default for DeadLetterSettings {
    fn default() -> Self {
        Self {
            stream: "logs_dead".to_owned(),
            subject: "logs_dead.>".to_owned(),
            max_bytes: ByteSize::gib(1),
        }
    }
}

/// `[shutdown]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSettings {
    /// The longest the end may take.
    #[serde(with = "duration")]
    pub deadline: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(25),
        }
    }
}

impl Settings {
    /// The connection's settings with the stream of the dead letters in place of the records'.
    pub(crate) fn dead_letter_stream(&self) -> NatsSettings {
        NatsSettings {
            stream: self.dead_letter.stream.clone(),
            subject: self.dead_letter.subject.clone(),
            stream_max_bytes: self.dead_letter.max_bytes,
            ..self.nats.clone()
        }
    }

    /// The longest line that the sink takes, in bytes.
    pub(crate) fn line_max(&self) -> usize {
        match self.sink.kind {
            SinkKind::Loki => self.loki.line_max.as_usize(),
            SinkKind::File | SinkKind::Stdout => usize::MAX,
        }
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

#[cfg(test)]
mod tests {
    use sidelog_chassis::settings::{Environment, load};

    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let pairs = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(&PROGRAM, None, &pairs.collect::<Environment>()).map_err(|error| error.to_string())
    }

    #[test]
    fn it_starts_with_no_file_at_all() {
        assert_eq!(with(&[]).unwrap(), Settings::default());
    }

    #[test]
    fn the_config_file_says_what_the_defaults_are() {
        assert_eq!(with(&[("SIDELOG_CONFIG_TOML", DEFAULTS)]).unwrap(), Settings::default());
    }

    #[test]
    fn the_config_file_names_every_key() {
        // Each key is there, set or in a comment: a line `key = value` without the comment sign is accepted.
        let uncommented: String = DEFAULTS
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let table: toml::Table = uncommented.parse().unwrap();
        let mut keys = Vec::new();
        collect(&table, "", &mut keys);
        let known = rules::tests::every_key();
        assert!(known.len() > 40);
        assert_eq!(keys, known);
    }

    fn collect(table: &toml::Table, path: &str, keys: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => collect(inner, &format!("{path}{key}."), keys),
                _ => keys.push(format!("{path}{key}")),
            }
        }
        keys.sort();
    }

    #[test]
    fn the_variables_of_earlier_deployments_are_taken() {
        let settings = with(&[
            ("NATS_URL", "nats://a:4222,nats://b:4222"),
            ("NATS_STREAM", "audit"),
            ("NATS_SUBJECT", "audit.>"),
            ("NATS_STORAGE_TYPE", "memory"),
            ("NATS_MAX_AGE", "7d"),
            ("LOKI_URL", "https://loki.example/push?x=1"),
            ("SIDELOG_LOKI__BATCH_WAIT", "250ms"),
        ])
        .unwrap();
        assert_eq!(settings.nats.stream, "audit");
        assert_eq!(settings.nats.subject, "audit.>");
        assert_eq!(settings.nats.max_age, Duration::from_secs(7 * 86_400));
        assert_eq!(settings.loki.url.get().as_str(), "https://loki.example/push?x=1");
        assert_eq!(settings.loki.batch_wait, Duration::from_millis(250));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        for (variable, value, part) in [
            ("LOKI_URL", "ftp://x", "loki.url"),
            ("SIDELOG_LOKI__BATCH_MAX_BYTE", "1MiB", "batch_max_bytes"),
            ("SIDELOG_SINK__KIND", "kafka", "sink.kind"),
            ("SIDELOG_SOURCE__DURABLE", "a b", "source.durable"),
            ("SIDELOG_DEAD_LETTER__SUBJECT", "a..b", "dead_letter.subject"),
        ] {
            let error = with(&[(variable, value)]).unwrap_err();
            assert!(error.contains(part), "{variable}={value}: {error}");
        }
    }
}
