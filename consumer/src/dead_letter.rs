//! What is no record, or what the store refuses for good, kept in a JetStream stream of its own.
//!
//! Invariants:
//! - A line is set aside only when the dead letter stream has confirmed it; until then its message is not acknowledged.
//! - The same line set aside twice (its message was delivered again) is stored once within the stream's duplicate
//!   window: the message id is made of the line's place.
//! - The payload is the line as it was received, cut only where it and the headers exceed the server's `max_payload`,
//!   and then a header tells its size.

mod command;
mod letter;
mod letters;
mod shelf;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::{self, Context};
use parking_lot::Mutex;
use sidelog_chassis::nats::{self, Connection, NatsSettings};

use crate::backoff::Backoff;
use crate::metrics::{Metrics, ReasonLabel};
use crate::outage::Outage;

pub(crate) use command::{DeadLettersCommand, run as run_command};
pub(crate) use letter::{Letter, Reason};
pub(crate) use letters::Letters;

/// Room for headers below the server's `max_payload`.
const HEADER_ROOM: usize = 2048;

/// A reason is told of at most this often.
const TELL_AGAIN: Duration = Duration::from_secs(60);

const FIRST_WAIT: Duration = Duration::from_millis(100);
const GREATEST_WAIT: Duration = Duration::from_secs(30);

/// Publishes letters to the dead letter stream.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    connection: Connection,
    context: Context,
    /// As the main connection's, with the stream and subject of the dead letters.
    settings: NatsSettings,
    outage: Outage,
    metrics: Metrics,
    making: tokio::sync::Mutex<()>,
    /// When a letter of a reason was last told of.
    told: Mutex<HashMap<&'static str, Instant>>,
}

impl DeadLetters {
    /// `settings` names the dead letter stream; the stream is made when the first letter finds none.
    pub(crate) fn new(connection: Connection, settings: NatsSettings, metrics: Metrics) -> Self {
        Self {
            context: jetstream::new(connection.client.clone()),
            connection,
            settings,
            outage: Outage::new("dead_letter", &metrics.holds),
            metrics,
            making: tokio::sync::Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Returns when the letter is in the stream, however long that takes.
    pub(crate) async fn set_aside(&self, letter: &Letter) {
        let mut backoff = Backoff::new(FIRST_WAIT, GREATEST_WAIT);
        let mut made = false;
        loop {
            // A publish while the connection is down would wait for an answer that can't come.
            self.connection.clone().connected().await;
            match self.publish(letter).await {
                Ok(()) => break,
                Err(error) if error.kind() == PublishErrorKind::StreamNotFound && !made => {
                    made = self.make_stream().await
                }
                Err(error) => self.outage.report("publish_failed", || self.advice(&error)),
            }
            tokio::time::sleep(backoff.next(None)).await;
        }
        self.outage.over();
        self.tell(letter);
    }

    /// Counts a letter, and tells the first of each reason in a while.
    fn tell(&self, letter: &Letter) {
        let reason = letter.reason.as_str();
        let count = self.metrics.dead_letters.get_or_create(&ReasonLabel { reason }).inc() + 1;
        let now = Instant::now();
        let is_due = match self.told.lock().entry(reason) {
            Entry::Occupied(told) if now.duration_since(*told.get()) < TELL_AGAIN => false,
            Entry::Occupied(mut told) => {
                told.insert(now);
                true
            }
            Entry::Vacant(untold) => {
                untold.insert(now);
                true
            }
        };
        if is_due {
            tracing::warn!(
                reason,
                detail = letter.detail,
                service = letter.service,
                sequence = letter.delivery.id.sequence,
                count,
                stream = self.settings.stream,
                "set a line aside; `sidelog-consumer dead-letters list` shows them"
            );
        }
    }

    async fn publish(&self, letter: &Letter) -> Result<(), PublishError> {
        let subject = nats::subject_for(&self.settings.subject, &letter.service);
        let room = self.connection.client.max_payload().saturating_sub(HEADER_ROOM);
        let message = letter.message(room).expected_stream(&self.settings.stream);
        self.context.send_publish(subject, message).await?.await?;
        Ok(())
    }

    /// True when there is a stream now.
    async fn make_stream(&self) -> bool {
        // Several at once would take each other the room that the stream is to have.
        let _alone = self.making.lock().await;
        let made = nats::ensure_stream(&self.connection, &self.settings).await;
        if let Err(error) = &made {
            self.outage.report("no_stream", || {
                format!(
                    "there is no stream {:?} for dead letters (dead_letter.stream), and creating it failed: {error}; \
                     messages with bad lines are held until there is",
                    self.settings.stream
                )
            });
        }
        made.is_ok()
    }

    fn advice(&self, error: &PublishError) -> String {
        format!(
            "failed to publish a dead letter: {error}; let this user publish to {} and the stream {} take it (dead_letter.subject, \
             dead_letter.stream); messages with bad lines are held until then",
            self.settings.subject, self.settings.stream
        )
    }
}
