//! The durable consumer on the server: made when it is missing, else used as the operator made it. One that a consumer made, and
//! that has less room than the settings say (`source.max_ack_pending`), gets it.
//!
//! Invariant: when the durable is another one than before (the stream or the durable was deleted and made again), the
//! ledger forgets what it holds, before anything of the new one is fetched.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, Info, pull};
use async_nats::jetstream::{self, Context, stream};
use sidelog_chassis::nats::{self, Connection, NatsSettings, StreamError};
use sidelog_chassis::settings::duration;
use tokio::sync::watch;

use crate::fit::{self, Server};
use crate::ledger::Ledger;
use crate::settings::{Settings, SourceSettings};

/// A handle to the durable on the server.
pub(crate) type PullConsumer = Consumer<pull::Config>;

/// What a durable of ours says of itself.
const DESCRIPTION: &str = "moves records to the store; sidelog-consumer";
/// The time that the server has for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Why there is nothing to fetch from; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DurableError {
    #[error("there is no stream to read from: {0}")]
    Stream(#[from] StreamError),
    #[error(
        "failed to find or make the durable {durable:?} (source.durable) of stream {stream:?} (nats.stream): {reason}; it needs the \
         stream, and permission to publish to $JS.API.CONSUMER.> and $JS.ACK.> and to subscribe to _INBOX.>"
    )]
    Durable {
        durable: String,
        stream: String,
        reason: String,
    },
    #[error(
        "the durable {0:?} (source.durable) does not wait for explicit acknowledgements; delete it with `nats consumer rm`, or \
         choose another name"
    )]
    AckPolicy(String),
}

impl DurableError {
    /// One word, to tell a change.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Stream(StreamError::Denied { .. }) => "stream_denied",
            Self::Stream(_) => "no_stream",
            Self::Durable { .. } => "no_durable",
            Self::AckPolicy(_) => "ack_policy",
        }
    }
}

/// A durable that was found or made.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) consumer: PullConsumer,
    /// Another one than the last that was opened, if one was.
    pub(crate) is_new: bool,
    /// It delivers every message of the stream.
    pub(crate) reads_everything: bool,
}

/// Name and time of creation.
type Identity = (String, i128);

/// Finds the durable.
#[derive(Debug)]
pub(crate) struct Durable {
    connection: Connection,
    context: Context,
    settings: Settings,
    ledger: Arc<Ledger>,
    ack_wait: watch::Sender<Duration>,
    /// The one found last.
    found: Option<Identity>,
}

impl Durable {
    pub(crate) fn new(
        settings: &Settings,
        connection: Connection,
        ledger: Arc<Ledger>,
        ack_wait: watch::Sender<Duration>,
    ) -> Self {
        let mut context = jetstream::new(connection.client.clone());
        context.set_timeout(ANSWER_TIME);
        Self {
            connection,
            context,
            settings: settings.clone(),
            ledger,
            ack_wait,
            found: None,
        }
    }

    /// Finds or makes stream and durable.
    pub(crate) async fn open(&mut self) -> Result<Opened, DurableError> {
        let stream = match nats::ensure_stream(&self.connection, &self.settings.nats).await {
            Ok(info) => Some(info.config),
            // Who may not look at streams may still have a durable made for him.
            Err(StreamError::Denied { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let found = self.get_with_room().await.map_err(|reason| DurableError::Durable {
            durable: self.settings.source.durable.clone(),
            stream: self.settings.nats.stream.clone(),
            reason,
        })?;
        let info = found.cached_info();
        if info.config.ack_policy != AckPolicy::Explicit {
            return Err(DurableError::AckPolicy(self.settings.source.durable.clone()));
        }
        let is_new = self.note(info, stream.as_ref());
        let filter = &info.config.filter_subject;
        let reads_everything = stream.is_some_and(|stream| {
            let mut subjects = stream.subjects.iter();
            filter.is_empty() || subjects.all(|subject| nats::covers(filter, subject))
        });
        Ok(Opened {
            is_new,
            reads_everything: reads_everything && info.config.filter_subjects.is_empty(),
            consumer: found,
        })
    }

    async fn get_with_room(&self) -> Result<PullConsumer, String> {
        let found = self.get_or_create().await?;
        let (info, wanted) = (found.cached_info(), i64::from(self.settings.source.max_ack_pending));
        let is_known = self.found == Some(identity(info));
        let is_ours = info.config.description.as_deref() == Some(DESCRIPTION);
        let is_smaller = (1..wanted).contains(&info.config.max_ack_pending);
        if is_known || !is_ours || !is_smaller {
            return Ok(found);
        }
        let raised = jetstream::consumer::Config {
            max_ack_pending: wanted,
            ..info.config.clone()
        };
        let stream = &self.settings.nats.stream;
        match self.context.update_consumer_on_stream(raised, stream).await {
            Ok(_) => {
                tracing::info!(
                    durable = info.name,
                    from = info.config.max_ack_pending,
                    to = wanted,
                    "raised the durable's max_ack_pending to source.max_ack_pending"
                );
                self.get_or_create().await
            }
            // Its difference from the settings is told.
            Err(error) => {
                tracing::debug!(%error, "failed to raise the durable's max_ack_pending");
                Ok(found)
            }
        }
    }

    async fn get_or_create(&self) -> Result<PullConsumer, String> {
        let stream = self
            .context
            .get_stream_no_info(&self.settings.nats.stream)
            .await
            .map_err(|error| error.to_string())?;
        let wanted = config(&self.settings.source, &self.settings.nats);
        let made = stream
            .get_or_create_consumer(&self.settings.source.durable, wanted)
            .await;
        made.map_err(|error| error.to_string())
    }

    /// Takes notice of a durable, and says whether it is another one than before.
    fn note(&mut self, info: &Info, stream: Option<&stream::Config>) -> bool {
        let found = identity(info);
        if self.found.as_ref() == Some(&found) {
            return false;
        }
        if self.found.is_some() {
            tracing::warn!(
                stream = self.settings.nats.stream,
                durable = info.name,
                held = self.ledger.held(),
                "the durable was made anew; what is held is stored but not acknowledged, and may come again"
            );
            self.ledger.forget();
        }
        self.found = Some(found);
        let differences = differences(&info.config, &self.settings.source, &self.settings.nats);
        if !differences.is_empty() {
            tracing::warn!(
                durable = info.name,
                differences = differences.join("; "),
                "the durable differs from the settings, and is used as it is; `nats consumer edit` changes it"
            );
        }
        let server = Server {
            max_payload: self.connection.client.max_payload(),
            max_age: stream.map(|stream| stream.max_age).filter(|max_age| !max_age.is_zero()),
            ack_wait: info.config.ack_wait,
            max_ack_pending: info.config.max_ack_pending,
        };
        for misfit in fit::misfits(&self.settings, server) {
            tracing::warn!("{misfit}");
        }
        self.ack_wait.send_replace(info.config.ack_wait);
        tracing::info!(
            stream = self.settings.nats.stream,
            durable = info.name,
            waiting = info.num_pending,
            unacknowledged = info.num_ack_pending,
            "reading from JetStream"
        );
        true
    }
}

fn identity(info: &Info) -> Identity {
    (info.name.clone(), info.created.unix_timestamp_nanos())
}

/// The durable as it is made.
fn config(source: &SourceSettings, nats: &NatsSettings) -> pull::Config {
    pull::Config {
        durable_name: Some(source.durable.clone()),
        name: Some(source.durable.clone()),
        description: Some(DESCRIPTION.to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: source.ack_wait,
        max_deliver: -1,
        filter_subject: nats.subject.clone(),
        max_ack_pending: i64::from(source.max_ack_pending),
        ..pull::Config::default()
    }
}

/// What the operator made otherwise than the settings say, each as a phrase.
fn differences(actual: &jetstream::consumer::Config, source: &SourceSettings, nats: &NatsSettings) -> Vec<String> {
    let wanted = config(source, nats);
    let mut found = Vec::new();
    let mut differ = |what: &str, is: String, expected: String| {
        if is != expected {
            found.push(format!("{what} is {is}, not {expected}"));
        }
    };
    differ(
        "ack_wait",
        duration::format(actual.ack_wait),
        duration::format(wanted.ack_wait),
    );
    differ(
        "max_ack_pending",
        actual.max_ack_pending.to_string(),
        wanted.max_ack_pending.to_string(),
    );
    differ(
        "max_deliver",
        actual.max_deliver.to_string(),
        wanted.max_deliver.to_string(),
    );
    differ("filter_subject", actual.filter_subject.clone(), wanted.filter_subject);
    found
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::consumer::IntoConsumerConfig;

    use super::*;

    #[test]
    fn a_durable_as_we_would_make_it_has_no_differences_and_every_difference_is_named() {
        let (source, nats) = (SourceSettings::default(), NatsSettings::default());
        let mut actual = config(&source, &nats).into_consumer_config();
        assert_eq!(differences(&actual, &source, &nats), Vec::<String>::new());

        actual.ack_wait = Duration::from_secs(5);
        actual.max_deliver = 3;
        actual.filter_subject = "other.>".to_owned();
        let told = differences(&actual, &source, &nats).join("; ");
        assert_eq!(
            told,
            "ack_wait is 5s, not 30s; max_deliver is 3, not -1; filter_subject is other.>, not logs.>"
        );
    }
}
