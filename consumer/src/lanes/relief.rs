//! What a stream holds too much of, once the store is known to refuse it, goes back to NATS: by then it may have filled the memory
//! that others need.
//!
//! Invariants:
//! - A message goes only where each of its lines that isn't settled waits for its first push. Lines of it that the store has by then
//!   come again, the same bytes (`a_message_of_which_something_is_on_its_way_stays`).
//! - The latest go first, and no more than are over the share (`the_latest_messages_go_until_the_rest_is_a_share`).
//! - Where nothing tells the store's failure with one stream from an outage, only messages go that were delivered before: an outage
//!   must not change the order of a backlog, and after a restart they stand before everything else
//!   (`a_service_that_the_store_fails_with_after_a_restart_lets_others_pass`).

use std::collections::HashMap;
use std::sync::Arc;

use super::Lanes;
use crate::delivery::{Delivery, MessageId};
use crate::lane::Lane;

/// Messages, and how many of their lines wait.
type Waiting = HashMap<MessageId, (Arc<Delivery>, usize)>;

impl Lanes {
    /// Whether `stream` holds its share already, so that no more of it is to be held; a message of it is one of those that go back.
    pub(super) fn is_too_much(&self, stream: &str, delivery: &Delivery) -> bool {
        let lane = self.lanes.get(stream);
        lane.is_some_and(|lane| goes_back(lane, delivery) && self.is_more_than_a_share(lane.bytes(), lane.waiting()))
    }

    /// Lets go of what `stream` holds over its share, if it is to hold no more.
    pub(super) fn relieve(&mut self, stream: &str) {
        let Some(lane) = self.lanes.get(stream) else {
            return;
        };
        let leaving = untouched(self.surplus(lane), self.lanes.values());
        if leaving.is_empty() {
            return;
        }
        let streams: Vec<_> = self.lanes.keys().map(Arc::clone).collect();
        for stream in streams {
            self.let_go(stream, &leaving);
        }
        self.leaving.extend(leaving.into_values().map(|(delivery, _)| delivery));
    }

    fn let_go(&mut self, stream: Arc<str>, leaving: &Waiting) {
        let Some(lane) = self.lanes.get_mut(&stream) else {
            return;
        };
        let before = lane.due();
        let (entries, bytes) = lane.let_go(|entry| leaving.contains_key(&entry.delivery.id));
        let after = lane.due();
        if lane.is_empty() {
            self.lanes.remove(&stream);
        }
        self.entries -= entries;
        self.bytes -= bytes;
        self.reschedule(stream, before, after);
    }

    /// The latest messages of a lane, as many as are over its share.
    fn surplus(&self, lane: &Lane) -> Waiting {
        let (mut bytes, mut count) = (lane.bytes(), lane.waiting());
        let mut surplus = Waiting::new();
        for entry in lane.queued().rev().filter(|entry| goes_back(lane, &entry.delivery)) {
            if !self.is_more_than_a_share(bytes, count) {
                break;
            }
            bytes -= entry.size();
            count -= 1;
            let delivery = &entry.delivery;
            surplus.entry(delivery.id).or_insert_with(|| (Arc::clone(delivery), 0));
        }
        surplus
    }

    fn is_more_than_a_share(&self, bytes: usize, entries: usize) -> bool {
        bytes > self.limits.share() || entries > self.limits.entries() / 8
    }
}

fn goes_back(lane: &Lane, delivery: &Delivery) -> bool {
    lane.is_troubled() || (lane.is_suspect() && delivery.delivered > 1)
}

/// Those of the messages of which nothing is on its way in any lane.
fn untouched<'a>(mut messages: Waiting, lanes: impl Iterator<Item = &'a Lane>) -> Waiting {
    if messages.is_empty() {
        return messages;
    }
    for entry in lanes.flat_map(Lane::queued) {
        if let Some((_, waiting)) = messages.get_mut(&entry.delivery.id) {
            *waiting += 1;
        }
    }
    messages.retain(|_, (delivery, waiting)| delivery.unsettled() == *waiting);
    messages
}
