//! The letters in the dead letter stream, read in their order.
//!
//! Invariant: what is put aside while the shelf is being read is not read, so that reading ends, and so that what is resent and comes
//! back is not resent again.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use sidelog_chassis::nats::{NatsSettings, subject_for};

use super::letter::{HEADER_DETAIL, HEADER_REASON, HEADER_SEQUENCE, HEADER_SIZE};

/// Letters that are read at a time; a letter may be as large as the server's `max_payload`.
const AT_ONCE: usize = 32;
/// The server forgets a reader that asks for nothing for this long, such as one whose output nobody reads.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// A letter in the stream.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its sequence in the dead letter stream.
    pub(super) sequence: u64,
    /// When it was set aside.
    pub(super) time: Timestamp,
    pub(super) reason: String,
    pub(super) service: String,
    pub(super) detail: String,
    /// The sequence of the message it came in, in the records' stream.
    pub(super) origin: Option<u64>,
    /// The bytes of the whole line, if it had to be cut.
    pub(super) cut_from: Option<u64>,
    pub(super) line: Bytes,
}

/// Which letters are asked for; what is `None` is every one.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) reason: Option<String>,
    pub(super) service: Option<String>,
}

/// The dead letter stream.
#[derive(Debug)]
pub(super) struct Shelf {
    stream: Stream,
    subject: String,
}

impl Shelf {
    /// `settings` names the dead letter stream. `None` where there is none: nothing was ever set aside.
    pub(super) async fn open(context: &jetstream::Context, settings: &NatsSettings) -> anyhow::Result<Option<Self>> {
        let name = &settings.stream;
        let stream = match context.get_stream(name).await {
            Ok(stream) => stream,
            Err(error) if error.to_string().contains("stream not found") => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("failed to look at the stream {name:?} (dead_letter.stream); it needs permission to use $JS.API.>")
                });
            }
        };
        Ok(Some(Self {
            stream,
            subject: settings.subject.clone(),
        }))
    }

    /// Begins to read the letters that are wanted, oldest first.
    pub(super) async fn read(&self, wanted: Wanted) -> anyhow::Result<Reader> {
        let filter_subject = match &wanted.service {
            Some(_) if !self.subject.contains(['*', '>']) => anyhow::bail!(
                "dead_letter.subject ({}) has no wildcard for the service, so letters can't be picked by it",
                self.subject
            ),
            Some(service) => subject_for(&self.subject, service),
            None => String::new(),
        };
        let config = pull::Config {
            description: Some("reads dead letters; sidelog-consumer".to_owned()),
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGOTTEN,
            filter_subject,
            ..pull::Config::default()
        };
        let made = self.stream.create_consumer(config).await;
        Ok(Reader {
            consumer: made
                .context("failed to read the dead letter stream; it needs permission to use $JS.API.CONSUMER.>")?,
            last: self.stream.cached_info().state.last_sequence,
            reason: wanted.reason,
            before_service: self.subject.split(['*', '>']).next().unwrap_or_default().to_owned(),
        })
    }

    /// Takes a letter out.
    pub(super) async fn remove(&self, letter: &Kept) -> anyhow::Result<()> {
        let removed = self.stream.delete_message(letter.sequence).await;
        removed.with_context(|| format!("letter {} was resent, but not removed", letter.sequence))?;
        Ok(())
    }
}

/// A walk along the shelf.
#[derive(Debug)]
pub(super) struct Reader {
    consumer: Consumer<pull::Config>,
    last: u64,
    reason: Option<String>,
    before_service: String,
}

impl Reader {
    /// Some of the letters, in order; `None` when there are no more.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Vec<Kept>>> {
        loop {
            let fetched = self.consumer.fetch().max_messages(AT_ONCE).messages().await;
            let mut messages = fetched.context("failed to read dead letters")?;
            let mut letters = Vec::new();
            let mut at_end = true;
            while let Some(message) = messages.next().await {
                let message = message.map_err(|error| anyhow::anyhow!("failed to read a dead letter: {error}"))?;
                let letter = kept(&message, &self.before_service)?;
                at_end = letter.sequence >= self.last;
                let is_wanted = self.reason.as_ref().is_none_or(|reason| *reason == letter.reason);
                if letter.sequence <= self.last && is_wanted {
                    letters.push(letter);
                }
            }
            if !letters.is_empty() {
                return Ok(Some(letters));
            }
            if at_end {
                return Ok(None);
            }
        }
    }
}

fn kept(message: &Message, before: &str) -> anyhow::Result<Kept> {
    let info = message
        .info()
        .map_err(|error| anyhow::anyhow!("a message that JetStream did not send: {error}"))?;
    let header = |name: &str| {
        let headers = message.headers.as_ref();
        headers.and_then(|headers| headers.get(name)).map(ToString::to_string)
    };
    let number = |name| header(name).and_then(|value| value.parse().ok());
    Ok(Kept {
        sequence: info.stream_sequence,
        time: Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).unwrap_or_default(),
        reason: header(HEADER_REASON).unwrap_or_default(),
        service: message.subject.strip_prefix(before).unwrap_or_default().to_owned(),
        detail: header(HEADER_DETAIL).unwrap_or_default(),
        origin: number(HEADER_SEQUENCE),
        cut_from: number(HEADER_SIZE),
        line: message.payload.clone(),
    })
}
