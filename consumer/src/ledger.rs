//! The messages that were received and are not acknowledged yet.
//!
//! Invariants:
//! - A message is acknowledged when, and only when, each of its lines was settled: stored, or set aside.
//! - A message that is held gets a progress acknowledgement every third of `ack_wait`, whatever it waits for
//!   (`what_is_held_for_long_is_not_delivered_again`).
//! - A message delivered again while it is held is not handled twice; neither is one whose acknowledgement was lost.
//! - Nothing is acknowledged in a stream that was made anew meanwhile: its sequences are other messages
//!   (`a_message_of_a_forgotten_stream_is_not_acknowledged`).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::{Client, connection};
use parking_lot::Mutex;

use crate::delivery::{Delivery, MessageId};
use crate::metrics::Metrics;

/// How many acknowledged messages are remembered, in case their acknowledgement was lost.
const REMEMBERED: usize = 16_384;

/// What [`Ledger::admit`] made of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is to be handled.
    New,
    /// It is being handled already; its newer reply subject was noted.
    Held,
    /// It was handled, but its acknowledgement got lost: acknowledge again.
    Done,
}

/// Every message received and not acknowledged.
#[derive(Debug)]
pub(crate) struct Ledger {
    client: Client,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<u64, Arc<Delivery>>,
    done: Done,
}

impl Ledger {
    pub(crate) fn new(client: Client, metrics: Metrics) -> Self {
        Self {
            client,
            metrics,
            state: Mutex::default(),
        }
    }

    /// Enters a message that was just received; one that needs no handling is not entered.
    pub(crate) async fn admit(&self, delivery: &Arc<Delivery>) -> Admission {
        let admission = self.state.lock().admit(delivery);
        match admission {
            Admission::New => self.count_held(delivery, 1),
            Admission::Held => {}
            Admission::Done => self.acknowledge(delivery).await,
        }
        admission
    }

    /// Settles one line of a message and acknowledges the message if it was the last.
    pub(crate) async fn settle(&self, delivery: &Arc<Delivery>) {
        if delivery.settle() && self.state.lock().finish(delivery) {
            self.count_held(delivery, -1);
            self.acknowledge(delivery).await;
        }
    }

    /// Lets go of a message that is not finished and that nobody works on any more, so that it is delivered again. One
    /// that is finished stays so.
    pub(crate) fn abandon(&self, delivery: &Arc<Delivery>) {
        if self.state.lock().release(delivery) {
            self.count_held(delivery, -1);
        }
    }

    /// Forgets everything, because the stream or the durable is not the one these messages came from.
    pub(crate) fn forget(&self) {
        let state = std::mem::take(&mut *self.state.lock());
        for delivery in state.held.values() {
            self.count_held(delivery, -1);
        }
    }

    /// How many messages are held.
    pub(crate) fn held(&self) -> usize {
        self.state.lock().held.len()
    }

    /// Bytes that the messages that are held have reserved.
    pub(crate) fn held_bytes(&self) -> usize {
        usize::try_from(self.metrics.inflight_bytes.get()).unwrap_or_default()
    }

    /// When the server took the oldest message that is held, in Unix nanoseconds.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let state = self.state.lock();
        state.held.values().map(|held| held.id.published).min()
    }

    /// Tells the server that held messages are being worked on, those that were not told of for `age`.
    pub(crate) async fn progress(&self, age: Duration) {
        if self.client.connection_state() != connection::State::Connected {
            return;
        }
        for delivery in self.older_than(age) {
            delivery.told();
            self.answer(&delivery, AckKind::Progress).await;
        }
    }

    /// Gives a message back for a while, none of whose lines is on its way.
    pub(crate) async fn give_back_one(&self, delivery: &Arc<Delivery>, away: Duration) {
        self.abandon(delivery);
        self.answer(delivery, AckKind::Nak(Some(away))).await;
    }

    /// Gives back what is still held, so that another consumer gets it at once and not after `ack_wait`.
    pub(crate) async fn give_back(&self) {
        for delivery in self.older_than(Duration::ZERO) {
            self.answer(&delivery, AckKind::Nak(None)).await;
        }
    }

    fn older_than(&self, age: Duration) -> Vec<Arc<Delivery>> {
        let state = self.state.lock();
        let old = state.held.values().filter(|held| held.untold() >= age);
        old.map(Arc::clone).collect()
    }

    async fn acknowledge(&self, delivery: &Delivery) {
        self.answer(delivery, AckKind::Ack).await;
        self.metrics.acks.inc();
    }

    /// An answer that is lost is no harm: the message is delivered again, and known.
    async fn answer(&self, delivery: &Delivery, kind: AckKind) {
        if let Err(error) = self.client.publish(delivery.reply(), kind.into()).await {
            tracing::debug!(sequence = delivery.id.sequence, %error, "failed to answer a message; it will be delivered again");
        }
    }

    fn count_held(&self, delivery: &Delivery, sign: i64) {
        let bytes = i64::try_from(delivery.reserved()).unwrap_or(i64::MAX);
        self.metrics.inflight_bytes.inc_by(bytes.saturating_mul(sign));
    }
}

impl State {
    fn admit(&mut self, delivery: &Arc<Delivery>) -> Admission {
        if self.done.contains(delivery.id) {
            return Admission::Done;
        }
        if let Some(held) = self.held.get(&delivery.id.sequence)
            && held.id == delivery.id
        {
            held.answer_where(delivery);
            return Admission::Held;
        }
        self.held.insert(delivery.id.sequence, Arc::clone(delivery));
        Admission::New
    }

    /// Takes a settled message out; false when it has been forgotten.
    fn finish(&mut self, delivery: &Arc<Delivery>) -> bool {
        let finished = self.release(delivery);
        if finished {
            self.done.insert(delivery.id);
        }
        finished
    }

    /// Takes a message out; false when this one is not (or no longer) held.
    fn release(&mut self, delivery: &Arc<Delivery>) -> bool {
        let sequence = delivery.id.sequence;
        let held = self.held.get(&sequence).is_some_and(|held| Arc::ptr_eq(held, delivery));
        held && self.held.remove(&sequence).is_some()
    }
}

/// The last messages that were acknowledged.
#[derive(Debug, Default)]
struct Done {
    ids: HashSet<MessageId>,
    order: VecDeque<MessageId>,
}

impl Done {
    fn contains(&self, id: MessageId) -> bool {
        self.ids.contains(&id)
    }

    fn insert(&mut self, id: MessageId) {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::{delivery, delivery_to};

    #[test]
    fn a_message_delivered_again_while_held_is_not_handled_twice() {
        let mut state = State::default();
        let first = delivery(1, b"");
        assert_eq!(state.admit(&first), Admission::New);
        let again = delivery_to(1, b"", "newer");
        assert_eq!(state.admit(&again), Admission::Held);
        assert_eq!(first.reply().as_str(), "newer");
    }

    #[test]
    fn a_message_whose_acknowledgement_was_lost_is_known_and_its_namesake_in_a_new_stream_is_not() {
        let mut state = State::default();
        let first = delivery(1, b"");
        state.admit(&first);
        assert!(state.finish(&first));
        assert_eq!(state.admit(&delivery(1, b"")), Admission::Done);

        let mut namesake = Arc::into_inner(delivery(1, b"")).unwrap();
        namesake.id.published += 1;
        assert_eq!(state.admit(&Arc::new(namesake)), Admission::New);
    }

    #[test]
    fn a_message_of_a_forgotten_stream_is_not_acknowledged() {
        let first = delivery(1, b"");
        let mut state = State::default();
        state.admit(&first);
        state = State::default();
        assert!(!state.finish(&first));
        state.admit(&delivery(1, b""));
        assert!(!state.finish(&first), "another message has its sequence now");
    }

    #[test]
    fn an_abandoned_message_is_new_when_it_comes_again() {
        let mut state = State::default();
        let first = delivery(1, b"");
        state.admit(&first);
        assert!(state.release(&first));
        assert_eq!(state.admit(&delivery(1, b"")), Admission::New);
        assert!(!state.release(&first));
    }

    #[test]
    fn only_so_many_acknowledged_messages_are_remembered() {
        let mut done = Done::default();
        let id = |sequence| MessageId { sequence, published: 1 };
        for sequence in 0..=REMEMBERED as u64 {
            done.insert(id(sequence));
        }
        assert!(!done.contains(id(0)));
        assert!(done.contains(id(1)));
        assert_eq!(done.ids.len(), REMEMBERED);
    }
}
