//! Counts of shipping that are no records: they stand beside the ledger's.

use std::sync::atomic::{AtomicU64, Ordering};

/// What shipping counts. Read by whoever scrapes.
#[derive(Debug, Default)]
pub struct Counts {
    panics: AtomicU64,
    spool_errors: AtomicU64,
    spool_bytes: AtomicU64,
}

impl Counts {
    /// `sidelog_shipping_panics_total`: faults of sidelog that shipping went on after.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// `sidelog_spool_errors_total`: what the disk refused.
    pub fn spool_errors(&self) -> u64 {
        self.spool_errors.load(Ordering::Relaxed)
    }

    /// `sidelog_spool_bytes`: what the spool takes on disk.
    pub fn spool_bytes(&self) -> u64 {
        self.spool_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn spool_error(&self) {
        self.spool_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn spool_holds(&self, bytes: u64) {
        self.spool_bytes.store(bytes, Ordering::Relaxed);
    }
}
