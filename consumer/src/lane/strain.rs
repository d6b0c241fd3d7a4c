//! How a stream gets on with the store, as far as that concerns the others.
//!
//! Invariants:
//! - A refusal now and then, or a push that took long once, is no trouble: what is given back comes later than what follows it, and
//!   a backlog is to be stored in order of time (`a_refusal_now_and_then_is_no_trouble`).
//! - Trouble is over when several pushes in a row came through (`trouble_lasts_until_several_pushes_in_a_row_came_through`).

use tokio::time::Instant;

/// So much is trouble.
const TROUBLE: u32 = 32;
/// So many pushes in a row end it.
const CALM: u32 = 8;

/// What came in the way of late.
#[derive(Debug, Default)]
pub(super) struct Strain {
    sum: u32,
    /// Pushes in a row that came through.
    calm: u32,
    /// When the first of the pushes in a row that took long began.
    slow_since: Option<Instant>,
}

impl Strain {
    /// The stream is not to hold as much as others.
    pub(super) fn is_trouble(&self) -> bool {
        self.sum >= TROUBLE
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
