//! Names and help of all the proxy's metrics, in one place.
//!
//! The counts themselves live where they are counted; they are read when somebody scrapes.
//!
//! | File | What it is for |
//! |---|---|
//! | [`exchanges`] | what is counted of every exchange, by route |
//! | [`histogram`] | durations by bucket, with exemplars |
//! | [`durations`] | the durations by route, as text |

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sidelog_chassis::scrape::{Format, Scrape};
use sidelog_record::Omitted;

pub mod durations;
pub mod exchanges;
pub mod histogram;

use crate::generation::Generations;
use crate::queue::Queue;
use crate::queue::ledger::{Balance, DropReason};
use crate::reload::Reloads;
use crate::settings::Settings;
use crate::shipping::counts::Counts as ShippingCounts;
use crate::shipping::redact::RuleKind;
use crate::shipping::spans::{SpanCounts, SpanDrop};
use crate::traffic::accept::{Connections, Limit, NoRequest};
use crate::traffic::capture::Budget;
use exchanges::{Counted, Exchanges, Series};
use histogram::{Reading, seconds};

/// Who counts.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Every exchange, under whichever generation.
    pub generations: Arc<Generations>,
    /// Reloads.
    pub reloads: Arc<Reloads>,
    /// Records.
    pub queue: Arc<Queue>,
    /// The memory of open exchanges.
    pub budget: Arc<Budget>,
    /// Connections of clients.
    pub connections: Arc<Connections>,
    /// Frames, the spool, redaction.
    pub shipping: Arc<ShippingCounts>,
    /// Spans.
    pub spans: Arc<SpanCounts>,
}

/// What of the settings the metrics tell. It is fixed at the start.
#[derive(Debug)]
struct Known {
    service: String,
    environment: String,
    queue_max: u64,
    capture_max: u64,
    spool_max: u64,
    window: u64,
}

/// Everything that the proxy counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    exchanges: Arc<Exchanges>,
}

impl Metrics {
    /// The metrics of these sources, under these settings.
    pub fn new(sources: Sources, settings: &Settings) -> Self {
        let exchanges = Arc::clone(sources.generations.exchanges());
        let known = Known {
            service: settings.service.name.clone(),
            environment: settings.service.environment.clone(),
            queue_max: settings.queue.max_bytes.bytes(),
            capture_max: settings.capture.memory_max.bytes(),
            spool_max: settings.spool.max_bytes.bytes(),
            window: settings.publish.window as u64,
        };
        let mut registry = Registry::with_prefix("sidelog");
        registry.register_collector(Box::new(Counts { sources, known }));
        Self { registry, exchanges }
    }
}

impl Scrape for Metrics {
    fn write(&self, out: &mut String, format: Format) -> fmt::Result {
        let name = "sidelog_exchange_duration_seconds";
        let help = "From a request's head to the last of its answer, by route";
        durations::write(out, format, name, help, &self.exchanges.series())?;
        Scrape::write(&self.registry, out, format)
    }
}

#[derive(Debug)]
struct Counts {
    sources: Sources,
    known: Known,
}

impl Collector for Counts {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.about(&mut page)?;
        self.configuration(&mut page)?;
        self.exchanges(&mut page)?;
        self.connections(&mut page)?;
        self.records(&mut page)?;
        self.content(&mut page)?;
        self.frames(&mut page)?;
        self.spans(&mut page)
    }
}

impl Counts {
    fn about(&self, page: &mut Page<'_>) -> fmt::Result {
        let build = [("program", "sidelog-proxy"), ("version", env!("CARGO_PKG_VERSION"))];
        page.info("build", "The program and its version", &build)?;
        let service = [
            ("service_name", self.known.service.as_str()),
            ("environment", self.known.environment.as_str()),
        ];
        page.info(
            "service",
            "The service behind this proxy; join on job and instance",
            &service,
        )
    }

    fn configuration(&self, page: &mut Page<'_>) -> fmt::Result {
        let (generations, reloads) = (&self.sources.generations, &self.sources.reloads);
        let help = "The number of the generation of the settings in force; it is 1 at the start";
        page.gauge("config_generation", help, generations.in_force().number.into())?;
        let help = "Generations in use: the one in force, and those that open or queued exchanges are still under";
        page.gauge("config_generations_in_use", help, generations.in_use() as u64)?;
        let results = [("applied", reloads.applied()), ("refused", reloads.refused())];
        let help = "Reloads of the settings, by result";
        page.counters("config_reloads", help, labelled("result", results.into_iter()))?;
        let help = "Whether the last reload was applied: 1, or 0 where its settings were refused and the old ones are in force";
        page.gauge("config_last_reload_successful", help, reloads.last_was_applied().into())?;
        let help = "When the settings in force were applied, in seconds since 1970";
        let name = "config_last_reload_success_timestamp_seconds";
        page.gauge(name, help, reloads.applied_at())?;
        let help = "Keys that have changed and wait for a restart";
        page.gauge("config_keys_waiting", help, reloads.waiting())
    }

    fn exchanges(&self, page: &mut Page<'_>) -> fmt::Result {
        let (exchanges, budget) = (self.sources.generations.exchanges(), &self.sources.budget);
        let all = exchanges.series();
        let help = "Exchanges that ended, by route, method, status class and end";
        let counts = all
            .iter()
            .flat_map(|one| one.counts().map(|counted| labels(one, counted)));
        page.counters("exchanges", help, counts)?;
        let help = "Time that upstreams took, from the first attempt to the last of the answer, by route";
        page.seconds("exchange_upstream_seconds", help, &all, |one| seconds(one.upstream()))?;
        let help = "What the proxy added to whole answers: before the upstream was turned to, and after its last byte";
        page.histogram("exchange_overhead_seconds", help, &exchanges.overhead().read())?;
        let by_route = |bytes: fn(&Series) -> u64| {
            let used = all.iter().filter(move |one| bytes(one) > 0);
            used.map(move |one| ([("route", one.route())], bytes(one)))
        };
        let requests = by_route(|one| one.bytes().0);
        page.counters("request_body_bytes", "Bytes of requests' bodies, by route", requests)?;
        let answers = by_route(|one| one.bytes().1);
        page.counters("response_body_bytes", "Bytes of answers' bodies, by route", answers)?;
        page.gauge(
            "exchanges_open",
            "Exchanges that have begun and not ended",
            exchanges.open(),
        )?;
        let used = self.known.capture_max.saturating_sub(budget.left() as u64);
        page.gauge("capture_bytes", "Memory that open exchanges hold of bodies", used)?;
        page.gauge("capture_limit_bytes", "capture.memory_max", self.known.capture_max)
    }

    fn connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let connections = &self.sources.connections;
        page.counter("connections_accepted", "Connections accepted", connections.accepted())?;
        page.gauge("connections_open", "Connections open now", connections.open())?;
        let heads = NoRequest::all().map(|reason| (reason.as_str(), connections.without_request(reason)));
        let help = "Request heads that never became a request, by reason";
        page.counters("heads_refused", help, labelled("reason", heads))?;
        let limits = Limit::ALL
            .iter()
            .map(|limit| (limit.as_str(), connections.reached(*limit)));
        let help = "Times that clients reached a limit, by its key in [limits]";
        page.counters("limits_reached", help, labelled("limit", limits))
    }

    fn records(&self, page: &mut Page<'_>) -> fmt::Result {
        let queue = &self.sources.queue;
        let Balance {
            offered,
            recovered,
            shipped,
            dropped,
            queued,
            building,
            publishing,
            spooled,
        } = queue.ledger().balance();
        page.counter("records_offered", "Records that were made of exchanges", offered)?;
        let help = "Records taken over from an earlier process's spool";
        page.counter("records_recovered", help, recovered)?;
        page.counter("records_shipped", "Records that JetStream acknowledged", shipped)?;
        let dropped = DropReason::ALL.iter().map(|reason| reason.as_str()).zip(dropped);
        let help = "Records dropped, by reason";
        page.counters("records_dropped", help, labelled("reason", dropped))?;
        page.gauge("records_queued", "Records in the queue", queued)?;
        page.gauge("records_building", "Records in the open frame", building)?;
        let help = "Records in frames in memory that JetStream has not acknowledged";
        page.gauge("records_publishing", help, publishing)?;
        page.gauge("records_spooled", "Records on disk only", spooled)?;
        page.gauge("queue_bytes", "Bytes that the queue holds", queue.used_bytes() as u64)?;
        page.gauge("queue_limit_bytes", "queue.max_bytes", self.known.queue_max)
    }

    fn content(&self, page: &mut Page<'_>) -> fmt::Result {
        let shipping = &self.sources.shipping;
        let taken_out = RuleKind::ALL
            .iter()
            .map(|kind| (kind.as_str(), shipping.redactions(*kind)));
        let help = "Values taken out of records, by the kind of rule";
        page.counters("redactions", help, labelled("rule", taken_out))?;
        let left_out = Omitted::ALL
            .iter()
            .map(|reason| (reason.as_str(), shipping.omissions(*reason)));
        let help = "Bodies left out of records, by reason";
        page.counters("bodies_omitted", help, labelled("reason", left_out))
    }

    fn frames(&self, page: &mut Page<'_>) -> fmt::Result {
        let shipping = &self.sources.shipping;
        let help = "Whether there is a connection to NATS: 1 or 0";
        page.gauge("nats_connected", help, shipping.is_connected().into())?;
        let help = "From a frame's publishing to its acknowledgement; its count is that of the frames shipped";
        page.histogram("frame_acknowledge_seconds", help, &shipping.acknowledgements().read())?;
        let help = "Bytes of the frames that JetStream acknowledged";
        page.counter("frame_bytes", help, shipping.frame_bytes())?;
        let help = "Frames that were not acknowledged and are sent again";
        page.counter("publish_failures", help, shipping.publish_failures())?;
        let help = "Frames published and not acknowledged";
        page.gauge("frames_in_flight", help, shipping.frames_in_flight())?;
        page.gauge("frames_in_flight_limit", "publish.window", self.known.window)?;
        let help = "Bytes that the spool takes on disk";
        page.gauge("spool_bytes", help, shipping.spool_bytes())?;
        page.gauge("spool_limit_bytes", "spool.max_bytes", self.known.spool_max)?;
        let help = "Times that the spool's disk refused something";
        page.counter("spool_errors", help, shipping.spool_errors())?;
        let help = "Faults of sidelog that shipping went on after";
        page.counter("shipping_panics", help, shipping.panics())?;
        let help = "Whether the thread that ships runs: 0 when it has ended or is stuck";
        page.gauge("shipping_up", help, shipping.pulse().is_up().into())?;
        let help = "How long ago that thread should have been back from its rest or its work";
        page.gauge("shipping_overdue_seconds", help, shipping.pulse().overdue().as_secs())
    }

    fn spans(&self, page: &mut Page<'_>) -> fmt::Result {
        let spans = &self.sources.spans;
        page.counter("spans_sent", "Spans that the collector took", spans.sent())?;
        let help = "Spans that wait for the collector, or are on their way to it";
        page.gauge("spans_waiting", help, spans.waiting())?;
        let dropped = SpanDrop::ALL
            .iter()
            .map(|reason| (reason.as_str(), spans.dropped(*reason)));
        page.counters("spans_dropped", "Spans dropped, by reason", labelled("reason", dropped))
    }
}

/// The labels of an exchange count, and the count.
fn labels(series: &Series, counted: Counted) -> ([(&str, &str); 4], u64) {
    let labels = [
        ("route", series.route()),
        ("method", counted.method),
        ("status_class", counted.class),
        ("end", counted.end.as_str()),
    ];
    (labels, counted.count)
}

/// Counts with one label each.
fn labelled<'a>(
    label: &'static str,
    counts: impl Iterator<Item = (&'a str, u64)>,
) -> impl Iterator<Item = ([(&'a str, &'a str); 1], u64)> {
    counts.map(move |(value, count)| ([(label, value)], count))
}

/// What is being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str); 2]) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Info)?;
        encoder.encode_info(labels)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        counts: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in counts {
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Seconds by route, of the routes that have any.
    fn seconds(&mut self, name: &str, help: &str, all: &[Arc<Series>], of: fn(&Series) -> f64) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for one in all.iter().filter(|one| of(one) > 0.0) {
            ConstCounter::new(of(one)).encode(family.encode_family(&[("route", one.route())])?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, reading: &Reading) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        encoder.encode_histogram::<NoLabelSet>(reading.sum, reading.count(), &reading.buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::queue::QueueLimits;
    use crate::queue::exchange::tests::exchange;

    fn page(format: Format) -> String {
        let generations = Arc::new(Generations::begin(Settings::default()).unwrap());
        let routes = generations.exchanges().routes(["/a"].into_iter());
        routes.began();
        routes.ended(&exchange(b"{}"), Some(1));
        let limits = QueueLimits {
            bodies_max_bytes: 1024,
            max_bytes: 1024,
        };
        let sources = Sources {
            generations,
            reloads: Arc::default(),
            queue: Queue::new(limits, 1),
            budget: Budget::new(1024),
            connections: Arc::default(),
            shipping: Arc::default(),
            spans: Arc::default(),
        };
        let mut out = String::new();
        Metrics::new(sources, &Settings::default())
            .write(&mut out, format)
            .unwrap();
        out
    }

    /// The families, each with its help.
    fn families(page: &str) -> Vec<(&str, &str)> {
        let helps = page.lines().filter_map(|line| line.strip_prefix("# HELP "));
        helps.filter_map(|help| help.split_once(' ')).collect()
    }

    #[test]
    fn every_family_has_the_prefix_a_help_of_its_own_and_a_type_in_both_forms() {
        let (text, open_metrics) = (page(Format::Text), page(Format::OpenMetrics));
        let (told, also_told) = (families(&text), families(&open_metrics));
        assert!(told.len() > 30, "{told:?}");
        assert_eq!(told.len(), also_told.len());
        for (page, families) in [(&text, &told), (&open_metrics, &also_told)] {
            let names: HashSet<_> = families.iter().map(|(name, _)| name).collect();
            let helps: HashSet<_> = families.iter().map(|(_, help)| help).collect();
            assert_eq!((names.len(), helps.len()), (families.len(), families.len()));
            for (name, help) in families {
                assert!(name.starts_with("sidelog_"), "{name}");
                assert!(
                    page.contains(&format!("# HELP {name} {help}\n# TYPE {name} ")),
                    "{name}"
                );
            }
        }
        assert!(open_metrics.ends_with("\n# EOF\n") && !text.contains("# EOF"));
        assert_eq!(open_metrics.matches("# EOF").count(), 1);
    }
}
