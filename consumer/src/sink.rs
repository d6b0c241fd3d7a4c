//! Where records go.
//!
//! Invariant: an attempt says what the store made of it, and nothing is taken for stored that may not be. A store that is
//! away, busy, full or denied is asked again by the lanes, without limit: JetStream is the buffer.

use std::sync::Arc;

use crate::answer::Answer;
use crate::entry::{Entry, Origin};
use crate::file::Lines;
use crate::loki::Loki;

/// One of the stores.
#[derive(Debug)]
pub(crate) enum Sink {
    Loki(Box<Loki>),
    Lines(Box<Lines>),
}

impl Sink {
    /// Names the stream of the store that records labelled so belong to.
    pub(crate) fn stream_of(&self, origin: &Origin<'_>) -> Arc<str> {
        match self {
            Self::Loki(loki) => loki.stream_of(origin),
            Self::Lines(lines) => lines.stream(),
        }
    }

    /// Names the stream beside `stream` that takes an entry which is too late for it.
    pub(crate) fn late_stream_of(&self, stream: &Arc<str>, entry: &Entry) -> Arc<str> {
        match self {
            Self::Loki(loki) => loki.late_stream_of(stream, entry),
            Self::Lines(lines) => lines.stream(),
        }
    }

    /// Tries once to store entries of one stream, which are in order of time.
    pub(crate) async fn push(&self, stream: &str, entries: &[Entry]) -> Answer {
        match self {
            Self::Loki(loki) => loki.push(stream, entries).await,
            Self::Lines(lines) => lines.push(entries).await,
        }
    }
}
