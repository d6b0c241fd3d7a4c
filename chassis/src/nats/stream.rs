//! The stream: created when it is missing, else used as the operator made it.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind, RequestErrorKind};
use async_nats::jetstream::stream::Info;
use async_nats::jetstream::{self, ErrorCode};

use super::connection::Connection;
use super::settings::NatsSettings;
use super::stream_config::{config, differences};
use crate::settings::ByteSize;

/// The smallest stream that is worth having.
const MIN_BYTES: ByteSize = ByteSize::mib(16);
/// The time that the server has for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How often two programs may come in each other's way.
const ROUNDS: usize = 3;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The server lets us neither look at the stream nor create it. Publishing may work all the same.
    #[error(
        "not permitted to use {subject}, so stream {stream:?} (nats.stream) was not looked at or created; create it \
         beforehand, or grant the user that subject"
    )]
    Denied {
        /// The stream.
        stream: String,
        /// The subject of the JetStream API that was refused.
        subject: String,
    },
    /// The server or the account has no JetStream.
    #[error("the NATS server has no JetStream for us; start it with `-js`, or enable JetStream for the account")]
    NoJetStream,
    /// The server gave no answer in time.
    #[error("the NATS server didn't answer about stream {stream:?} (nats.stream) within 5s")]
    NoAnswer {
        /// The stream.
        stream: String,
    },
    /// The server has no room for even a small stream.
    #[error(
        "the NATS server can't reserve {smallest} for stream {stream:?} (nats.stream_max_bytes): {reason}; give \
         JetStream more room"
    )]
    NoRoom {
        /// The stream.
        stream: String,
        /// The smallest size that was tried.
        smallest: ByteSize,
        /// The server's words.
        reason: String,
    },
    /// There are not as many servers as the stream is to be kept on.
    #[error(
        "the NATS server can't keep stream {stream:?} on {replicas} servers (nats.stream_replicas): {reason}; start more servers with \
         JetStream in the cluster, or lower it"
    )]
    NoReplicas {
        /// The stream.
        stream: String,
        /// How many were asked for.
        replicas: usize,
        /// The server's words.
        reason: String,
    },
    /// The server refuses the stream as it is set.
    #[error("the NATS server refuses stream {stream:?} with subject {subject:?} (nats.stream, nats.subject): {reason}")]
    Refused {
        /// The stream.
        stream: String,
        /// Its subject.
        subject: String,
        /// The server's words.
        reason: String,
    },
}

/// Gives back the stream of `settings`, and creates it when it is missing.
///
/// A stream that is created keeps limits, discards the oldest message first, and remembers message ids for 10 minutes (or
/// `max_age`, where that is shorter). Where the server can't reserve `stream_max_bytes`, half is asked for, and so on down
/// to 16 MiB. An existing stream is left as it is; what differs from the settings is one warning, given again only when it
/// changes.
///
/// # Errors
///
/// See [`StreamError`]; all of them may pass by themselves, so ask again later.
pub async fn ensure_stream(connection: &Connection, settings: &NatsSettings) -> Result<Info, StreamError> {
    let mut context = jetstream::new(connection.client.clone());
    context.set_timeout(ANSWER_TIME);
    let asked = Asked {
        connection,
        context,
        settings,
    };
    let mut outcome = asked.ensure().await;
    for _ in 1..ROUNDS {
        match outcome {
            // Another program created it between our look and our attempt.
            Err(Attempt::Exists) => outcome = asked.ensure().await,
            _ => break,
        }
    }
    outcome.map_err(|attempt| match attempt {
        Attempt::Failed(error) => error,
        Attempt::Exists => asked.refused("it exists in another form"),
        Attempt::NoRoom(reason) => asked.no_room(MIN_BYTES, reason),
    })
}

/// Why one attempt gave no stream.
enum Attempt {
    Exists,
    NoRoom(String),
    Failed(StreamError),
}

struct Asked<'a> {
    connection: &'a Connection,
    context: jetstream::Context,
    settings: &'a NatsSettings,
}

impl Asked<'_> {
    async fn ensure(&self) -> Result<Info, Attempt> {
        let Some(info) = self.look().await? else {
            return self.create().await;
        };
        let differences = differences(&info.config, self.settings).join("; ");
        if self.connection.is_news(&self.settings.stream, &differences) {
            tracing::warn!(
                stream = self.settings.stream,
                differences,
                "the NATS stream differs from the settings, and is used as it is"
            );
        }
        Ok(info)
    }

    /// The stream as the server has it; `None` where it has none.
    async fn look(&self) -> Result<Option<Info>, Attempt> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.settings.stream);
        let found = self
            .permitted(subject, self.context.get_stream(&self.settings.stream))
            .await?;
        let error = match found {
            Ok(stream) => return Ok(Some(stream.cached_info().clone())),
            Err(error) => error,
        };
        let failed = match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                return Ok(None);
            }
            GetStreamErrorKind::JetStream(error) => self.server_error(&error),
            GetStreamErrorKind::Request => self.request_error(&error),
            kind => self.refused(kind),
        };
        Err(Attempt::Failed(failed))
    }

    /// Creates the stream, as large as the server can reserve.
    async fn create(&self) -> Result<Info, Attempt> {
        let wanted = self.settings.stream_max_bytes;
        let mut size = wanted;
        loop {
            match self.create_with(size).await {
                Ok(info) => {
                    if size < wanted {
                        tracing::warn!(
                            stream = self.settings.stream,
                            %wanted,
                            reserved = %size,
                            "the NATS server can't reserve nats.stream_max_bytes, the stream is smaller"
                        );
                    }
                    tracing::info!(
                        stream = self.settings.stream,
                        subject = self.settings.subject,
                        "created the NATS stream"
                    );
                    return Ok(info);
                }
                Err(Attempt::NoRoom(reason)) if size <= MIN_BYTES => {
                    return Err(Attempt::Failed(self.no_room(size, reason)));
                }
                Err(Attempt::NoRoom(_)) => size = MIN_BYTES.max(ByteSize::new(size.bytes() / 2)),
                Err(other) => return Err(other),
            }
        }
    }

    async fn create_with(&self, size: ByteSize) -> Result<Info, Attempt> {
        let subject = format!("$JS.API.STREAM.CREATE.{}", self.settings.stream);
        let created = self
            .permitted(subject, self.context.create_stream(config(self.settings, size)))
            .await?;
        let error = match created {
            Ok(stream) => return Ok(stream.cached_info().clone()),
            Err(error) => error,
        };
        Err(match error.kind() {
            CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                Attempt::Exists
            }
            CreateStreamErrorKind::JetStream(error) if lacks_room(&error) => Attempt::NoRoom(error.to_string()),
            CreateStreamErrorKind::JetStream(error) if lacks_servers(error.error_code()) => {
                Attempt::Failed(StreamError::NoReplicas {
                    stream: self.settings.stream.clone(),
                    replicas: self.settings.stream_replicas,
                    reason: error.to_string(),
                })
            }
            CreateStreamErrorKind::JetStream(error) => Attempt::Failed(self.server_error(&error)),
            CreateStreamErrorKind::TimedOut => Attempt::Failed(self.no_answer()),
            CreateStreamErrorKind::JetStreamUnavailable => Attempt::Failed(StreamError::NoJetStream),
            kind => Attempt::Failed(self.refused(kind)),
        })
    }

    /// Waits for an answer, or for the server's word that we may not ask: that doesn't come as an answer.
    async fn permitted<T>(&self, subject: String, answer: impl Future<Output = T>) -> Result<T, Attempt> {
        let refused = self.connection.refused();
        // What was refused before may be granted by now.
        refused.send_if_modified(|subjects| subjects.remove(&subject));
        let mut refusals = refused.subscribe();
        let is_refused = |subjects: &BTreeSet<String>| subjects.contains(&subject);
        tokio::select! {
            answer = answer => Ok(answer),
            Ok(_) = refusals.wait_for(is_refused) => Err(Attempt::Failed(StreamError::Denied {
                stream: self.settings.stream.clone(),
                subject: subject.clone(),
            })),
        }
    }

    fn server_error(&self, error: &jetstream::Error) -> StreamError {
        match error.error_code() {
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => StreamError::NoJetStream,
            _ => self.refused(error),
        }
    }

    fn request_error(&self, error: &jetstream::context::GetStreamError) -> StreamError {
        let source = std::error::Error::source(error);
        let cause = source.and_then(|source| source.downcast_ref::<jetstream::context::RequestError>());
        match cause.map(jetstream::context::RequestError::kind) {
            Some(RequestErrorKind::NoResponders) => StreamError::NoJetStream,
            Some(RequestErrorKind::TimedOut) => self.no_answer(),
            _ => self.refused(error),
        }
    }

    fn no_answer(&self) -> StreamError {
        StreamError::NoAnswer {
            stream: self.settings.stream.clone(),
        }
    }

    fn no_room(&self, smallest: ByteSize, reason: String) -> StreamError {
        StreamError::NoRoom {
            stream: self.settings.stream.clone(),
            smallest,
            reason,
        }
    }

    fn refused(&self, reason: impl ToString) -> StreamError {
        StreamError::Refused {
            stream: self.settings.stream.clone(),
            subject: self.settings.subject.clone(),
            reason: reason.to_string(),
        }
    }
}

/// The server's codes for "not so much". Of a cluster's code for "no server for this" the text tells why: server after server.
fn lacks_room(error: &jetstream::Error) -> bool {
    if error.error_code() == ErrorCode::CLUSTER_NO_PEERS {
        return error.to_string().contains("insufficient storage");
    }
    matches!(
        error.error_code(),
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED
    )
}

/// The server's codes for "not on so many".
fn lacks_servers(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CLUSTER_NO_PEERS | ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
    )
}
