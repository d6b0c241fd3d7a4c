//! `[traces]`: which traces are sampled, what spans hold, and the collector they go to by OTLP.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sidelog_chassis::settings::{Misfit, duration};

use super::collector::Collector;
use super::headers::Headers;
use super::number;

/// The usual port of OTLP over gRPC (OpenTelemetry protocol specification, "OTLP/gRPC Default Port").
pub(super) const GRPC_PORT: u16 = 4317;
/// The usual port of OTLP over HTTP ("OTLP/HTTP Default Port").
pub(super) const HTTP_PORT: u16 = 4318;
/// The methods that the HTTP conventions know: others could be anything, and the names of spans may not.
const KNOWN_METHODS: [&str; 10] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE",
];

/// `[traces]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// Whether spans are made. Trace headers and the ids in records don't depend on it.
    pub enabled: bool,
    /// Whether trace headers are read and written; where not, every listener is one with `trace = "ignore"`.
    pub propagate: bool,
    /// Whether a trace that came sampled stays so, and one that came unsampled too.
    pub parent_based: bool,
    /// The share of traces begun here that is sampled, 0 to 1; without `parent_based` the share of all.
    #[serde(deserialize_with = "number::share")]
    pub sample: f64,
    /// The collector.
    pub endpoint: Collector,
    /// Whether an endpoint without a scheme is spoken to without TLS.
    pub insecure: bool,
    /// What is spoken with the collector; [`Traces::protocol`] where unset.
    pub protocol: Option<OtlpProtocol>,
    /// Header fields of every request.
    pub headers: Headers,
    /// A file with header fields of every request.
    pub headers_file: Option<PathBuf>,
    /// How requests are compressed.
    pub compression: Compression,
    /// The time that the collector has for a request.
    #[serde(with = "duration::positive")]
    pub timeout: Duration,
    /// The time in which a batch is sent, with all its retries.
    #[serde(with = "duration::positive")]
    pub export_timeout: Duration,
    /// Spans that wait; more are dropped and counted.
    #[serde(deserialize_with = "number::positive")]
    pub queue_max: usize,
    /// Spans in one request.
    #[serde(deserialize_with = "number::positive")]
    pub batch_max: usize,
    /// How long a span waits for others to go with.
    #[serde(with = "duration")]
    pub linger: Duration,
    /// Attributes of a span; more are left out and counted in it.
    pub attributes_max: usize,
    /// Characters of an attribute's value; the rest is cut.
    pub attribute_value_max: usize,
    /// Links of a span.
    pub links_max: usize,
    /// Methods that spans name; all others are `_OTHER`.
    pub known_methods: Vec<String>,
    /// Further attributes of the resource, beside those of `[service]`.
    pub resource: BTreeMap<String, String>,
    /// TLS to the collector.
    pub tls: TracesTls,
}

/// `[traces.tls]`, for `https` endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesTls {
    /// The certificates (PEM) that sign the collector's; the system's where unset.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate (PEM).
    pub cert_file: Option<PathBuf>,
    /// The key (PEM) of `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// What is spoken with the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum OtlpProtocol {
    /// OTLP/gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP/HTTP, protobuf.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// How requests to the collector are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// By gzip.
    Gzip,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            enabled: true,
            propagate: true,
            parent_based: true,
            sample: 1.0,
            endpoint: Collector::default(),
            insecure: true,
            protocol: None,
            headers: Headers::default(),
            headers_file: None,
            compression: Compression::None,
            timeout: Duration::from_secs(10),
            export_timeout: Duration::from_secs(30),
            queue_max: 8192,
            batch_max: 512,
            linger: Duration::from_secs(1),
            attributes_max: 128,
            attribute_value_max: 4096,
            links_max: 128,
            known_methods: KNOWN_METHODS.map(str::to_owned).to_vec(),
            resource: BTreeMap::new(),
            tls: TracesTls::default(),
        }
    }
}

impl Traces {
    /// `protocol`, else what the endpoint's port is for: http/protobuf at 4318, gRPC at every other.
    pub fn protocol(&self) -> OtlpProtocol {
        self.protocol.unwrap_or(match self.endpoint.port {
            Some(HTTP_PORT) => OtlpProtocol::HttpProtobuf,
            _ => OtlpProtocol::Grpc,
        })
    }

    /// Whether the collector is spoken to by TLS.
    pub fn is_tls(&self) -> bool {
        self.endpoint.tls.unwrap_or(!self.insecure)
    }

    /// The URL that spans are sent to; for gRPC without a path.
    pub fn url(&self) -> String {
        match self.protocol() {
            OtlpProtocol::Grpc => self.endpoint.grpc_url(self.is_tls()),
            OtlpProtocol::HttpProtobuf => self.endpoint.http_url(self.is_tls()),
        }
    }

    /// What doesn't fit together.
    pub(super) fn misfits(&self) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        let mut misfit = |keys: &[&str], message: String| misfits.push(Misfit::new(keys.iter().copied(), message));
        if let Some(path) = self.endpoint.path.as_deref().filter(|path| *path != "/")
            && self.protocol() == OtlpProtocol::Grpc
        {
            misfit(
                &["traces.endpoint", "traces.protocol"],
                format!(
                    "{path:?} in traces.endpoint is a path, and gRPC has none; leave it out, or write traces.protocol = \"http/protobuf\""
                ),
            );
        }
        if self.batch_max > self.queue_max {
            let message = format!(
                "traces.batch_max ({}) is more than traces.queue_max ({}), so that no batch would ever be full; lower the first or raise the \
                 second",
                self.batch_max, self.queue_max
            );
            misfit(&["traces.batch_max", "traces.queue_max"], message);
        }
        if self.headers_file.is_some() && !self.headers.is_empty() {
            let message =
                "traces.headers and traces.headers_file both say which header fields go along; keep one of the two"
                    .to_owned();
            misfit(&["traces.headers_file", "traces.headers"], message);
        }
        let (cert, key) = ("traces.tls.cert_file", "traces.tls.key_file");
        match (&self.tls.cert_file, &self.tls.key_file) {
            (Some(_), None) => misfit(&[cert], format!("needs {key} beside it; set both or neither")),
            (None, Some(_)) => misfit(&[key], format!("needs {cert} beside it; set both or neither")),
            _ => {}
        }
        let files = [("traces.tls.ca_file", &self.tls.ca_file), (cert, &self.tls.cert_file)];
        for (key, _) in files.iter().filter(|(_, file)| file.is_some() && !self.is_tls()) {
            let message = format!("is of no use: {} is not TLS; write https://", self.url());
            misfit(&[key, "traces.endpoint"], message);
        }
        misfits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(endpoint: &str) -> Traces {
        Traces {
            endpoint: endpoint.parse().expect(endpoint),
            ..Traces::default()
        }
    }

    #[test]
    fn the_port_tells_the_protocol_unless_it_is_written() {
        assert_eq!(traces("localhost").url(), "http://localhost:4317");
        assert_eq!(traces("localhost:4318").url(), "http://localhost:4318/v1/traces");
        let mut http = traces("localhost");
        http.protocol = Some(OtlpProtocol::HttpProtobuf);
        assert_eq!(http.url(), "http://localhost:4318/v1/traces");
        let mut grpc = traces("localhost:4318");
        grpc.protocol = Some(OtlpProtocol::Grpc);
        assert_eq!(grpc.url(), "http://localhost:4318");
    }

    #[test]
    fn insecure_speaks_of_endpoints_without_a_scheme() {
        for (endpoint, insecure, url) in [
            ("a", true, "http://a:4317"),
            ("a", false, "https://a:4317"),
            ("http://a", false, "http://a:4317"),
            ("https://a", true, "https://a:4317"),
        ] {
            let traces = Traces {
                insecure,
                ..traces(endpoint)
            };
            assert_eq!(traces.url(), url);
        }
    }
}
