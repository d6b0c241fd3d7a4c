//! Durations by bucket, and an example of each: counted and read without a lock.
//!
//! Invariants:
//! - Counting is a few additions to atomics; nobody waits, nothing is allocated.
//! - An exemplar is never mixed from two (`an_exemplar_is_never_a_mixture_of_two`): who finds another at it leaves it alone.

use std::array;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Upper bounds of `N` buckets, in nanoseconds; above the last there is one without a bound.
pub type Bounds<const N: usize> = [u64; N];

/// How long things took: counts by bucket, and their sum.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static Bounds<N>,
    counts: [AtomicU64; N],
    above: AtomicU64,
    sum: AtomicU64,
}

/// What a histogram holds: the count of each bucket by its upper bound in seconds, and the sum in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Bound and count, the last bound being infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Seconds.
    pub sum: f64,
}

impl Reading {
    /// All that was counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl<const N: usize> Histogram<N> {
    /// An empty one.
    pub fn new(bounds: &'static Bounds<N>) -> Self {
        Self {
            bounds,
            counts: array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a duration. Gives back its bucket: `N` for the one without a bound.
    pub fn observe(&self, nanos: u64) -> usize {
        let bucket = self.bounds.partition_point(|bound| *bound < nanos);
        self.counts
            .get(bucket)
            .unwrap_or(&self.above)
            .fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
        bucket
    }

    /// What it holds now.
    pub fn read(&self) -> Reading {
        let counts = self.counts.iter().chain([&self.above]);
        let bounds = self.bounds.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        Reading {
            buckets: bounds.zip(counts.map(|count| count.load(Ordering::Relaxed))).collect(),
            sum: seconds(self.sum.load(Ordering::Relaxed)),
        }
    }
}

/// Nanoseconds as seconds.
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / SECOND as f64
}

/// An exchange that stands for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// Its trace.
    pub trace_id: [u8; 16],
    /// How long it took, in nanoseconds.
    pub nanos: u64,
    /// When it ended, in nanoseconds since the Unix epoch.
    pub at: u64,
}

/// A place for the last exemplar of a bucket.
#[derive(Debug, Default)]
pub struct ExemplarCell {
    /// How often it was written, twice; odd while somebody is at it.
    version: AtomicU32,
    words: [AtomicU64; 4],
}

impl ExemplarCell {
    /// Puts an exemplar in the place of the one before, unless another thread does so just now.
    pub fn put(&self, exemplar: Exemplar) {
        let before = self.version.load(Ordering::Relaxed);
        let is_mine = before.is_multiple_of(2)
            && self
                .version
                .compare_exchange(before, before.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if !is_mine {
            return;
        }
        fence(Ordering::Release);
        let id = u128::from_be_bytes(exemplar.trace_id);
        let words = [(id >> 64) as u64, id as u64, exemplar.nanos, exemplar.at];
        for (cell, word) in self.words.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        self.version.store(before.wrapping_add(2), Ordering::Release);
    }

    /// The last exemplar; none where there was none, or it is being written.
    pub fn get(&self) -> Option<Exemplar> {
        let before = self.version.load(Ordering::Acquire);
        let [high, low, nanos, at] =
            array::from_fn(|index| self.words.get(index).map_or(0, |word| word.load(Ordering::Relaxed)));
        fence(Ordering::Acquire);
        let is_whole = before.is_multiple_of(2) && before == self.version.load(Ordering::Relaxed);
        let id = (u128::from(high) << 64) | u128::from(low);
        (is_whole && id != 0).then(|| Exemplar {
            trace_id: id.to_be_bytes(),
            nanos,
            at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it() {
        static BOUNDS: Bounds<2> = [SECOND, 2 * SECOND];
        let histogram = Histogram::new(&BOUNDS);
        for (nanos, bucket) in [(0, 0), (SECOND, 0), (SECOND + 1, 1), (2 * SECOND, 1), (3 * SECOND, 2)] {
            assert_eq!(histogram.observe(nanos), bucket, "{nanos}");
        }
        let reading = histogram.read();
        assert_eq!(reading.buckets, [(1.0, 2), (2.0, 2), (f64::INFINITY, 1)]);
        assert_eq!(reading.count(), 5);
        assert!((reading.sum - 7.000_000_001).abs() < 1e-9, "{}", reading.sum);
    }

    #[test]
    fn an_exemplar_is_never_a_mixture_of_two() {
        let (cell, stop) = (ExemplarCell::default(), AtomicBool::new(false));
        assert_eq!(cell.get(), None);
        let whole = |n: u8| Exemplar {
            trace_id: [n; 16],
            nanos: n.into(),
            at: n.into(),
        };
        std::thread::scope(|scope| {
            for first in [1, 2] {
                let (cell, stop) = (&cell, &stop);
                scope.spawn(move || {
                    for n in (first..=200_u8).step_by(2).cycle() {
                        cell.put(whole(n));
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            let mut seen = 0;
            while seen < 100_000 {
                if let Some(exemplar) = cell.get() {
                    assert_eq!(exemplar, whole(exemplar.trace_id[0]));
                    seen += 1;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
