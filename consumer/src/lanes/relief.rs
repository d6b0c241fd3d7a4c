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
        let lane = self.lanes.get(stream);
        let Some(lane) = lane.filter(|lane| lane.is_troubled() || lane.is_suspect()) else {
            return;
        };
        let surplus = surplus(lane, |bytes, entries| self.is_more_than_a_share(bytes, entries));
        let leaving = untouched(surplus, self.lanes.values());
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

    fn is_more_than_a_share(&self, bytes: usize, entries: usize) -> bool {
        bytes > self.limits.share() || entries > self.limits.entries() / 8
    }
}

fn goes_back(lane: &Lane, delivery: &Delivery) -> bool {
    lane.is_troubled() || (lane.is_suspect() && delivery.delivered > 1)
}

/// The latest messages of a lane, as many as are too much for it.
fn surplus(lane: &Lane, is_too_much: impl Fn(usize, usize) -> bool) -> Waiting {
    let (mut bytes, mut count) = (lane.bytes(), lane.waiting());
    let mut surplus = Waiting::new();
    for entry in lane.queued().rev().filter(|entry| goes_back(lane, &entry.delivery)) {
        if !is_too_much(bytes, count) {
            break;
        }
        bytes -= entry.size();
        count -= 1;
        let delivery = &entry.delivery;
        surplus.entry(delivery.id).or_insert_with(|| (Arc::clone(delivery), 0));
    }
    surplus
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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::answer::{Answer, Hold, Reach};
    use crate::entry::Entry;
    use crate::entry::tests::{entries, entry};
    use crate::lane::tests::lane;

    /// A lane that the store has asked to wait, behind the first of these entries.
    fn refused(queued: impl IntoIterator<Item = Entry>) -> Lane {
        let now = Instant::now();
        let mut lane = lane(false);
        lane.add([entry(1, "first")], now);
        let first = lane.take(now);
        let hold = Hold {
            reach: Reach::Stream,
            ..Hold::of_store("stream_rate_limited", String::new())
        };
        lane.answered(first, Answer::Hold(hold), now);
        lane.add(queued, now);
        lane
    }

    #[test]
    fn the_latest_messages_go_until_the_rest_is_a_share() {
        let lane = refused((2..=10).map(|second| entry(second, "xxxxx")));
        let surplus = surplus(&lane, |bytes, _| bytes > 30);
        let mut going: Vec<_> = surplus.keys().map(|id| id.sequence).collect();
        going.sort_unstable();
        assert_eq!(
            going,
            [7, 8, 9, 10],
            "fifty bytes are held, the first five of them for a second push"
        );
    }

    #[test]
    fn a_message_of_which_something_is_on_its_way_stays() {
        let line = r#"{"observed_timestamp":"1970-01-01T00:00:01Z"}"#;
        let mut lines = entries(&format!("{line}\n{line}\n"));
        let delivery = Arc::clone(&lines[0].delivery);
        delivery.expect_lines(2);
        let messages = || Waiting::from([(delivery.id, (Arc::clone(&delivery), 0))]);
        let on_its_way = lines.remove(0);
        let lane = refused(lines);
        assert!(untouched(messages(), std::iter::once(&lane)).is_empty());
        delivery.settle();
        drop(on_its_way);
        assert_eq!(
            untouched(messages(), std::iter::once(&lane)).len(),
            1,
            "the store has it now"
        );
    }
}
