//! How far behind the consumer is: asked of JetStream every few seconds, by a task that nothing waits for.
//!
//! The age of the oldest message is that of the oldest this process holds. Where it holds none though some are not
//! acknowledged (others have them, or it can't fetch), the server is asked for the first message after those that are.
//!
//! A durable whose `max_ack_pending` is used up, and that delivers nothing new from one look to the next, is told as held: else
//! nobody saw why the backlog grows.
//!
//! Invariants:
//! - Without a server nothing is asked; what is held grows older all the same
//!   (`the_lag_grows_while_the_store_is_away_and_is_gone_when_it_is_back`).
//! - What the server doesn't answer is left as it was, and what needs a permission of its own is asked again only after
//!   [`PATIENCE`].

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context, consumer};
use sidelog_chassis::nats::Connection;

use crate::ledger::Ledger;
use crate::metrics::{LagMetrics, Metrics};
use crate::outage::Outage;
use crate::settings::Settings;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(5);
/// The time that the server has for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long what was refused, or not answered, is not asked again.
const PATIENCE: Duration = Duration::from_secs(300);

/// Watches the durable and its stream.
#[derive(Debug)]
pub(crate) struct Lag {
    connection: Connection,
    context: Context,
    stream: String,
    durable: String,
    ledger: Arc<Ledger>,
    metrics: LagMetrics,
    outage: Outage,
    /// The last message of the stream that was delivered, where the durable had no room for more.
    full_at: Option<u64>,
    may_see_stream: Leave,
    may_read_message: Leave,
}

/// Leave to ask for what not every user may.
#[derive(Debug, Default)]
struct Leave(Option<Instant>);

impl Lag {
    pub(crate) fn new(settings: &Settings, connection: Connection, ledger: Arc<Ledger>, metrics: &Metrics) -> Self {
        let mut context = jetstream::new(connection.client.clone());
        context.set_timeout(ANSWER_TIME);
        Self {
            connection,
            context,
            stream: settings.nats.stream.clone(),
            durable: settings.source.durable.clone(),
            ledger,
            metrics: metrics.lag.clone(),
            outage: Outage::new("durable", &metrics.holds),
            full_at: None,
            may_see_stream: Leave::default(),
            may_read_message: Leave::default(),
        }
    }

    /// Looks again and again, for ever; ends by being dropped.
    pub(crate) async fn watch(mut self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let asked = if self.connection.is_connected() {
                self.look().await
            } else {
                None
            };
            if let Some(published) = self.ledger.oldest().or(asked) {
                self.metrics.age.set(seconds_since(published));
            }
        }
    }

    /// Asks the server. Gives back when it took the oldest message that isn't acknowledged, where only it can know.
    async fn look(&mut self) -> Option<u64> {
        let stream = self.stream().await?;
        let info = stream.consumer_info(&self.durable).await.ok()?;
        let unacknowledged = info.num_pending.saturating_add(info.num_ack_pending as u64);
        self.metrics.messages.set(gauge(unacknowledged));
        self.metrics.unread_messages.set(gauge(info.num_pending));
        self.metrics.pending_messages.set(gauge(info.num_ack_pending as u64));
        self.metrics.pending_limit.set(info.config.max_ack_pending.max(0));
        self.tell_of_room(&info);
        if unacknowledged == 0 {
            self.metrics.age.set(0.0);
            return None;
        }
        if self.ledger.oldest().is_some() || !self.may_read_message.is_given() {
            return None;
        }
        let subject = Some(info.config.filter_subject).filter(|subject| !subject.is_empty());
        let next = stream
            .raw_message_builder()
            .sequence(info.ack_floor.stream_sequence + 1)
            .next_by_subject(subject.as_deref().unwrap_or(">"))
            .send();
        match next.await {
            Ok(message) => u64::try_from(message.time.unix_timestamp_nanos()).ok(),
            Err(error) => {
                tracing::debug!(%error, "failed to look at the oldest message");
                self.may_read_message.refuse();
                None
            }
        }
    }

    /// Says so when the durable delivers nothing new because too much of it is not acknowledged.
    fn tell_of_room(&mut self, info: &consumer::Info) {
        let limit = info.config.max_ack_pending;
        let is_full = limit > 0 && info.num_ack_pending as u64 >= limit.unsigned_abs() && info.num_pending > 0;
        let delivered = info.delivered.stream_sequence;
        let before = std::mem::replace(&mut self.full_at, is_full.then_some(delivered));
        if is_full && before == Some(delivered) {
            self.outage.report("max_ack_pending", || {
                let waiting = info.num_pending;
                format!(
                    "all {limit} messages that the durable may leave without acknowledgement are held, or given back for a while, and \
                     {waiting} more wait behind them; see which stream the store refuses or is slow with (part=stream), or raise \
                     source.max_ack_pending and restart"
                )
            });
        } else {
            self.outage.over();
        }
    }

    /// The stream, looked at where that is allowed.
    async fn stream(&mut self) -> Option<Stream<()>> {
        if self.may_see_stream.is_given() {
            match self.context.get_stream(&self.stream).await {
                Ok(stream) => self.tell_of(stream.cached_info()),
                Err(error) => {
                    tracing::debug!(%error, "failed to look at the stream");
                    self.may_see_stream.refuse();
                }
            }
        }
        self.context.get_stream_no_info(&self.stream).await.ok()
    }

    fn tell_of(&self, info: &jetstream::stream::Info) {
        let (state, config) = (&info.state, &info.config);
        self.metrics.stream_bytes.set(gauge(state.bytes));
        self.metrics.stream_bytes_limit.set(config.max_bytes.max(0));
        self.metrics.stream_age_limit.set(config.max_age.as_secs_f64());
        let first = u64::try_from(state.first_timestamp.unix_timestamp_nanos()).unwrap_or_default();
        let age = if state.messages > 0 { seconds_since(first) } else { 0.0 };
        self.metrics.stream_age.set(age);
    }
}

impl Leave {
    fn is_given(&self) -> bool {
        self.0.is_none_or(|refused| refused.elapsed() >= PATIENCE)
    }

    fn refuse(&mut self) {
        self.0 = Some(Instant::now());
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// From a time of the server's clock, in Unix nanoseconds, to now by ours; 0 where that is ahead.
fn seconds_since(time: u64) -> f64 {
    let then = UNIX_EPOCH + Duration::from_nanos(time);
    SystemTime::now().duration_since(then).unwrap_or_default().as_secs_f64()
}
