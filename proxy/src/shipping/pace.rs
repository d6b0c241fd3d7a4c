//! How long the shipping thread rests between two rounds, and what wakes it before.
//!
//! Invariants:
//! - Under load it works every [`TICK`], and of exchanges only one that fills a buffer to `HEAP` wakes it before
//!   (`under_load_it_ticks_and_only_a_heap_wakes_it`).
//! - With little to do it lets exchanges gather for a `DOZE`; one that fills a buffer to `MUCH` wakes it
//!   (`with_little_to_do_it_lets_exchanges_gather`).
//! - With nothing to do it sleeps until something is due, or the first exchange comes
//!   (`with_nothing_to_do_it_sleeps_until_something_is_due`).

use std::time::Duration;

use tokio::time::Instant;

/// How often the queue's buffers are swapped out under load.
pub const TICK: Duration = Duration::from_millis(5);
/// How often they are when little comes.
const DOZE: Duration = Duration::from_millis(50);
/// Less than this in a round is little: a doze is cheaper than a tick, and far from what the queue may hold.
const MUCH: usize = 32 * 1024;
/// So much is not let wait for a tick: where the threads that serve share a core with this one, they wait for as long as it takes to ship
/// what has gathered.
const HEAP: usize = 256 * 1024;
/// After this long without an exchange the next one is not let wait for others.
const IDLE: Duration = Duration::from_millis(100);
/// More than any buffer holds.
const NEVER: usize = usize::MAX;

/// What came of late.
#[derive(Debug)]
pub struct Pace {
    /// When something was taken last.
    last_taken: Instant,
    /// Bytes taken in this round.
    taken: usize,
}

/// A rest: until a time, or until a buffer of the queue holds so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The time.
    pub until: Instant,
    /// The bytes.
    pub or_holds: usize,
}

impl Pace {
    /// The pace of a thread that begins.
    pub fn new(now: Instant) -> Self {
        Self {
            last_taken: now,
            taken: 0,
        }
    }

    /// A buffer of so many bytes was taken out of the queue.
    pub fn took(&mut self, bytes: usize, now: Instant) {
        self.taken += bytes;
        self.last_taken = now;
    }

    /// The end of a round: how long to rest, if something is `due` then. Without room for what the queue holds, no exchange
    /// is worth waking up for.
    pub fn rest(&mut self, has_room: bool, due: Instant, now: Instant) -> Rest {
        let taken = std::mem::take(&mut self.taken);
        let (longest, or_holds) = match () {
            () if !has_room => (None, NEVER),
            () if taken >= MUCH => (Some(TICK), HEAP),
            () if now.duration_since(self.last_taken) < IDLE => (Some(DOZE), MUCH),
            () => (None, 1),
        };
        let until = longest.map_or(due, |longest| due.min(now + longest));
        Rest { until, or_holds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(60);

    #[test]
    fn under_load_it_ticks_and_only_a_heap_wakes_it() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        (0..40).for_each(|_| pace.took(1024, now));
        let rest = pace.rest(true, now + LATER, now);
        assert_eq!((rest.until, rest.or_holds), (now + TICK, HEAP));
        pace.took(MUCH, now);
        assert_eq!(pace.rest(true, now, now).until, now, "what is due comes first");
    }

    #[test]
    fn with_little_to_do_it_lets_exchanges_gather() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.took(MUCH, now);
        pace.rest(true, now + LATER, now);
        pace.took(1024, now);
        let rest = pace.rest(true, now + LATER, now);
        assert_eq!((rest.until, rest.or_holds), (now + DOZE, MUCH));
    }

    #[test]
    fn with_nothing_to_do_it_sleeps_until_something_is_due() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.took(1024, start);
        pace.rest(true, start + LATER, start);
        let now = start + IDLE;
        let rest = pace.rest(true, now + LATER, now);
        assert_eq!((rest.until, rest.or_holds), (now + LATER, 1));
    }

    #[test]
    fn without_room_no_exchange_wakes_it() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for taken in [0, 1024, MUCH] {
            pace.took(taken, now);
            let rest = pace.rest(false, now + LATER, now);
            assert_eq!((rest.until, rest.or_holds), (now + LATER, NEVER));
        }
    }
}
