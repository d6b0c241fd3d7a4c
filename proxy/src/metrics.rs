//! Names and help of all the proxy's metrics, in one place.
//!
//! The counts themselves live where they are counted; they are read when somebody scrapes.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::queue::Queue;
use crate::queue::ledger::{Balance, DropReason};
use crate::shipping::counts::Counts as ShippingCounts;
use crate::shipping::spans::{SpanCounts, SpanDrop};
use crate::traffic::accept::{Connections, Limit, NoRequest};

/// A registry of everything that the proxy counts.
pub fn registry(
    queue: &Arc<Queue>,
    connections: &Arc<Connections>,
    shipping: &Arc<ShippingCounts>,
    spans: &Arc<SpanCounts>,
) -> Registry {
    let mut registry = Registry::with_prefix("sidelog");
    registry.register_collector(Box::new(Counts {
        queue: Arc::clone(queue),
        connections: Arc::clone(connections),
        shipping: Arc::clone(shipping),
        spans: Arc::clone(spans),
    }));
    registry
}

#[derive(Debug)]
struct Counts {
    queue: Arc<Queue>,
    connections: Arc<Connections>,
    shipping: Arc<ShippingCounts>,
    spans: Arc<SpanCounts>,
}

/// A metric's name, its help, and its value.
type Reading = (&'static str, &'static str, u64);

impl Counts {
    fn counters(&self, balance: &Balance) -> [Reading; 6] {
        let (shipping, connections) = (&self.shipping, &self.connections);
        let recovered = "Records taken over from an earlier process's spool";
        let panics = "Faults of sidelog that shipping went on after";
        [
            (
                "records_offered",
                "Records that were made of exchanges",
                balance.offered,
            ),
            ("records_recovered", recovered, balance.recovered),
            (
                "records_shipped",
                "Records that JetStream acknowledged",
                balance.shipped,
            ),
            (
                "spool_errors",
                "Times that the spool's disk refused something",
                shipping.spool_errors(),
            ),
            ("shipping_panics", panics, shipping.panics()),
            ("connections_accepted", "Connections accepted", connections.accepted()),
        ]
    }

    fn gauges(&self, balance: &Balance) -> [Reading; 7] {
        let publishing = "Records in frames in memory that JetStream has not acknowledged";
        let queue_bytes = self.queue.used_bytes() as u64;
        [
            ("records_queued", "Records in the queue", balance.queued),
            ("records_building", "Records in the open frame", balance.building),
            ("records_publishing", publishing, balance.publishing),
            ("records_spooled", "Records on disk only", balance.spooled),
            ("queue_bytes", "Bytes that the queue holds", queue_bytes),
            (
                "spool_bytes",
                "Bytes that the spool takes on disk",
                self.shipping.spool_bytes(),
            ),
            ("connections_open", "Connections open now", self.connections.open()),
        ]
    }
}

impl Collector for Counts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let balance = self.queue.ledger().balance();
        for (name, help, value) in self.counters(&balance) {
            counter(&mut encoder, name, help, value)?;
        }
        for (name, help, value) in self.gauges(&balance) {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let dropped = DropReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .zip(balance.dropped);
        by_reason(&mut encoder, "records_dropped", "Records dropped, by reason", dropped)?;
        spans(&mut encoder, &self.spans)?;
        let heads = NoRequest::all().map(|reason| (reason.as_str(), self.connections.without_request(reason)));
        by_label(
            &mut encoder,
            "heads_refused",
            "Request heads that never became a request, by reason",
            ("reason", heads),
        )?;
        let limits = Limit::ALL
            .iter()
            .map(|limit| (limit.as_str(), self.connections.reached(*limit)));
        let help = "Times that clients reached a limit, by its key in [limits]";
        by_label(&mut encoder, "limits_reached", help, ("limit", limits))
    }
}

fn spans(encoder: &mut DescriptorEncoder<'_>, spans: &SpanCounts) -> Result<(), std::fmt::Error> {
    counter(encoder, "spans_sent", "Spans that the collector took", spans.sent())?;
    let help = "Spans that wait for the collector, or are on their way to it";
    let waiting = ConstGauge::new(spans.waiting());
    waiting.encode(encoder.encode_descriptor("spans_waiting", help, None, MetricType::Gauge)?)?;
    let dropped = SpanDrop::ALL
        .iter()
        .map(|reason| (reason.as_str(), spans.dropped(*reason)));
    by_reason(encoder, "spans_dropped", "Spans dropped, by reason", dropped)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), std::fmt::Error> {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn by_reason<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counts: impl IntoIterator<Item = (&'a str, u64)>,
) -> Result<(), std::fmt::Error> {
    by_label(encoder, name, help, ("reason", counts))
}

fn by_label<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    (label, counts): (&str, impl IntoIterator<Item = (&'a str, u64)>),
) -> Result<(), std::fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in counts {
        ConstCounter::new(count).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}
