//! The Loki sink: pushes entries by Loki's protocol, which other stores take too.
//!
//! Invariants:
//! - A push holds entries of one stream. An ingester of Loki tells of several streams in a push only how the last one fared
//!   (`pkg/ingester/instance.go`, `Push`), so an answer of 204 says nothing about the others
//!   (`a_refusal_that_loki_hides_behind_a_204_can_not_happen`).
//! - Entries count as stored only after an answer of 204 to the push that held them.
//! - Pushing the same entries again gives the same bytes.
//! - Credentials are read from their files for each push, so that rotated ones count at once, and are never logged.

mod answer;
mod block;
mod client;
mod labels;
mod wire;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::answer::{Answer, RefusedAs};
use crate::entry::{Entry, Origin};
use crate::metrics::Metrics;
use crate::settings::LokiSettings;

use client::Client;
use labels::Labels;
use wire::Encoder;

/// Stores entries in Loki.
#[derive(Debug)]
pub(crate) struct Loki {
    client: Client,
    labels: Mutex<Labels>,
    /// Those that nobody uses.
    encoders: Mutex<Vec<Encoder>>,
}

impl Loki {
    /// # Errors
    /// When a certificate, key or secret file can't be read or isn't what it should be; the key is named.
    pub(crate) fn new(settings: &LokiSettings, metrics: Metrics) -> anyhow::Result<Self> {
        let labels = Labels::new(settings.max_services, &metrics);
        Ok(Self {
            client: Client::new(settings, metrics)?,
            labels: Mutex::new(labels),
            encoders: Mutex::default(),
        })
    }

    /// The label set of records.
    pub(crate) fn stream_of(&self, origin: &Origin<'_>) -> Arc<str> {
        self.labels.lock().of(origin)
    }

    /// The label set for an entry that is too far behind the stream `labels`.
    pub(crate) fn late_stream_of(&self, labels: &str, entry: &Entry) -> Arc<str> {
        labels::late(labels, entry.timestamp)
    }

    /// Pushes entries of the stream `labels` once.
    pub(crate) async fn push(&self, labels: &str, entries: &[Entry]) -> Answer {
        let encoder = self.encoders.lock().pop();
        let mut encoder = encoder.unwrap_or_else(Encoder::new);
        let body = encoder.encode(labels, entries);
        // As many as there are pushes that encode at a time.
        self.encoders.lock().push(encoder);
        match body {
            Ok(body) => self.client.send(body.into()).await,
            Err(error) => Answer::Refused {
                kind: RefusedAs::TooLarge,
                text: error.to_string(),
            },
        }
    }
}
