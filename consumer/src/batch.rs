//! Messages collected into batches.
//!
//! Invariants: a batch holds whole messages; it is closed before it would exceed `loki.batch_max_bytes` (one message
//! alone may), or when its first message has waited `loki.batch_wait`; at most `loki.concurrency` batches are being
//! stored at a time, and while they are, messages wait in the bounded channel and in the bytes they have reserved.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::delivery::Delivery;
use crate::transfer::Transfer;

/// When a batch is closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) max_bytes: usize,
    pub(crate) wait: Duration,
    pub(crate) concurrency: usize,
}

/// Messages that are stored together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) deliveries: Vec<Arc<Delivery>>,
    pub(crate) bytes: usize,
    since: Option<Instant>,
}

impl Batch {
    /// Adds a message. Returns the batch as it was when the message doesn't fit into it any more.
    fn push(&mut self, delivery: Arc<Delivery>, max_bytes: usize) -> Option<Self> {
        let bytes = delivery.payload.len();
        let full = !self.is_empty() && self.bytes + bytes > max_bytes;
        let closed = full.then(|| std::mem::take(self));
        self.since.get_or_insert_with(Instant::now);
        self.bytes += bytes;
        self.deliveries.push(delivery);
        closed
    }

    fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }
}

/// Collects messages and hands the batches to `transfer`, until the sender is gone and every batch is dealt with.
pub(crate) async fn run(mut deliveries: mpsc::Receiver<Arc<Delivery>>, limits: BatchLimits, transfer: Arc<Transfer>) {
    let mut batches = Batches {
        slots: Arc::new(Semaphore::new(limits.concurrency)),
        running: JoinSet::new(),
        transfer,
    };
    let mut open = Batch::default();
    loop {
        let due = open.since.map(|since| since + limits.wait);
        tokio::select! {
            received = deliveries.recv() => match received {
                Some(delivery) => {
                    if let Some(full) = open.push(delivery, limits.max_bytes) {
                        batches.start(full).await;
                    }
                    if open.bytes >= limits.max_bytes {
                        batches.start(std::mem::take(&mut open)).await;
                    }
                }
                None => break,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                batches.start(std::mem::take(&mut open)).await;
            }
        }
    }
    if !open.is_empty() {
        batches.start(open).await;
    }
    batches.finish().await;
}

/// The batches on their way to the store.
struct Batches {
    slots: Arc<Semaphore>,
    running: JoinSet<()>,
    transfer: Arc<Transfer>,
}

impl Batches {
    /// Starts a batch as soon as fewer than `loki.concurrency` are being stored.
    async fn start(&mut self, batch: Batch) {
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return;
        };
        while let Some(done) = self.running.try_join_next() {
            report(done);
        }
        let transfer = Arc::clone(&self.transfer);
        self.running.spawn(async move { transfer.run(batch, slot).await });
    }

    async fn finish(mut self) {
        while let Some(done) = self.running.join_next().await {
            report(done);
        }
    }
}

/// A task that panicked acknowledged nothing, so its messages come again.
fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done {
        tracing::error!(%error, "a batch was given up; its messages are delivered again after ack_wait");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::delivery;

    #[test]
    fn a_batch_is_closed_before_it_exceeds_its_bytes_and_holds_whole_messages() {
        let mut open = Batch::default();
        assert!(open.push(delivery(1, &[b'a'; 60]), 100).is_none());
        assert!(open.push(delivery(2, &[b'b'; 40]), 100).is_none());
        let closed = open.push(delivery(3, b"c"), 100).unwrap();
        assert_eq!(closed.bytes, 100);
        assert_eq!(closed.deliveries.len(), 2);
        assert_eq!((open.bytes, open.deliveries.len()), (1, 1));
    }

    #[test]
    fn a_message_larger_than_a_batch_gets_one_of_its_own() {
        let mut open = Batch::default();
        assert!(open.push(delivery(1, &[b'a'; 500]), 100).is_none());
        let closed = open.push(delivery(2, b"b"), 100).unwrap();
        assert_eq!((closed.bytes, closed.deliveries.len()), (500, 1));
    }

    #[test]
    fn the_wait_of_a_batch_begins_with_its_first_message() {
        let mut open = Batch::default();
        assert!(open.since.is_none());
        open.push(delivery(1, b"a"), 100);
        let since = open.since;
        open.push(delivery(2, b"b"), 100);
        assert_eq!(open.since, since);
        assert!(since.is_some());
    }
}
