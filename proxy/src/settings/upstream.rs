//! The address of an upstream: `http://host:port`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Uri;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// An upstream: where requests are sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// A name or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Default for Upstream {
    /// `http://127.0.0.1:9000`
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 9000,
        }
    }
}

/// A text that isn't the address of an upstream. Never shows user information.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// A scheme that isn't `http`, though one that will be served.
    #[error("{0} upstreams are not supported yet; write \"http://host:port\"")]
    Unsupported(&'static str),
    /// A password in the address.
    #[error("an upstream's address carries no user or password; write \"http://host:port\"")]
    UserInformation,
    /// Anything behind host and port.
    #[error("{0:?} has a path, query or fragment; requests keep their own, so write \"http://host:port\"")]
    Path(String),
    /// A host and port without a scheme.
    #[error("{0:?} has no scheme; write \"http://{0}\"")]
    Scheme(String),
    /// Anything else.
    #[error("{0:?} is not an upstream's address; write \"http://host:port\", such as \"http://127.0.0.1:9000\"")]
    Malformed(String),
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.contains('@') {
            return Err(UpstreamError::UserInformation);
        }
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("https:") {
            return Err(UpstreamError::Unsupported("https"));
        }
        if lower.starts_with("unix:") || text.starts_with('/') {
            return Err(UpstreamError::Unsupported("Unix socket"));
        }
        if text.contains('#') {
            return Err(UpstreamError::Path(text.to_owned()));
        }
        let malformed = || UpstreamError::Malformed(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        match uri.scheme_str() {
            Some("http") => {}
            None => return Err(UpstreamError::Scheme(text.to_owned())),
            Some(_) => return Err(malformed()),
        }
        if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
            return Err(UpstreamError::Path(text.to_owned()));
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .ok_or_else(malformed)?,
            None => return Err(malformed()),
        };
        if host.is_empty() || port == 0 {
            return Err(malformed());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.parse::<Ipv6Addr>().is_ok() {
            write!(f, "http://[{host}]:{port}")
        } else {
            write!(f, "http://{host}:{port}")
        }
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(UpstreamVisitor)
    }
}

struct UpstreamVisitor;

impl Visitor<'_> for UpstreamVisitor {
    type Value = Upstream;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an upstream's address, such as \"http://127.0.0.1:9000\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Upstream, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_read_and_written_as_a_url() {
        for (text, host, port, shown) in [
            ("http://127.0.0.1:9000", "127.0.0.1", 9000, "http://127.0.0.1:9000"),
            ("http://api.internal:81/", "api.internal", 81, "http://api.internal:81"),
            ("http://api", "api", 80, "http://api:80"),
            ("http://[::1]:9000", "::1", 9000, "http://[::1]:9000"),
            ("http://[::1]", "::1", 80, "http://[::1]:80"),
            (" HTTP://api:1 ", "api", 1, "http://api:1"),
        ] {
            let upstream: Upstream = text.parse().expect(text);
            assert_eq!((upstream.host.as_str(), upstream.port), (host, port), "{text}");
            assert_eq!(upstream.to_string(), shown);
        }
        assert_eq!(Upstream::default().to_string().parse(), Ok(Upstream::default()));
    }

    #[test]
    fn what_is_no_upstream_says_what_to_write() {
        for (text, part) in [
            ("", "is not an upstream's address"),
            ("127.0.0.1:9000", "write \"http://127.0.0.1:9000\""),
            ("localhost:9000", "write \"http://localhost:9000\""),
            ("ftp://a:1", "is not an upstream's address"),
            ("http://:9000", "is not an upstream's address"),
            ("http://a:99999", "is not an upstream's address"),
            ("http://a:0", "is not an upstream's address"),
            ("http://a b:1", "is not an upstream's address"),
            ("http://a:1/api", "has a path"),
            ("http://a:1?x=1", "has a path"),
            ("http://a:1#x", "has a path"),
            ("https://a:1", "https upstreams are not supported yet"),
            ("unix:/run/a.sock", "Unix socket upstreams are not supported yet"),
        ] {
            let error = text.parse::<Upstream>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_shown() {
        let error = "http://bob:s3cret@a:1"
            .parse::<Upstream>()
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("no user or password") && !error.contains("s3cret"),
            "{error}"
        );
    }
}
