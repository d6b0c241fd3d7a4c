//! One attempt to store the entries of one stream, and the acknowledgements if it succeeds.
//!
//! Invariants:
//! - A line is settled only after the store has it; a message is acknowledged when all its lines are settled.
//! - An attempt that breaks down (a panic, a forced end) lets the messages of its entries go, and they are delivered
//!   again.

use std::sync::Arc;

use crate::answer::Answer;
use crate::entry::Entry;
use crate::lane::bytes;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::sink::Sink;

/// Takes entries to the store.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) sink: Sink,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: Metrics,
}

/// What came of an attempt. The entries are settled if the store took them, and otherwise still to be dealt with.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) part: Vec<Entry>,
    pub(crate) answer: Answer,
}

impl Transfer {
    /// Pushes `part` to `stream`, once.
    pub(crate) async fn push(self: Arc<Self>, stream: Arc<str>, part: Vec<Entry>) -> Attempt {
        #[expect(clippy::cast_precision_loss, reason = "a histogram of sizes needs no exact integers")]
        self.metrics.batch_bytes.observe(bytes(&part) as f64);
        let mut held = Held {
            ledger: &self.ledger,
            part,
        };
        let answer = self.sink.push(&stream, &held.part).await;
        if answer == Answer::Stored {
            self.metrics.records_stored.inc_by(held.part.len() as u64);
            self.metrics.stored_bytes.inc_by(bytes(&held.part) as u64);
            for entry in &held.part {
                self.ledger.settle(&entry.delivery).await;
            }
        }
        let part = std::mem::take(&mut held.part);
        Attempt { part, answer }
    }
}

/// Lets messages go when the work on their entries breaks down.
struct Held<'a> {
    ledger: &'a Ledger,
    part: Vec<Entry>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for entry in &self.part {
            self.ledger.abandon(&entry.delivery);
        }
    }
}
