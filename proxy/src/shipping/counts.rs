//! Counts of shipping that are no records: they stand beside the ledger's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sidelog_chassis::nats::Connection;
use sidelog_record::{Omitted, Record};

use super::pulse::Pulse;
use super::redact::{RuleKind, Tally};
use crate::metrics::histogram::{Bounds, Histogram, SECOND};

const MILLISECOND: u64 = SECOND / 1_000;

/// Buckets of the time to an acknowledgement.
static ACKNOWLEDGEMENTS: Bounds<10> = [
    MILLISECOND,
    2_500_000,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    5 * SECOND,
];

/// What shipping counts. Read by whoever scrapes.
#[derive(Debug)]
pub struct Counts {
    pulse: Arc<Pulse>,
    panics: AtomicU64,
    spool_errors: AtomicU64,
    spool_fails: AtomicBool,
    spool_bytes: AtomicU64,
    publishing_fails: AtomicBool,
    frames_in_flight: AtomicU64,
    frame_bytes: AtomicU64,
    publish_failures: AtomicU64,
    acknowledgements: Histogram<{ ACKNOWLEDGEMENTS.len() }>,
    redactions: [AtomicU64; RuleKind::ALL.len()],
    omissions: [AtomicU64; Omitted::ALL.len()],
    nats: OnceLock<Connection>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            pulse: Arc::default(),
            panics: AtomicU64::default(),
            spool_errors: AtomicU64::default(),
            spool_fails: AtomicBool::default(),
            spool_bytes: AtomicU64::default(),
            publishing_fails: AtomicBool::default(),
            frames_in_flight: AtomicU64::default(),
            frame_bytes: AtomicU64::default(),
            publish_failures: AtomicU64::default(),
            acknowledgements: Histogram::new(&ACKNOWLEDGEMENTS),
            redactions: Default::default(),
            omissions: Default::default(),
            nats: OnceLock::new(),
        }
    }
}

impl Counts {
    /// Whether the thread lives.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Faults of sidelog that shipping went on after.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// What the disk refused.
    pub fn spool_errors(&self) -> u64 {
        self.spool_errors.load(Ordering::Relaxed)
    }

    /// Whether the disk refused the last job, or the folder.
    pub fn spool_fails(&self) -> bool {
        self.spool_fails.load(Ordering::Relaxed)
    }

    /// What the spool takes on disk.
    pub fn spool_bytes(&self) -> u64 {
        self.spool_bytes.load(Ordering::Relaxed)
    }

    /// Frames that are published and not acknowledged.
    pub fn frames_in_flight(&self) -> u64 {
        self.frames_in_flight.load(Ordering::Relaxed)
    }

    /// Whether publishing failed, and nothing was acknowledged since.
    pub fn publishing_fails(&self) -> bool {
        self.publishing_fails.load(Ordering::Relaxed)
    }

    /// Bytes of the frames that were acknowledged.
    pub fn frame_bytes(&self) -> u64 {
        self.frame_bytes.load(Ordering::Relaxed)
    }

    /// Times that a frame was not acknowledged, and is to be sent again.
    pub fn publish_failures(&self) -> u64 {
        self.publish_failures.load(Ordering::Relaxed)
    }

    /// How long frames waited for their acknowledgement.
    pub fn acknowledgements(&self) -> &Histogram<{ ACKNOWLEDGEMENTS.len() }> {
        &self.acknowledgements
    }

    /// Values that were taken out of records by rules of this kind.
    pub fn redactions(&self, kind: RuleKind) -> u64 {
        self.redactions
            .get(kind as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Bodies that were left out of records for this reason.
    pub fn omissions(&self, reason: Omitted) -> u64 {
        self.omissions
            .get(reason as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Whether there is a connection to NATS now.
    pub fn is_connected(&self) -> bool {
        self.nats.get().is_some_and(Connection::is_connected)
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn spool_error(&self) {
        self.spool_errors.fetch_add(1, Ordering::Relaxed);
        self.spool_fails.store(true, Ordering::Relaxed);
    }

    pub(super) fn spool_works(&self) {
        self.spool_fails.store(false, Ordering::Relaxed);
    }

    pub(super) fn spool_holds(&self, bytes: u64) {
        self.spool_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn flying(&self, frames: usize, fails: bool) {
        self.frames_in_flight.store(frames as u64, Ordering::Relaxed);
        self.publishing_fails.store(fails, Ordering::Relaxed);
    }

    pub(super) fn acknowledged(&self, bytes: usize, took: Duration) {
        self.frame_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.acknowledgements
            .observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn publish_failed(&self) {
        self.publish_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ships_over(&self, connection: Connection) {
        // There is one connection in the life of a process.
        drop(self.nats.set(connection));
    }

    /// A record was made, from which the redaction took `tally`.
    pub(super) fn recorded(&self, record: &Record<'_>, tally: Tally) {
        for (count, n) in self.redactions.iter().zip(tally) {
            if n > 0 {
                count.fetch_add(n, Ordering::Relaxed);
            }
        }
        for reason in [record.request.body.omitted, record.response.body.omitted] {
            if let Some(count) = reason.and_then(|reason| self.omissions.get(reason as usize)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
