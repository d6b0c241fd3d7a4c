//! One stream's way to the store: its entries in order, one push at a time, and what its answers mean.
//!
//! Invariants:
//! - Entries are pushed in the order they came, those of one push in order of time
//!   (`entries_leave_in_the_order_they_came_and_a_push_is_in_order_of_time`).
//! - An entry leaves the lane stored, late or dead, once; until then it stays (`every_entry_leaves_once_whatever_the_store_answers`).
//! - A push never holds more than `loki.batch_max_bytes` of lines, unless a single line is larger; after an answer that fewer
//!   bytes would have passed it holds less for a while (`a_rate_limit_makes_pushes_smaller_and_successes_let_them_grow`).
//! - A lane that is held waits alone: it says when it is due again, and nobody waits for it.

mod refused;
mod strain;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::answer::{Answer, Hold, Reach, RefusedAs};
use crate::backoff::Backoff;
use crate::dead_letter::Reason;
use crate::entry::Entry;

use strain::Strain;

/// Pushes that a store found too many do not become smaller than this.
const SMALLEST: usize = 16 * 1024;
/// The least that a stream waits which the store refuses alone. Loki counts what it refuses to take in part, and what it
/// has already, against the rate: a stream that asks too soon gets nowhere.
const STREAM_WAIT: Duration = Duration::from_secs(1);
/// A success makes the next push larger by this share of the largest.
const GROWTH: usize = 16;

/// When a lane pushes.
#[derive(Debug, Clone)]
pub(crate) struct LaneLimits {
    /// The most bytes of lines in a push.
    pub(crate) max_bytes: usize,
    /// How long the first entry waits for others.
    pub(crate) wait: Duration,
    /// Waits between attempts.
    pub(crate) backoff: Backoff,
}

/// The entries of one stream that the store doesn't have yet.
#[derive(Debug)]
pub(crate) struct Lane {
    limits: LaneLimits,
    /// A stream for late entries already, which has nowhere else to send them.
    is_late: bool,
    /// What was pushed before and comes first, the next one last.
    again: Vec<Vec<Entry>>,
    queue: VecDeque<Entry>,
    queued: usize,
    /// Bytes of all entries, those at the store included.
    bytes: usize,
    since: Option<Instant>,
    busy: bool,
    held: Option<Held>,
    backoff: Backoff,
    push_max: usize,
    strain: Strain,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    until: Instant,
    reach: Reach,
}

/// What leaves a lane after an answer.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) stored: Vec<Entry>,
    pub(crate) late: Vec<Entry>,
    /// With what the store said.
    pub(crate) dead: Vec<(Entry, Reason, String)>,
}

impl Lane {
    pub(crate) fn new(limits: LaneLimits, is_late: bool) -> Self {
        Self {
            is_late,
            again: Vec::new(),
            queue: VecDeque::new(),
            queued: 0,
            bytes: 0,
            since: None,
            busy: false,
            held: None,
            backoff: limits.backoff.clone(),
            push_max: limits.max_bytes,
            strain: Strain::default(),
            limits,
        }
    }

    /// Adds entries behind the others; returns their bytes.
    pub(crate) fn add(&mut self, entries: impl IntoIterator<Item = Entry>, now: Instant) -> usize {
        self.since.get_or_insert(now);
        let before = self.queued;
        for entry in entries {
            self.queued += entry.size();
            self.queue.push_back(entry);
        }
        let added = self.queued - before;
        self.bytes += added;
        added
    }

    /// When the next push is due; `None` while one is under way or there is nothing to push.
    pub(crate) fn due(&self) -> Option<Instant> {
        let since = self.since.filter(|_| !self.busy)?;
        let full = !self.again.is_empty() || self.queued >= self.push_max;
        let due = if full { since } else { since + self.limits.wait };
        Some(self.held.map_or(due, |held| due.max(held.until)))
    }

    /// Whether it waits because the store asked it to.
    pub(crate) fn is_held(&self, now: Instant) -> bool {
        self.held.is_some_and(|held| held.until > now)
    }

    /// Whether the store refuses this stream and takes others. From the refusal to the next success.
    pub(crate) fn is_held_alone(&self) -> bool {
        self.held.is_some_and(|held| held.reach == Reach::Stream)
    }

    /// Whether the store lately refused entries of this stream, asked it to wait, or was slow or failed with it alone: it is not to
    /// hold as much as others.
    pub(crate) fn is_troubled(&self) -> bool {
        self.strain.is_trouble()
    }

    /// Whether the store failed with it again and again, and nothing tells whether it would with others.
    pub(crate) fn is_suspect(&self) -> bool {
        self.strain.is_suspect()
    }

    /// The store failed with the push that `began` then; it took one of another stream at `taken`.
    pub(crate) fn failed(&mut self, began: Instant, taken: Option<Instant>) {
        self.strain.failed(began, taken);
    }

    /// The push that `began` then took long; one of another stream came back quickly at `quick`.
    pub(crate) fn was_slow(&mut self, began: Instant, quick: Option<Instant>) {
        self.strain.slow(began, quick);
    }

    /// The last push came back quickly.
    pub(crate) fn was_quick(&mut self) {
        self.strain.quick();
    }

    /// Bytes of the entries that the store doesn't have yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries wait here.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.again.iter().map(Vec::len).sum::<usize>()
    }

    /// Nothing is left and nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        !self.busy && !self.has_entries()
    }

    /// The entries that were not pushed yet, the oldest first.
    pub(crate) fn queued(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.queue.iter()
    }

    /// Lets go of those of them that leave; returns how many these were and their bytes.
    pub(crate) fn let_go(&mut self, leaves: impl Fn(&Entry) -> bool) -> (usize, usize) {
        let (count, queued) = (self.queue.len(), self.queued);
        self.queue.retain(|entry| !leaves(entry));
        self.queued = self.queue.iter().map(Entry::size).sum();
        self.bytes -= queued - self.queued;
        if !self.has_entries() {
            self.since = None;
        }
        (count - self.queue.len(), queued - self.queued)
    }

    fn has_entries(&self) -> bool {
        !self.again.is_empty() || !self.queue.is_empty()
    }

    /// The entries of the next push. [`answered`](Self::answered) or [`lost`](Self::lost) must follow.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Entry> {
        let part = self.next_part();
        self.busy = true;
        // What stays has its turn after the lanes that are due by now.
        self.since = self.has_entries().then_some(now);
        part
    }

    fn next_part(&mut self) -> Vec<Entry> {
        if let Some(mut part) = self.again.pop() {
            let fits = fitting(part.iter().map(|entry| entry.size()), self.push_max);
            if fits < part.len() {
                let rest = part.split_off(fits);
                self.again.push(rest);
            }
            return part;
        }
        let fits = fitting(self.queue.iter().map(|entry| entry.size()), self.push_max);
        let mut part: Vec<_> = self.queue.drain(..fits).collect();
        self.queued -= bytes(&part);
        part.sort_by_key(|entry| entry.timestamp);
        part
    }

    /// Judges the store's answer to a push of `part`.
    pub(crate) fn answered(&mut self, part: Vec<Entry>, answer: Answer, now: Instant) -> Left {
        let mut left = Left::default();
        if !matches!(answer, Answer::Hold(_)) {
            self.strain.answered();
        }
        match answer {
            Answer::Stored => {
                self.backoff.reset();
                self.held = None;
                self.strain.came_through();
                self.push_max = (self.push_max + self.limits.max_bytes / GROWTH).min(self.limits.max_bytes);
                left.stored = part;
            }
            Answer::Refused { kind, text } => left = self.refused(part, kind, &text),
            Answer::Hold(hold) => self.hold(part, &hold, now),
        }
        self.bytes -= bytes(&left.stored) + bytes(&left.late);
        self.bytes -= left.dead.iter().map(|(entry, ..)| entry.size()).sum::<usize>();
        self.rest(now);
        left
    }

    /// A push of so many bytes broke down and its entries are gone; their messages come again.
    pub(crate) fn lost(&mut self, bytes: usize, now: Instant) {
        self.bytes -= bytes;
        self.rest(now);
    }

    fn rest(&mut self, now: Instant) {
        self.busy = false;
        if self.has_entries() {
            self.since.get_or_insert(now);
        }
    }

    fn hold(&mut self, part: Vec<Entry>, hold: &Hold, now: Instant) {
        if hold.by_rate {
            self.push_max = (bytes(&part) / 2).clamp(SMALLEST.min(self.limits.max_bytes), self.limits.max_bytes);
        }
        if hold.reach == Reach::Stream {
            self.strain.held();
        }
        let wait = self.backoff.next(hold.wait);
        self.held = Some(Held {
            until: now
                + match hold.reach {
                    Reach::Store => wait,
                    Reach::Stream => wait.max(STREAM_WAIT),
                },
            reach: hold.reach,
        });
        self.again.push(part);
    }

    fn refused(&mut self, part: Vec<Entry>, kind: RefusedAs, text: &str) -> Left {
        let sorted = refused::sort(part, kind, text, self.is_late);
        if sorted.is_halved && kind == RefusedAs::Invalid {
            self.strain.refused();
        }
        self.again.extend(sorted.again);
        sorted.left
    }
}

/// The bytes of the entries' lines.
pub(crate) fn bytes(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.size()).sum()
}

/// How many of these fit into `max`, at least one.
fn fitting(lengths: impl Iterator<Item = usize>, max: usize) -> usize {
    let mut sum = 0;
    let fitting = lengths.take_while(|length| {
        sum += length;
        sum <= max
    });
    fitting.count().max(1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::entry::tests::entry;

    const SECOND: Duration = Duration::from_secs(1);
    pub(super) const BEHIND: &str =
        "entry too far behind, entry timestamp is: x, oldest acceptable timestamp is: 1970-01-01T00:00:50Z";

    pub(crate) fn lane(is_late: bool) -> Lane {
        let limits = LaneLimits {
            max_bytes: 64 * 1024,
            wait: SECOND,
            backoff: Backoff::new(SECOND, 8 * SECOND),
        };
        Lane::new(limits, is_late)
    }

    pub(super) fn at(second: u64) -> Entry {
        entry(second * 1_000_000_000, "line")
    }

    fn filled(seconds: impl IntoIterator<Item = u64>, now: Instant) -> Lane {
        let mut lane = lane(false);
        for second in seconds {
            lane.add([at(second)], now);
        }
        lane
    }

    pub(super) fn seconds(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.timestamp / 1_000_000_000).collect()
    }

    fn refused(kind: RefusedAs, text: &str) -> Answer {
        Answer::Refused {
            kind,
            text: text.to_owned(),
        }
    }

    fn rate_limited(wait: Option<Duration>) -> Answer {
        Answer::Hold(Hold {
            kind: "stream_rate_limited",
            reach: Reach::Stream,
            by_rate: true,
            wait,
            advice: String::new(),
        })
    }

    #[test]
    fn entries_leave_in_the_order_they_came_and_a_push_is_in_order_of_time() {
        let now = Instant::now();
        let mut lane = lane(false);
        let line = "x".repeat(30 * 1024);
        for second in [2, 1, 4, 3] {
            lane.add([entry(second * 1_000_000_000, &line)], now);
        }
        let first = lane.take(now);
        assert_eq!(seconds(&first), [1, 2]);
        lane.answered(first, Answer::Stored, now);
        assert_eq!(seconds(&lane.take(now)), [3, 4]);
    }

    #[test]
    fn a_push_is_due_when_its_first_entry_has_waited_or_when_it_is_full() {
        let now = Instant::now();
        let mut lane = filled([1], now);
        assert_eq!(lane.due(), Some(now + SECOND));
        lane.add([at(2)], now + SECOND / 2);
        assert_eq!(lane.due(), Some(now + SECOND), "the first one's wait counts");
        lane.add([entry(3, &"x".repeat(64 * 1024))], now + SECOND / 2);
        assert_eq!(lane.due(), Some(now));
        lane.take(now);
        assert_eq!(lane.due(), None, "one push at a time");
    }

    #[test]
    fn a_line_larger_than_a_push_goes_alone() {
        let now = Instant::now();
        let mut lane = lane(false);
        lane.add([entry(1, &"x".repeat(100 * 1024))], now);
        lane.add([at(2)], now);
        assert_eq!(lane.take(now).len(), 1);
    }

    #[test]
    fn a_lane_that_is_held_is_due_after_its_wait_and_keeps_its_entries() {
        let now = Instant::now();
        let mut lane = filled([1, 2], now);
        let part = lane.take(now);
        lane.answered(part, rate_limited(Some(5 * SECOND)), now);
        assert_eq!(lane.due(), Some(now + 5 * SECOND));
        assert!(lane.is_held(now) && lane.is_held_alone());
        assert!(!lane.is_held(now + 5 * SECOND));
        let part = lane.take(now + 5 * SECOND);
        assert_eq!(seconds(&part), [1, 2]);
        lane.answered(part, Answer::Stored, now);
        assert!(!lane.is_held_alone());
    }

    #[test]
    fn a_rate_limit_makes_pushes_smaller_and_successes_let_them_grow() {
        let now = Instant::now();
        let mut lane = lane(false);
        let line = "x".repeat(1000);
        for second in 0..600 {
            lane.add([entry(second, &line)], now);
        }
        let mut sizes = Vec::new();
        for _ in 0..4 {
            let part = lane.take(now);
            sizes.push(part.len());
            lane.answered(part, rate_limited(None), now);
        }
        assert_eq!(sizes, [65, 32, 16, 16], "not below 16 KiB");
        while !lane.is_empty() {
            let part = lane.take(now);
            sizes.push(part.len());
            lane.answered(part, Answer::Stored, now);
        }
        assert_eq!(sizes.iter().skip(4).max(), Some(&65));
    }

    #[test]
    fn a_lane_is_in_trouble_by_refusals_and_not_by_entries_that_are_late_or_many() {
        let now = Instant::now();
        for (answer, is_trouble) in [
            (refused(RefusedAs::Invalid, "odd"), true),
            (refused(RefusedAs::Invalid, BEHIND), false),
            (refused(RefusedAs::TooLarge, ""), false),
        ] {
            let mut lane = filled(0..50, now);
            while !lane.is_empty() {
                let part = lane.take(now);
                lane.answered(part, answer.clone(), now);
            }
            assert_eq!(lane.is_troubled(), is_trouble, "{answer:?}");
        }
    }

    /// Numbers that look random and are the same in each run.
    fn numbers() -> impl FnMut(u64) -> u64 {
        let mut state = 88_172_645_463_325_252_u64;
        move |below| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        }
    }

    #[test]
    fn every_entry_leaves_once_whatever_the_store_answers() {
        let now = Instant::now();
        let mut number = numbers();
        for _ in 0..200 {
            let count = 1 + number(60);
            let mut lane = filled((0..count).map(|_| number(100)), now);
            let (mut gone, mut pushes) = (0, 0);
            while !lane.is_empty() {
                let part = lane.take(now);
                let answer = match number(6) {
                    0 => Answer::Stored,
                    1 => refused(RefusedAs::Invalid, BEHIND),
                    2 => refused(RefusedAs::Invalid, "who knows"),
                    3 => refused(RefusedAs::TooLarge, ""),
                    4 => rate_limited(None),
                    _ => Answer::Hold(Hold::of_store("failing", String::new())),
                };
                let left = lane.answered(part, answer, now);
                gone += left.stored.len() + left.late.len() + left.dead.len();
                pushes += 1;
                assert!(pushes < 2000, "it comes to an end");
            }
            assert_eq!(gone as u64, count);
            assert_eq!(lane.bytes(), 0);
        }
    }
}
