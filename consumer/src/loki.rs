//! The Loki sink: pushes batches by Loki's protocol, which other stores take too.
//!
//! Invariants:
//! - An entry counts as stored only after an answer of 204 to a push that held it.
//! - What is not a success is sent again, the same bytes, until it is one. Only an entry that was refused (400) or was
//!   too large (413) in a push of its own is given up, as a refusal with the store's reason.
//! - One entry that the store refuses costs at most about twice the logarithm of the batch in further pushes.
//! - Credentials are read from their files for each push, so that rotated ones count at once, and are never logged.

mod answer;
mod client;
mod labels;
mod wire;

use std::time::Duration;

use bytes::Bytes;

use crate::backoff::Backoff;
use crate::dead_letter::Reason;
use crate::entry::Entry;
use crate::metrics::Metrics;
use crate::outage::Outage;
use crate::settings::LokiSettings;
use crate::sink::{Outcome, Refusal};

use answer::{Answer, Hold, RefusedAs};
use client::Client;
use labels::LabelLimit;
use wire::Labelled;

/// Stores entries in Loki.
#[derive(Debug)]
pub(crate) struct Loki {
    client: Client,
    labels: LabelLimit,
    outage: Outage,
    backoff_min: Duration,
    backoff_max: Duration,
}

/// The end of a push: the store has judged the entries.
enum Verdict {
    Stored,
    Refused { kind: RefusedAs, text: String },
}

impl Loki {
    /// # Errors
    /// When a certificate, key or secret file can't be read or isn't what it should be; the key is named.
    pub(crate) fn new(settings: &LokiSettings, metrics: Metrics) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::new(settings, metrics)?,
            labels: LabelLimit::new(settings.max_services),
            outage: Outage::new("sink"),
            backoff_min: settings.backoff_min,
            backoff_max: settings.backoff_max,
        })
    }

    /// Returns when each entry is stored or refused.
    pub(crate) async fn store(&self, entries: Vec<Entry>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut parts = vec![self.in_streams(entries)];
        while let Some(mut part) = parts.pop() {
            match self.push(&part).await {
                Verdict::Stored => outcome.stored.extend(part.into_iter().map(|labelled| labelled.entry)),
                Verdict::Refused { .. } if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([second, part]);
                }
                Verdict::Refused { kind, text } => {
                    outcome
                        .refused
                        .extend(part.into_iter().map(|labelled| refusal(labelled.entry, kind, &text)));
                }
            }
        }
        outcome
    }

    /// Entries with their labels, each stream in one run, in order of time.
    fn in_streams(&self, entries: Vec<Entry>) -> Vec<Labelled> {
        let mut labelled: Vec<_> = entries
            .into_iter()
            .map(|entry| Labelled {
                labels: self.labels.render(&entry),
                entry,
            })
            .collect();
        labelled
            .sort_by(|left, right| (&left.labels, left.entry.timestamp).cmp(&(&right.labels, right.entry.timestamp)));
        labelled
    }

    /// Sends one body until the store has judged it.
    async fn push(&self, part: &[Labelled]) -> Verdict {
        let body: Bytes = match wire::encode(part) {
            Ok(body) => body.into(),
            Err(error) => {
                return Verdict::Refused {
                    kind: RefusedAs::TooLarge,
                    text: error.to_string(),
                };
            }
        };
        let mut backoff = Backoff::new(self.backoff_min, self.backoff_max);
        loop {
            let hold = match self.client.send(body.clone()).await {
                Answer::Stored => {
                    self.outage.over();
                    return Verdict::Stored;
                }
                Answer::Refused { kind, text } => return Verdict::Refused { kind, text },
                Answer::Hold(hold) => hold,
            };
            self.hold(hold, &mut backoff).await;
        }
    }

    async fn hold(&self, hold: Hold, backoff: &mut Backoff) {
        let Hold { kind, wait, advice } = hold;
        self.outage.report(kind, || advice);
        tokio::time::sleep(backoff.next(wait)).await;
    }
}

fn refusal(entry: Entry, kind: RefusedAs, text: &str) -> Refusal {
    Refusal {
        entry,
        reason: match kind {
            RefusedAs::Invalid => Reason::Refused,
            RefusedAs::TooLarge => Reason::TooLarge,
        },
        detail: text.to_owned(),
    }
}
