//! Spans on their way to a collector: bounded, in batches, a few of them at once.
//!
//! Invariants:
//! - What waits is bounded by `traces.queue_max` and by [`BYTES_MAX`]; a span over it is dropped and counted
//!   (`what_has_no_room_is_dropped_and_counted`). Of what is under way, the spans of one batch take no room there, those of
//!   further ones do (`of_what_is_under_way_one_batch_takes_no_room`); bytes are under way beside those that wait.
//! - At most [`EXPORTS_MAX`] exports are under way, each of at most 2 MiB or a single span (`what_comes_fast_goes_out_in_several_exports_at_once`).
//! - While one export hangs the others go on (`what_has_waited_is_sent_beside_an_export_that_hangs`).
//! - A span is sent or dropped, and counted once: sent + dropped = taken (`every_span_is_counted_once`).
//! - A collector that fails, and one that is well again, is told once (`a_change_is_told_once`).
//!
//! Metrics: `sidelog_spans_sent_total`, `sidelog_spans_dropped_total{reason}`, `sidelog_spans_waiting`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::settings::Traces;

/// Bytes of spans that wait, as OTLP encodes them.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of spans in one request: gRPC servers take messages of 4 MiB.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Exports at once: a collector that takes 20 ms to answer gets 100,000 spans a second in full batches.
pub const EXPORTS_MAX: usize = 4;

/// Why a span was dropped. Closed set; the metric's `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDrop {
    /// Too many spans were waiting.
    QueueFull,
    /// There was no connection to the collector.
    Unreachable,
    /// The collector did not answer in time.
    Timeout,
    /// The collector asked to be spared until the time for the batch was over.
    Busy,
    /// The collector refused the request.
    Refused,
    /// The collector took the request, but not this span (partial success).
    Rejected,
    /// Its export was under way when shipping panicked.
    Abandoned,
    /// No collector took it within a second of the shutdown.
    Shutdown,
}

impl SpanDrop {
    /// All reasons, in the order of their metrics.
    pub const ALL: [Self; 8] = [
        Self::QueueFull,
        Self::Unreachable,
        Self::Timeout,
        Self::Busy,
        Self::Refused,
        Self::Rejected,
        Self::Abandoned,
        Self::Shutdown,
    ];

    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Abandoned => "abandoned",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Counts of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    sent: AtomicU64,
    waiting: AtomicU64,
    dropped: [AtomicU64; SpanDrop::ALL.len()],
}

impl SpanCounts {
    /// Spans that a collector took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Spans that wait or are under way.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Spans dropped for `reason`.
    pub fn dropped(&self, reason: SpanDrop) -> u64 {
        self.dropped
            .get(reason as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn drop_spans(&self, reason: SpanDrop, n: usize) {
        if let Some(count) = self.dropped.get(reason as usize) {
            count.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}

/// What a collector made of a request that it took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Spans that it took none the less not.
    pub rejected: usize,
    /// What it has to say.
    pub message: String,
}

/// Why an export failed for good, and all its spans with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason that is counted.
    pub reason: SpanDrop,
    /// What happened, for the log.
    pub message: String,
}

/// Somebody who takes spans.
pub trait Collector: Send + Sync + 'static {
    /// Sends a batch of encoded spans, and again as far as that makes sense.
    fn export(&self, batch: Vec<Vec<u8>>) -> impl Future<Output = Result<Taken, Failure>> + Send;
}

type Export = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// An export that is over.
struct Ended {
    /// Which one it was, in the order of their beginnings.
    number: u64,
    spans: usize,
    result: Result<Taken, Failure>,
}

/// Spans on their way to a collector.
pub struct Spans<C> {
    collector: Arc<C>,
    limits: Limits,
    /// As OTLP encodes them.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    since: Option<Instant>,
    exports: FuturesUnordered<Export>,
    /// Spans in the exports that are under way.
    under_way: usize,
    /// The number of the last export that was begun.
    begun: u64,
    state: State,
    /// The number of the export that the state is of. What one that was begun before it says is no news.
    state_of: u64,
    counts: Arc<SpanCounts>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    queue_max: usize,
    batch_max: usize,
    linger: Duration,
}

/// How it went last time; a change of it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    /// Taken, with something to say.
    Warned,
    Failing(SpanDrop),
}

impl<C: Collector> Spans<C> {
    /// Spans to be sent to `collector`, within the limits of the settings.
    pub fn new(collector: C, traces: &Traces, counts: Arc<SpanCounts>) -> Self {
        Self {
            collector: Arc::new(collector),
            limits: Limits {
                queue_max: traces.queue_max,
                batch_max: traces.batch_max,
                linger: traces.linger,
            },
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            since: None,
            exports: FuturesUnordered::new(),
            under_way: 0,
            begun: 0,
            state: State::Well,
            state_of: 0,
            counts,
        }
    }

    /// Takes an encoded span, or counts that there was no room.
    pub fn push(&mut self, span: Vec<u8>) {
        let further = self.under_way.saturating_sub(self.limits.batch_max);
        if self.waiting.len() + further >= self.limits.queue_max || self.waiting_bytes + span.len() > BYTES_MAX {
            return self.counts.drop_spans(SpanDrop::QueueFull, 1);
        }
        self.waiting_bytes += span.len();
        self.waiting.push_back(span);
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Begins an export for each batch that is full or has waited long enough; `now` is long enough for what waits while none
    /// is under way.
    pub fn begin(&mut self, now: bool) {
        while self.has_room() && self.is_due(now) {
            let batch = self.batch();
            self.since = (!self.waiting.is_empty()).then(Instant::now);
            self.begun += 1;
            let (number, spans) = (self.begun, batch.len());
            self.under_way += spans;
            let collector = Arc::clone(&self.collector);
            self.exports.push(Box::pin(async move {
                Ended {
                    number,
                    spans,
                    result: collector.export(batch).await,
                }
            }));
        }
    }

    fn is_due(&self, now: bool) -> bool {
        let is_due = self.is_full() || self.is_late() || now && self.exports.is_empty();
        is_due && !self.waiting.is_empty()
    }

    /// Whether one more export may be begun.
    fn has_room(&self) -> bool {
        self.exports.len() < EXPORTS_MAX
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= self.limits.batch_max || self.waiting_bytes >= BATCH_BYTES_MAX
    }

    fn is_late(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= self.limits.linger)
    }

    /// When the next export is to begin, if that is a matter of time.
    pub fn due(&self) -> Option<Instant> {
        let since = self.since.filter(|_| self.has_room())?;
        since.checked_add(self.limits.linger)
    }

    /// At least one span, then as many as fit.
    fn batch(&mut self) -> Vec<Vec<u8>> {
        let mut total = 0;
        let fits = self.waiting.iter().take(self.limits.batch_max).take_while(|span| {
            total += span.len();
            total <= BATCH_BYTES_MAX
        });
        let n = fits.count().max(1).min(self.waiting.len());
        let batch: Vec<_> = self.waiting.drain(..n).collect();
        self.waiting_bytes -= batch.iter().map(Vec::len).sum::<usize>();
        batch
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.exports.is_empty()
    }

    /// Waits for the first of the exports that are under way to end; for ever if there is none. May be dropped and called
    /// again.
    pub async fn next(&mut self) {
        match self.exports.next().await {
            Some(ended) => {
                self.under_way -= ended.spans;
                self.count(ended);
            }
            None => std::future::pending().await,
        }
    }

    fn count(&mut self, ended: Ended) {
        let Ended {
            number,
            spans: n,
            result,
        } = ended;
        self.counts.waiting.fetch_sub(n as u64, Ordering::Relaxed);
        match result {
            Ok(Taken { rejected, message }) => {
                let rejected = rejected.min(n);
                self.counts.sent.fetch_add((n - rejected) as u64, Ordering::Relaxed);
                self.counts.drop_spans(SpanDrop::Rejected, rejected);
                let state = match (rejected, message.is_empty()) {
                    (0, true) => State::Well,
                    (0, false) => State::Warned,
                    _ => State::Failing(SpanDrop::Rejected),
                };
                self.change(number, state, &message);
            }
            Err(Failure { reason, message }) => {
                self.counts.drop_spans(reason, n);
                self.change(number, State::Failing(reason), &message);
            }
        }
    }

    fn change(&mut self, number: u64, state: State, message: &str) {
        if number < self.state_of {
            return;
        }
        self.state_of = number;
        if std::mem::replace(&mut self.state, state) == state {
            return;
        }
        match state {
            State::Well => tracing::info!("the trace collector takes spans again"),
            State::Warned => tracing::warn!(
                told = message,
                "the trace collector takes spans, and has something to say"
            ),
            State::Failing(reason) => tracing::error!(
                reason = reason.as_str(),
                told = message,
                "spans are dropped: the trace collector does not take them; check traces.endpoint"
            ),
        }
    }

    /// Gives up the exports under way, one of which may be torn: after a panic.
    pub fn abandon(&mut self) {
        self.exports.clear();
        let lost = std::mem::take(&mut self.under_way);
        self.counts.waiting.fetch_sub(lost as u64, Ordering::Relaxed);
        self.counts.drop_spans(SpanDrop::Abandoned, lost);
    }

    /// Sends what is left until `deadline`, then drops and counts the rest.
    pub async fn finish(&mut self, deadline: Instant) {
        let sending = async {
            while !self.is_idle() {
                self.begin(true);
                self.next().await;
            }
        };
        if tokio::time::timeout_at(deadline, sending).await.is_err() {
            self.exports.clear();
            let left = self.waiting.len() + std::mem::take(&mut self.under_way);
            self.waiting.clear();
            self.waiting_bytes = 0;
            self.counts.waiting.fetch_sub(left as u64, Ordering::Relaxed);
            self.counts.drop_spans(SpanDrop::Shutdown, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    enum Double {
        Hangs,
        Answers(Result<Taken, Failure>),
    }

    impl Collector for Double {
        async fn export(&self, _batch: Vec<Vec<u8>>) -> Result<Taken, Failure> {
            match self {
                Self::Hangs => std::future::pending().await,
                Self::Answers(answer) => answer.clone(),
            }
        }
    }

    fn failure(reason: SpanDrop) -> Result<Taken, Failure> {
        let message = "told".to_owned();
        Err(Failure { reason, message })
    }

    fn spans(collector: Double, queue_max: usize) -> Spans<Double> {
        let traces = Traces {
            queue_max,
            ..Traces::default()
        };
        Spans::new(collector, &traces, Arc::default())
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn an_export_that_hangs_holds_nothing_up() {
        let mut spans = spans(Double::Hangs, 3);
        spans.push(Vec::new());
        spans.begin(true);
        (0..5).for_each(|_| spans.push(Vec::new()));
        assert_eq!(spans.counts.dropped(SpanDrop::QueueFull), 2);
        assert_eq!(spans.counts.waiting(), 4);
        spans.finish(Instant::now()).await;
        assert_eq!(spans.counts.dropped(SpanDrop::Shutdown), 4);
        assert!(spans.is_idle() && spans.counts.waiting() == 0);
    }

    #[tokio::test]
    async fn what_has_no_room_is_dropped_and_counted() {
        let mut spans = spans(Double::Answers(Ok(Taken::default())), 1_000);
        let large = vec![0; BYTES_MAX / 4 + 1];
        (0..5).for_each(|_| spans.push(large.clone()));
        assert_eq!(
            spans.counts.dropped(SpanDrop::QueueFull),
            2,
            "each has a byte more than a quarter"
        );
        spans.begin(true);
        assert_eq!(
            (spans.exports.len(), spans.waiting.len()),
            (3, 0),
            "a span that is larger than a request may be goes alone"
        );
        spans.finish(later()).await;
        assert_eq!((spans.counts.sent(), spans.waiting_bytes), (3, 0));
    }

    #[tokio::test]
    async fn a_batch_is_begun_when_it_is_full_or_has_waited() {
        let mut spans = spans(Double::Answers(Ok(Taken::default())), 2_000);
        (0..511).for_each(|_| spans.push(Vec::new()));
        spans.begin(false);
        assert_eq!(spans.under_way, 0);
        spans.push(Vec::new());
        spans.begin(false);
        assert_eq!(spans.under_way, 512);
        spans.next().await;
        spans.limits.linger = Duration::ZERO;
        spans.push(Vec::new());
        spans.begin(false);
        assert_eq!(spans.under_way, 1);
    }

    #[tokio::test]
    async fn what_comes_fast_goes_out_in_several_exports_at_once() {
        let mut spans = spans(Double::Hangs, 10_000);
        (0..2 * 512 + 1).for_each(|_| spans.push(Vec::new()));
        spans.begin(false);
        assert_eq!(
            (spans.exports.len(), spans.waiting.len()),
            (2, 1),
            "what is no batch waits"
        );
        (0..6 * 512).for_each(|_| spans.push(Vec::new()));
        spans.begin(false);
        assert_eq!((spans.exports.len(), spans.under_way), (EXPORTS_MAX, EXPORTS_MAX * 512));
    }

    #[tokio::test]
    async fn of_what_is_under_way_one_batch_takes_no_room() {
        let mut spans = spans(Double::Hangs, 600);
        for exports in 1..=2 {
            (0..512).for_each(|_| spans.push(Vec::new()));
            spans.begin(false);
            assert_eq!(spans.exports.len(), exports);
        }
        (0..100).for_each(|_| spans.push(Vec::new()));
        assert_eq!(spans.waiting.len(), 600 - 512);
        assert_eq!(spans.counts.dropped(SpanDrop::QueueFull), 12);
    }

    #[tokio::test]
    async fn exports_that_are_abandoned_are_counted() {
        let mut spans = spans(Double::Hangs, 2_000);
        (0..2 * 512).for_each(|_| spans.push(Vec::new()));
        spans.begin(true);
        assert_eq!(spans.exports.len(), 2);
        spans.abandon();
        assert!(spans.is_idle());
        assert_eq!(
            (spans.counts.waiting(), spans.counts.dropped(SpanDrop::Abandoned)),
            (0, 2 * 512)
        );
    }

    #[tokio::test]
    async fn a_change_is_told_once() {
        let mut spans = spans(Double::Hangs, 10);
        let mut ends = |number, result, state| {
            spans.count(Ended {
                number,
                spans: 0,
                result,
            });
            assert_eq!(spans.state, state);
        };
        ends(1, failure(SpanDrop::Busy), State::Failing(SpanDrop::Busy));
        ends(2, failure(SpanDrop::Refused), State::Failing(SpanDrop::Refused));
        let message = "deprecated".to_owned();
        ends(3, Ok(Taken { rejected: 0, message }), State::Warned);
        ends(5, Ok(Taken::default()), State::Well);
        ends(4, failure(SpanDrop::Timeout), State::Well);
        ends(6, failure(SpanDrop::Timeout), State::Failing(SpanDrop::Timeout));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_waited_is_sent_beside_an_export_that_hangs() {
        let mut spans = spans(Double::Hangs, 10);
        for exports in 1..=EXPORTS_MAX {
            spans.push(Vec::new());
            spans.begin(false);
            assert_eq!(spans.exports.len(), exports - 1);
            tokio::time::sleep_until(spans.due().unwrap()).await;
            spans.begin(false);
            assert_eq!(spans.exports.len(), exports);
        }
        spans.push(Vec::new());
        assert_eq!(spans.due(), None, "there is no room for one more");
        spans.begin(true);
        assert_eq!(spans.waiting.len(), 1);
    }

    fn answer() -> impl Strategy<Value = Result<Taken, Failure>> {
        let rejected = (0..2_000_usize).prop_map(|rejected| {
            Ok(Taken {
                rejected,
                message: String::new(),
            })
        });
        let failed = proptest::sample::select(SpanDrop::ALL.to_vec()).prop_map(failure);
        prop_oneof![rejected, failed]
    }

    proptest! {
        #[test]
        fn every_span_is_counted_once(pushed in 0..1_500_usize, queue_max in 1..1_500_usize, answer in answer()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let mut spans = spans(Double::Answers(answer), queue_max);
                (0..pushed).for_each(|_| spans.push(Vec::new()));
                spans.finish(later()).await;
                let dropped: u64 = SpanDrop::ALL.iter().map(|reason| spans.counts.dropped(*reason)).sum();
                prop_assert_eq!(spans.counts.sent() + dropped, pushed as u64);
                Ok(())
            })?;
        }
    }
}
