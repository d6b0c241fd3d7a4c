//! Spans by OTLP: encoded once, sent by gRPC or HTTP, and again as the protocol has it.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>. The client is our own, over the official messages, because what a
//! collector rejects of a request must be counted, and because the official exporter reads the environment by itself.
//!
//! Invariants:
//! - An export ends within `traces.export_timeout`, whatever the collector does, and each request of it within
//!   `traces.timeout` (`tests/otlp.rs: a_collector_that_does_not_answer_costs_nothing_but_its_spans`).
//! - What a collector refuses is not sent again; what it asks to be spared is, when it says so (`tests/otlp.rs`).

mod file;
mod grpc;
mod http;

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use rand::RngExt;
use tokio::time::Instant;

use super::record::Identity;
use super::spans::{Collector, Failure, SpanDrop, Taken};
use crate::settings::{OtlpProtocol, Traces};

/// The wait before the first retry; it doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// The longest wait between retries, unless the collector asks for a longer one.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A collector that takes OTLP.
#[derive(Debug)]
pub struct Otlp {
    transport: Transport,
    resource: Resource,
    timeout: Duration,
    export_timeout: Duration,
}

#[derive(Debug)]
enum Transport {
    Grpc(grpc::Client),
    Http(http::Client),
}

/// `ExportTraceServiceRequest` and what is in it, with spans that are encoded already: in protobuf a message within another
/// is a run of bytes.
#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    spans: Vec<Vec<u8>>,
}

/// Why one request came to nothing.
#[derive(Debug)]
struct Refusal {
    reason: SpanDrop,
    message: String,
    retry: Retry,
}

/// Whether a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    Never,
    /// When it suits.
    Soon,
    /// Not before this time is over: the collector said so.
    After(Duration),
}

impl Otlp {
    /// The collector of the settings. Connects when first used; call it inside a runtime.
    ///
    /// # Errors
    /// When a file that the settings name can't be used.
    pub fn new(traces: &Traces, identity: &Identity) -> anyhow::Result<Self> {
        let headers = file::headers(traces)?;
        let transport = match traces.protocol() {
            OtlpProtocol::Grpc => Transport::Grpc(grpc::Client::new(traces, headers)?),
            OtlpProtocol::HttpProtobuf => Transport::Http(http::Client::new(traces, headers)?),
        };
        Ok(Self {
            transport,
            resource: resource(traces, identity),
            timeout: traces.timeout,
            export_timeout: traces.export_timeout,
        })
    }

    fn encode(&self, spans: Vec<Vec<u8>>) -> Bytes {
        let scope = InstrumentationScope {
            name: "sidelog".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                }],
            }],
        };
        request.encode_to_vec().into()
    }

    /// One request, within its time.
    async fn send(&self, body: Bytes) -> Result<Taken, Refusal> {
        let sending = async {
            match &self.transport {
                Transport::Grpc(client) => client.send(body).await,
                Transport::Http(client) => client.send(body).await,
            }
        };
        tokio::time::timeout(self.timeout, sending).await.unwrap_or_else(|_| {
            Err(Refusal {
                reason: SpanDrop::Timeout,
                message: format!("no answer within {:?} (traces.timeout)", self.timeout),
                retry: Retry::Soon,
            })
        })
    }
}

impl Collector for Otlp {
    async fn export(&self, batch: Vec<Vec<u8>>) -> Result<Taken, Failure> {
        let body = self.encode(batch);
        let ends = Instant::now() + self.export_timeout;
        let mut backoff = BACKOFF_MIN;
        loop {
            let sent = tokio::time::timeout_at(ends, self.send(body.clone())).await;
            let refusal = match sent {
                Ok(Ok(taken)) => return Ok(taken),
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal {
                    reason: SpanDrop::Timeout,
                    message: format!("no answer within {:?} (traces.export_timeout)", self.export_timeout),
                    retry: Retry::Never,
                },
            };
            let wait = match refusal.retry {
                Retry::Never => None,
                Retry::Soon => Some(rand::rng().random_range(backoff / 2..=backoff)),
                Retry::After(wait) => Some(wait),
            };
            let again = wait.map(|wait| Instant::now() + wait).filter(|again| *again < ends);
            let Some(again) = again else {
                let Refusal { reason, message, .. } = refusal;
                return Err(Failure { reason, message });
            };
            tokio::time::sleep_until(again).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

/// Whose spans these are. What `[service]` says wins over `traces.resource`.
fn resource(traces: &Traces, identity: &Identity) -> Resource {
    let own = [
        ("service.name", Some(&identity.service)),
        ("service.version", identity.version.as_ref()),
        ("service.instance.id", Some(&identity.instance)),
        ("deployment.environment.name", Some(&identity.environment)),
    ];
    let is_own = |name: &str| own.iter().any(|(known, value)| *known == name && value.is_some());
    let others = traces.resource.iter().filter(|(name, _)| !is_own(name));
    let own = own.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
    let all = own.chain(others.map(|(name, value)| (name.as_str(), value)));
    let attributes: Vec<KeyValue> = all
        .map(|(name, value)| KeyValue {
            key: name.to_owned(),
            value: Some(AnyValue {
                value: Some(Value::StringValue(value.clone())),
            }),
            ..KeyValue::default()
        })
        .collect();
    Resource {
        attributes,
        ..Resource::default()
    }
}

/// What a collector says that has taken a request.
fn taken(response: ExportTraceServiceResponse) -> Taken {
    let partial = response.partial_success.unwrap_or_default();
    Taken {
        rejected: usize::try_from(partial.rejected_spans).unwrap_or(0),
        message: one_line(&partial.error_message),
    }
}

/// The beginning of a text as one line: enough for a reason, and nothing that spoils a log.
fn one_line(text: &str) -> String {
    const MAX: usize = 300;
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ").chars().take(MAX).collect()
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut told: Vec<String> = causes.map(ToString::to_string).collect();
    told.dedup();
    one_line(&told.join(": "))
}

/// A client's file that can't be used, in the words of its key.
fn unusable(key: &str) -> String {
    format!("{key} can't be used; write PEM files of a certificate and its key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_says_who_we_are_once() {
        let identity = Identity {
            service: "api".to_owned(),
            version: None,
            instance: "one".to_owned(),
            environment: "test".to_owned(),
        };
        let mut traces = Traces::default();
        for (name, value) in [
            ("service.name", "other"),
            ("service.version", "1"),
            ("cloud.region", "eu"),
        ] {
            traces.resource.insert(name.to_owned(), value.to_owned());
        }
        let resource = resource(&traces, &identity);
        let names: Vec<_> = resource
            .attributes
            .iter()
            .map(|attribute| attribute.key.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "service.name",
                "service.instance.id",
                "deployment.environment.name",
                "cloud.region",
                "service.version"
            ]
        );
    }

    #[test]
    fn what_a_collector_says_is_one_short_line() {
        assert_eq!(one_line("too\n many \u{7}spans"), "too many spans");
        assert_eq!(one_line(&"x".repeat(1_000)).len(), 300);
    }
}
