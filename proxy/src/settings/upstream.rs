//! The address of an upstream: `http://host:port`, `https://host:port` or `unix:/path`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Uri;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// An upstream: where requests are sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// `http://host:port` or `https://host:port`.
    Host {
        /// `https`.
        tls: bool,
        /// A name or an IP address, an IPv6 one without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:/path`: a socket of this machine, spoken to without TLS.
    Unix {
        /// The socket's path.
        path: String,
    },
}

/// The longest path that a socket's address holds (`sun_path` of unix(7), without its last zero).
const SOCKET_PATH_MAX: usize = 107;

impl Upstream {
    /// Whether it is spoken to by TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Host { tls: true, .. })
    }

    /// `https` or `http`: what it is asked by.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Host { tls: true, .. } => "https",
            _ => "http",
        }
    }

    /// Host and port; a socket has none.
    pub fn endpoint(&self) -> Option<(&str, u16)> {
        match self {
            Self::Host { host, port, .. } => Some((host, *port)),
            Self::Unix { .. } => None,
        }
    }

    fn of_socket(path: &str) -> Result<Self, UpstreamError> {
        // unix:///path is a URL of the same.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(UpstreamError::Socket(path.to_owned()));
        }
        if path.len() > SOCKET_PATH_MAX {
            return Err(UpstreamError::SocketLength(path.to_owned()));
        }
        Ok(Self::Unix { path: path.to_owned() })
    }
}

impl Default for Upstream {
    /// `http://127.0.0.1:9000`
    fn default() -> Self {
        Self::Host {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port: 9000,
        }
    }
}

/// A text that isn't the address of an upstream. Never shows user information.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// A password in the address.
    #[error("an upstream's address carries no user or password; write \"http://host:port\"")]
    UserInformation,
    /// Anything behind host and port.
    #[error("{0:?} has a path, query or fragment; requests keep their own, so write \"http://host:port\"")]
    Path(String),
    /// A host and port without a scheme.
    #[error("{0:?} has no scheme; write \"http://{0}\"")]
    Scheme(String),
    /// A path that is none of a socket.
    #[error("{0:?} is not the path of a socket; write it from the root, such as \"unix:/run/api.sock\"")]
    Socket(String),
    /// A path that the system can't connect to.
    #[error("{0:?} is too long: the path of a socket has at most {SOCKET_PATH_MAX} bytes")]
    SocketLength(String),
    /// A path without a scheme.
    #[error("{0:?} has no scheme; write \"unix:{0}\"")]
    SocketScheme(String),
    /// Anything else.
    #[error(
        "{0:?} is not an upstream's address; write \"http://host:port\", \"https://host:port\" or \"unix:/path\", such as \"http://127.0.0.1:9000\""
    )]
    Malformed(String),
}

impl FromStr for Upstream {
    type Err = UpstreamError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Some((scheme, path)) = text.split_once(':')
            && scheme.eq_ignore_ascii_case("unix")
        {
            return Self::of_socket(path);
        }
        if text.starts_with('/') {
            return Err(UpstreamError::SocketScheme(text.to_owned()));
        }
        if text.contains('@') {
            return Err(UpstreamError::UserInformation);
        }
        if text.contains('#') {
            return Err(UpstreamError::Path(text.to_owned()));
        }
        let malformed = || UpstreamError::Malformed(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            None => return Err(UpstreamError::Scheme(text.to_owned())),
            Some(_) => return Err(malformed()),
        };
        if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
            return Err(UpstreamError::Path(text.to_owned()));
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") if tls => 443,
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
        Ok(Self::Host {
            tls,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { path } => write!(f, "unix:{path}"),
            Self::Host { host, port, .. } => {
                let scheme = self.scheme();
                if host.parse::<Ipv6Addr>().is_ok() {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
        }
    }
}

impl Serialize for Upstream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
        for (text, tls, host, port, shown) in [
            (
                "http://127.0.0.1:9000",
                false,
                "127.0.0.1",
                9000,
                "http://127.0.0.1:9000",
            ),
            (
                "http://api.internal:81/",
                false,
                "api.internal",
                81,
                "http://api.internal:81",
            ),
            ("http://api", false, "api", 80, "http://api:80"),
            ("http://[::1]:9000", false, "::1", 9000, "http://[::1]:9000"),
            ("http://[::1]", false, "::1", 80, "http://[::1]:80"),
            (" HTTP://api:1 ", false, "api", 1, "http://api:1"),
            (
                "https://api.internal",
                true,
                "api.internal",
                443,
                "https://api.internal:443",
            ),
            ("https://[::1]:8443/", true, "::1", 8443, "https://[::1]:8443"),
        ] {
            let upstream: Upstream = text.parse().expect(text);
            assert_eq!(upstream.endpoint(), Some((host, port)), "{text}");
            assert_eq!(upstream.is_tls(), tls, "{text}");
            assert_eq!(upstream.to_string(), shown);
        }
        assert_eq!(Upstream::default().to_string().parse(), Ok(Upstream::default()));
    }

    #[test]
    fn a_socket_is_named_by_its_path() {
        for text in ["unix:/run/api.sock", "unix:///run/api.sock", "UNIX:/run/api.sock"] {
            let upstream: Upstream = text.parse().expect(text);
            assert_eq!(upstream.endpoint(), None, "{text}");
            assert_eq!(upstream.to_string(), "unix:/run/api.sock");
        }
    }

    #[test]
    fn what_is_no_upstream_says_what_to_write() {
        let long = format!("unix:/{}", "a".repeat(SOCKET_PATH_MAX));
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
            ("https://a:1#x", "has a path"),
            ("/run/a.sock", "write \"unix:/run/a.sock\""),
            ("unix:run/a.sock", "write it from the root"),
            ("unix:", "write it from the root"),
            ("unix:/run/", "write it from the root"),
            ("unix://host/a.sock", "write it from the root"),
            (&long, "at most 107 bytes"),
        ] {
            let error = text.parse::<Upstream>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_shown() {
        let error = "https://bob:s3cret@a:1"
            .parse::<Upstream>()
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("no user or password") && !error.contains("s3cret"),
            "{error}"
        );
    }
}
