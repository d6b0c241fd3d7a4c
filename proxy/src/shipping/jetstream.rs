//! Publishes to JetStream, and the acknowledgements that are awaited.
//!
//! Invariants:
//! - A frame counts as shipped only by its acknowledgement; without one it is sent again with the same
//!   `Nats-Msg-Id`, which the stream takes once within its duplicate window.
//! - Nothing is published while the connection is down, and after a failure one frame at a time until one is
//!   acknowledged: an acknowledgement that never arrives stays in the client for ever, so an outage costs it a window at
//!   most (`a_failure_pauses_once_and_the_next_try_is_a_single_frame`).
//! - What fails for a while is held, not spun on: the pause doubles from try to try, not from frame to frame, however late the
//!   frames of one try fail (`frames_of_an_earlier_try_do_not_make_the_pause_longer`). Its length is partly chance, so that many
//!   proxies do not try at the same instants.

use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::RngExt;
use sidelog_chassis::nats::Connection;
use tokio::time::Instant;

pub mod fit;
pub mod stream;

use super::outgoing::{Outgoing, Piece};
use crate::settings::Settings;
use fit::Wanted;
use stream::StreamKeeper;

/// Wait after a publish that failed; doubled each time, up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// What the headers of a message take of the server's `max_payload`, with room to spare.
const HEADERS: usize = 1024;
/// The time between two lines about records that are too large.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// What became of a publish.
#[derive(Debug)]
pub enum Answer {
    /// JetStream has the frame, but for so many records that are too large for it.
    Stored {
        /// The frame's number.
        number: u64,
        /// Records that JetStream will never take.
        refused: u32,
        /// Bytes of the frame.
        bytes: usize,
        /// From its publishing to its acknowledgement.
        took: Duration,
    },
    /// It is to be sent again.
    Failed {
        /// The frame's number.
        number: u64,
    },
    /// It is to be sent again, in messages of at most `limit` bytes.
    TooLarge {
        /// The frame's number.
        number: u64,
        /// The bytes that a message may hold.
        limit: usize,
    },
}

/// Why a frame was not stored.
#[derive(Debug)]
enum Fault {
    TooLarge { bytes: usize },
    Publish(PublishError),
}

type Publishing = Pin<Box<dyn Future<Output = Published> + Send>>;

/// What came of a publish.
#[derive(Debug)]
struct Published {
    number: u64,
    /// The try that it was part of.
    attempt: u64,
    outcome: Result<Stored, Fault>,
}

/// What of a frame JetStream will never take.
#[derive(Debug, Default, Clone, Copy)]
struct Refused {
    records: u32,
    /// The bytes of the largest.
    largest: usize,
}

/// What is known of a frame that JetStream has.
#[derive(Debug)]
struct Stored {
    refused: Refused,
    bytes: usize,
    took: Duration,
}

/// Publishes frames, and awaits their acknowledgements.
pub struct Publisher {
    connection: Connection,
    context: Context,
    stream: StreamKeeper,
    window: usize,
    in_flight: FuturesUnordered<Publishing>,
    pause: Pause,
    /// When it was last told that records are too large.
    refused_told: Option<Instant>,
}

impl Publisher {
    /// A publisher. Call it inside the runtime that will drive it.
    pub fn new(connection: Connection, settings: &Settings) -> Self {
        let publish = &settings.publish;
        let window = publish.window.max(1);
        let context = ContextBuilder::new()
            // The window is ours to keep. What we no longer wait for counts there for a while, and must not hold us up.
            .max_ack_inflight(window * 4)
            .timeout(publish.ack_timeout)
            .build(connection.client.clone());
        Self {
            stream: StreamKeeper::start(connection.clone(), settings.nats.clone(), Wanted::of(settings)),
            connection,
            context,
            window,
            in_flight: FuturesUnordered::new(),
            pause: Pause::default(),
            refused_told: None,
        }
    }

    /// Whether there is a server to publish to.
    pub fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    /// How many frames may be published now, beside those in flight.
    pub fn room(&self) -> usize {
        let is_held_up = !self.connection.is_connected() || !self.stream.is_ready();
        if is_held_up || self.pause.is_on(Instant::now()) {
            return 0;
        }
        let window = if self.pause.is_probing() { 1 } else { self.window };
        window.saturating_sub(self.in_flight.len())
    }

    /// Frames that are published and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether publishing has failed, and nothing was acknowledged since.
    pub fn is_failing(&self) -> bool {
        self.pause.is_probing()
    }

    /// The bytes that a message may hold, by what server and stream announced last.
    pub fn message_max(&self) -> usize {
        let of_stream = usize::try_from(self.stream.message_max()).unwrap_or(usize::MAX);
        let announced = self.connection.client.max_payload().min(of_stream);
        announced.saturating_sub(HEADERS)
    }

    /// Publishes a frame, in messages of at most `limit` bytes or what server and stream take.
    pub fn publish(&mut self, number: u64, outgoing: Outgoing, limit: usize) {
        let limit = limit.min(self.message_max());
        let context = self.context.clone();
        let (bytes, began, attempt) = (outgoing.frame.payload.len(), Instant::now(), self.pause.attempt);
        self.in_flight.push(Box::pin(async move {
            let sent = send(&context, &outgoing, limit).await;
            let outcome = sent.map(|refused| Stored {
                refused,
                bytes,
                took: began.elapsed(),
            });
            Published {
                number,
                attempt,
                outcome,
            }
        }));
    }

    /// Waits for the next acknowledgement or failure; for ever if nothing is in flight. Cancel safe.
    pub async fn next(&mut self) -> Answer {
        let Some(published) = self.in_flight.next().await else {
            return std::future::pending().await;
        };
        let number = published.number;
        match published.outcome {
            Ok(Stored { refused, bytes, took }) => {
                if self.pause.end() {
                    tracing::info!("records are published again");
                }
                self.tell_refused(refused, Instant::now());
                Answer::Stored {
                    number,
                    refused: refused.records,
                    bytes,
                    took,
                }
            }
            Err(Fault::TooLarge { bytes }) => Answer::TooLarge {
                number,
                limit: bytes / 2,
            },
            Err(Fault::Publish(error)) => {
                self.failed(&error, published.attempt);
                Answer::Failed { number }
            }
        }
    }

    /// Forgets what is in flight.
    pub fn abandon(&mut self) {
        self.in_flight = FuturesUnordered::new();
    }

    /// Once in a while; each is counted, and a loss record tells how many.
    fn tell_refused(&mut self, refused: Refused, now: Instant) {
        if refused.records == 0 || self.refused_told.is_some_and(|told| now - told < REFUSED_AGAIN) {
            return;
        }
        self.refused_told = Some(now);
        tracing::error!(
            records = refused.records,
            largest = refused.largest,
            "records are larger than NATS takes and were dropped; raise the server's max_payload or the stream's max_msg_size, or lower \
             capture.body_max"
        );
    }

    fn failed(&mut self, error: &PublishError, attempt: u64) {
        if error.kind() == PublishErrorKind::StreamNotFound {
            self.stream.missing();
        }
        if !self.pause.is_probing() {
            let error: &dyn std::error::Error = error;
            tracing::warn!(
                error,
                "records could not be published to NATS; they are kept and sent again"
            );
        }
        self.pause.begin(attempt, Instant::now());
    }
}

/// All messages of a frame, one after the other. Gives back what records are too large for the stream.
async fn send(context: &Context, outgoing: &Outgoing, limit: usize) -> Result<Refused, Fault> {
    let mut refused = Refused::default();
    for piece in outgoing.pieces(limit) {
        match publish(context, outgoing, &piece).await {
            Ok(()) => {}
            Err(error) if is_too_large(&error) && piece.count() == 1 => {
                refused.records += 1;
                refused.largest = refused.largest.max(piece.bytes());
            }
            Err(error) if is_too_large(&error) => return Err(Fault::TooLarge { bytes: piece.bytes() }),
            Err(error) => return Err(Fault::Publish(error)),
        }
    }
    Ok(refused)
}

async fn publish(context: &Context, outgoing: &Outgoing, piece: &Piece<'_>) -> Result<(), PublishError> {
    let subject = outgoing.subject.to_string();
    context.send_publish(subject, piece.message()).await?.await?;
    Ok(())
}

/// By the server's `max_payload`, or the stream's `max_msg_size`.
fn is_too_large(error: &PublishError) -> bool {
    let source = std::error::Error::source(error);
    let code = source
        .and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>())
        .map(async_nats::jetstream::Error::error_code);
    error.kind() == PublishErrorKind::MaxPayloadExceeded || code == Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)
}

/// The time without publishes after a failure.
#[derive(Debug, Default)]
struct Pause {
    /// When it ends, and how long it may be.
    state: Option<(Instant, Duration)>,
    /// Counts the pauses, and with them the tries between them.
    attempt: u64,
}

impl Pause {
    fn is_on(&self, now: Instant) -> bool {
        self.state.is_some_and(|(until, _)| now < until)
    }

    /// Whether there was a failure, and no success since.
    fn is_probing(&self) -> bool {
        self.state.is_some()
    }

    /// A failure of a frame that was published in `attempt`. Others of the same find the pause begun, and don't make it longer.
    fn begin(&mut self, attempt: u64, now: Instant) {
        if attempt == self.attempt {
            let delay = self.state.map_or(RETRY.0, |(_, delay)| (delay * 2).min(RETRY.1));
            let part = rand::rng().random_range(0.5..=1.0);
            self.state = Some((now + delay.mul_f64(part), delay));
            self.attempt += 1;
        }
    }

    /// A success. Says whether there had been a failure.
    fn end(&mut self) -> bool {
        self.state.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_pauses_once_and_the_next_try_is_a_single_frame() {
        let start = Instant::now();
        let mut pause = Pause::default();
        (0..64).for_each(|_| pause.begin(0, start));
        assert!(pause.is_on(start + RETRY.0 * 2 / 5) && !pause.is_on(start + RETRY.0));
        assert!(pause.is_probing());
        pause.begin(pause.attempt, start + RETRY.0);
        assert!(pause.is_on(start + RETRY.0 * 9 / 5) && !pause.is_on(start + RETRY.0 * 3));
        assert!(pause.end() && !pause.is_probing() && !pause.end());
    }

    #[test]
    fn frames_of_an_earlier_try_do_not_make_the_pause_longer() {
        let mut now = Instant::now();
        let mut pause = Pause::default();
        for _ in 0..64 {
            pause.begin(0, now);
            now += RETRY.0;
        }
        assert!(!pause.is_on(now) && pause.is_probing());
    }

    #[test]
    fn the_pause_has_a_longest() {
        let mut now = Instant::now();
        let mut pause = Pause::default();
        for _ in 0..20 {
            pause.begin(pause.attempt, now);
            now += RETRY.1;
            assert!(!pause.is_on(now));
        }
    }
}
