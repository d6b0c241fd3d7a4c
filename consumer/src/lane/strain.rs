//! How a stream gets on with the store, as far as that concerns the others.
//!
//! Invariants:
//! - A refusal now and then, or a push that took long once, is no trouble: what is given back comes later than what follows it, and
//!   a backlog is to be stored in order of time (`a_refusal_now_and_then_is_no_trouble`).
//! - Trouble is over when several pushes in a row came through (`trouble_lasts_until_several_pushes_in_a_row_came_through`).
//! - That the store fails is trouble of one stream only where it takes others meanwhile
//!   (`what_fails_with_all_streams_is_no_trouble_of_one`). Where there are no others to tell, the stream is suspect.

use tokio::time::Instant;

/// So much is trouble.
const TROUBLE: u32 = 32;
/// So many pushes in a row end it.
const CALM: u32 = 8;
/// With so many pushes in a row the store failed: more than one of its servers that is away among others explains.
const FAILURES: u32 = 4;

/// What came in the way of late.
#[derive(Debug, Default)]
pub(super) struct Strain {
    sum: u32,
    /// Pushes in a row that came through.
    calm: u32,
    /// When the first of the pushes in a row that took long began.
    slow_since: Option<Instant>,
    /// Pushes in a row with which the store failed, and when the first of them began.
    failures: u32,
    failing_since: Option<Instant>,
    /// It took another stream meanwhile.
    fails_alone: bool,
}

impl Strain {
    /// The stream is not to hold as much as others.
    pub(super) fn is_trouble(&self) -> bool {
        self.sum >= TROUBLE || (self.is_suspect() && self.fails_alone)
    }

    /// The store fails with this stream again and again, be it alone or not.
    pub(super) fn is_suspect(&self) -> bool {
        self.failures >= FAILURES
    }

    /// The store failed with a push that `began` then; it took another one at `taken`.
    pub(super) fn failed(&mut self, began: Instant, taken: Option<Instant>) {
        let since = *self.failing_since.get_or_insert(began);
        self.failures = self.failures.saturating_add(1);
        self.fails_alone |= taken > Some(since);
    }

    /// The store said something about a push's entries.
    pub(super) fn answered(&mut self) {
        (self.failures, self.failing_since, self.fails_alone) = (0, None, false);
    }

    /// The store refused an entry, and each of those beside it has to be asked about.
    pub(super) fn refused(&mut self) {
        self.add(1);
    }

    /// A push that `began` then took long; one of another stream came back quickly at `quick`. Where that was since the first of
    /// those that took long, it isn't the store as a whole: trouble at the second time.
    pub(super) fn slow(&mut self, began: Instant, quick: Option<Instant>) {
        let since = *self.slow_since.get_or_insert(began);
        if quick > Some(since) {
            self.add(TROUBLE / 2);
        }
    }

    /// A push came back quickly.
    pub(super) fn quick(&mut self) {
        self.slow_since = None;
    }

    /// The store asked this stream to wait: trouble at once.
    pub(super) fn held(&mut self) {
        self.add(TROUBLE);
    }

    fn add(&mut self, weight: u32) {
        self.calm = 0;
        self.sum = self.sum.saturating_add(weight);
    }

    /// A push came through.
    pub(super) fn came_through(&mut self) {
        self.calm = self.calm.saturating_add(1);
        if self.calm >= CALM {
            self.sum = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A push that took long while another did not.
    fn slow(strain: &mut Strain) {
        let began = Instant::now();
        strain.slow(began, Some(began + Duration::from_millis(1)));
    }

    #[test]
    fn what_is_slow_with_all_streams_is_no_trouble_of_one() {
        let start = Instant::now();
        let mut strain = Strain::default();
        for second in 1..60 {
            strain.slow(start + Duration::from_secs(second), Some(start));
        }
        assert!(!strain.is_trouble());
    }

    #[test]
    fn what_fails_with_all_streams_is_no_trouble_of_one() {
        let began = Instant::now();
        let later = began + Duration::from_secs(1);
        let fails = |taken| {
            let mut strain = Strain::default();
            (0..FAILURES).for_each(|_| strain.failed(began, taken));
            strain
        };
        for taken in [None, Some(began)] {
            let strain = fails(taken);
            assert!(strain.is_suspect() && !strain.is_trouble());
        }
        let mut alone = fails(Some(later));
        assert!(alone.is_trouble());
        alone.answered();
        assert!(!alone.is_trouble() && !alone.is_suspect());
    }

    #[test]
    fn trouble_lasts_until_several_pushes_in_a_row_came_through() {
        let troubles: [fn(&mut Strain); 3] = [
            Strain::held,
            |strain| (0..2).for_each(|_| slow(strain)),
            |strain| (0..TROUBLE).for_each(|_| strain.refused()),
        ];
        for trouble in troubles {
            let mut strain = Strain::default();
            trouble(&mut strain);
            (1..CALM).for_each(|_| strain.came_through());
            assert!(strain.is_trouble());
            strain.came_through();
            assert!(!strain.is_trouble());
        }
    }

    #[test]
    fn a_refusal_now_and_then_is_no_trouble() {
        let mut strain = Strain::default();
        for _ in 0..10 {
            // One entry among a thousand is found by halving.
            (0..10).for_each(|_| strain.refused());
            slow(&mut strain);
            strain.quick();
            (0..CALM).for_each(|_| strain.came_through());
            assert!(!strain.is_trouble());
        }
        slow(&mut strain);
        assert!(!strain.is_trouble());
    }
}
