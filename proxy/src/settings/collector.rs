//! The address of a trace collector: `localhost:4317`, `https://otel.example.com/v1/traces`.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// The path of OTLP over HTTP (OpenTelemetry protocol specification, "OTLP/HTTP Request").
const TRACES_PATH: &str = "/v1/traces";

/// The address of a collector, as written: what is left out follows from the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Whether TLS is spoken, where a scheme says so.
    pub tls: Option<bool>,
    /// A name or an IP address, an IPv6 one in brackets.
    pub host: String,
    /// The port, where it is written.
    pub port: Option<u16>,
    /// Path and query, where they are written.
    pub path: Option<String>,
}

impl Default for Collector {
    /// `localhost`
    fn default() -> Self {
        Self {
            tls: None,
            host: "localhost".to_owned(),
            port: None,
            path: None,
        }
    }
}

/// A text that isn't a collector's address. Never shows user information.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    /// A password in the address.
    #[error(
        "a collector's address carries no user or password; write \"host:4317\", and a token into traces.headers_file"
    )]
    UserInformation,
    /// Anything else.
    #[error("{0:?} is not a collector's address; write host and port of its OTLP receiver, such as \"localhost:4317\"")]
    Malformed(String),
}

impl FromStr for Collector {
    type Err = CollectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.contains('@') {
            return Err(CollectorError::UserInformation);
        }
        let malformed = || CollectorError::Malformed(text.to_owned());
        let has_scheme = text.contains("://");
        let url = if has_scheme {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let tls = match uri.scheme_str() {
            Some("http") => has_scheme.then_some(false),
            Some("https") => Some(true),
            _ => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => None,
            Some(port) => Some(
                port.strip_prefix(':')
                    .and_then(|port| port.parse().ok())
                    .filter(|port| *port != 0)
                    .ok_or_else(malformed)?,
            ),
            None => return Err(malformed()),
        };
        if host.is_empty() || text.contains('#') {
            return Err(malformed());
        }
        // `Uri` tells of a path "/" where there is none.
        let is_path_written = url.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?']));
        let path = uri.path_and_query().filter(|_| is_path_written);
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            path: path.map(|path| path.as_str().to_owned()),
        })
    }
}

impl Collector {
    /// The URL by OTLP/gRPC: without a path.
    pub(super) fn grpc_url(&self, tls: bool) -> String {
        let (scheme, port) = (scheme(tls), self.port.unwrap_or(super::traces::GRPC_PORT));
        format!("{scheme}://{}:{port}", self.host)
    }

    /// The URL by OTLP/HTTP: with the path as it is written, else the usual one.
    pub(super) fn http_url(&self, tls: bool) -> String {
        let (scheme, port) = (scheme(tls), self.port.unwrap_or(super::traces::HTTP_PORT));
        let path = self.path.as_deref().unwrap_or(TRACES_PATH);
        format!("{scheme}://{}:{port}{path}", self.host)
    }
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

/// A base of several endpoints (`OTEL_EXPORTER_OTLP_ENDPOINT`): the path of traces comes behind its own, if it has one.
pub(super) fn from_base(text: &str) -> String {
    let text = text.trim();
    match text.parse::<Collector>() {
        Ok(Collector { path: Some(path), .. }) if path != "/" => format!("{}{TRACES_PATH}", text.trim_end_matches('/')),
        _ => text.trim_end_matches('/').to_owned(),
    }
}

/// An endpoint for traces alone (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`): without a path it is the root's.
pub(super) fn verbatim(text: &str) -> String {
    match text.parse::<Collector>() {
        Ok(Collector { path: None, .. }) => format!("{}/", text.trim()),
        _ => text.to_owned(),
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tls) = self.tls {
            write!(f, "{}://", scheme(tls))?;
        }
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.path.as_deref().unwrap_or_default())
    }
}

impl Serialize for Collector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Some receivers want a token in the query.
        let shown = self.to_string();
        match shown.split_once('?') {
            Some((url, _)) => serializer.collect_str(&format_args!("{url}?***")),
            None => serializer.serialize_str(&shown),
        }
    }
}

impl<'de> Deserialize<'de> for Collector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(CollectorVisitor)
    }
}

struct CollectorVisitor;

impl Visitor<'_> for CollectorVisitor {
    type Value = Collector;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a collector's address, such as \"localhost:4317\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Collector, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_follows_from_the_protocol() {
        for (text, grpc, http) in [
            (
                "localhost:4317",
                "http://localhost:4317",
                "http://localhost:4317/v1/traces",
            ),
            ("jaeger", "http://jaeger:4317", "http://jaeger:4318/v1/traces"),
            ("[::1]:5317", "http://[::1]:5317", "http://[::1]:5317/v1/traces"),
            ("http://a:1/", "http://a:1", "http://a:1/"),
            ("http://a:1/x?y=z", "http://a:1", "http://a:1/x?y=z"),
        ] {
            let collector: Collector = text.parse().expect(text);
            assert_eq!(collector.grpc_url(false), grpc);
            assert_eq!(collector.http_url(false), http);
            assert_eq!(collector.to_string(), text);
        }
        let tls: Collector = "https://a".parse().expect("an address");
        assert_eq!((tls.tls, tls.grpc_url(true).as_str()), (Some(true), "https://a:4317"));
    }

    #[test]
    fn a_base_is_extended_and_an_endpoint_for_traces_is_not() {
        for (text, base, traces) in [
            ("http://a:4318", "http://a:4318", "http://a:4318/"),
            ("http://a:4318/", "http://a:4318", "http://a:4318/"),
            ("http://a/otlp", "http://a/otlp/v1/traces", "http://a/otlp"),
            ("http://a/otlp/", "http://a/otlp/v1/traces", "http://a/otlp/"),
            ("no address @", "no address @", "no address @"),
        ] {
            assert_eq!((from_base(text).as_str(), verbatim(text).as_str()), (base, traces));
        }
    }

    #[test]
    fn what_is_no_collector_says_what_to_write() {
        for (text, part) in [
            ("", "write host and port"),
            (":4317", "write host and port"),
            ("jaeger:port", "write host and port"),
            ("jaeger:0", "write host and port"),
            ("http://jaeger#x", "write host and port"),
            ("grpc://jaeger:4317", "write host and port of its OTLP receiver"),
            ("http://a:b@jaeger", "no user or password"),
        ] {
            let error = text.parse::<Collector>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
