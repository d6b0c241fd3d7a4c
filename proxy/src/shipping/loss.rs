//! Loss records: what was dropped in a minute, by reason, as a record of its own (`end` = `loss`).
//!
//! Invariants:
//! - A loss record is in no count of records, so one that is dropped makes no other
//!   (`what_a_loss_record_does_makes_no_further_one`).
//! - It is made when there is a server to take it: until then the minutes wait, the last `MINUTES` each for itself and the
//!   older ones as one (`minutes_beyond_the_bound_are_told_as_one`).
//! - A period is measured by the monotonic clock; the wall clock only names it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sidelog_record::frame::{Frame, FrameBuilder};
use sidelog_record::{End, Record};
use tokio::time::Instant;

use super::record::Identity;
use crate::queue::ledger::{DropReason, Drops, Ledger};

/// How long a period is.
const PERIOD: Duration = Duration::from_secs(60);
/// How many of them wait to be told.
const MINUTES: usize = 24 * 60;

/// Loss records in a frame.
const TOLD_AT_ONCE: u32 = 64;

/// What was dropped in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loss {
    /// Its start by the wall clock, in unix nanoseconds.
    started: u64,
    lasted: Duration,
    drops: Drops,
}

/// Watches the ledger for what is dropped.
#[derive(Debug)]
pub struct LossWatch {
    ledger: Arc<Ledger>,
    /// The drops that are in `losses`, or were told.
    noted: Drops,
    started: (Instant, u64),
    losses: VecDeque<Loss>,
}

impl LossWatch {
    /// A watch that begins now.
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            noted: ledger.balance().dropped,
            ledger,
            started: (Instant::now(), wall_clock()),
            losses: VecDeque::new(),
        }
    }

    /// Whether something waits to be told.
    pub fn is_waiting(&self) -> bool {
        !self.losses.is_empty()
    }

    /// When the period is over.
    pub fn due(&self) -> Instant {
        self.started.0 + PERIOD
    }

    /// Notes what was dropped, if a period is over.
    pub fn tend(&mut self, now: Instant) {
        if now - self.started.0 >= PERIOD {
            self.note(now, wall_clock());
        }
    }

    /// Notes what was dropped up to now, though the period is not over.
    pub fn note(&mut self, now: Instant, wall_clock: u64) {
        let (since, started) = std::mem::replace(&mut self.started, (now, wall_clock));
        let dropped = self.ledger.balance().dropped;
        let mut drops = dropped;
        for (drop, noted) in drops.iter_mut().zip(self.noted) {
            *drop -= noted;
        }
        self.noted = dropped;
        if drops.iter().all(|drop| *drop == 0) {
            return;
        }
        tracing::error!(
            records = drops.iter().sum::<u64>(),
            reasons = %named(&drops).map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", "),
            "records were dropped"
        );
        let lasted = now - since;
        self.losses.push_back(Loss { started, lasted, drops });
        if self.losses.len() > MINUTES {
            self.merge_oldest();
        }
    }

    fn merge_oldest(&mut self) {
        if let Some(first) = self.losses.pop_front()
            && let Some(second) = self.losses.front_mut()
        {
            second.started = first.started;
            second.lasted += first.lasted;
            for (sum, drop) in second.drops.iter_mut().zip(first.drops) {
                *sum += drop;
            }
        }
    }

    /// A frame of loss records, if there is something to tell.
    pub fn frame(&mut self, identity: &Identity) -> Option<Frame> {
        let mut builder = FrameBuilder::new(TOLD_AT_ONCE, usize::MAX);
        while let Some(loss) = self.losses.pop_front() {
            let full = builder.push(&record(&loss, identity));
            if full.is_some() {
                return full;
            }
        }
        builder.close()
    }
}

fn record<'a>(loss: &Loss, identity: &'a Identity) -> Record<'a> {
    let lasted = u64::try_from(loss.lasted.as_nanos()).unwrap_or(u64::MAX);
    Record {
        timestamp: loss.started,
        observed_timestamp: loss.started.saturating_add(lasted),
        level: End::Loss.level(None),
        service_name: Cow::Borrowed(&identity.service),
        service_version: identity.version.as_deref().map(Cow::Borrowed),
        service_instance_id: Cow::Borrowed(&identity.instance),
        environment: Cow::Borrowed(&identity.environment),
        duration: loss.lasted,
        end: End::Loss,
        loss: Some(
            named(&loss.drops)
                .map(|(reason, count)| (Cow::Borrowed(reason), count))
                .collect(),
        ),
        ..Record::default()
    }
}

/// The reasons for which something was dropped.
fn named(drops: &Drops) -> impl Iterator<Item = (&'static str, u64)> {
    DropReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .zip(*drops)
        .filter(|(_, count)| *count > 0)
}

/// Unix nanoseconds.
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::ledger::Stage;
    use sidelog_record::Level;
    use sidelog_record::frame::lines;

    fn identity() -> Identity {
        Identity {
            service: "api".to_owned(),
            version: None,
            instance: "one".to_owned(),
            environment: "test".to_owned(),
        }
    }

    fn drop_some(ledger: &Ledger, reason: DropReason, n: u64) {
        (0..n).for_each(|_| ledger.offer());
        ledger.drop_at(Stage::Queued, reason, n);
    }

    fn records(frame: &Frame) -> Vec<Record<'_>> {
        lines(&frame.payload)
            .map(|line| Record::decode(line).unwrap())
            .collect()
    }

    #[test]
    fn a_minute_with_drops_is_one_record_with_their_reasons() {
        let ledger = Arc::new(Ledger::default());
        let mut watch = LossWatch::new(Arc::clone(&ledger));
        let start = watch.started.0;
        watch.tend(start + PERIOD);
        assert!(!watch.is_waiting() && watch.frame(&identity()).is_none());

        drop_some(&ledger, DropReason::QueueFull, 7);
        drop_some(&ledger, DropReason::SpoolFull, 2);
        watch.tend(start + PERIOD + PERIOD / 2);
        assert!(watch.frame(&identity()).is_none(), "the minute is not over");
        watch.tend(start + PERIOD * 2);
        let frame = watch.frame(&identity()).unwrap();
        let [record] = &records(&frame)[..] else {
            panic!("one record")
        };
        assert_eq!((record.end, record.level), (End::Loss, Level::Error));
        assert_eq!(
            record.loss,
            Some(vec![("queue_full".into(), 7), ("spool_full".into(), 2)])
        );
        assert_eq!(record.duration, PERIOD);
        assert!(!watch.is_waiting());
    }

    #[test]
    fn a_period_lasts_as_long_as_it_does_whatever_the_clock_says() {
        let ledger = Arc::new(Ledger::default());
        let mut watch = LossWatch::new(Arc::clone(&ledger));
        let (start, clock) = watch.started;
        let hour = 3_600_000_000_000;
        for (period, clock) in (1..).zip([clock - hour, clock + hour, clock]) {
            drop_some(&ledger, DropReason::QueueFull, 1);
            watch.note(start + PERIOD * period, clock);
        }
        let frame = watch.frame(&identity()).unwrap();
        let told: Vec<_> = records(&frame).iter().map(|record| record.duration).collect();
        assert_eq!(told, [PERIOD; 3]);
    }

    #[test]
    fn what_a_loss_record_does_makes_no_further_one() {
        let ledger = Arc::new(Ledger::default());
        let mut watch = LossWatch::new(Arc::clone(&ledger));
        drop_some(&ledger, DropReason::QueueFull, 1);
        watch.note(Instant::now(), 1);
        let frame = watch.frame(&identity()).unwrap();
        let mut outgoing = super::super::outgoing::Outgoing::new("a-1".to_owned(), Arc::from("logs.api"), frame);
        outgoing.counted = 0;
        ledger.drop_at(Stage::Publishing, DropReason::Shutdown, outgoing.counted.into());
        watch.note(Instant::now(), 2);
        assert!(!watch.is_waiting());
        assert_eq!(ledger.balance().dropped_total(), 1);
    }

    #[test]
    fn minutes_beyond_the_bound_are_told_as_one() {
        let ledger = Arc::new(Ledger::default());
        let mut watch = LossWatch::new(Arc::clone(&ledger));
        let start = watch.started.0;
        for minute in 1..=MINUTES as u32 + 10 {
            drop_some(&ledger, DropReason::QueueFull, 1);
            watch.note(start + PERIOD * minute, u64::from(minute));
        }
        let (mut told, mut count) = (0, 0);
        while let Some(frame) = watch.frame(&identity()) {
            for record in records(&frame) {
                told += record.loss.unwrap()[0].1;
                count += 1;
            }
        }
        assert_eq!((told, count), (MINUTES as u64 + 10, MINUTES));
    }
}
