//! Every lane, and whose turn it is: messages in, pushes out.
//!
//! Invariants:
//! - At most `loki.concurrency` pushes at a time, at most one of a stream, and the lane that is due for the longest comes next.
//! - A stream that the store refuses, in whole or in part, is slow with or fails with holds neither the others nor their memory:
//!   what is over its share is given back to NATS for a while, and stays away longer each time
//!   (`a_service_that_the_store_refuses_holds_up_no_other`, `…_whose_entries_are_all_refused_…`, `…_that_the_store_is_slow_with_…`,
//!   `…_that_the_store_always_fails_with_…`).
//! - While the store as a whole fails, one push at a time asks whether it is back, each time another lane's, so that entries which
//!   only seem to make it fail hold up no others (`a_push_that_always_fails_holds_up_no_other_stream`).
//! - A few lines of a stream keep no memory that whole messages need, though their push is not full
//!   (`a_stream_of_which_each_message_has_a_line_does_not_keep_the_memory_until_its_push_is_full`).
//! - Entries are late or dead only by the store's word; late ones go to a stream of their hour.

mod relief;

use std::collections::{BTreeSet, HashMap};
use std::future::pending;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::answer::{Answer, Reach};
use crate::backoff::Backoff;
use crate::dead_letter::{Letter, Letters};
use crate::delivery::Delivery;
use crate::entry::{Entry, Origin, Sorted, Sorter};
use crate::lane::{Lane, LaneLimits, Left, bytes};
use crate::outage::Outage;
use crate::transfer::{Attempt, Transfer};

/// Messages that are received at a time; they are sorted one by one, as long as there is room for their entries.
const INTAKE: usize = 64;
/// What an entry costs beside its line, which is a part of its message: itself, twice where a list of them grows.
const ENTRY_COST: usize = 256;
/// A push that takes longer while others don't is slow.
const SLOW: Duration = Duration::from_secs(2);
/// Messages that are given back again and again stay away longer, up to so many times, so that many of them cost little.
const AWAY_MOST: u32 = 4;

/// What bounds the lanes together.
#[derive(Debug, Clone)]
pub(crate) struct LanesLimits {
    pub(crate) lane: LaneLimits,
    /// Pushes at a time.
    pub(crate) concurrency: usize,
    /// Bytes of messages that are held at a time.
    pub(crate) memory_max: usize,
    /// How long messages stay away that are given back for the first time.
    pub(crate) away: Duration,
}

impl LanesLimits {
    /// With more bytes than this waiting, or in messages that are held, the source has no room for more messages soon.
    fn pressure(&self) -> usize {
        self.memory_max / 2
    }

    /// With this many entries in the lanes, messages wait outside, where they cost nothing beside their bytes.
    fn entries(&self) -> usize {
        self.memory_max / 2 / ENTRY_COST
    }

    /// What a stream may hold that the store refuses or is slow with.
    fn share(&self) -> usize {
        self.memory_max / 8
    }
}

/// The lanes and what is under way.
#[derive(Debug)]
pub(crate) struct Lanes {
    limits: LanesLimits,
    transfer: Arc<Transfer>,
    sorter: Sorter,
    lanes: HashMap<Arc<str>, Lane>,
    /// The lanes that have something to push, by when it is due.
    due: BTreeSet<(Instant, Arc<str>)>,
    /// Bytes of the lines in all lanes, and how many there are.
    bytes: usize,
    entries: usize,
    running: JoinSet<Attempt>,
    at_work: HashMap<Id, AtWork>,
    store: Store,
    /// When a push last came back that was not slow, and when one that the store did not fail with.
    quick: Option<Instant>,
    taken: Option<Instant>,
    /// Messages that go back to NATS next.
    leaving: Vec<Arc<Delivery>>,
    letters: Letters,
    stream_outage: Outage,
}

/// What a push under way took out of its lane.
#[derive(Debug)]
struct AtWork {
    stream: Arc<str>,
    began: Instant,
    bytes: usize,
    entries: usize,
}

/// The store as a whole.
#[derive(Debug)]
struct Store {
    backoff: Backoff,
    /// While it fails: when it may be asked again.
    failing: Option<Instant>,
    outage: Outage,
}

impl Lanes {
    pub(crate) fn new(limits: LanesLimits, transfer: Arc<Transfer>, sorter: Sorter, letters: Letters) -> Self {
        Self {
            store: Store {
                backoff: limits.lane.backoff.clone(),
                failing: None,
                outage: Outage::new("sink", &transfer.metrics.holds),
            },
            stream_outage: Outage::new("stream", &transfer.metrics.holds),
            limits,
            transfer,
            sorter,
            lanes: HashMap::new(),
            due: BTreeSet::new(),
            bytes: 0,
            entries: 0,
            running: JoinSet::new(),
            at_work: HashMap::new(),
            quick: None,
            taken: None,
            leaving: Vec::new(),
            letters,
        }
    }

    /// Takes messages to the store until the sender is gone and every message is dealt with.
    pub(crate) async fn run(mut self, mut deliveries: mpsc::Receiver<Arc<Delivery>>) {
        let mut is_open = true;
        let mut received = Vec::with_capacity(INTAKE);
        loop {
            for delivery in std::mem::take(&mut self.leaving) {
                self.give_back(&delivery).await;
            }
            while self.entries < self.limits.entries()
                && let Some(delivery) = received.pop()
            {
                self.take_in(&delivery).await;
            }
            let is_last_call = !is_open && received.is_empty();
            let nothing_comes = received.is_empty() && deliveries.is_empty();
            let wake = self.start_due(is_last_call || self.is_pressed(nothing_comes));
            if is_last_call && self.running.is_empty() && self.due.is_empty() && self.letters.is_empty() {
                return;
            }
            tokio::select! {
                Some(done) = self.running.join_next_with_id() => self.finished(done),
                () = self.letters.work(), if !self.letters.is_empty() => {}
                count = deliveries.recv_many(&mut received, INTAKE), if is_open && received.is_empty() => {
                    is_open = count > 0;
                    // The oldest is taken first, from the end.
                    received.reverse();
                }
                () = until(wake) => {}
            }
        }
    }

    /// Sorts a message into the lanes, or gives it back.
    async fn take_in(&mut self, delivery: &Arc<Delivery>) {
        let stream_of = |origin: &Origin<'_>| self.transfer.sink.stream_of(origin);
        let Sorted { entries, runs, letters } = self.sorter.sort(delivery, stream_of);
        if runs.iter().any(|(stream, _)| self.is_too_much(stream, delivery))
            || (!letters.is_empty() && self.letters.waiting_bytes() > self.limits.share())
        {
            drop(entries);
            return self.give_back(delivery).await;
        }
        let lines = entries.len() + letters.len();
        delivery.expect_lines(lines);
        self.transfer.metrics.records_received.inc_by(lines as u64);
        self.letters.extend(letters);
        let now = Instant::now();
        let mut entries = entries.into_iter();
        for (stream, count) in runs {
            self.add(stream, entries.by_ref().take(count), false, now);
        }
    }

    async fn give_back(&self, delivery: &Arc<Delivery>) {
        self.transfer.metrics.given_back.inc();
        let away = self.limits.away * delivery.delivered.clamp(1, AWAY_MOST);
        self.transfer.ledger.give_back_one(delivery, away).await;
    }

    fn add(&mut self, stream: Arc<str>, entries: impl Iterator<Item = Entry>, is_late: bool, now: Instant) {
        let limits = &self.limits.lane;
        let lane = self
            .lanes
            .entry(Arc::clone(&stream))
            .or_insert_with(|| Lane::new(limits.clone(), is_late));
        let (before, waiting) = (lane.due(), lane.waiting());
        self.bytes += lane.add(entries, now);
        self.entries += lane.waiting() - waiting;
        let after = lane.due();
        self.reschedule(stream, before, after);
    }

    fn reschedule(&mut self, stream: Arc<str>, before: Option<Instant>, after: Option<Instant>) {
        if before == after {
            return;
        }
        match before {
            Some(before) => {
                let mut place = (before, stream);
                self.due.remove(&place);
                if let Some(after) = after {
                    place.0 = after;
                    self.due.insert(place);
                }
            }
            None => self.due.extend(after.map(|after| (after, stream))),
        }
    }

    /// Starts every push that is due and has a place, full or not if `at_once`. Returns when the next one may be started, if that is a
    /// matter of time.
    fn start_due(&mut self, at_once: bool) -> Option<Instant> {
        loop {
            let now = Instant::now();
            let slots = if self.store.failing.is_some() {
                1
            } else {
                self.limits.concurrency
            };
            if self.running.len() >= slots {
                return None;
            }
            if let Some(again) = self.store.failing.filter(|again| *again > now) {
                return Some(again);
            }
            let next = if at_once {
                self.first_free(now)
            } else {
                self.due.first().filter(|(due, _)| *due <= now).cloned()
            };
            match next {
                Some(place) => self.start(place, now),
                None => return self.due.first().map(|(due, _)| (*due).max(now)),
            }
        }
    }

    /// Pushes don't wait to be full when there is no room for more. That is so, too, while nothing comes because a few lines, of
    /// which a push is not full, keep whole messages.
    fn is_pressed(&self, nothing_comes: bool) -> bool {
        let pressure = self.limits.pressure();
        let is_kept = || nothing_comes && self.transfer.ledger.held_bytes() > pressure;
        self.bytes > pressure || self.entries >= self.limits.entries() || is_kept()
    }

    /// The first lane that isn't held, due or not.
    fn first_free(&self, now: Instant) -> Option<(Instant, Arc<str>)> {
        let is_held = |stream: &Arc<str>| self.lanes.get(stream).is_some_and(|lane| lane.is_held(now));
        self.due.iter().find(|(_, stream)| !is_held(stream)).cloned()
    }

    fn start(&mut self, place: (Instant, Arc<str>), now: Instant) {
        self.due.remove(&place);
        let (_, stream) = place;
        let Some(lane) = self.lanes.get_mut(&stream) else {
            return;
        };
        let part = lane.take(now);
        let at_work = AtWork {
            bytes: bytes(&part),
            entries: part.len(),
            began: now,
            stream: Arc::clone(&stream),
        };
        let task = self.running.spawn(Arc::clone(&self.transfer).push(stream, part));
        self.at_work.insert(task.id(), at_work);
    }

    fn finished(&mut self, done: Result<(Id, Attempt), JoinError>) {
        let now = Instant::now();
        let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(at_work) = self.at_work.remove(&id) else {
            return;
        };
        let stream = at_work.stream;
        let Some(lane) = self.lanes.get_mut(&stream) else {
            return;
        };
        let (bytes, was_held) = (lane.bytes(), lane.is_held_alone());
        let left = match done {
            Ok((_, Attempt { part, answer })) => {
                self.store.heed(&answer, now);
                match &answer {
                    Answer::Hold(hold) if hold.reach == Reach::Stream || hold.by_rate => {}
                    Answer::Hold(_) => lane.failed(at_work.began, self.taken),
                    Answer::Stored | Answer::Refused { .. } => self.taken = Some(now),
                }
                if let Answer::Hold(hold) = &answer
                    && hold.reach == Reach::Stream
                {
                    self.stream_outage
                        .report(hold.kind, || format!("{stream}: {}", hold.advice));
                }
                let left = lane.answered(part, answer, now);
                if now.duration_since(at_work.began) < SLOW {
                    self.quick = Some(now);
                    lane.was_quick();
                } else {
                    lane.was_slow(at_work.began, self.quick);
                }
                left
            }
            Err(error) => {
                tracing::error!(%error, "a push broke down; its messages are delivered again after ack_wait");
                lane.lost(at_work.bytes, now);
                self.entries -= at_work.entries;
                Left::default()
            }
        };
        self.entries -= left.stored.len() + left.late.len() + left.dead.len();
        self.bytes -= bytes - lane.bytes();
        let (due, is_held) = (lane.due(), lane.is_held_alone());
        if lane.is_empty() {
            self.lanes.remove(&stream);
        }
        self.count_held(was_held, is_held);
        self.reschedule(Arc::clone(&stream), None, due);
        self.dismiss(&stream, left, now);
        self.relieve(&stream);
    }

    fn count_held(&self, before: bool, after: bool) {
        let held = &self.transfer.metrics.streams_held;
        match (before, after) {
            (false, true) => drop(held.inc()),
            (true, false) if held.dec() == 1 => self.stream_outage.over(),
            _ => {}
        }
    }

    /// Sends late entries to their streams and dead ones to the dead letters.
    fn dismiss(&mut self, stream: &Arc<str>, left: Left, now: Instant) {
        self.transfer.metrics.records_late.inc_by(left.late.len() as u64);
        for entry in left.late {
            let late = self.transfer.sink.late_stream_of(stream, &entry);
            self.add(late, iter::once(entry), true, now);
        }
        let dead = left.dead.into_iter();
        self.letters
            .extend(dead.map(|(entry, reason, detail)| Letter::of_entry(entry, reason, detail)));
    }
}

impl Store {
    /// Learns from an answer how the store as a whole is.
    fn heed(&mut self, answer: &Answer, now: Instant) {
        match answer {
            // One of several that were under way when it began to fail tells nothing new.
            Answer::Hold(hold) if hold.reach == Reach::Store => {
                let is_known = self.failing.is_some_and(|again| again > now);
                if !is_known || hold.wait.is_some() {
                    self.failing = Some(now + self.backoff.next(hold.wait));
                }
                self.outage.report(hold.kind, || hold.advice.clone());
            }
            Answer::Stored | Answer::Refused { .. } | Answer::Hold(_) => {
                self.failing = None;
                self.backoff.reset();
                self.outage.over();
            }
        }
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        None => pending().await,
    }
}
