//! A log line that anybody on the network can cause is written once in a while, with the number of those that were not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time from one line to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// The rate limit of one kind of line.
#[derive(Debug)]
pub struct Seldom {
    born: Instant,
    /// Milliseconds since then; before it no line is written.
    next: AtomicU64,
    missed: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            next: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }
    }
}

impl Seldom {
    /// The number of lines that were left out, if one is due now.
    pub fn due(&self) -> Option<u64> {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Acquire);
        let later = now.saturating_add(PAUSE.as_millis() as u64);
        let due = now >= next
            && self
                .next
                .compare_exchange(next, later, Ordering::AcqRel, Ordering::Acquire)
                .is_ok();
        if due {
            return Some(self.missed.swap(0, Ordering::AcqRel));
        }
        self.missed.fetch_add(1, Ordering::AcqRel);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_those_left_out_are_counted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.due(), Some(0));
        assert_eq!(seldom.due(), None);
        assert_eq!(seldom.due(), None);
        seldom.next.store(0, Ordering::Release);
        assert_eq!(seldom.due(), Some(2));
    }
}
