//! Counts records from the moment they are offered to the moment they are shipped or dropped.
//!
//! Invariant: offered + recovered = shipped + dropped + queued + building + publishing + spooled, in every
//! [`Balance`]. What the request path counts only grows; what the shipping thread counts moves under one lock, so that
//! no record is ever seen in two places (`a_balance_taken_at_any_moment_adds_up`). The request path takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Why a record was dropped. Closed set; the metric's `reason` label, and the key in a loss record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The queue was at `queue.max_bytes`.
    QueueFull,
    /// Every buffer was in use by another thread at that instant.
    Contended,
    /// The exchange could not be read back: a fault of sidelog.
    Unreadable,
    /// The shipping thread panicked over it: a fault of sidelog.
    Panic,
    /// The server's `max_payload`, or the stream's limit for a message, is smaller than the record.
    MaxPayload,
    /// The spool was at `spool.max_bytes`, and this was the oldest in it.
    SpoolFull,
    /// It lay in the spool for `spool.max_age`.
    SpoolExpired,
    /// Its file in the spool was damaged, or gone.
    SpoolDamaged,
    /// NATS could not be reached before the shutdown deadline, and the spool couldn't take it.
    Shutdown,
}

impl DropReason {
    /// All reasons, in the order of their metrics.
    pub const ALL: [Self; 9] = [
        Self::QueueFull,
        Self::Contended,
        Self::Unreadable,
        Self::Panic,
        Self::MaxPayload,
        Self::SpoolFull,
        Self::SpoolExpired,
        Self::SpoolDamaged,
        Self::Shutdown,
    ];

    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Contended => "contended",
            Self::Unreadable => "unreadable",
            Self::Panic => "panic",
            Self::MaxPayload => "max_payload",
            Self::SpoolFull => "spool_full",
            Self::SpoolExpired => "spool_expired",
            Self::SpoolDamaged => "spool_damaged",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Records dropped, by [`DropReason::ALL`].
pub type Drops = [u64; DropReason::ALL.len()];

/// Where a record is between offered and shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In a buffer of the queue.
    Queued,
    /// Taken by the shipping thread, in no closed frame yet.
    Building,
    /// In a closed frame in memory, which may have a copy on disk, and that JetStream has not acknowledged.
    Publishing,
    /// In a frame on disk, and nowhere else.
    Spooled,
}

/// The counters. Any thread may offer; only the shipping thread moves a record on.
#[derive(Debug, Default)]
pub struct Ledger {
    offered: AtomicU64,
    refused: [AtomicU64; DropReason::ALL.len()],
    held: Mutex<Held>,
}

/// What the shipping thread counts.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    taken: u64,
    recovered: u64,
    building: u64,
    publishing: u64,
    spooled: u64,
    shipped: u64,
    dropped: Drops,
}

impl Held {
    /// The count of a stage. What is queued is no count of its own: a drop there is counted by the request path.
    fn stage(&mut self, stage: Stage) -> Option<&mut u64> {
        match stage {
            Stage::Queued => None,
            Stage::Building => Some(&mut self.building),
            Stage::Publishing => Some(&mut self.publishing),
            Stage::Spooled => Some(&mut self.spooled),
        }
    }

    fn leave(&mut self, stage: Stage, n: u64) {
        if let Some(count) = self.stage(stage) {
            debug_assert!(*count >= n, "{n} of {count} records leave {stage:?}");
            *count = count.saturating_sub(n);
        }
    }

    fn enter(&mut self, stage: Stage, n: u64) {
        if let Some(count) = self.stage(stage) {
            *count += n;
        }
    }
}

/// A reading of the ledger that adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Records that the request path made.
    pub offered: u64,
    /// Records found in the spool of an earlier process.
    pub recovered: u64,
    /// Records that JetStream acknowledged.
    pub shipped: u64,
    /// Records dropped, by [`DropReason::ALL`].
    pub dropped: Drops,
    /// In the queue now.
    pub queued: u64,
    /// In the open frame now.
    pub building: u64,
    /// In closed frames in memory now.
    pub publishing: u64,
    /// In frames on disk only, now.
    pub spooled: u64,
}

impl Balance {
    /// All records dropped.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Whether every record is in exactly one place.
    pub fn adds_up(&self) -> bool {
        let here = self.queued + self.building + self.publishing + self.spooled;
        self.offered + self.recovered == self.shipped + self.dropped_total() + here
    }
}

impl Ledger {
    /// A record was made.
    pub fn offer(&self) {
        self.offered.fetch_add(1, Ordering::Release);
    }

    /// `n` records left the queue for the shipping thread.
    pub fn take(&self, n: u64) {
        let mut held = self.held.lock();
        held.taken += n;
        held.building += n;
    }

    /// `n` records were found on disk.
    pub fn recover(&self, n: u64) {
        let mut held = self.held.lock();
        held.recovered += n;
        held.spooled += n;
    }

    /// `n` records went from one stage to another.
    pub fn advance(&self, from: Stage, to: Stage, n: u64) {
        let mut held = self.held.lock();
        held.leave(from, n);
        held.enter(to, n);
    }

    /// `n` records in frames in memory were acknowledged.
    pub fn ship(&self, n: u64) {
        let mut held = self.held.lock();
        held.leave(Stage::Publishing, n);
        held.shipped += n;
    }

    /// `n` records that were in `stage` are gone.
    pub fn drop_at(&self, stage: Stage, reason: DropReason, n: u64) {
        if stage == Stage::Queued {
            self.refused[reason as usize].fetch_add(n, Ordering::Release);
            return;
        }
        let mut held = self.held.lock();
        held.leave(stage, n);
        held.dropped[reason as usize] += n;
    }

    /// Reads the counters: what is behind the queue first, what was offered last.
    pub fn balance(&self) -> Balance {
        let held = *self.held.lock();
        let refused = self.refused.each_ref().map(|count| count.load(Ordering::Acquire));
        let offered = self.offered.load(Ordering::Acquire);
        let mut dropped = refused;
        for (total, behind) in dropped.iter_mut().zip(held.dropped) {
            *total += behind;
        }
        Balance {
            offered,
            recovered: held.recovered,
            shipped: held.shipped,
            dropped,
            queued: offered.saturating_sub(held.taken + refused.iter().sum::<u64>()),
            building: held.building,
            publishing: held.publishing,
            spooled: held.spooled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_balance_taken_at_any_moment_adds_up() {
        let ledger = Arc::new(Ledger::default());
        let done = Arc::new(AtomicBool::new(false));
        let worker = {
            let (ledger, done) = (Arc::clone(&ledger), Arc::clone(&done));
            std::thread::spawn(move || {
                for i in 0..200_000_u64 {
                    ledger.offer();
                    if i % 7 == 0 {
                        ledger.drop_at(Stage::Queued, DropReason::QueueFull, 1);
                        continue;
                    }
                    ledger.take(1);
                    ledger.advance(Stage::Building, Stage::Publishing, 1);
                    if i % 5 == 0 {
                        ledger.recover(2);
                        ledger.drop_at(Stage::Spooled, DropReason::SpoolExpired, 2);
                        ledger.advance(Stage::Publishing, Stage::Spooled, 1);
                        ledger.advance(Stage::Spooled, Stage::Publishing, 1);
                    }
                    if i % 11 == 0 {
                        ledger.drop_at(Stage::Publishing, DropReason::Shutdown, 1);
                    } else {
                        ledger.ship(1);
                    }
                }
                done.store(true, Ordering::Release);
            })
        };
        let mut readings = 0;
        while !done.load(Ordering::Acquire) {
            let balance = ledger.balance();
            assert!(balance.adds_up(), "{balance:?}");
            readings += 1;
        }
        worker.join().unwrap();
        let end = ledger.balance();
        assert!(readings > 0);
        assert_eq!((end.queued, end.building, end.publishing, end.spooled), (0, 0, 0, 0));
        assert_eq!(end.offered, 200_000);
    }
}
