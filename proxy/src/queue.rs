//! The only door between the request path and the shipping thread.
//!
//! The queue is bytes: exchanges lie one behind the other in a few buffers, a pair for each worker. The
//! worker that ends an exchange copies it into a buffer that nobody holds at that instant; the shipping
//! thread swaps full buffers for empty ones on its own timer.
//!
//! Invariants:
//! - `offer` never waits: it only tries locks, and all that is done under one is a copy or a swap
//!   (`offer_goes_on_while_the_other_side_holds_a_buffer`).
//! - Memory is bounded by `max_bytes` to the byte: the capacity of every buffer is counted, from the moment
//!   it is asked for until it is freed (`memory_stays_under_the_limit`).
//! - Nothing wakes the shipping thread per exchange: only one that fills a buffer to where the thread asked to be woken
//!   does, and after a time without any that is the first one (`the_first_offer_wakes_a_parked_taker`,
//!   `an_offer_below_the_mark_wakes_nobody`).
//! - A buffer that is lost on the way, as by a panic, gives its capacity back (`a_buffer_that_is_lost_gives_its_memory_back`).
//! - Every record offered is queued or counted as dropped.
//! - A buffer holds the generations of the exchanges in it, and no others: they are freed with it
//!   (`a_buffer_holds_the_generations_of_its_exchanges`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use tokio::sync::Notify;

pub mod exchange;
pub mod feed;
pub mod grpc;
pub mod ledger;

use crate::generation::Generation;
use exchange::Exchange;
use ledger::{DropReason, Ledger, Stage};

/// Buffers at most this large are kept for the next round however little they held.
const SMALL: usize = 64 * 1024;
/// Larger ones are never kept: at full load a buffer is swapped out before it holds this much. After a burst one may be idle
/// for each of a worker's two, and one more, until the next round that fills less than an eighth.
const LARGE: usize = 4 * 1024 * 1024;
/// More than any buffer holds: nobody is to be woken.
const AWAKE: usize = usize::MAX;

/// How much the queue may hold, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Over this, exchanges are queued without their bodies.
    pub bodies_max_bytes: usize,
    /// Over this, exchanges are dropped and counted.
    pub max_bytes: usize,
}

/// The queue; shared by all who offer and the one who takes.
#[derive(Debug)]
pub struct Queue {
    slots: Box<[Slot]>,
    limits: QueueLimits,
    used: AtomicUsize,
    /// Bytes in one buffer at which the taker is woken; [`AWAKE`] while it doesn't wait.
    wake_at: AtomicUsize,
    wake: Notify,
    ledger: Arc<Ledger>,
}

/// A pair of buffers, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    buffers: [Mutex<Buffer>; 2],
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    records: u64,
    /// Those of the exchanges; but for a moment after a reload there is one.
    generations: Vec<Arc<Generation>>,
}

impl Buffer {
    fn generation(&self, number: u32) -> Option<&Arc<Generation>> {
        self.generations.iter().rev().find(|one| one.number == number)
    }

    /// As it was before anything was in it; what it takes of memory it keeps.
    fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
        self.generations.clear();
    }
}

impl Queue {
    /// A queue for `workers` threads that offer; others may offer too.
    pub fn new(limits: QueueLimits, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: (0..=workers.max(1)).map(|_| Slot::default()).collect(),
            limits,
            used: AtomicUsize::new(0),
            wake_at: AtomicUsize::new(AWAKE),
            wake: Notify::new(),
            ledger: Arc::default(),
        })
    }

    /// Queues an exchange that was served under `generation`, or counts why not. Never waits.
    pub fn offer(&self, exchange: &Exchange<'_>, generation: &Arc<Generation>) {
        if exchange.record {
            self.ledger.offer();
        }
        let lean;
        let exchange = if self.used_bytes() > self.limits.bodies_max_bytes {
            lean = exchange.without_bodies();
            &lean
        } else {
            exchange
        };
        match self.push(exchange, generation) {
            Ok(held) => self.wake_taker(held),
            Err(reason) if exchange.record => self.ledger.drop_at(Stage::Queued, reason, 1),
            Err(_) => {}
        }
    }

    /// Bytes of all buffers, those being read included.
    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The counts of all records.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Gives back how many bytes the buffer holds now.
    fn push(&self, exchange: &Exchange<'_>, generation: &Arc<Generation>) -> Result<usize, DropReason> {
        let mut buffer = self.free_buffer().ok_or(DropReason::Contended)?;
        let len = exchange.encoded_len();
        self.make_room(&mut buffer.bytes, len).ok_or(DropReason::QueueFull)?;
        if buffer.generation(generation.number).is_none() {
            buffer.generations.push(Arc::clone(generation));
        }
        exchange.encode(&mut buffer.bytes);
        buffer.records += u64::from(exchange.record);
        Ok(buffer.bytes.len())
    }

    /// A buffer that nobody holds: of the own slot first, then of any other.
    fn free_buffer(&self) -> Option<MutexGuard<'_, Buffer>> {
        let (before, from) = self.slots.split_at(own_slot() % self.slots.len());
        from.iter()
            .chain(before)
            .flat_map(|slot| &slot.buffers)
            .find_map(try_lock)
    }

    /// Grows `bytes` so that `len` more fit, within the limit: by doubling where that fits, else just enough.
    fn make_room(&self, bytes: &mut Vec<u8>, len: usize) -> Option<()> {
        let missing = (bytes.len() + len).saturating_sub(bytes.capacity());
        if missing == 0 {
            return Some(());
        }
        let doubled = missing.max(bytes.capacity()).max(SMALL / 4);
        let extra = [doubled, missing].into_iter().find(|extra| self.reserve(*extra))?;
        bytes.reserve_exact(bytes.capacity() - bytes.len() + extra);
        Some(())
    }

    fn reserve(&self, extra: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used + extra).filter(|used| *used <= self.limits.max_bytes)
            })
            .is_ok()
    }

    fn wake_taker(&self, held: usize) {
        if held >= self.wake_at.load(Ordering::Acquire) && self.wake_at.swap(AWAKE, Ordering::AcqRel) != AWAKE {
            self.wake.notify_one();
        }
    }
}

/// The shipping thread's end of the queue. There is one.
#[derive(Debug)]
pub struct Taker {
    queue: Arc<Queue>,
    spare: Buffer,
    next: usize,
}

/// A full buffer, taken out of the queue. It counts against the limit until it is given back or dropped.
#[derive(Debug)]
pub struct Taken {
    buffer: Buffer,
    queue: Arc<Queue>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.queue
            .used
            .fetch_sub(self.buffer.bytes.capacity(), Ordering::Relaxed);
    }
}

impl Taken {
    /// The exchanges, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.bytes
    }

    /// The exchange that begins at `at`, the generation it was served under, and where the next one begins; `None` where
    /// nothing can be read.
    pub fn exchange(&self, at: usize) -> Option<(Exchange<'_>, &Generation, usize)> {
        let (exchange, rest) = Exchange::decode(self.bytes().get(at..)?)?;
        let generation = self.buffer.generation(exchange.generation)?;
        Some((exchange, generation, self.bytes().len() - rest.len()))
    }

    /// How many of them want a record.
    pub fn records(&self) -> u64 {
        self.buffer.records
    }
}

impl Taker {
    /// The taking end of `queue`.
    pub fn new(queue: Arc<Queue>) -> Self {
        Self {
            queue,
            spare: Buffer::default(),
            next: 0,
        }
    }

    /// Swaps the next buffer that holds something for an empty one. Buffers in use at this instant are passed over.
    pub fn take(&mut self) -> Option<Taken> {
        let buffers = self.queue.slots.len() * 2;
        for _ in 0..buffers {
            let at = self.next;
            self.next = (at + 1) % buffers;
            let slot = self.queue.slots.get(at / 2)?;
            let Some(mut held) = slot.buffers.get(at % 2).and_then(try_lock) else {
                continue;
            };
            if held.bytes.is_empty() {
                continue;
            }
            let full = std::mem::replace(&mut *held, std::mem::take(&mut self.spare));
            drop(held);
            self.queue.ledger.take(full.records);
            return Some(Taken {
                buffer: full,
                queue: Arc::clone(&self.queue),
            });
        }
        None
    }

    /// Gives a buffer back that has been read. What a burst made large and ordinary load does not fill is freed,
    /// and so is any while buffers hold half of the limit: empty ones must never leave no room for a full one.
    pub fn put_back(&mut self, mut taken: Taken) {
        let bytes = &taken.buffer.bytes;
        let oversized = bytes.capacity() > LARGE || (bytes.capacity() > SMALL && bytes.len() < bytes.capacity() / 8);
        let crowded = self.queue.used_bytes() > self.queue.limits.max_bytes / 2;
        if !oversized && !crowded && self.spare.bytes.capacity() == 0 {
            // What is left for `Taken` to drop has no capacity to give back.
            self.spare = std::mem::take(&mut taken.buffer);
            self.spare.clear();
        }
    }

    /// Waits until a buffer holds so many bytes; if one does already, until the thread's other tasks had their turn. One that is
    /// being written to holds its first byte at least. Cancel safe.
    pub async fn holds(&self, bytes: usize) {
        let _asleep = Asleep::until(&self.queue, bytes);
        if self.holds_now(bytes) {
            return tokio::task::yield_now().await;
        }
        self.queue.wake.notified().await;
    }

    /// Whether nothing is queued. A buffer that is being written to counts as something.
    pub fn is_empty(&self) -> bool {
        !self.holds_now(1)
    }

    fn holds_now(&self, bytes: usize) -> bool {
        let held = |buffer| try_lock(buffer).map_or(1, |held| held.bytes.len());
        let mut buffers = self.queue.slots.iter().flat_map(|slot| &slot.buffers);
        buffers.any(|buffer| held(buffer) >= bytes)
    }
}

/// As long as it lives, an offer that fills a buffer so far wakes the taker.
struct Asleep<'a>(&'a Queue);

impl<'a> Asleep<'a> {
    fn until(queue: &'a Queue, bytes: usize) -> Self {
        queue.wake_at.store(bytes, Ordering::SeqCst);
        Self(queue)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.wake_at.store(AWAKE, Ordering::SeqCst);
    }
}

/// The lock, if it is free. A thread that panicked while holding it left a whole number of exchanges: what is
/// written last is only seen by its length, and that is read back with a check.
fn try_lock(buffer: &Mutex<Buffer>) -> Option<MutexGuard<'_, Buffer>> {
    match buffer.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A number of this thread's own, given at its first offer.
fn own_slot() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: usize = THREADS.fetch_add(1, Ordering::Relaxed));
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::exchange::tests::{GENERATION, exchange};
    use super::*;
    use crate::settings::Settings;

    const ROOMY: QueueLimits = QueueLimits {
        bodies_max_bytes: 8 << 20,
        max_bytes: 16 << 20,
    };

    fn drain(taker: &mut Taker) -> usize {
        let mut seen = 0;
        while let Some(taken) = taker.take() {
            let mut at = 0;
            while let Some((_, _, next)) = taken.exchange(at) {
                at = next;
                seen += 1;
            }
            taker.put_back(taken);
        }
        seen
    }

    #[test]
    fn offer_goes_on_while_the_other_side_holds_a_buffer() {
        let queue = Queue::new(ROOMY, 1);
        let held = queue.slots[own_slot() % 2].buffers[0].lock().unwrap();
        queue.offer(&exchange(b"{}"), &GENERATION);
        drop(held);
        assert_eq!(queue.ledger().balance().dropped_total(), 0);
        assert_eq!(drain(&mut Taker::new(Arc::clone(&queue))), 1);
    }

    #[test]
    fn an_offer_that_finds_every_buffer_in_use_is_counted_as_contended() {
        let queue = Queue::new(ROOMY, 1);
        let held: Vec<_> = queue
            .slots
            .iter()
            .flat_map(|slot| &slot.buffers)
            .map(|b| b.lock().unwrap())
            .collect();
        queue.offer(&exchange(b"{}"), &GENERATION);
        drop(held);
        let balance = queue.ledger().balance();
        assert_eq!(balance.dropped[DropReason::Contended as usize], 1);
        assert_eq!(balance.queued, 0);
    }

    #[test]
    fn memory_stays_under_the_limit() {
        let limits = QueueLimits {
            bodies_max_bytes: 64 * 1024,
            max_bytes: 128 * 1024,
        };
        let queue = Queue::new(limits, 2);
        let body = vec![b'x'; 1000];
        for _ in 0..10_000 {
            queue.offer(&exchange(&body), &GENERATION);
            let held: usize = queue
                .slots
                .iter()
                .flat_map(|s| &s.buffers)
                .map(|b| b.lock().unwrap().bytes.capacity())
                .sum();
            assert_eq!(held, queue.used_bytes());
            assert!(held <= limits.max_bytes);
        }
        let balance = queue.ledger().balance();
        assert!(balance.dropped[DropReason::QueueFull as usize] > 0);
        assert_eq!(balance.offered, balance.queued + balance.dropped_total());
    }

    #[test]
    fn over_the_soft_limit_bodies_are_left_out_and_it_is_said() {
        let queue = Queue::new(
            QueueLimits {
                bodies_max_bytes: 0,
                max_bytes: 1 << 20,
            },
            1,
        );
        queue.offer(&exchange(b"first"), &GENERATION);
        queue.offer(&exchange(b"second"), &GENERATION);
        let mut taker = Taker::new(queue);
        let taken = taker.take().unwrap();
        let (_, rest) = Exchange::decode(taken.bytes()).unwrap();
        let (second, _) = Exchange::decode(rest).unwrap();
        assert_eq!(second.request.body.bytes, b"");
        assert_eq!(second.request.body.size, 6);
        assert_eq!(second.request.body.omitted, Some(sidelog_record::Omitted::Budget));
    }

    #[test]
    fn what_a_burst_took_is_given_back() {
        let queue = Queue::new(ROOMY, 1);
        let mut taker = Taker::new(Arc::clone(&queue));
        let body = vec![b'x'; 1 << 20];
        queue.offer(&exchange(&body), &GENERATION);
        assert_eq!(drain(&mut taker), 1);
        for _ in 0..8 {
            queue.offer(&exchange(b"{}"), &GENERATION);
            assert_eq!(drain(&mut taker), 1);
        }
        assert!(
            queue.used_bytes() <= 4 * SMALL,
            "{} bytes are still held",
            queue.used_bytes()
        );
    }

    #[test]
    fn a_queue_that_was_full_takes_exchanges_again_once_it_is_drained() {
        let limits = QueueLimits {
            bodies_max_bytes: 1 << 20,
            max_bytes: 1 << 20,
        };
        let small = vec![b'x'; 500];
        let large = vec![b'x'; 60_000];
        for bodies in [[&small, &small], [&small, &large], [&large, &small], [&large, &large]] {
            let queue = Queue::new(limits, 1);
            let mut taker = Taker::new(Arc::clone(&queue));
            for body in bodies {
                queue.offer(&exchange(body), &GENERATION);
                drain(&mut taker);
            }
            (0..3_000).for_each(|_| queue.offer(&exchange(&small), &GENERATION));
            assert!(queue.ledger().balance().dropped_total() > 0);
            drain(&mut taker);
            let dropped = queue.ledger().balance().dropped_total();
            for _ in 0..100 {
                queue.offer(&exchange(&large), &GENERATION);
                drain(&mut taker);
            }
            assert_eq!(
                queue.ledger().balance().dropped_total(),
                dropped,
                "{} bytes are held",
                queue.used_bytes()
            );
        }
    }

    #[test]
    fn a_buffer_that_is_lost_gives_its_memory_back() {
        let queue = Queue::new(ROOMY, 1);
        let mut taker = Taker::new(Arc::clone(&queue));
        queue.offer(&exchange(&vec![b'x'; 1 << 20]), &GENERATION);
        let taken = taker.take().unwrap();
        assert!(queue.used_bytes() > 1 << 20);
        drop(taken);
        assert_eq!(queue.used_bytes(), 0);
    }

    #[test]
    fn a_panic_under_the_lock_does_not_close_the_buffer() {
        let queue = Queue::new(ROOMY, 1);
        let shared = Arc::clone(&queue);
        let slot = own_slot() % 2;
        std::thread::spawn(move || {
            let _held = shared.slots[slot].buffers[0].lock().unwrap();
            panic!("on purpose");
        })
        .join()
        .unwrap_err();
        queue.offer(&exchange(b"{}"), &GENERATION);
        assert_eq!(drain(&mut Taker::new(queue)), 1);
    }

    #[test]
    fn everything_that_many_threads_offer_is_taken_or_counted() {
        let queue = Queue::new(ROOMY, 2);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || (0..5_000).for_each(|_| queue.offer(&exchange(b"{\"a\":1}"), &GENERATION)))
            })
            .collect();
        let mut taker = Taker::new(Arc::clone(&queue));
        let mut seen = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            seen += drain(&mut taker);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        seen += drain(&mut taker);
        let balance = queue.ledger().balance();
        assert_eq!(balance.offered, 20_000);
        assert_eq!(seen as u64 + balance.dropped_total(), 20_000);
        assert!(taker.is_empty());
    }

    #[test]
    fn a_buffer_holds_the_generations_of_its_exchanges() {
        let queue = Queue::new(ROOMY, 1);
        let generations: Vec<_> = (1..=2)
            .map(|number| Arc::new(Generation::new(number, Settings::default())))
            .collect();
        for generation in generations.iter().chain(&generations) {
            let mut seen = exchange(b"{}");
            seen.generation = generation.number;
            queue.offer(&seen, generation);
        }
        let held = || generations.iter().map(Arc::strong_count).collect::<Vec<_>>();
        assert_eq!(held(), [2, 2], "each once");
        let mut taker = Taker::new(queue);
        let taken = taker.take().unwrap();
        let mut at = 0;
        for number in [1, 2, 1, 2] {
            let (_, generation, next) = taken.exchange(at).unwrap();
            assert_eq!(generation.number, number);
            at = next;
        }
        assert!(taken.exchange(at).is_none() && at == taken.bytes().len());
        taker.put_back(taken);
        assert_eq!(held(), [1, 1], "the spare buffer holds none");
    }

    /// Offers one exchange of so many bytes while the taker waits for a buffer that holds `mark`.
    async fn is_woken(mark: usize, body: usize) -> bool {
        let queue = Queue::new(ROOMY, 1);
        let taker = Taker::new(Arc::clone(&queue));
        let mut woken = std::pin::pin!(taker.holds(mark));
        assert!(futures_util::poll!(&mut woken).is_pending());
        queue.offer(&exchange(&vec![b'x'; body]), &GENERATION);
        futures_util::poll!(woken).is_ready()
    }

    #[tokio::test]
    async fn the_first_offer_wakes_a_parked_taker() {
        assert!(is_woken(1, 0).await);
    }

    #[tokio::test]
    async fn an_offer_below_the_mark_wakes_nobody() {
        assert!(!is_woken(64 * 1024, 1_000).await);
        assert!(is_woken(64 * 1024, 64 * 1024).await);
        assert!(!is_woken(AWAKE, 64 * 1024).await);
    }

    #[tokio::test]
    async fn what_is_held_already_is_taken_after_the_other_tasks_had_their_turn() {
        let queue = Queue::new(ROOMY, 1);
        let taker = Taker::new(Arc::clone(&queue));
        queue.offer(&exchange(b"{}"), &GENERATION);
        let other = tokio::spawn(async {});
        taker.holds(1).await;
        assert!(other.is_finished());
    }

    #[test]
    fn a_buffer_that_is_written_to_holds_something_and_no_heap() {
        let queue = Queue::new(ROOMY, 1);
        let taker = Taker::new(Arc::clone(&queue));
        let _held: Vec<_> = queue
            .slots
            .iter()
            .filter_map(|slot| try_lock(&slot.buffers[0]))
            .collect();
        assert!(taker.holds_now(1) && !taker.holds_now(2) && !taker.is_empty());
    }

    #[tokio::test]
    async fn a_taker_that_no_longer_waits_is_not_woken() {
        let queue = Queue::new(ROOMY, 1);
        let taker = Taker::new(Arc::clone(&queue));
        assert!(taker.holds(1).now_or_never().is_none());
        queue.offer(&exchange(b"{}"), &GENERATION);
        assert!(queue.wake.notified().now_or_never().is_none());
    }
}
