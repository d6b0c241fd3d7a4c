//! Spans, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set: one SERVER span per request, sent in batches by OTLP/gRPC.
//!
//! The parent is the `traceparent` of the request. Behind sidelog that is the proxy's span, so one trace shows
//! both. A collector that is away never delays a request: the batch processor drops what it can't keep.
//! Names follow the OpenTelemetry semantic conventions for HTTP servers.

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Status, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

/// Makes and exports the spans of this process.
#[derive(Debug)]
pub struct Telemetry {
    provider: SdkTracerProvider,
}

impl Telemetry {
    /// What the `OTEL_*` variables ask for; `None` unless `OTEL_EXPORTER_OTLP_ENDPOINT` has a value.
    ///
    /// `OTEL_SERVICE_NAME` names the service, else it is `example-upstream`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the endpoint is not a URL such as `http://localhost:4317`.
    pub fn from_env() -> anyhow::Result<Option<Self>> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(endpoint) = variable("OTEL_EXPORTER_OTLP_ENDPOINT") else {
            return Ok(None);
        };
        let exporter = SpanExporter::builder().with_tonic().build().with_context(|| {
            format!("OTEL_EXPORTER_OTLP_ENDPOINT is {endpoint}: write a URL such as http://localhost:4317")
        })?;
        let service = variable("OTEL_SERVICE_NAME").unwrap_or_else(|| "example-upstream".to_owned());
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(Resource::builder().with_service_name(service).build())
            .build();
        Ok(Some(Self::new(provider)))
    }

    /// Exports by a provider of one's own; the tests collect spans so.
    #[must_use]
    pub fn new(provider: SdkTracerProvider) -> Self {
        Self { provider }
    }

    /// `app`, with a span around every request.
    pub fn trace(&self, app: Router) -> Router {
        let tracer = Arc::new(self.provider.tracer("example-upstream"));
        app.layer(middleware::from_fn_with_state(tracer, in_span))
    }

    /// Sends what is left, for at most five seconds, and ends the export.
    pub async fn flush(self) {
        // Blocks, so not on a thread that the exporter's connection may need.
        let flushed = tokio::task::spawn_blocking(move || self.provider.shutdown()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(?flushed, "the last spans were not exported: is the collector up?");
        }
    }
}

async fn in_span(State(tracer): State<Arc<SdkTracer>>, request: Request, next: Next) -> Response {
    let mut span = start_span(&*tracer, &request);
    let response = next.run(request).await;
    let status = response.status();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
        span.set_status(Status::error(""));
    }
    span.end();
    response
}

/// A span named `{method} {route}`, never by the raw path: names must stay few.
fn start_span<T: Tracer>(tracer: &T, request: &Request) -> T::Span {
    let parent =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(request.headers()));
    let (method, mut name) = match request.method().as_str() {
        known @ ("CONNECT" | "DELETE" | "GET" | "HEAD" | "OPTIONS" | "PATCH" | "POST" | "PUT" | "TRACE") => {
            (known.to_owned(), known.to_owned())
        }
        _ => ("_OTHER".to_owned(), "HTTP".to_owned()),
    };
    let mut attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.path", request.uri().path().to_owned()),
        KeyValue::new("url.scheme", "http"),
    ];
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        attributes.push(KeyValue::new("http.route", route.as_str().to_owned()));
        name = format!("{name} {}", route.as_str());
    }
    tracer
        .span_builder(name)
        .with_kind(SpanKind::Server)
        .with_attributes(attributes)
        .start_with_context(tracer, &parent)
}
