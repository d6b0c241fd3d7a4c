//! The address of a trace collector: `localhost:4317`, with or without `http://`.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The port of OTLP over gRPC (OpenTelemetry protocol specification, "OTLP/gRPC Default Port").
const DEFAULT_PORT: u16 = 4317;

/// The address of a collector that takes OTLP over gRPC. Shown as a URL: `http://localhost:4317`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    authority: String,
}

impl Default for Collector {
    /// `localhost:4317`
    fn default() -> Self {
        Self {
            authority: format!("localhost:{DEFAULT_PORT}"),
        }
    }
}

/// A text that isn't a collector's address. Never shows user information.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    /// TLS.
    #[error("TLS to the collector is not supported yet; write \"http://host:4317\"")]
    Tls,
    /// A password in the address.
    #[error("a collector's address carries no user or password; write \"host:4317\"")]
    UserInformation,
    /// Anything else.
    #[error(
        "{0:?} is not a collector's address; write host and port of its OTLP/gRPC receiver, such as \"localhost:4317\""
    )]
    Malformed(String),
}

impl FromStr for Collector {
    type Err = CollectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.contains('@') {
            return Err(CollectorError::UserInformation);
        }
        if text.to_ascii_lowercase().starts_with("https:") {
            return Err(CollectorError::Tls);
        }
        let malformed = || CollectorError::Malformed(text.to_owned());
        let url = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let is_bare = uri.path_and_query().is_none_or(|rest| rest.as_str() == "/") && !text.contains('#');
        let authority = uri.authority().ok_or_else(malformed)?;
        let host = authority.host();
        if uri.scheme_str() != Some("http") || !is_bare || host.is_empty() {
            return Err(malformed());
        }
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => DEFAULT_PORT,
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .ok_or_else(malformed)?,
            None => return Err(malformed()),
        };
        if port == 0 {
            return Err(malformed());
        }
        Ok(Self {
            authority: format!("{host}:{port}"),
        })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
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
    fn a_collector_is_read_with_and_without_scheme_and_port() {
        for (text, shown) in [
            ("localhost:4317", "http://localhost:4317"),
            ("http://jaeger:4317/", "http://jaeger:4317"),
            ("jaeger", "http://jaeger:4317"),
            ("10.0.0.1:5317", "http://10.0.0.1:5317"),
            ("[::1]:4317", "http://[::1]:4317"),
        ] {
            let collector: Collector = text.parse().expect(text);
            assert_eq!(collector.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_collector_says_what_to_write() {
        for (text, part) in [
            ("", "write host and port"),
            (":4317", "write host and port"),
            ("jaeger:port", "write host and port"),
            ("jaeger:0", "write host and port"),
            (
                "http://jaeger:4318/v1/traces",
                "write host and port of its OTLP/gRPC receiver",
            ),
            ("grpc://jaeger:4317", "write host and port"),
            ("https://jaeger:4317", "TLS to the collector is not supported yet"),
            ("http://a:b@jaeger", "no user or password"),
        ] {
            let error = text.parse::<Collector>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
