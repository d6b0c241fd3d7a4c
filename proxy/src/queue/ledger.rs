//! Counts records from the moment they are offered to the moment they are shipped or dropped.
//!
//! Invariant: offered + recovered = shipped + dropped + queued + building + publishing + spooled, in every
//! [`Balance`]. The stages are differences of counters that only grow, read from the last stage to the
//! first, so that no record is ever seen in two places (`a_balance_taken_at_any_moment_adds_up`).

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a record was dropped. Closed set; the metric's `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The queue was at `queue.max_bytes`.
    QueueFull,
    /// Every buffer was in use by another thread at that instant.
    Contended,
    /// The exchange could not be read back: a fault of sidelog.
    Unreadable,
    /// The server's `max_payload` is smaller than the record.
    MaxPayload,
    /// NATS could not be reached before the shutdown deadline.
    Shutdown,
}

impl DropReason {
    /// All reasons, in the order of their metrics.
    pub const ALL: [Self; 5] = [
        Self::QueueFull,
        Self::Contended,
        Self::Unreadable,
        Self::MaxPayload,
        Self::Shutdown,
    ];

    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Contended => "contended",
            Self::Unreadable => "unreadable",
            Self::MaxPayload => "max_payload",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Where a record is between offered and shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In a buffer of the queue.
    Queued,
    /// Taken by the shipping thread, in no closed frame yet.
    Building,
    /// In a closed frame that JetStream has not acknowledged.
    Publishing,
}

/// The counters. Any thread may add; only the owner of a record moves it on.
#[derive(Debug, Default)]
pub struct Ledger {
    offered: AtomicU64,
    taken: AtomicU64,
    framed: AtomicU64,
    shipped: AtomicU64,
    dropped: [[AtomicU64; DropReason::ALL.len()]; 3],
}

/// A reading of the ledger that adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Records that the request path made.
    pub offered: u64,
    /// Records that JetStream acknowledged.
    pub shipped: u64,
    /// Records dropped, by [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// In the queue now.
    pub queued: u64,
    /// In the open frame now.
    pub building: u64,
    /// In closed frames now.
    pub publishing: u64,
}

impl Balance {
    /// All records dropped.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

impl Ledger {
    /// A record was made.
    pub fn offer(&self) {
        self.offered.fetch_add(1, Ordering::Release);
    }

    /// `n` records left the queue.
    pub fn take(&self, n: u64) {
        self.taken.fetch_add(n, Ordering::Release);
    }

    /// `n` records went into a closed frame.
    pub fn frame(&self, n: u64) {
        self.framed.fetch_add(n, Ordering::Release);
    }

    /// `n` records were acknowledged.
    pub fn ship(&self, n: u64) {
        self.shipped.fetch_add(n, Ordering::Release);
    }

    /// `n` records that were in `stage` are gone.
    pub fn drop_at(&self, stage: Stage, reason: DropReason, n: u64) {
        self.dropped[stage as usize][reason as usize].fetch_add(n, Ordering::Release);
    }

    /// Reads the counters, last stage first.
    pub fn balance(&self) -> Balance {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let row = |stage: Stage| self.dropped[stage as usize].each_ref().map(read);
        let shipped = read(&self.shipped);
        let publish_drops = row(Stage::Publishing);
        let framed = read(&self.framed);
        let build_drops = row(Stage::Building);
        let taken = read(&self.taken);
        let queue_drops = row(Stage::Queued);
        let offered = read(&self.offered);

        let sum = |drops: &[u64]| drops.iter().sum::<u64>();
        let publishing = framed.saturating_sub(shipped + sum(&publish_drops));
        let building = taken.saturating_sub(framed + sum(&build_drops));
        let queued = offered.saturating_sub(taken + sum(&queue_drops));
        let mut dropped = queue_drops;
        for (total, (build, publish)) in dropped.iter_mut().zip(build_drops.iter().zip(publish_drops)) {
            *total += build + publish;
        }
        Balance {
            offered,
            shipped,
            dropped,
            queued,
            building,
            publishing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    fn adds_up(b: &Balance) -> bool {
        b.offered == b.shipped + b.dropped_total() + b.queued + b.building + b.publishing
    }

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
                    ledger.frame(1);
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
            assert!(adds_up(&balance), "{balance:?}");
            readings += 1;
        }
        worker.join().unwrap();
        let end = ledger.balance();
        assert!(readings > 0);
        assert_eq!((end.queued, end.building, end.publishing), (0, 0, 0));
        assert_eq!(end.offered, 200_000);
    }
}
