//! The consumer's metrics: every name and its help text.
//!
//! Invariant: after a run in which nothing was cut short or given back, `records_received = records_stored + dead_letters`.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use sidelog_chassis::nats::Connection;

use crate::dead_letter::Reason;
use crate::outage::Holds;

/// A reason of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub(crate) reason: &'static str,
}

/// The status a push was answered with, or `error` when there was no answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StatusLabel {
    pub(crate) status: String,
}

/// A label of Loki's streams.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LabelLabel {
    pub(crate) label: &'static str,
}

/// Seconds.
pub(crate) type Seconds = Gauge<f64, AtomicU64>;

/// Handles to the registered metrics; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) messages: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) records_received: Counter,
    pub(crate) records_stored: Counter,
    pub(crate) stored_bytes: Counter,
    pub(crate) records_late: Counter,
    pub(crate) given_back: Counter,
    pub(crate) lost_messages: Counter,
    pub(crate) streams_held: Gauge,
    pub(crate) dead_letters: Family<ReasonLabel, Counter>,
    pub(crate) pushes: Family<StatusLabel, Counter>,
    pub(crate) push_seconds: Histogram,
    pub(crate) batch_bytes: Histogram,
    pub(crate) acks: Counter,
    pub(crate) inflight_bytes: Gauge,
    pub(crate) lag: LagMetrics,
    pub(crate) label_values: Family<LabelLabel, Gauge>,
    pub(crate) label_values_limit: Family<LabelLabel, Gauge>,
    pub(crate) holds: Holds,
}

/// How far behind the consumer is, and what of it the stream may lose.
#[derive(Debug, Clone, Default)]
pub(crate) struct LagMetrics {
    pub(crate) messages: Gauge,
    pub(crate) unread_messages: Gauge,
    pub(crate) pending_messages: Gauge,
    pub(crate) pending_limit: Gauge,
    pub(crate) age: Seconds,
    pub(crate) stream_bytes: Gauge,
    pub(crate) stream_bytes_limit: Gauge,
    pub(crate) stream_age: Seconds,
    pub(crate) stream_age_limit: Seconds,
}

impl Metrics {
    /// Registers every metric in `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            messages: Counter::default(),
            redelivered: Counter::default(),
            records_received: Counter::default(),
            records_stored: Counter::default(),
            stored_bytes: Counter::default(),
            records_late: Counter::default(),
            given_back: Counter::default(),
            lost_messages: Counter::default(),
            streams_held: Gauge::default(),
            dead_letters: Family::default(),
            pushes: Family::default(),
            push_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 12)),
            batch_bytes: Histogram::new(exponential_buckets(1024.0, 4.0, 8)),
            acks: Counter::default(),
            inflight_bytes: Gauge::default(),
            lag: LagMetrics::default(),
            label_values: Family::default(),
            label_values_limit: Family::default(),
            holds: Holds::default(),
        };
        // A count that begins with its first letter would not be seen to rise.
        for reason in Reason::names() {
            drop(metrics.dead_letters.get_or_create(&ReasonLabel { reason }));
        }
        metrics.register_messages(registry);
        metrics.register_records(registry);
        metrics.register_pushes(registry);
        metrics.register_streams(registry);
        metrics.lag.register(registry);
        metrics
    }

    /// Registers what is told of the process as a whole.
    pub(crate) fn register_state(&self, registry: &mut Registry, connection: Connection) {
        let holds = self.holds.clone();
        registry.register_collector(Box::new(State { holds, connection }));
    }

    // The encoder adds `_total` to counters and the full stop to help texts.

    fn register_messages(&self, registry: &mut Registry) {
        registry.register(
            "sidelog_consumer_messages",
            "JetStream messages (frames) received",
            self.messages.clone(),
        );
        registry.register(
            "sidelog_consumer_redelivered",
            "JetStream messages received that had been delivered before",
            self.redelivered.clone(),
        );
        registry.register(
            "sidelog_consumer_given_back",
            "JetStream messages given back for a while, because the store refuses, or is slow or fails with their stream, and its share of memory is full",
            self.given_back.clone(),
        );
        registry.register(
            "sidelog_consumer_lost_messages",
            "JetStream messages that left the stream (by age, size or a purge) before they were read; of several consumers take the maximum",
            self.lost_messages.clone(),
        );
        registry.register(
            "sidelog_consumer_acks",
            "JetStream messages acknowledged",
            self.acks.clone(),
        );
        registry.register(
            "sidelog_consumer_inflight_bytes",
            "Bytes of messages received and not yet acknowledged",
            self.inflight_bytes.clone(),
        );
    }

    fn register_records(&self, registry: &mut Registry) {
        registry.register(
            "sidelog_records_received",
            "Lines in the messages received, good or bad; a redelivered line counts again",
            self.records_received.clone(),
        );
        registry.register(
            "sidelog_records_stored",
            "Records the store has taken",
            self.records_stored.clone(),
        );
        registry.register(
            "sidelog_stored_bytes",
            "Bytes of the lines that the store has taken",
            self.stored_bytes.clone(),
        );
        registry.register(
            "sidelog_records_late",
            "Records too far behind their stream, which went to the stream of their hour (label late)",
            self.records_late.clone(),
        );
        registry.register(
            "sidelog_dead_letters",
            "Lines set aside in the dead letter stream, by reason",
            self.dead_letters.clone(),
        );
    }

    fn register_pushes(&self, registry: &mut Registry) {
        registry.register(
            "sidelog_pushes",
            "Attempts to store a batch, by HTTP status (error: no answer; ok: a file or stdout took it)",
            self.pushes.clone(),
        );
        registry.register(
            "sidelog_push_seconds",
            "Time one attempt to store a batch took, in seconds",
            self.push_seconds.clone(),
        );
        registry.register(
            "sidelog_batch_bytes",
            "Bytes of lines in a batch, at each attempt to store it",
            self.batch_bytes.clone(),
        );
    }

    fn register_streams(&self, registry: &mut Registry) {
        registry.register(
            "sidelog_consumer_streams_held",
            "Streams that the store refuses for now while it takes others",
            self.streams_held.clone(),
        );
        registry.register(
            "sidelog_consumer_label_values",
            "Distinct values of a label of Loki's streams",
            self.label_values.clone(),
        );
        registry.register(
            "sidelog_consumer_label_values_limit",
            "How many there may be; further ones become the value other (loki.max_services)",
            self.label_values_limit.clone(),
        );
    }
}

impl LagMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "sidelog_consumer_lag_messages",
            "JetStream messages of the durable that nobody has acknowledged; of several consumers take the maximum",
            self.messages.clone(),
        );
        registry.register(
            "sidelog_consumer_unread_messages",
            "Those of them that were not delivered to any consumer yet; of several consumers take the maximum",
            self.unread_messages.clone(),
        );
        registry.register(
            "sidelog_consumer_pending_messages",
            "Those of them that consumers hold or have given back for a while; of several consumers take the maximum",
            self.pending_messages.clone(),
        );
        registry.register(
            "sidelog_consumer_pending_limit_messages",
            "The durable's max_ack_pending, from which on nothing more is delivered; 0 without one",
            self.pending_limit.clone(),
        );
        registry.register(
            "sidelog_consumer_lag_age_seconds",
            "Age of the oldest message that is not acknowledged; 0 without any; of several consumers take the maximum",
            self.age.clone(),
        );
        registry.register(
            "sidelog_consumer_stream_bytes",
            "Bytes that the stream holds, read or not",
            self.stream_bytes.clone(),
        );
        registry.register(
            "sidelog_consumer_stream_limit_bytes",
            "The stream's max_bytes, from which on the oldest messages go; 0 without one",
            self.stream_bytes_limit.clone(),
        );
        registry.register(
            "sidelog_consumer_stream_age_seconds",
            "Age of the oldest message that the stream still holds, read or not",
            self.stream_age.clone(),
        );
        registry.register(
            "sidelog_consumer_stream_limit_seconds",
            "The stream's max_age, after which messages go; 0 without one",
            self.stream_age_limit.clone(),
        );
    }
}

/// What is so now, and is read when somebody scrapes.
#[derive(Debug)]
struct State {
    holds: Holds,
    connection: Connection,
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let build = [("program", "sidelog-consumer"), ("version", env!("CARGO_PKG_VERSION"))];
        let help = "The program and its version";
        let mut info = encoder.encode_descriptor("sidelog_build", help, None, MetricType::Info)?;
        info.encode_info(&build)?;
        let help = "Whether there is a connection to NATS: 1 or 0";
        let connected = encoder.encode_descriptor("sidelog_nats_connected", help, None, MetricType::Gauge)?;
        ConstGauge::new(u64::from(self.connection.is_connected())).encode(connected)?;
        let help =
            "Whether something is in the way of a part (source, durable, sink, stream, dead_letter), and what: 1 or 0";
        let mut held = encoder.encode_descriptor("sidelog_consumer_held", help, None, MetricType::Gauge)?;
        for (part, in_the_way) in self.holds.now() {
            let labels = [("part", part), ("reason", in_the_way.map_or("", |hold| hold.kind))];
            ConstGauge::new(u64::from(in_the_way.is_some())).encode(held.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_prefix_and_the_names_dashboards_use_are_there() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.records_stored.inc();
        metrics
            .dead_letters
            .get_or_create(&ReasonLabel { reason: "empty" })
            .inc();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("sidelog_records_stored_total 1"));
        assert!(text.contains("sidelog_dead_letters_total{reason=\"empty\"} 1"));
        assert!(
            text.contains("sidelog_dead_letters_total{reason=\"too_old\"} 0"),
            "before there is one"
        );
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("sidelog_"), "{line}");
        }
    }
}
