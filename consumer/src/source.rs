//! Messages out of JetStream: the durable pull consumer, and fetches that never take more than there is room for.
//!
//! Invariants:
//! - Room is reserved before messages are asked for, and a fetch asks for no more bytes than were reserved; so
//!   `source.memory_max` bounds what is held. (One message larger than a fetch is taken alone, and may exceed it.)
//! - Every message received is in the ledger before anything else happens to it.
//! - Nothing here ends the process: a server that is away, a stream that is missing, a permission that is denied are
//!   waited for, with a line that says what to do.
//! - A durable of an operator's is used as it is; what differs from the settings is one warning.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt;
use sidelog_chassis::nats::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::delivery::{Delivery, MessageId};
use crate::durable::{Durable, Opened, PullConsumer};
use crate::gaps::{Gaps, Place};
use crate::ledger::{Admission, Ledger};
use crate::metrics::Metrics;
use crate::outage::Outage;
use crate::settings::Settings;

/// The least that a fetch asks for, when messages are small.
const FETCH_MIN: usize = 2 * 1024 * 1024;
/// What a message has beside its payload: subject, reply subject, headers.
const MESSAGE_ROOM: usize = 64 * 1024;
/// What a held message costs beside its bytes.
const MESSAGE_COST: usize = 1024;
/// The most messages a fetch asks for.
pub(crate) const FETCH_MESSAGES: usize = 1024;
/// How long a fetch waits for messages.
const FETCH_WAIT: Duration = Duration::from_secs(30);
/// How often the server says that a fetch still stands while there are no messages; in a cluster its leader may die.
const HEARTBEAT: Duration = Duration::from_secs(5);

const FIRST_WAIT: Duration = Duration::from_millis(100);
const GREATEST_WAIT: Duration = Duration::from_secs(10);

/// Fetches messages and passes them on.
#[derive(Debug)]
pub(crate) struct Source {
    connection: Connection,
    context: Context,
    durable: Durable,
    ledger: Arc<Ledger>,
    metrics: Metrics,
    budget: Arc<Semaphore>,
    memory_max: usize,
    deliveries: mpsc::Sender<Arc<Delivery>>,
    outage: Outage,
    gaps: Gaps,
}

/// How a fetch ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// As it should: full, or nothing more came in time.
    Done,
    /// The next message is larger than the whole fetch.
    TooLarge,
    /// The connection was lost.
    Disconnected,
    /// The server ended it, for this reason.
    Ended(String),
}

impl Source {
    /// `ack_wait` is told what the server waits for, as soon as that is known.
    pub(crate) fn new(
        settings: &Settings,
        connection: Connection,
        ledger: Arc<Ledger>,
        metrics: Metrics,
        deliveries: mpsc::Sender<Arc<Delivery>>,
        ack_wait: watch::Sender<Duration>,
    ) -> Self {
        let memory_max = settings.source.memory_max.as_usize();
        Self {
            context: jetstream::new(connection.client.clone()),
            durable: Durable::new(settings, connection.clone(), Arc::clone(&ledger), ack_wait),
            connection,
            ledger,
            gaps: Gaps::new(metrics.clone()),
            outage: Outage::new("source", &metrics.holds),
            metrics,
            budget: Arc::new(Semaphore::new(memory_max)),
            memory_max,
            deliveries,
        }
    }

    /// Fetches for ever; ends by being dropped, at any point.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut backoff = Backoff::new(FIRST_WAIT, GREATEST_WAIT);
        loop {
            self.connection.connected().await;
            match self.durable.open().await {
                Ok(opened) => {
                    self.begin(&opened);
                    self.fetch_all(&opened.consumer, &mut backoff).await;
                }
                Err(error) => self.outage.report(error.kind(), || error.to_string()),
            }
            sleep(backoff.next(None)).await;
        }
    }

    fn begin(&mut self, opened: &Opened) {
        let delivered = opened.consumer.cached_info().delivered;
        let last = Place {
            stream: delivered.stream_sequence,
            durable: delivered.consumer_sequence,
        };
        if opened.is_new {
            self.gaps.begin(last, opened.reads_everything);
        }
    }

    /// Fetches until the durable has to be looked at anew.
    async fn fetch_all(&mut self, consumer: &PullConsumer, backoff: &mut Backoff) {
        let mut alone = false;
        loop {
            match self.fetch(consumer, alone).await {
                Ok(End::Done) => {
                    self.outage.over();
                    backoff.reset();
                    alone = false;
                }
                Ok(End::TooLarge) => alone = true,
                // The connection tells of itself, and has its own backoff.
                Ok(End::Disconnected) => return backoff.reset(),
                Ok(End::Ended(reason)) => {
                    return self.outage.report("fetch_ended", || {
                        format!("NATS ended a fetch: {reason}; looking for the stream and the durable again")
                    });
                }
                Err(error) => {
                    return self
                        .outage
                        .report("fetch_failed", || format!("failed to ask NATS for messages: {error}"));
                }
            }
        }
    }

    /// One fetch. `alone` asks for a single message of any size.
    async fn fetch(&mut self, consumer: &PullConsumer, alone: bool) -> Result<End, async_nats::Error> {
        let bytes = fetch_bytes(self.connection.client.max_payload(), self.memory_max);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut room = Arc::clone(&self.budget).acquire_many_owned(permits).await?;
        let inbox = self.connection.client.new_inbox();
        let mut answers = self.connection.client.subscribe(inbox.clone()).await?;
        let (messages, max_bytes) = if alone { (1, 0) } else { (FETCH_MESSAGES, bytes) };
        let request = BatchConfig {
            batch: messages,
            expires: Some(FETCH_WAIT),
            idle_heartbeat: HEARTBEAT,
            max_bytes,
            ..BatchConfig::default()
        };
        consumer.request_batch(request, inbox.into()).await?;
        let mut connection = self.connection.clone();
        let mut lost = pin!(connection.disconnected());
        let mut silent = pin!(sleep(HEARTBEAT * 2));
        let mut received = 0;
        while received < messages {
            let answer = tokio::select! {
                biased;
                answer = answers.next() => answer,
                () = &mut lost => return Ok(End::Disconnected),
                () = &mut silent => return Ok(End::Ended("its heartbeat stopped".to_owned())),
            };
            let Some(message) = answer else {
                return Ok(End::Disconnected);
            };
            match status(&message, received) {
                Some(None) => {}
                Some(Some(end)) => return Ok(end),
                None => {
                    self.outage.over();
                    received += 1;
                    self.take(message, &mut room).await;
                }
            }
            silent.as_mut().reset(Instant::now() + HEARTBEAT * 2);
        }
        Ok(End::Done)
    }

    /// Enters a message into the ledger and passes it on.
    async fn take(&mut self, message: Message, room: &mut OwnedSemaphorePermit) {
        self.metrics.messages.inc();
        let bytes = (message.length + MESSAGE_COST).min(room.num_permits());
        let Some(reserved) = room.split(bytes) else {
            return;
        };
        let message = jetstream::Message {
            message,
            context: self.context.clone(),
        };
        let Ok((id, place, delivered)) = message.info().map(|info| {
            (
                id(&info),
                place(&info),
                u32::try_from(info.delivered).unwrap_or(u32::MAX),
            )
        }) else {
            tracing::debug!(subject = %message.subject, "received a message that JetStream did not send");
            return;
        };
        let is_first = delivered == 1;
        self.gaps.see(place, is_first);
        if !is_first {
            self.metrics.redelivered.inc();
        }
        let Message {
            subject,
            reply: Some(reply),
            payload,
            ..
        } = message.message
        else {
            return;
        };
        let delivery = Arc::new(Delivery::new(id, subject, reply, payload, delivered, reserved));
        if self.ledger.admit(&delivery).await == Admission::New && self.deliveries.send(delivery).await.is_err() {
            tracing::debug!("received a message while stopping");
        }
    }
}

fn id(info: &jetstream::message::Info<'_>) -> MessageId {
    MessageId {
        sequence: info.stream_sequence,
        published: u64::try_from(info.published.unix_timestamp_nanos()).unwrap_or_default(),
    }
}

fn place(info: &jetstream::message::Info<'_>) -> Place {
    Place {
        stream: info.stream_sequence,
        durable: info.consumer_sequence,
    }
}

/// The bytes one fetch asks for: enough for the largest message the server takes, and at most half of all there is.
fn fetch_bytes(max_payload: usize, memory_max: usize) -> usize {
    FETCH_MIN
        .max(max_payload.saturating_add(MESSAGE_ROOM))
        .min(memory_max / 2)
}

/// What a status message means: nothing, or the end of the fetch. `None` for a message of the stream.
///
/// Source: ADR-37, "JetStream Simplification", and nats-server's `consumer.go`.
fn status(message: &Message, received: usize) -> Option<Option<End>> {
    let code = message.status?.as_u16();
    let text = message.description.as_deref().unwrap_or_default();
    Some(match code {
        100 => None,
        404 | 408 => Some(End::Done),
        409 if text.contains("MaxBytes") && received == 0 => Some(End::TooLarge),
        409 if text.contains("MaxBytes") || text.contains("Batch Completed") => Some(End::Done),
        503 => Some(End::Ended("there is no such durable".to_owned())),
        _ => Some(End::Ended(format!("{code} {text}"))),
    })
}

#[cfg(test)]
mod tests {
    use async_nats::{StatusCode, Subject};

    use super::*;

    fn message(status: Option<u16>, description: &str) -> Message {
        Message {
            subject: Subject::from("inbox"),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: None,
            status: status.map(|code| StatusCode::from_u16(code).unwrap()),
            description: Some(description.to_owned()),
            length: 0,
        }
    }

    #[test]
    fn a_fetch_ends_as_the_server_says() {
        let ended = |code, text: &str, received| status(&message(Some(code), text), received);
        assert_eq!(status(&message(None, ""), 0), None);
        assert_eq!(ended(100, "Idle Heartbeat", 0), Some(None));
        assert_eq!(ended(408, "Request Timeout", 0), Some(Some(End::Done)));
        assert_eq!(ended(409, "Message Size Exceeds MaxBytes", 3), Some(Some(End::Done)));
        assert_eq!(
            ended(409, "Message Size Exceeds MaxBytes", 0),
            Some(Some(End::TooLarge))
        );
        assert_eq!(
            ended(409, "Consumer Deleted", 0),
            Some(Some(End::Ended("409 Consumer Deleted".to_owned())))
        );
    }

    #[test]
    fn a_fetch_has_room_for_the_largest_message_and_takes_at_most_half_of_the_memory() {
        let mib = 1024 * 1024;
        assert_eq!(fetch_bytes(mib, 64 * mib), FETCH_MIN);
        assert_eq!(fetch_bytes(8 * mib, 64 * mib), 8 * mib + MESSAGE_ROOM);
        assert_eq!(fetch_bytes(64 * mib, 64 * mib), 32 * mib);
    }
}
