//! Addresses of NATS servers: `nats://host:4222`, a comma-separated list of them, with credentials or without.
//!
//! Invariant: whatever shows a URL, shows its user information as `***`.

use std::fmt;
use std::str::FromStr;

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// The credentials in a URL. `Debug` doesn't show them.
#[derive(Clone, PartialEq, Eq)]
pub enum UrlCredentials {
    /// `nats://user:password@host`
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// `nats://token@host`
    Token(String),
}

impl fmt::Debug for UrlCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The address of one NATS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsUrl {
    address: ServerAddr,
    credentials: Option<UrlCredentials>,
}

impl NatsUrl {
    /// The address without credentials: async-nats ignores those in a URL, and writes the URL into its log.
    #[must_use]
    pub fn address(&self) -> &ServerAddr {
        &self.address
    }

    /// The credentials, decoded.
    #[must_use]
    pub fn credentials(&self) -> Option<&UrlCredentials> {
        self.credentials.as_ref()
    }
}

/// A text that isn't the address of a NATS server. Shows no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{masked:?} is not a NATS server's address ({reason}); write \"nats://host:4222\", or \"tls://host:4222\" for TLS"
)]
pub struct NatsUrlError {
    masked: String,
    reason: String,
}

impl FromStr for NatsUrl {
    type Err = NatsUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let refuse = |reason: &str| NatsUrlError {
            masked: mask(text),
            reason: reason.to_owned(),
        };
        if text.is_empty() {
            return Err(refuse("empty"));
        }
        let address: ServerAddr = text.parse().map_err(|error: std::io::Error| {
            let message = error.to_string();
            refuse(message.strip_prefix("NATS server URL is invalid: ").unwrap_or(&message))
        })?;
        if address.is_websocket() {
            return Err(refuse("WebSockets are not supported"));
        }
        if address.host().is_empty() {
            return Err(refuse("no host"));
        }
        let mut url = address.into_inner();
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("there is something behind host and port"));
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (token, None) => Some(UrlCredentials::Token(decode(token))),
            (user, Some(password)) => Some(UrlCredentials::Password {
                user: decode(user),
                password: decode(password),
            }),
        };
        url.set_password(None)
            .and_then(|()| url.set_username(""))
            .map_err(|()| refuse("no host"))?;
        let address = ServerAddr::from_url(url).map_err(|error| refuse(&error.to_string()))?;
        Ok(Self { address, credentials })
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masked = if self.credentials.is_some() { "***@" } else { "" };
        let (scheme, host, port) = (self.address.scheme(), self.address.host(), self.address.port());
        if host.contains(':') {
            write!(f, "{scheme}://{masked}[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{masked}{host}:{port}")
        }
    }
}

/// The text with everything before an `@` masked.
fn mask(text: &str) -> String {
    let Some((secret, rest)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match secret.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://***@{rest}"),
        None => format!("***@{rest}"),
    }
}

/// The addresses of one NATS cluster's servers, at least one.
///
/// From a comma-separated string or a list of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsUrls(Vec<NatsUrl>);

impl NatsUrls {
    /// The addresses in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, NatsUrl> {
        self.0.iter()
    }

    /// The credentials that the URLs carry: one set for all of them, because a cluster has one.
    #[must_use]
    pub fn credentials(&self) -> Option<&UrlCredentials> {
        self.0.iter().find_map(NatsUrl::credentials)
    }

    fn new(urls: Vec<NatsUrl>) -> Result<Self, String> {
        let urls = Self(urls);
        if urls.0.is_empty() {
            return Err("no address; write \"nats://localhost:4222\"".to_owned());
        }
        let first = urls.credentials();
        let differs = |url: &NatsUrl| url.credentials().is_some_and(|own| Some(own) != first);
        if urls.iter().any(differs) {
            return Err(
                "the addresses carry different credentials; the servers of one cluster take the same".to_owned(),
            );
        }
        Ok(urls)
    }
}

impl Default for NatsUrls {
    /// `nats://localhost:4222`
    fn default() -> Self {
        Self("nats://localhost:4222".parse().into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a NatsUrls {
    type Item = &'a NatsUrl;
    type IntoIter = std::slice::Iter<'a, NatsUrl>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromStr for NatsUrls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let urls: Result<Vec<NatsUrl>, _> = parts.map(str::parse).collect();
        Self::new(urls.map_err(|error| error.to_string())?)
    }
}

impl fmt::Display for NatsUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, url) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{url}")?;
        }
        Ok(())
    }
}

impl Serialize for NatsUrls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NatsUrls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NatsUrlsVisitor)
    }
}

struct NatsUrlsVisitor;

impl<'de> Visitor<'de> for NatsUrlsVisitor {
    type Value = NatsUrls;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("addresses of NATS servers, such as \"nats://localhost:4222\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<NatsUrls, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NatsUrls, A::Error> {
        let mut urls = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            urls.push(text.parse().map_err(A::Error::custom)?);
        }
        NatsUrls::new(urls).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> NatsUrls {
        text.parse().expect(text)
    }

    #[test]
    fn a_comma_list_has_defaults_for_scheme_and_port() {
        let urls = urls("nats://a:4222, b ,tls://c:5222,[::1]:4333");
        assert_eq!(
            urls.to_string(),
            "nats://a:4222,nats://b:4222,tls://c:5222,nats://[::1]:4333"
        );
        assert_eq!(urls.credentials(), None);
    }

    #[test]
    fn a_url_never_shows_its_credentials() {
        let urls = urls("nats://bob:s3cret%40x@a:4222");
        let password = UrlCredentials::Password {
            user: "bob".to_owned(),
            password: "s3cret@x".to_owned(),
        };
        assert_eq!(urls.credentials(), Some(&password));
        assert_eq!(urls.to_string(), "nats://***@a:4222");
        for shown in [format!("{urls:?}"), format!("{urls}")] {
            assert!(!shown.contains("s3cret") && !shown.contains("bob"), "{shown}");
        }
        for bad in ["nats://bob:s3cret@a:99999", "ftp://bob:s3cret@a", "bob:s3cret@:1"] {
            let error = bad.parse::<NatsUrls>().expect_err(bad);
            assert!(!error.contains("s3cret") && error.contains("***@"), "{error}");
        }
    }

    #[test]
    fn a_user_without_a_password_is_a_token() {
        let token = UrlCredentials::Token("t0ken".to_owned());
        assert_eq!(urls("nats://t0ken@a,nats://b").credentials(), Some(&token));
    }

    #[test]
    fn what_is_no_address_says_what_to_write() {
        for (bad, why) in [
            ("", "no address"),
            (" , ", "no address"),
            ("nats://", "not a NATS server's address"),
            ("http://a:4222", "invalid scheme"),
            ("ws://a:4222", "WebSockets"),
            ("nats://a:99999", "invalid port"),
            ("nats://a:4222/logs", "behind host and port"),
            ("nats://x:1@a,nats://y:2@b", "different credentials"),
        ] {
            let error = bad.parse::<NatsUrls>().expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
