//! Frames on their way to JetStream: a window of publishes whose acknowledgements are awaited.
//!
//! Invariants:
//! - A frame counts as shipped only by its acknowledgement; without one it is sent again with the same
//!   `Nats-Msg-Id`, which the stream takes once within its duplicate window.
//! - No other process start can use the same id: it begins with a UUIDv7 of this start.
//! - At most `publish.window` frames are held, waiting or in flight; when they are, the queue is not emptied
//!   further, and its limit decides.
//! - Nothing is published while the connection is down: an acknowledgement that can't arrive would leak in the client.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Context, publish::PublishAck};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sidelog_chassis::nats::{Connection, NatsSettings, StreamError, ensure_stream, subject_for};
use sidelog_record::frame::{Frame, HEADER_COUNT, HEADER_OBSERVED, HEADER_SCHEMA, SCHEMA};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::queue::Queue;
use crate::queue::ledger::{DropReason, Stage};
use crate::settings::Publish;

/// Wait after a publish that failed; doubled each time, up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A closed frame with the id it keeps until it is acknowledged.
#[derive(Clone, Debug)]
struct Outgoing {
    id: String,
    frame: Frame,
}

type Publishing = Pin<Box<dyn Future<Output = (Outgoing, Result<PublishAck, PublishError>)> + Send>>;

/// Publishes frames.
pub struct Publisher {
    connection: Connection,
    context: Context,
    stream: StreamKeeper,
    subject: String,
    window: usize,
    start: Uuid,
    sequence: u64,
    waiting: VecDeque<Outgoing>,
    in_flight: FuturesUnordered<Publishing>,
    retry: Option<(Instant, Duration)>,
    queue: Arc<Queue>,
}

impl Publisher {
    /// A publisher for the records of `service`. Call it inside the runtime that will drive it.
    pub fn new(
        connection: Connection,
        nats: &NatsSettings,
        publish: &Publish,
        service: &str,
        queue: Arc<Queue>,
    ) -> Self {
        let window = publish.window.max(1);
        let context = ContextBuilder::new()
            .max_ack_inflight(window)
            .timeout(publish.ack_timeout)
            .build(connection.client.clone());
        Self {
            stream: StreamKeeper::start(connection.clone(), nats.clone()),
            connection,
            context,
            subject: subject_for(&nats.subject, service),
            window,
            start: Uuid::now_v7(),
            sequence: 0,
            waiting: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            retry: None,
            queue,
        }
    }

    /// Whether another frame may be handed over.
    pub fn has_room(&self) -> bool {
        self.waiting.len() + self.in_flight.len() < self.window
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Whether there is a server to publish to.
    pub fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    /// Takes a closed frame.
    pub fn accept(&mut self, frame: Frame) {
        self.queue
            .ledger()
            .advance(Stage::Building, Stage::Publishing, frame.count.into());
        let id = format!("{}-{}", self.start.simple(), self.sequence);
        self.sequence += 1;
        self.waiting.push_back(Outgoing { id, frame });
    }

    /// Whether publishing must wait: for a server, for its stream, or after a failure.
    pub fn is_held_up(&self) -> bool {
        let paused = self.retry.is_some_and(|(until, _)| Instant::now() < until);
        paused || !self.connection.is_connected() || !self.stream.is_ready()
    }

    /// Publishes what waits, unless it is held up.
    pub fn publish(&mut self) {
        if self.is_held_up() {
            return;
        }
        while let Some(outgoing) = self.waiting.pop_front() {
            let (context, subject) = (self.context.clone(), self.subject.clone());
            self.in_flight.push(Box::pin(async move {
                let message = message(&outgoing);
                let result = match context.send_publish(subject, message).await {
                    Ok(acknowledgement) => acknowledgement.await,
                    Err(error) => Err(error),
                };
                (outgoing, result)
            }));
        }
    }

    /// Waits for the next acknowledgement or failure; for ever if nothing is in flight. Cancel safe.
    pub async fn next(&mut self) {
        match self.in_flight.next().await {
            Some((outgoing, Ok(_))) => {
                self.queue.ledger().ship(outgoing.frame.count.into());
                if self.retry.take().is_some() {
                    tracing::info!("records are published again");
                }
            }
            Some((outgoing, Err(error))) => self.failed(outgoing, &error),
            None => std::future::pending().await,
        }
    }

    /// Drops and counts everything that is not acknowledged.
    pub fn give_up(&mut self, reason: DropReason) -> u64 {
        self.in_flight.clear();
        self.waiting.clear();
        let left = self.queue.ledger().balance().publishing;
        self.queue.ledger().drop_at(Stage::Publishing, reason, left);
        left
    }

    fn failed(&mut self, outgoing: Outgoing, error: &PublishError) {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => return self.split(outgoing),
            PublishErrorKind::StreamNotFound => self.stream.missing(),
            _ => {}
        }
        if self.retry.is_none() {
            tracing::warn!(%error, "records could not be published to NATS; they are kept and sent again");
        }
        let delay = self.retry.map_or(RETRY.0, |(_, delay)| (delay * 2).min(RETRY.1));
        self.retry = Some((Instant::now() + delay, delay));
        self.waiting.push_front(outgoing);
    }

    /// Two halves of a frame that is larger than the server takes; a single record can't be halved.
    fn split(&mut self, outgoing: Outgoing) {
        let halves = halve(&outgoing.frame);
        match halves {
            Some(halves) => {
                for (suffix, frame) in ["a", "b"].into_iter().zip(halves).rev() {
                    let id = format!("{}{suffix}", outgoing.id);
                    self.waiting.push_front(Outgoing { id, frame });
                }
            }
            None => {
                self.queue
                    .ledger()
                    .drop_at(Stage::Publishing, DropReason::MaxPayload, outgoing.frame.count.into());
                tracing::error!(
                    bytes = outgoing.frame.payload.len(),
                    "a record is larger than the NATS server takes and was dropped; raise max_payload there or lower capture.body_max"
                );
            }
        }
    }
}

/// Two frames with half of the records each; `None` for a single record.
fn halve(frame: &Frame) -> Option<[Frame; 2]> {
    let first = frame.count / 2;
    let ends = memchr::memchr_iter(b'\n', &frame.payload).map(|newline| newline + 1);
    let at = ends.take(first as usize).last()?;
    let part = |payload, count| Frame {
        payload,
        count,
        ..frame.clone()
    };
    Some([
        part(frame.payload.slice(..at), first),
        part(frame.payload.slice(at..), frame.count - first),
    ])
}

fn message(outgoing: &Outgoing) -> PublishMessage {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_SCHEMA, SCHEMA.to_string());
    headers.insert(HEADER_COUNT, outgoing.frame.count.to_string());
    headers.insert(HEADER_OBSERVED, outgoing.frame.observed().to_string());
    PublishMessage::build()
        .payload(outgoing.frame.payload.clone())
        .headers(headers)
        .message_id(&outgoing.id)
}

/// Sees to it that the stream is there: at the start, and again whenever a publish finds it missing.
struct StreamKeeper {
    ready: watch::Receiver<bool>,
    missing: Arc<Notify>,
}

impl StreamKeeper {
    fn start(mut connection: Connection, nats: NatsSettings) -> Self {
        let (sender, ready) = watch::channel(false);
        let missing = Arc::new(Notify::new());
        let asked = Arc::clone(&missing);
        tokio::spawn(async move {
            while !sender.is_closed() {
                connection.connected().await;
                keep_asking(&connection, &nats).await;
                sender.send_replace(true);
                asked.notified().await;
            }
        });
        Self { ready, missing }
    }

    fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    fn missing(&self) {
        self.missing.notify_one();
    }
}

/// Until the stream is there, or we are told that it is not ours to create.
async fn keep_asking(connection: &Connection, nats: &NatsSettings) {
    let mut told = false;
    let mut delay = RETRY.0;
    loop {
        match ensure_stream(connection, nats).await {
            Ok(_) => return,
            Err(error @ StreamError::Denied { .. }) => {
                tracing::info!(%error, "the stream is taken as it is");
                return;
            }
            Err(error) if !told => tracing::warn!(%error, "the stream can't be used yet; asking again"),
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sidelog_record::frame::lines;

    fn frame(payload: &'static str, count: u32) -> Frame {
        Frame {
            payload: Bytes::from_static(payload.as_bytes()),
            count,
            first_observed: 1,
            last_observed: 9,
        }
    }

    #[test]
    fn halves_hold_all_records_in_order() {
        let [first, second] = halve(&frame("a\nb\nc\n", 3)).unwrap();
        assert_eq!((first.count, second.count), (1, 2));
        assert_eq!(lines(&first.payload).collect::<Vec<_>>(), [b"a"]);
        assert_eq!(lines(&second.payload).collect::<Vec<_>>(), [b"b", b"c"]);
        assert_eq!((second.first_observed, second.last_observed), (1, 9));
    }

    #[test]
    fn a_single_record_is_not_halved() {
        assert!(halve(&frame("a\n", 1)).is_none());
    }
}
