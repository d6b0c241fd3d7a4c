//! What is copied of one body while it passes, and the memory that all open ones may take.
//!
//! Invariants:
//! - Open exchanges never hold more body bytes than `capture.memory_max`
//!   (`the_budget_of_open_exchanges_is_kept`); when it is spent a body is left out, with the reason.
//! - Of a feed the beginning and the end are kept, however long it is and however it is cut into chunks
//!   (`of_a_feed_the_beginning_and_the_end_are_kept`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sidelog_record::Omitted;

use super::super::count::Counter;
use crate::queue::exchange::Body;
use crate::queue::feed::Feed;

/// The memory of open captures, in bytes.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(bytes),
        })
    }

    fn reserve(&self, bytes: usize) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
    }

    /// Bytes that may still be reserved.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    fn release(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is copied of one body.
#[derive(Debug)]
pub(super) struct BodyCapture {
    budget: Arc<Budget>,
    bytes: Vec<u8>,
    /// Bytes taken from the budget, at least the buffer's capacity.
    reserved: usize,
    /// Most bytes to copy.
    limit: usize,
    /// How many of them are for the beginning; the others are for the end.
    head: usize,
    /// Where in the bytes for the end the next one goes, once all are taken.
    next: usize,
    size: u64,
    omitted: Option<Omitted>,
    counter: Option<Counter>,
}

impl BodyCapture {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            bytes: Vec::new(),
            reserved: 0,
            limit: 0,
            head: 0,
            next: 0,
            size: 0,
            omitted: None,
            counter: None,
        }
    }

    /// How many bytes to copy, or why none; of a feed half of them from its end.
    pub(super) fn plan(&mut self, plan: Result<usize, Omitted>, feed: Option<Feed>) {
        self.counter = feed.map(Counter::of_feed).or(self.counter);
        match plan {
            Ok(limit) => {
                self.limit = limit;
                self.head = if feed.is_some() { limit.div_ceil(2) } else { limit };
            }
            Err(reason) => self.omit(reason),
        }
    }

    /// Counts its parts from here on.
    pub(super) fn count(&mut self, counter: Option<Counter>) {
        self.counter = counter;
    }

    /// Copies nothing more, and forgets what was copied.
    pub(super) fn omit(&mut self, reason: Omitted) {
        self.omitted = Some(reason);
        self.limit = 0;
        self.free();
    }

    /// A chunk passes.
    pub(super) fn copy(&mut self, chunk: &[u8]) {
        self.size += chunk.len() as u64;
        if let Some(counter) = &mut self.counter {
            counter.read(chunk);
        }
        let room = self.limit.saturating_sub(self.bytes.len());
        let (part, rest) = chunk.split_at_checked(room).unwrap_or((chunk, &[]));
        if !part.is_empty() {
            self.extend(part);
        }
        if !rest.is_empty() && self.head < self.limit {
            self.roll(rest);
        }
    }

    fn extend(&mut self, part: &[u8]) {
        let needed = self.bytes.len() + part.len();
        if needed > self.reserved {
            let step = needed.max(2 * self.reserved).min(self.limit) - self.reserved;
            if !self.budget.reserve(step) {
                return self.omit(Omitted::Budget);
            }
            self.reserved += step;
            self.bytes.reserve_exact(self.reserved - self.bytes.len());
        }
        self.bytes.extend_from_slice(part);
    }

    /// Puts bytes in the place of the oldest ones that are kept for the end.
    fn roll(&mut self, bytes: &[u8]) {
        let Some(end) = self.bytes.get_mut(self.head..) else {
            return;
        };
        let Some(bytes) = bytes.get(bytes.len().saturating_sub(end.len())..) else {
            return;
        };
        let (front, back) = end.split_at_mut_checked(self.next).unwrap_or_default();
        let (first, rest) = bytes.split_at_checked(back.len()).unwrap_or((bytes, &[]));
        for (part, into) in [(first, back), (rest, front)] {
            if let Some(into) = into.get_mut(..part.len()) {
                into.copy_from_slice(part);
            }
        }
        self.next = (self.next + bytes.len()) % end.len().max(1);
    }

    /// Puts the bytes for the end into their order. Nothing is copied afterwards.
    pub(super) fn settle(&mut self) {
        if let Some(end) = self.bytes.get_mut(self.head..) {
            end.rotate_left(std::mem::take(&mut self.next));
        }
    }

    fn free(&mut self) {
        self.budget.release(std::mem::take(&mut self.reserved));
        self.bytes = Vec::new();
    }

    /// Forgets what was copied, for another attempt to send the same body.
    pub(super) fn restart(&mut self) {
        self.bytes.clear();
        (self.size, self.next) = (0, 0);
        if let Some(counter) = &mut self.counter {
            counter.restart();
        }
    }

    /// The code of a WebSocket's first close frame, once it came.
    pub(super) fn close_code(&self) -> Option<u16> {
        self.counter.as_ref().and_then(Counter::close_code)
    }

    /// What was copied, if it is kept.
    pub(super) fn view(&self, kept: bool) -> Body<'_> {
        let omitted = self.omitted.or((!kept).then_some(Omitted::Tail));
        Body {
            size: self.size,
            bytes: if kept { &self.bytes } else { &[] },
            head: if kept { self.head.min(self.bytes.len()) } else { 0 },
            parts: self.counter.as_ref().map(Counter::parts),
            omitted: omitted.filter(|_| self.size > 0),
        }
    }
}

impl Drop for BodyCapture {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn left(budget: &Budget) -> usize {
        budget.left.load(Ordering::Relaxed)
    }

    #[test]
    fn the_budget_of_open_exchanges_is_kept() {
        let budget = Budget::new(1_000);
        let mut bodies: Vec<_> = (0..4).map(|_| BodyCapture::new(&budget)).collect();
        for body in &mut bodies {
            body.plan(Ok(400), None);
            body.copy(&[b'a'; 300]);
            body.copy(&[b'b'; 300]);
            assert!(body.bytes.capacity() <= body.reserved);
        }
        assert_eq!(left(&budget), 1_000 - 2 * 400);
        let views: Vec<_> = bodies.iter().map(|body| body.view(true)).collect();
        for (at, view) in views.iter().enumerate() {
            let (len, omitted) = if at < 2 {
                (400, None)
            } else {
                (0, Some(Omitted::Budget))
            };
            assert_eq!((view.size, view.bytes.len(), view.omitted), (600, len, omitted));
        }
        bodies.pop();
        bodies.remove(0);
        assert_eq!(left(&budget), 600);
        bodies.clear();
        assert_eq!(left(&budget), 1_000);
    }

    #[test]
    fn a_feed_takes_no_more_memory_than_its_window() {
        let budget = Budget::new(1_000);
        let mut body = BodyCapture::new(&budget);
        body.plan(Ok(500), Some(Feed::Lines));
        for _ in 0..1_000 {
            body.copy(&[b'a'; 99]);
        }
        assert_eq!((left(&budget), body.bytes.capacity()), (500, 500));
    }

    proptest! {
        #[test]
        fn of_a_feed_the_beginning_and_the_end_are_kept(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20), limit in 0..100_usize,
        ) {
            let mut body = BodyCapture::new(&Budget::new(1_000));
            body.plan(Ok(limit), Some(Feed::Lines));
            for chunk in &chunks {
                body.copy(chunk);
            }
            body.settle();
            let (all, view) = (chunks.concat(), body.view(true));
            prop_assert_eq!(view.size, all.len() as u64);
            prop_assert_eq!(view.bytes.len(), all.len().min(limit));
            let (front, back) = view.bytes.split_at(view.head);
            prop_assert!(all.starts_with(front) && all.ends_with(back));
            prop_assert!(all.len() <= limit || front.len() == limit.div_ceil(2));
        }
    }
}
