//! `[capture]`: what is recorded, and what a route changes of it.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use sidelog_chassis::settings::{ByteSize, duration};

use super::{content_type, number};

/// What is recorded of an exchange.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// Whether there is a record.
    pub enabled: bool,
    /// Whether it holds the request's header fields.
    pub request_headers: bool,
    /// Whether it holds the answer's header fields.
    pub response_headers: bool,
    /// Whether it holds the request's body.
    pub request_body: bool,
    /// Whether it holds the answer's body.
    pub response_body: bool,
    /// Bytes of a body that are recorded; the rest is cut.
    pub body_max: ByteSize,
    /// The content types whose bodies are recorded, in lower case; `*` stands for anything.
    #[serde(deserialize_with = "content_type::list")]
    pub content_types: Vec<String>,
    /// Of which exchanges the bodies are kept; decided when one has ended.
    pub keep_bodies: KeepBodies,
    /// An exchange that takes longer is slow.
    #[serde(with = "duration")]
    pub slow: Duration,
    /// The share of exchanges that are recorded, by trace id; failed ones always are.
    #[serde(deserialize_with = "number::share")]
    pub sample: f64,
    /// Memory of all open exchanges' captures; over it, bodies are left out.
    pub memory_max: ByteSize,
}

impl Default for Capture {
    fn default() -> Self {
        let content_types = [
            "application/json",
            "application/*+json",
            "application/x-www-form-urlencoded",
            "text/plain",
            "text/html",
            "text/csv",
            "application/xml",
            "text/event-stream",
            "application/*ndjson",
            "application/*jsonl",
            "application/*json-seq",
        ];
        Self {
            enabled: true,
            request_headers: true,
            response_headers: true,
            request_body: true,
            response_body: true,
            body_max: ByteSize::kib(64),
            content_types: content_types.map(str::to_owned).to_vec(),
            keep_bodies: KeepBodies::Always,
            slow: Duration::from_secs(1),
            sample: 1.0,
            memory_max: ByteSize::mib(24),
        }
    }
}

impl Capture {
    /// These settings with a route's changes.
    #[must_use]
    pub fn with(&self, route: &CaptureOverride) -> Self {
        Self {
            enabled: route.enabled.unwrap_or(self.enabled),
            request_headers: route.request_headers.unwrap_or(self.request_headers),
            response_headers: route.response_headers.unwrap_or(self.response_headers),
            request_body: route.request_body.unwrap_or(self.request_body),
            response_body: route.response_body.unwrap_or(self.response_body),
            body_max: route.body_max.unwrap_or(self.body_max),
            content_types: route
                .content_types
                .clone()
                .unwrap_or_else(|| self.content_types.clone()),
            keep_bodies: route.keep_bodies.unwrap_or(self.keep_bodies),
            slow: route.slow.unwrap_or(self.slow),
            sample: route.sample.unwrap_or(self.sample),
            memory_max: self.memory_max,
        }
    }
}

/// Of which exchanges the bodies are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepBodies {
    /// Of all.
    Always,
    /// Of those that failed.
    Failed,
    /// Of those that failed, and of those that took longer than [`Capture::slow`].
    FailedOrSlow,
    /// Of none.
    Never,
}

/// What a route changes of [`Capture`]. The memory is the process's, so a route has no share of its own.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureOverride {
    /// See [`Capture::enabled`].
    pub enabled: Option<bool>,
    /// See [`Capture::request_headers`].
    pub request_headers: Option<bool>,
    /// See [`Capture::response_headers`].
    pub response_headers: Option<bool>,
    /// See [`Capture::request_body`].
    pub request_body: Option<bool>,
    /// See [`Capture::response_body`].
    pub response_body: Option<bool>,
    /// See [`Capture::body_max`].
    pub body_max: Option<ByteSize>,
    /// See [`Capture::content_types`].
    #[serde(deserialize_with = "content_type::optional_list")]
    pub content_types: Option<Vec<String>>,
    /// See [`Capture::keep_bodies`].
    pub keep_bodies: Option<KeepBodies>,
    /// See [`Capture::slow`].
    #[serde(deserialize_with = "some_duration", serialize_with = "duration::serialize_option")]
    pub slow: Option<Duration>,
    /// See [`Capture::sample`].
    #[serde(deserialize_with = "some_share")]
    pub sample: Option<f64>,
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize(deserializer).map(Some)
}

fn some_share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    number::share(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_changes_what_it_names_and_nothing_else() {
        let capture = Capture::default();
        assert_eq!(capture.with(&CaptureOverride::default()), capture);
        let route = CaptureOverride {
            enabled: Some(false),
            request_headers: Some(false),
            response_headers: Some(false),
            request_body: Some(false),
            response_body: Some(false),
            body_max: Some(ByteSize::kib(1)),
            content_types: Some(vec!["text/css".to_owned()]),
            keep_bodies: Some(KeepBodies::Never),
            slow: Some(Duration::ZERO),
            sample: Some(0.5),
        };
        let changed = Capture {
            enabled: false,
            request_headers: false,
            response_headers: false,
            request_body: false,
            response_body: false,
            body_max: ByteSize::kib(1),
            content_types: vec!["text/css".to_owned()],
            keep_bodies: KeepBodies::Never,
            slow: Duration::ZERO,
            sample: 0.5,
            memory_max: capture.memory_max,
        };
        assert_eq!(capture.with(&route), changed);
    }
}
