//! A JetStream message on its way.
//!
//! Invariants: the bytes of a message stay reserved until it is dropped, because the permit travels with it; a message is
//! done with its last line, and not before (`a_message_is_finished_with_its_last_line_and_not_before`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::Subject;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

/// What tells one message of a stream from all others, also from those of an earlier stream of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MessageId {
    /// Its sequence in the stream.
    pub(crate) sequence: u64,
    /// When the server took it, in Unix nanoseconds.
    pub(crate) published: u64,
}

/// A message that was received and is not acknowledged yet.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) id: MessageId,
    pub(crate) subject: Subject,
    pub(crate) payload: Bytes,
    /// How often the server has delivered it, this time included.
    pub(crate) delivered: u32,
    /// Where to acknowledge; the newest one if the message was delivered again.
    reply: Mutex<Subject>,
    /// Lines that are neither stored nor set aside. Starts at 1 for the message itself, until its lines are known.
    unsettled: AtomicUsize,
    progressed: Mutex<Instant>,
    reserved: OwnedSemaphorePermit,
}

impl Delivery {
    pub(crate) fn new(
        id: MessageId,
        subject: Subject,
        reply: Subject,
        payload: Bytes,
        delivered: u32,
        reserved: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            id,
            subject,
            payload,
            delivered,
            reply: Mutex::new(reply),
            unsettled: AtomicUsize::new(1),
            progressed: Mutex::new(Instant::now()),
            reserved,
        }
    }

    /// States how many lines have to be settled, before any is. At least one: an empty message is set aside as one.
    pub(crate) fn expect_lines(&self, lines: usize) {
        self.unsettled.store(lines.max(1), Ordering::Release);
    }

    /// Settles one line; true when it was the last.
    pub(crate) fn settle(&self) -> bool {
        self.unsettled.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Lines that are not settled yet.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    /// Bytes that this message holds reserved.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved.num_permits()
    }

    /// Where to answer it.
    pub(crate) fn reply(&self) -> Subject {
        self.reply.lock().clone()
    }

    /// It was delivered again, and is to be answered where `again` is.
    pub(crate) fn answer_where(&self, again: &Self) {
        let newer = again.reply();
        *self.reply.lock() = newer;
        self.told();
    }

    /// How long ago the server was told of it, or delivered it.
    pub(crate) fn untold(&self) -> Duration {
        self.progressed.lock().elapsed()
    }

    /// The server is told of it now.
    pub(crate) fn told(&self) {
        *self.progressed.lock() = Instant::now();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// A message that no server has ever seen.
    pub(crate) fn delivery(sequence: u64, payload: &[u8]) -> Arc<Delivery> {
        delivery_to(sequence, payload, "$JS.ACK.logs.sidelog-consumer.1.1.1.1.0")
    }

    /// The same, answered at `reply`.
    pub(crate) fn delivery_to(sequence: u64, payload: &[u8], reply: &str) -> Arc<Delivery> {
        let budget = Arc::new(Semaphore::new(1));
        Arc::new(Delivery::new(
            MessageId {
                sequence,
                published: 1_700_000_000_000_000_000 + sequence,
            },
            Subject::from("logs.api"),
            Subject::from(reply),
            Bytes::copy_from_slice(payload),
            1,
            budget.try_acquire_owned().unwrap(),
        ))
    }

    #[test]
    fn a_message_is_finished_with_its_last_line_and_not_before() {
        let delivery = delivery(1, b"");
        delivery.expect_lines(3);
        assert_eq!(
            [delivery.settle(), delivery.settle(), delivery.settle()],
            [false, false, true]
        );
    }
}
