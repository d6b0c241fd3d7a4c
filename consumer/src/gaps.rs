//! Messages that left the stream before anyone read them: by age, by size, or by a purge.
//!
//! JetStream numbers the messages of a stream, and the deliveries of a durable. Between two first deliveries the stream's
//! sequence advances by one for each message delivered in between, to whichever consumer of the durable; what it advances
//! more is gone. Where a consumer begins, the durable says what was delivered last, so that nothing is missed while all consumers
//! are away (`what_expired_while_the_consumer_was_away_is_counted_and_told`).
//!
//! Invariants:
//! - Nothing is counted that may have been delivered: deliveries that are unknown here, such as those again to another
//!   consumer, make the count smaller.
//! - A durable that reads a part of the stream only has gaps by nature, and none of them count.
//!
//! Metric: `sidelog_consumer_lost_messages_total`. Each consumer counts the gaps it sees; of several, take the maximum.

use std::time::{Duration, Instant};

use crate::metrics::Metrics;

/// A gap is told of at most this often; what came in between is in the next line.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// A delivery: its number in the stream, and in the durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) stream: u64,
    pub(crate) durable: u64,
}

/// Counts what is missing between deliveries.
#[derive(Debug)]
pub(crate) struct Gaps {
    /// The last first delivery that is known; `None` before there is one, and where gaps mean nothing.
    last: Option<Place>,
    /// Deliveries seen since which were not first ones.
    again: u64,
    /// Whether the durable reads the whole stream.
    counts: bool,
    untold: u64,
    told: Option<Instant>,
    metrics: Metrics,
}

impl Gaps {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            last: None,
            again: 0,
            counts: false,
            untold: 0,
            told: None,
            metrics,
        }
    }

    /// Begins with a durable that delivered `last` last, to this consumer or another.
    pub(crate) fn begin(&mut self, last: Place, reads_everything: bool) {
        self.counts = reads_everything;
        self.again = 0;
        // A durable that has delivered nothing is new: what was in the stream before it is none of its business.
        self.last = (last.durable > 0).then_some(last);
    }

    /// Takes notice of a delivery.
    pub(crate) fn see(&mut self, place: Place, is_first: bool) {
        if !is_first {
            self.again += 1;
            return;
        }
        let missing = self.last.map_or(0, |last| missing(last, place, self.again));
        self.last = Some(place);
        self.again = 0;
        if missing > 0 && self.counts {
            self.metrics.lost_messages.inc_by(missing);
            self.tell(missing, place.stream);
        }
    }

    fn tell(&mut self, missing: u64, before: u64) {
        self.untold += missing;
        let now = Instant::now();
        if self.told.is_some_and(|told| now.duration_since(told) < TELL_AGAIN) {
            return;
        }
        self.told = Some(now);
        tracing::error!(
            messages = std::mem::take(&mut self.untold),
            before_sequence = before,
            "messages left the stream before they were read, and are lost; raise the stream's max_age and max_bytes \
             (`nats stream edit`), or add consumers if the store can take more"
        );
    }
}

/// How many messages between two first deliveries were never delivered, if `again` deliveries in between were not first ones.
fn missing(last: Place, next: Place, again: u64) -> u64 {
    let sequences = next.stream.saturating_sub(last.stream);
    let deliveries = next.durable.saturating_sub(last.durable).saturating_sub(again);
    sequences.saturating_sub(deliveries.max(1))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn place(stream: u64, durable: u64) -> Place {
        Place { stream, durable }
    }

    fn gaps(last: Place, reads_everything: bool) -> Gaps {
        let mut gaps = Gaps::new(Metrics::register(&mut Registry::default()));
        gaps.begin(last, reads_everything);
        gaps
    }

    fn lost(gaps: &Gaps) -> u64 {
        gaps.metrics.lost_messages.get()
    }

    #[test]
    fn what_is_missing_between_deliveries_is_counted_once() {
        let mut gaps = gaps(place(10, 10), true);
        gaps.see(place(11, 11), true);
        assert_eq!(lost(&gaps), 0);
        gaps.see(place(20, 12), true);
        gaps.see(place(21, 13), true);
        assert_eq!(lost(&gaps), 8);
    }

    #[test]
    fn what_others_got_is_not_missing() {
        let mut gaps = gaps(place(10, 10), true);
        gaps.see(place(15, 15), true);
        assert_eq!(lost(&gaps), 0);
        gaps.see(place(25, 20), true);
        assert_eq!(lost(&gaps), 5);
    }

    #[test]
    fn deliveries_again_hide_no_gap() {
        let mut gaps = gaps(place(10, 10), true);
        gaps.see(place(4, 11), false);
        gaps.see(place(5, 12), false);
        gaps.see(place(20, 13), true);
        assert_eq!(lost(&gaps), 9);
    }

    #[test]
    fn a_new_durable_and_one_that_reads_a_part_have_no_gaps() {
        let mut fresh = gaps(place(0, 0), true);
        fresh.see(place(1000, 1), true);
        assert_eq!(lost(&fresh), 0);
        let mut part = gaps(place(10, 10), false);
        part.see(place(1000, 11), true);
        assert_eq!(lost(&part), 0);
    }

    #[test]
    fn a_stream_that_begins_anew_has_no_gap() {
        let mut gaps = gaps(place(1000, 1000), true);
        gaps.see(place(1, 1), true);
        assert_eq!(lost(&gaps), 0);
    }
}
