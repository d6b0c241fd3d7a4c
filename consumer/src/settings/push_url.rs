//! The address of the push endpoint.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

const DEFAULT: &str = "http://localhost:3100/loki/api/v1/push";

/// An `http` or `https` URL; its path and query are used as they are. It holds no credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct PushUrl(Url);

/// Why a text is no [`PushUrl`]; says what to write instead and shows no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushUrlError {
    /// Not a URL, or not one of HTTP.
    #[error("not an http or https URL; write something like \"{DEFAULT}\"")]
    NotHttp,
    /// A user or a password stands in it.
    #[error(
        "credentials don't belong into the URL; set loki.basic_auth (user, password_file) or loki.bearer_token_file"
    )]
    Credentials,
}

impl PushUrl {
    /// The URL.
    #[must_use]
    pub fn get(&self) -> &Url {
        &self.0
    }
}

impl Default for PushUrl {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "a constant, which a test parses")]
        DEFAULT.parse().expect("the default is a URL")
    }
}

impl FromStr for PushUrl {
    type Err = PushUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text.trim()).map_err(|_| PushUrlError::NotHttp)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(PushUrlError::NotHttp);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(PushUrlError::Credentials);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for PushUrl {
    /// Without the query, in which some gateways want a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for PushUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PushUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let secret = if self.0.query().is_some() { "?***" } else { "" };
        serializer.collect_str(&format_args!("{self}{secret}"))
    }
}

impl<'de> Deserialize<'de> for PushUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_where_loki_listens() {
        assert_eq!(PushUrl::default().get().as_str(), DEFAULT);
    }

    #[test]
    fn path_and_query_are_kept_and_the_query_is_not_shown() {
        let url: PushUrl = "https://logs.example:8443/insert/push?token=s3cret".parse().unwrap();
        assert_eq!(url.get().as_str(), "https://logs.example:8443/insert/push?token=s3cret");
        assert_eq!(format!("{url} {url:?}").matches("s3cret").count(), 0);
    }

    #[test]
    fn what_is_no_push_endpoint_is_refused_without_showing_a_password() {
        for text in ["", "localhost:3100", "nats://a", "http://", "/loki/api/v1/push"] {
            assert_eq!(text.parse::<PushUrl>(), Err(PushUrlError::NotHttp), "{text}");
        }
        let refused = "https://me:s3cret@loki".parse::<PushUrl>().unwrap_err();
        assert!(!refused.to_string().contains("s3cret"));
    }
}
