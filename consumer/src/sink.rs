//! Where records go.
//!
//! Invariant: `store` returns only when every entry is either in the store for good or refused for good. A store that
//! is away, busy, full or denied is waited for, without limit: JetStream is the buffer.

use bytes::Bytes;

use crate::dead_letter::Reason;
use crate::entry::Entry;
use crate::file::Lines;
use crate::loki::Loki;

/// One of the stores.
#[derive(Debug)]
pub(crate) enum Sink {
    Loki(Box<Loki>),
    Lines(Lines),
}

/// What became of a batch's entries: each is in one of the two.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) stored: Vec<Entry>,
    pub(crate) refused: Vec<Refusal>,
}

/// An entry that the store refuses for good.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) entry: Entry,
    pub(crate) reason: Reason,
    /// What the store said.
    pub(crate) detail: String,
}

impl Sink {
    /// Stores every entry that can be stored.
    pub(crate) async fn store(&self, entries: Vec<Entry>) -> Outcome {
        match self {
            Self::Loki(loki) => loki.store(entries).await,
            Self::Lines(lines) => {
                lines
                    .store(entries.iter().map(|entry| entry.line.clone()).collect::<Vec<Bytes>>())
                    .await;
                Outcome {
                    stored: entries,
                    refused: Vec::new(),
                }
            }
        }
    }
}
