//! How long to wait before something is tried again.
//!
//! Invariants: a wait is at least half and at most the whole of its step, steps double from the first to the
//! greatest, and what a server asks for (`Retry-After`) is waited for, up to [`TOLD_MAX`].

use std::time::Duration;

use rand::RngExt;

/// The longest wait that a server can impose: a proxy that answers `Retry-After: 86400` must not stop a pipeline
/// for a day after the store is well again.
pub(crate) const TOLD_MAX: Duration = Duration::from_secs(300);

/// Jittered exponential backoff. One value per thing that is being retried.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    greatest: Duration,
    step: Duration,
}

impl Backoff {
    /// Steps from `first`, doubling, to `greatest`.
    pub(crate) fn new(first: Duration, greatest: Duration) -> Self {
        Self {
            first,
            greatest,
            step: first,
        }
    }

    /// The wait before the next attempt, or the one the server `told`, whichever is longer.
    pub(crate) fn next(&mut self, told: Option<Duration>) -> Duration {
        let step = self.step.min(self.greatest);
        self.step = step.saturating_mul(2).min(self.greatest);
        let own = step.mul_f64(rand::rng().random_range(0.5..=1.0));
        told.map_or(own, |told| own.max(told.min(TOLD_MAX)))
    }

    /// Starts over from the first step, after a success.
    pub(crate) fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const GREATEST: Duration = Duration::from_secs(2);

    #[test]
    fn each_wait_lies_in_the_upper_half_of_a_step_that_doubles_up_to_the_greatest() {
        let mut backoff = Backoff::new(FIRST, GREATEST);
        let mut step = FIRST;
        for _ in 0..12 {
            let wait = backoff.next(None);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} for {step:?}");
            step = (step * 2).min(GREATEST);
        }
        assert_eq!(step, GREATEST);
    }

    #[test]
    fn after_a_success_the_first_step_counts_again() {
        let mut backoff = Backoff::new(FIRST, GREATEST);
        for _ in 0..8 {
            backoff.next(None);
        }
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
    }

    #[test]
    fn the_server_can_lengthen_a_wait_but_neither_shorten_it_nor_stop_everything() {
        let mut backoff = Backoff::new(FIRST, GREATEST);
        let told = Duration::from_secs(7);
        assert_eq!(backoff.next(Some(told)), told);
        assert!(backoff.next(Some(Duration::ZERO)) >= FIRST / 2);
        assert_eq!(backoff.next(Some(Duration::from_secs(86_400))), TOLD_MAX);
    }
}
