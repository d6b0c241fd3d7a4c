//! Spans: made of exchanges on the shipping thread, sent to an OTLP collector in batches.
//!
//! Invariants:
//! - What waits is bounded by `traces.queue_max`; a span over it is dropped and counted.
//! - One export is under way at a time, and nothing waits for it (`an_export_that_hangs_holds_nothing_up`).
//! - No attribute holds a secret: paths and queries go through the [`Redactor`] as in records.
//!
//! Metrics: `sidelog_spans_sent_total`, `sidelog_spans_dropped_total{reason}`.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use sidelog_record::Level;
use tokio::time::Instant;

use super::record::{Identity, error_type, path_and_query, server};
use super::redact::Redactor;
use crate::generation::Generation;
use crate::queue::exchange::Exchange;
use crate::settings::{Direction, Traces};

/// Spans in one request at most.
const BATCH: usize = 512;
/// How long a span waits for others to go with.
const LINGER: Duration = Duration::from_secs(1);
/// Methods that span names may hold (RFC 9110, 9; RFC 5789); others are `_OTHER`, as semconv has it.
const KNOWN_METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// Why a span was dropped. Closed set; the metric's `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDrop {
    /// `traces.queue_max` spans were waiting.
    QueueFull,
    /// The collector could not be reached, or refused the spans.
    ExportFailed,
    /// No collector took them within a second of the shutdown.
    Shutdown,
}

impl SpanDrop {
    /// All reasons, in the order of their metrics.
    pub const ALL: [Self; 3] = [Self::QueueFull, Self::ExportFailed, Self::Shutdown];

    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::ExportFailed => "export_failed",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Counts of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    sent: AtomicU64,
    dropped: [AtomicU64; SpanDrop::ALL.len()],
}

impl SpanCounts {
    /// Spans that a collector took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Spans dropped for `reason`.
    pub fn dropped(&self, reason: SpanDrop) -> u64 {
        self.dropped
            .get(reason as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn drop_spans(&self, reason: SpanDrop, n: usize) {
        if let Some(count) = self.dropped.get(reason as usize) {
            count.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}

type Export = Pin<Box<dyn Future<Output = OTelSdkResult> + Send>>;

/// The exporter that sidelog uses: OTLP by gRPC.
pub type Otlp = opentelemetry_otlp::SpanExporter;

/// An exporter for the collector of the configuration. Connects when first used; call it inside a runtime.
///
/// # Errors
/// When the endpoint can't be one.
pub fn otlp(traces: &Traces, identity: &Identity) -> Result<Otlp, ExporterBuildError> {
    let mut exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(traces.endpoint.to_string())
        .with_timeout(traces.timeout)
        .build()?;
    let mut attributes = vec![
        KeyValue::new("service.name", identity.service.clone()),
        KeyValue::new("service.instance.id", identity.instance.clone()),
        KeyValue::new("deployment.environment.name", identity.environment.clone()),
    ];
    attributes.extend(
        identity
            .version
            .clone()
            .map(|version| KeyValue::new("service.version", version)),
    );
    exporter.set_resource(&Resource::builder_empty().with_attributes(attributes).build());
    Ok(exporter)
}

/// Spans on their way to a collector.
pub struct Spans<E> {
    exporter: Arc<E>,
    max: usize,
    waiting: Vec<SpanData>,
    since: Option<Instant>,
    under_way: Option<(usize, Export)>,
    failing: bool,
    counts: Arc<SpanCounts>,
}

impl<E: SpanExporter + 'static> Spans<E> {
    /// Spans to be sent by `exporter`; at most `max` wait.
    pub fn new(exporter: E, max: usize, counts: Arc<SpanCounts>) -> Self {
        let exporter = Arc::new(exporter);
        Self {
            exporter,
            max,
            waiting: Vec::new(),
            since: None,
            under_way: None,
            failing: false,
            counts,
        }
    }

    /// Takes a span, or counts that there was no room.
    pub fn push(&mut self, span: SpanData) {
        if self.waiting.len() >= self.max {
            return self.counts.drop_spans(SpanDrop::QueueFull, 1);
        }
        self.waiting.push(span);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Begins an export if none is under way and a batch is full, has waited long enough, or `now` is asked for.
    pub fn begin(&mut self, now: bool) {
        let due = now || self.waiting.len() >= BATCH || self.since.is_some_and(|since| since.elapsed() >= LINGER);
        if !due || self.waiting.is_empty() || self.under_way.is_some() {
            return;
        }
        let batch: Vec<SpanData> = self.waiting.drain(..self.waiting.len().min(BATCH)).collect();
        self.since = (!self.waiting.is_empty()).then(Instant::now);
        let exporter = Arc::clone(&self.exporter);
        self.under_way = Some((batch.len(), Box::pin(async move { exporter.export(batch).await })));
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// Waits for the export that is under way; for ever if there is none. May be dropped and called again.
    pub async fn next(&mut self) {
        let Some((n, export)) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let n = *n;
        let result = export.as_mut().await;
        self.under_way = None;
        match result {
            Ok(()) => {
                self.counts.sent.fetch_add(n as u64, Ordering::Relaxed);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the trace collector takes spans again");
                }
            }
            Err(error) => {
                self.counts.drop_spans(SpanDrop::ExportFailed, n);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "spans are dropped: the trace collector does not take them; check traces.endpoint");
                }
            }
        }
    }

    /// Sends what is left until `deadline`, then drops and counts the rest.
    pub async fn finish(&mut self, deadline: Instant) {
        let sending = async {
            while !self.is_idle() {
                self.begin(true);
                self.next().await;
            }
        };
        if tokio::time::timeout_at(deadline, sending).await.is_err() {
            let left = self.waiting.len() + self.under_way.take().map_or(0, |(n, _)| n);
            self.waiting.clear();
            self.counts.drop_spans(SpanDrop::Shutdown, left);
        }
    }
}

/// The span of an exchange, by the stable HTTP semantic conventions.
pub fn span(exchange: &Exchange<'_>, generation: &Generation, redactor: &Redactor) -> SpanData {
    let direction = generation
        .settings
        .listeners
        .get(usize::from(exchange.listener))
        .map(|listener| listener.direction);
    let kind = match direction {
        Some(Direction::Outbound) => SpanKind::Client,
        Some(Direction::Inbound) | None => SpanKind::Server,
    };
    let trace = &exchange.trace;
    let context = |trace_id, span_id, remote| {
        let (trace_id, span_id) = (TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id));
        SpanContext::new(
            trace_id,
            span_id,
            TraceFlags::new(trace.flags),
            remote,
            TraceState::NONE,
        )
    };
    let mut links = SpanLinks::default();
    links.links.extend(
        trace
            .link
            .map(|(trace_id, span_id)| Link::with_context(context(trace_id, span_id, true))),
    );
    let at = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
    let start_time: SystemTime = at(exchange.started);
    SpanData {
        span_context: context(trace.trace_id, trace.span_id, false),
        parent_span_id: SpanId::from_bytes(trace.parent_id.unwrap_or_default()),
        parent_span_is_remote: trace.parent_id.is_some(),
        name: name(exchange, generation),
        attributes: attributes(exchange, generation, redactor, &kind),
        status: status(exchange, &kind),
        span_kind: kind,
        start_time,
        end_time: at(exchange.started.saturating_add(exchange.duration)),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        instrumentation_scope: InstrumentationScope::builder("sidelog")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn known_method<'a>(exchange: &Exchange<'a>) -> Option<&'a str> {
    std::str::from_utf8(exchange.request.method)
        .ok()
        .filter(|method| KNOWN_METHODS.contains(method))
}

/// `{method} {http.route}`, without a route `{method}`; an unknown method is `HTTP`.
fn name(exchange: &Exchange<'_>, generation: &Generation) -> Cow<'static, str> {
    let method = known_method(exchange).unwrap_or("HTTP");
    Cow::Owned(match generation.route_path(exchange.route) {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    })
}

fn status(exchange: &Exchange<'_>, kind: &SpanKind) -> Status {
    let from = if *kind == SpanKind::Client { 400 } else { 500 };
    let failed = exchange.response.status.is_some_and(|status| status >= from);
    let broken = exchange.end.level(None) == Level::Error;
    if failed || broken {
        Status::error(exchange.error_type.to_owned())
    } else {
        Status::Unset
    }
}

fn attributes(exchange: &Exchange<'_>, generation: &Generation, redactor: &Redactor, kind: &SpanKind) -> Vec<KeyValue> {
    let request = &exchange.request;
    let (path, query) = path_and_query(request.target);
    let (host, port) = server(request.authority);
    let path = String::from_utf8_lossy(path);
    let query = query.map(|query| redactor.query(query));
    let raw_method = || String::from_utf8_lossy(request.method).into_owned();
    let mut all = vec![
        KeyValue::new(
            "http.request.method",
            known_method(exchange).unwrap_or("_OTHER").to_owned(),
        ),
        KeyValue::new("network.protocol.version", request.version.as_str()),
    ];
    if *kind == SpanKind::Client {
        let query = query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let authority = String::from_utf8_lossy(request.authority);
        all.push(KeyValue::new("url.full", format!("http://{authority}{path}{query}")));
    } else {
        all.push(KeyValue::new("url.scheme", "http"));
        all.push(KeyValue::new("url.path", path.into_owned()));
        all.extend(query.map(|query| KeyValue::new("url.query", query.into_owned())));
        all.extend(
            exchange
                .client
                .map(|client| KeyValue::new("client.address", client.ip().to_string())),
        );
    }
    let user_agent = request.fields.get("user-agent").map(String::from_utf8_lossy);
    let optional = [
        known_method(exchange)
            .is_none()
            .then(|| KeyValue::new("http.request.method_original", raw_method())),
        generation
            .route_path(exchange.route)
            .map(|route| KeyValue::new("http.route", route.to_owned())),
        exchange
            .response
            .status
            .map(|status| KeyValue::new("http.response.status_code", i64::from(status))),
        host.map(|host| KeyValue::new("server.address", host.into_owned())),
        port.map(|port| KeyValue::new("server.port", i64::from(port))),
        user_agent.map(|agent| KeyValue::new("user_agent.original", agent.into_owned())),
        error_type(exchange).map(|error| KeyValue::new("error.type", error.into_owned())),
        exchange
            .upstream
            .map(|upstream| KeyValue::new("upstream.address", upstream.to_string())),
    ];
    all.extend(optional.into_iter().flatten());
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::exchange::tests::exchange;
    use crate::settings::{Redaction, Settings};
    use opentelemetry_sdk::error::OTelSdkError;

    #[derive(Debug)]
    enum Collector {
        Hangs,
        Refuses,
        Takes,
    }

    impl SpanExporter for Collector {
        async fn export(&self, _batch: Vec<SpanData>) -> OTelSdkResult {
            match self {
                Self::Hangs => std::future::pending().await,
                Self::Refuses => Err(OTelSdkError::InternalFailure("refused".to_owned())),
                Self::Takes => Ok(()),
            }
        }
    }

    fn a_span() -> SpanData {
        made(&exchange(b"{}"), Settings::default())
    }

    fn made(exchange: &Exchange<'_>, settings: Settings) -> SpanData {
        span(
            exchange,
            &Generation::new(1, settings),
            &Redactor::new(&Redaction::default()),
        )
    }

    fn spans(collector: Collector, max: usize) -> (Spans<Collector>, Arc<SpanCounts>) {
        let counts = Arc::new(SpanCounts::default());
        (Spans::new(collector, max, Arc::clone(&counts)), counts)
    }

    fn attribute(span: &SpanData, key: &str) -> Option<String> {
        span.attributes
            .iter()
            .find(|kv| kv.key.as_str() == key)
            .map(|kv| kv.value.to_string())
    }

    #[test]
    fn a_span_follows_the_conventions() {
        let mut settings = Settings::default();
        settings.routes = vec![crate::settings::Route {
            path: "/api/v1/users".to_owned(),
            ..Default::default()
        }];
        let mut seen = exchange(b"{}");
        seen.route = Some(0);
        seen.trace.parent_id = Some([9; 8]);
        let span = made(&seen, settings);
        assert_eq!(span.name, "POST /api/v1/users");
        assert_eq!(span.span_kind, SpanKind::Server);
        assert_eq!(span.parent_span_id, SpanId::from_bytes([9; 8]));
        assert_eq!(attribute(&span, "http.response.status_code").as_deref(), Some("201"));
        assert_eq!(attribute(&span, "url.query").as_deref(), Some("page=2"));
        assert_eq!(span.status, Status::Unset);
    }

    #[test]
    fn an_unknown_method_is_other_and_keeps_its_name_aside() {
        let mut seen = exchange(b"{}");
        seen.request.method = b"BREW";
        let span = made(&seen, Settings::default());
        assert_eq!(span.name, "HTTP");
        assert_eq!(attribute(&span, "http.request.method").as_deref(), Some("_OTHER"));
        assert_eq!(
            attribute(&span, "http.request.method_original").as_deref(),
            Some("BREW")
        );
    }

    #[test]
    fn a_server_span_fails_from_500() {
        let mut seen = exchange(b"{}");
        seen.response.status = Some(404);
        assert_eq!(made(&seen, Settings::default()).status, Status::Unset);
        seen.response.status = Some(500);
        let span = made(&seen, Settings::default());
        assert!(matches!(span.status, Status::Error { .. }));
        assert_eq!(attribute(&span, "error.type").as_deref(), Some("500"));
    }

    #[tokio::test]
    async fn an_export_that_hangs_holds_nothing_up() {
        let (mut spans, counts) = spans(Collector::Hangs, 3);
        spans.push(a_span());
        spans.begin(true);
        (0..5).for_each(|_| spans.push(a_span()));
        assert_eq!(counts.dropped(SpanDrop::QueueFull), 2);
        spans.finish(Instant::now()).await;
        assert_eq!(counts.dropped(SpanDrop::Shutdown), 4);
        assert!(spans.is_idle());
    }

    #[tokio::test]
    async fn what_a_collector_refuses_is_counted() {
        let (mut spans, counts) = spans(Collector::Refuses, 10);
        spans.push(a_span());
        spans.finish(Instant::now() + Duration::from_secs(5)).await;
        assert_eq!((counts.sent(), counts.dropped(SpanDrop::ExportFailed)), (0, 1));
    }

    #[tokio::test]
    async fn what_a_collector_takes_is_sent() {
        let (mut spans, counts) = spans(Collector::Takes, 2000);
        (0..1100).for_each(|_| spans.push(a_span()));
        spans.finish(Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(counts.sent(), 1100);
    }
}
