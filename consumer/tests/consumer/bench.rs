//! What the tests stand on: a server, a store, records, and a consumer that is quick to retry.

#![allow(
    clippy::expect_used,
    reason = "a test stops at the first thing that is not as it needs it"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::StreamExt;
use sidelog_record::{Level, Record};
use testbed::wait::until;
use testbed::{LokiDouble, NatsServer, Sidelog, SidelogCommand};

/// A nats-server with the stream `logs`, and the double of Loki.
pub(crate) struct Bench {
    pub(crate) nats: NatsServer,
    pub(crate) loki: LokiDouble,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let nats = NatsServer::start().await;
        make_stream(&nats.jetstream().await).await;
        Self {
            nats,
            loki: LokiDouble::start(),
        }
    }

    /// A consumer between the two.
    pub(crate) fn consumer(&self) -> SidelogCommand {
        consumer(&self.nats.url()).env("LOKI_URL", self.loki.push_url())
    }

    /// Publishes a message and waits until the stream has it.
    pub(crate) async fn publish(&self, payload: impl Into<Bytes>) {
        publish(&self.nats.jetstream().await, payload).await;
    }

    /// Waits until every message of the stream is acknowledged.
    pub(crate) async fn all_acknowledged(&self) {
        all_acknowledged(&self.nats.jetstream().await).await;
    }
}

/// A consumer that waits less than an operator's would.
pub(crate) fn consumer(nats_url: &str) -> SidelogCommand {
    Sidelog::consumer()
        .env("NATS_URL", nats_url)
        .env("SIDELOG_LOKI__BATCH_WAIT", "20ms")
        .env("SIDELOG_LOKI__BACKOFF_MIN", "10ms")
        .env("SIDELOG_LOKI__BACKOFF_MAX", "100ms")
        .env("SIDELOG_SOURCE__ACK_WAIT", "1s")
}

pub(crate) async fn make_stream(jetstream: &Context) {
    let config = jetstream::stream::Config {
        name: "logs".to_owned(),
        subjects: vec!["logs.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.expect("a stream");
}

pub(crate) async fn publish(jetstream: &Context, payload: impl Into<Bytes>) {
    let acknowledged = jetstream.publish("logs.api", payload.into()).await.expect("a publish");
    acknowledged.await.expect("the stream's acknowledgement");
}

/// Publishes messages without waiting for each, and waits until the stream has them all.
pub(crate) async fn publish_all(jetstream: &Context, payloads: impl IntoIterator<Item = String>) {
    let mut acknowledgements = Vec::new();
    for payload in payloads {
        acknowledgements.push(jetstream.publish("logs.api", payload.into()).await.expect("a publish"));
    }
    for acknowledgement in acknowledgements {
        acknowledgement.await.expect("the stream's acknowledgement");
    }
}

/// The durable as the server has it, if it does.
pub(crate) async fn durable(jetstream: &Context) -> Option<Info> {
    let stream = jetstream.get_stream("logs").await.ok()?;
    stream.consumer_info("sidelog-consumer").await.ok()
}

pub(crate) async fn all_acknowledged(jetstream: &Context) {
    until("every message is acknowledged", async || {
        durable(jetstream).await.is_some_and(|info| {
            info.num_pending == 0 && info.num_ack_pending == 0 && info.delivered.stream_sequence > 0
        })
    })
    .await;
}

/// A dead letter.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dead {
    pub(crate) reason: String,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
    pub(crate) sequence: String,
    pub(crate) detail: String,
}

/// Waits until the stream of the dead letters holds `count`, and reads them, ordered by reason.
pub(crate) async fn dead_letters(jetstream: &Context, count: usize) -> Vec<Dead> {
    until("the dead letters are there", async || {
        let stream = jetstream.get_stream("logs_dead").await;
        stream.is_ok_and(|stream| stream.cached_info().state.messages >= count as u64)
    })
    .await;
    let stream = jetstream.get_stream("logs_dead").await.expect("the dead letter stream");
    assert_eq!(stream.cached_info().state.messages, count as u64);
    let reader = stream
        .create_consumer(jetstream::consumer::pull::Config::default())
        .await
        .expect("a reader");
    let messages = reader
        .fetch()
        .max_messages(count)
        .messages()
        .await
        .expect("dead letters");
    let mut dead: Vec<_> = messages
        .map(|message| {
            let message = message.expect("a dead letter");
            let headers = message.headers.clone().expect("headers");
            let header = |name: &str| headers.get(name).map(|value| value.to_string()).unwrap_or_default();
            Dead {
                reason: header("Sidelog-Reason"),
                detail: header("Sidelog-Detail"),
                sequence: header("Sidelog-Stream-Sequence"),
                subject: message.subject.to_string(),
                payload: message.payload.clone(),
            }
        })
        .collect()
        .await;
    dead.sort();
    dead
}

/// The line of a record that no other number has.
pub(crate) fn line(number: usize) -> String {
    line_at(number, now())
}

/// The same, observed at a time, in Unix nanoseconds.
pub(crate) fn line_at(number: usize, observed_timestamp: u64) -> String {
    let record = Record {
        timestamp: observed_timestamp - 1_000_000,
        observed_timestamp,
        level: Level::Info,
        service_name: "api-service".into(),
        environment: "test".into(),
        trace_id: Some([7; 16]),
        span_id: Some([9; 8]),
        method: "GET".into(),
        scheme: "http".into(),
        path: format!("/items/{number}").into(),
        route: Some("/items/{id}".into()),
        status: Some(200),
        duration: Duration::from_millis(1),
        ..Record::default()
    };
    let mut line = Vec::new();
    record.encode(&mut line);
    String::from_utf8(line).expect("a record is UTF-8")
}

/// Unix nanoseconds.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    u64::try_from(now.as_nanos()).expect("a clock before 2554")
}

/// Lines as one message.
pub(crate) fn frame(lines: &[impl AsRef<str>]) -> String {
    lines.iter().map(|line| format!("{}\n", line.as_ref())).collect()
}

/// Sorted, for what arrives in no order.
pub(crate) fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}
