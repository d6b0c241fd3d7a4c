//! One batch's way: sort its lines, store the good ones, set the bad ones aside, acknowledge.
//!
//! Invariants:
//! - A line is settled only after the store has it or the dead letter stream has it; a message is acknowledged when
//!   all its lines are settled.
//! - A slot for storing is held while storing and not while dead letters are set aside: a dead letter stream that is
//!   denied holds the messages with bad lines and no others.
//! - A batch that is given up midway (a panic, a forced end) lets its messages go, and they are delivered again.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;

use crate::batch::Batch;
use crate::dead_letter::{DeadLetters, Letter};
use crate::delivery::Delivery;
use crate::entry::{Entry, Sorter};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::sink::{Outcome, Sink};

/// Dead letters of one batch that are published at a time.
const LETTERS_AT_ONCE: usize = 16;

/// Takes batches from JetStream's side to the store's.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) sorter: Sorter,
    pub(crate) sink: Sink,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: Metrics,
}

impl Transfer {
    /// Deals with a batch to the end, however long that takes; `slot` is given back when storing is over.
    pub(crate) async fn run(&self, batch: Batch, slot: OwnedSemaphorePermit) {
        #[expect(clippy::cast_precision_loss, reason = "a histogram of sizes needs no exact integers")]
        self.metrics.batch_bytes.observe(batch.bytes as f64);
        let held = Held {
            ledger: &self.ledger,
            deliveries: batch.deliveries,
        };
        let (entries, mut letters) = self.sort(&held.deliveries);
        if !entries.is_empty() {
            let outcome = self.sink.store(entries).await;
            self.metrics.records_stored.inc_by(outcome.stored.len() as u64);
            letters.extend(self.settle(outcome).await);
        }
        drop(slot);
        stream::iter(letters)
            .for_each_concurrent(LETTERS_AT_ONCE, |letter| async move {
                self.dead_letters.set_aside(&letter).await;
                self.ledger.settle(&letter.delivery).await;
            })
            .await;
        drop(held);
    }

    fn sort(&self, deliveries: &[Arc<Delivery>]) -> (Vec<Entry>, Vec<Letter>) {
        let (mut entries, mut letters) = (Vec::new(), Vec::new());
        for delivery in deliveries {
            let before = entries.len() + letters.len();
            self.sorter.sort(delivery, &mut entries, &mut letters);
            let lines = entries.len() + letters.len() - before;
            delivery.expect_lines(lines);
            self.metrics.records_received.inc_by(lines as u64);
        }
        (entries, letters)
    }

    /// Settles what was stored; what was refused becomes dead letters.
    async fn settle(&self, outcome: Outcome) -> Vec<Letter> {
        for entry in outcome.stored {
            self.ledger.settle(&entry.delivery).await;
        }
        outcome.refused.into_iter().map(Letter::from).collect()
    }
}

/// Lets the messages of a batch go when the work on it ends, however it ends.
struct Held<'a> {
    ledger: &'a Ledger,
    deliveries: Vec<Arc<Delivery>>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for delivery in &self.deliveries {
            self.ledger.abandon(delivery);
        }
    }
}
