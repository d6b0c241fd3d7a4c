//! The consumer's metrics: every name and its help text.
//!
//! Invariant: after a run in which nothing was cut short, `records_received = records_stored + dead_letters`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

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

/// Handles to the registered metrics; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) messages: Counter,
    pub(crate) redelivered: Counter,
    pub(crate) records_received: Counter,
    pub(crate) records_stored: Counter,
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
}

impl Metrics {
    /// Registers every metric in `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            messages: Counter::default(),
            redelivered: Counter::default(),
            records_received: Counter::default(),
            records_stored: Counter::default(),
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
        };
        metrics.register_messages(registry);
        metrics.register_records(registry);
        metrics.register_pushes(registry);
        metrics
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
            "JetStream messages given back for a while, because the store refuses their stream and its share of memory is full",
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
        registry.register(
            "sidelog_consumer_streams_held",
            "Streams that the store refuses for now while it takes others",
            self.streams_held.clone(),
        );
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
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("sidelog_"), "{line}");
        }
    }
}
