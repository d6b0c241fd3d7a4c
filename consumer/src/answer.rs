//! What a store says to an attempt to store entries.

use std::time::Duration;

/// Three kinds of answer, and what to do after each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Every entry is stored.
    Stored,
    /// At least one entry was refused for good, and the store took the others.
    Refused { kind: RefusedAs, text: String },
    /// Nothing can be said about the entries: wait, then send them again.
    Hold(Hold),
}

/// Why entries were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedAs {
    /// 400: an entry breaks one of the store's rules.
    Invalid,
    /// 413: the whole is too large.
    TooLarge,
}

/// What a [`Hold`] stands in the way of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Everything that goes to the store.
    Store,
    /// The stream of the entries that were sent, and no other.
    Stream,
}

/// Why nothing goes on, and what the operator can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    /// One word for the log and the metric.
    pub(crate) kind: &'static str,
    pub(crate) reach: Reach,
    /// The store counts bytes by time, so fewer at a time may pass.
    pub(crate) by_rate: bool,
    /// How long the store asks to be left alone (`Retry-After`).
    pub(crate) wait: Option<Duration>,
    pub(crate) advice: String,
}

impl Hold {
    /// Something that stands in the way of everything, for an unknown time.
    pub(crate) fn of_store(kind: &'static str, advice: String) -> Self {
        Self {
            kind,
            reach: Reach::Store,
            by_rate: false,
            wait: None,
            advice,
        }
    }
}
