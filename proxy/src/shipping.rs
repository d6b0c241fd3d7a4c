//! What nobody waits for: exchanges become records, frames and spans, and go to NATS and the collector.
//!
//! One thread with a runtime of its own. Data flows one way: taken buffer → exchange → record → frame →
//! [delivery], and exchange → span → exporter.
//!
//! | Module | What it is for |
//! |---|---|
//! | [`attributes`], [`redact`] | what record and span both say, and what they don't |
//! | [`record`], [`body`], [`window`] | an exchange becomes a record |
//! | [`span`] | an exchange becomes a span |
//! | [`loss`] | what was dropped becomes a record |
//! | [`outgoing`] | a closed frame, and what it keeps for good |
//! | [`outbox`] | which frames there are, and what is to be done with each |
//! | [`spool`] | the disk |
//! | [`jetstream`] | NATS |
//! | [`delivery`] | outbox, disk and NATS put together |
//! | [`pace`] | how long the thread rests between two rounds |
//! | [`pulse`] | whether it lives |
//!
//! Invariants:
//! - Nothing here is known to the request path, and the other way round: both know only the queue
//!   (`tests/layout.rs`).
//! - When neither NATS nor the disk has room the queue is left to fill; memory is bounded by its limit and the window.
//! - An exchange is redacted by the rules of the generation it was served under, whichever is in force by then
//!   (`secrets_are_taken_out_by_the_exchange_s_own_generation`).
//! - A record that was taken is shipped, spooled or counted as dropped, also at the end.
//! - A panic costs the exchange it was about and the open frame, counted; the thread goes on
//!   (`a_panic_costs_what_was_in_hand_and_is_counted`, `the_thread_goes_on_after_a_panic`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use sidelog_chassis::drain::Shutdown;
use sidelog_chassis::nats::{self, Connection};
use sidelog_record::frame::{Frame, FrameBuilder};
use tokio::sync::watch;
use tokio::time::Instant;

pub mod attributes;
pub mod body;
pub mod counts;
pub mod decode;
pub mod delivery;
pub mod jetstream;
pub mod loss;
pub mod otlp;
pub mod outbox;
pub mod outgoing;
pub mod pace;
pub mod pulse;
pub mod record;
pub mod redact;
pub mod span;
pub mod spans;
pub mod spool;
pub mod window;

use crate::generation::Generation;
use crate::queue::exchange::Exchange;
use crate::queue::ledger::{DropReason, Stage};
use crate::queue::{Queue, Taken, Taker};
use crate::settings::Settings;
use attributes::Attributes;
use counts::Counts;
use delivery::Delivery;
use loss::{LossWatch, wall_clock};
use otlp::Otlp;
use pace::{Pace, TICK};
use record::Identity;
use redact::Redactor;
use spans::{SpanCounts, Spans};

/// How often it is looked whether NATS or the disk is back, and what may be sent from disk.
const LOOK: Duration = Duration::from_millis(50);
/// The longest rest, so that who looks knows whether the thread still gets up.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long spans may hold up the end of the process.
const SPANS_AT_END: Duration = Duration::from_secs(1);
/// What of the time to the deadline is kept for the disk: a quarter, and not more than this.
const SAVING_AT_END: Duration = Duration::from_secs(2);
/// Wait after a panic, so that one that comes again and again doesn't take all of a core.
const AFTER_PANIC: Duration = Duration::from_millis(100);

/// What shipping is started with.
#[derive(Debug)]
pub struct Setup {
    /// The settings at the start: what shipping reads of them no reload changes.
    pub settings: Settings,
    /// Whose records they are.
    pub identity: Identity,
    /// The first listener's port, which tells this proxy's spool from others'.
    pub port: u16,
    /// Where exchanges come from.
    pub queue: Arc<Queue>,
    /// What is counted beside records.
    pub counts: Arc<Counts>,
    /// What is counted of spans.
    pub spans: Arc<SpanCounts>,
    /// From the drain on nothing lingers. The end comes by [`Shipping::finish`].
    pub shutdown: Shutdown,
}

/// The running thread.
#[derive(Debug)]
pub struct Shipping {
    thread: JoinHandle<()>,
    finish: watch::Sender<Option<Instant>>,
}

impl Shipping {
    /// Starts the thread.
    ///
    /// # Errors
    /// When credentials or certificates of NATS or the collector can't be read, or the thread can't be started.
    pub fn start(setup: Setup) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the shipping runtime")?;
        let settings = &setup.settings;
        let (connection, exporter) = runtime.block_on(async {
            let connection =
                nats::connect(&settings.nats, &format!("sidelog-proxy {}", setup.identity.service)).await?;
            let exporter = settings
                .traces
                .enabled
                .then(|| Otlp::new(&settings.traces, &setup.identity))
                .transpose()?;
            anyhow::Ok((connection, exporter))
        })?;
        let redactor = Redactor::default();
        let (finish, finishing) = watch::channel(None);
        let alive = setup.counts.pulse().alive();
        let thread = std::thread::Builder::new()
            .name("shipping".to_owned())
            .spawn(move || {
                let _alive = alive;
                runtime.block_on(async move {
                    Shipper::new(setup, connection, exporter, redactor).run(finishing).await;
                });
                // A disk that hangs must not hang the end.
                runtime.shutdown_background();
            })
            .context("failed to start the shipping thread")?;
        Ok(Self { thread, finish })
    }

    /// Ships what is left until `deadline`, spools the rest or counts it as dropped, and waits for the thread's end.
    pub fn finish(self, deadline: std::time::Instant) {
        self.finish.send_replace(Some(Instant::from_std(deadline)));
        if self.thread.join().is_err() {
            tracing::error!("the shipping thread had panicked; what it held is lost");
        }
    }
}

/// All state of the thread.
struct Shipper {
    settings: Settings,
    identity: Identity,
    redactor: Redactor,
    queue: Arc<Queue>,
    taker: Taker,
    /// A buffer that is being read, and how far.
    reading: Option<(Taken, usize)>,
    /// Records in that buffer that are still to be read.
    unread: u64,
    frame: FrameBuilder,
    /// When the first record of the open frame was put in.
    opened: Option<Instant>,
    delivery: Delivery,
    losses: LossWatch,
    spans: Option<Spans<Otlp>>,
    counts: Arc<Counts>,
    pace: Pace,
    shutdown: Shutdown,
}

impl Shipper {
    fn new(setup: Setup, connection: Connection, exporter: Option<Otlp>, redactor: Redactor) -> Self {
        let settings = &setup.settings;
        let (queue, counts) = (setup.queue, setup.counts);
        counts.ships_over(connection.clone());
        Self {
            redactor,
            taker: Taker::new(Arc::clone(&queue)),
            reading: None,
            unread: 0,
            frame: builder(settings),
            opened: None,
            delivery: Delivery::new(connection, settings, setup.port, &queue, Arc::clone(&counts)),
            losses: LossWatch::new(Arc::clone(queue.ledger())),
            spans: exporter.map(|exporter| Spans::new(exporter, &settings.traces, setup.spans)),
            counts,
            pace: Pace::new(Instant::now()),
            shutdown: setup.shutdown,
            settings: setup.settings,
            identity: setup.identity,
            queue,
        }
    }

    /// Ships until it is told to finish, whatever panics on the way.
    async fn run(mut self, mut finishing: watch::Receiver<Option<Instant>>) {
        let deadline = loop {
            match AssertUnwindSafe(self.ship_until_told(&mut finishing))
                .catch_unwind()
                .await
            {
                Ok(deadline) => break deadline,
                Err(_) => self.recover().await,
            }
        };
        while AssertUnwindSafe(self.end(deadline)).catch_unwind().await.is_err() {
            self.recover().await;
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    async fn ship_until_told(&mut self, finishing: &mut watch::Receiver<Option<Instant>>) -> Instant {
        loop {
            let deadline = *finishing.borrow_and_update();
            if let Some(deadline) = deadline {
                return deadline;
            }
            self.work(false);
            let now = Instant::now();
            let rest = self.pace.rest(self.delivery.has_room(), self.due(now), now);
            let until = rest.until.min(now + HEARTBEAT);
            self.counts.pulse().back_at(until.into_std());
            tokio::select! {
                () = self.delivery.next() => {}
                () = next_export(&mut self.spans) => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.taker.holds(rest.or_holds) => {}
                _ = finishing.changed() => {}
            }
        }
    }

    /// Moves everything one step on, as far as there is room.
    fn work(&mut self, is_ending: bool) {
        #[cfg(test)]
        tests::trip_once();
        let frame_max = self.settings.frame.max_bytes.as_usize();
        self.frame.set_max_bytes(frame_max.min(self.delivery.message_max()));
        self.read();
        let must_not_linger = is_ending || self.shutdown.is_draining();
        let linger = if must_not_linger {
            Duration::ZERO
        } else {
            self.settings.frame.linger
        };
        if self.opened.is_some_and(|opened| opened.elapsed() >= linger) {
            let frame = self.frame.close();
            self.accept(frame);
        }
        self.losses.tend(Instant::now());
        if self.delivery.can_ship() {
            self.tell_losses();
        }
        self.delivery.work(is_ending);
        if let Some(spans) = &mut self.spans {
            spans.begin(must_not_linger);
        }
    }

    /// Reads exchanges while there is room for the frames they make.
    fn read(&mut self) {
        while self.delivery.has_room() {
            let Some((taken, at)) = self.next_buffer() else { return };
            if at >= taken.bytes().len() {
                self.taker.put_back(taken);
                continue;
            }
            let Some((exchange, generation, next)) = taken.exchange(at) else {
                self.unreadable(taken);
                continue;
            };
            self.unread = self.unread.saturating_sub(u64::from(exchange.record));
            let shipped = catch_unwind(AssertUnwindSafe(|| self.ship(&exchange, generation)));
            self.reading = Some((taken, next));
            if shipped.is_err() {
                self.drop_torn();
            }
        }
    }

    fn next_buffer(&mut self) -> Option<(Taken, usize)> {
        self.reading.take().or_else(|| {
            let taken = self.taker.take()?;
            self.pace.took(taken.bytes().len(), Instant::now());
            self.unread = taken.records();
            Some((taken, 0))
        })
    }

    fn ship(&mut self, exchange: &Exchange<'_>, generation: &Generation) {
        #[cfg(test)]
        tests::trip(exchange);
        // What was taken out of an exchange that only has a span is not counted.
        self.redactor.take_tally();
        let attributes = Attributes::of(exchange, generation, &self.redactor);
        if let Some(spans) = self.spans.as_mut().filter(|_| exchange.trace.span) {
            spans.push(span::span(exchange, &attributes, generation));
        }
        if !exchange.record {
            return;
        }
        let record = record::record(exchange, attributes, &self.identity, generation, &self.redactor);
        self.counts.recorded(&record, self.redactor.take_tally());
        let full = self.frame.push(&record);
        self.opened.get_or_insert_with(Instant::now);
        self.accept(full);
    }

    fn accept(&mut self, frame: Option<Frame>) {
        if let Some(frame) = frame {
            let count = frame.count;
            self.delivery.accept(frame, count);
            self.opened = (!self.frame.is_empty()).then(Instant::now);
        }
    }

    fn tell_losses(&mut self) {
        while self.delivery.has_room()
            && let Some(frame) = self.losses.frame(&self.identity)
        {
            self.delivery.accept(frame, 0);
        }
    }

    /// The rest of a buffer can't be read: a fault of sidelog's own. What it held is counted.
    fn unreadable(&mut self, taken: Taken) {
        let ledger = self.queue.ledger();
        let lost = std::mem::take(&mut self.unread);
        ledger.drop_at(Stage::Building, DropReason::Unreadable, lost);
        tracing::error!(
            records = lost,
            "records in the queue could not be read and were dropped; please report this"
        );
        self.taker.put_back(taken);
    }

    /// A panic tore what was being built: it is dropped and counted, and a new frame begun.
    fn drop_torn(&mut self) {
        self.counts.panicked();
        if self.reading.is_none() {
            self.unread = 0;
        }
        self.frame = builder(&self.settings);
        self.opened = None;
        let ledger = self.queue.ledger();
        let lost = ledger.balance().building.saturating_sub(self.unread);
        ledger.drop_at(Stage::Building, DropReason::Panic, lost);
        tracing::error!(records = lost, "shipping had panicked and goes on; please report this");
    }

    /// A panic outside of a single exchange: frames in flight are sent again.
    async fn recover(&mut self) {
        self.drop_torn();
        self.delivery.recover();
        if let Some(spans) = &mut self.spans {
            spans.abandon();
        }
        tokio::time::sleep(AFTER_PANIC).await;
    }

    /// When there is something to do though nothing comes.
    fn due(&self, now: Instant) -> Instant {
        let linger = self.settings.frame.linger;
        let frame = self.opened.and_then(|opened| opened.checked_add(linger));
        let spans = self.spans.as_ref().and_then(Spans::due);
        let is_waiting = !self.delivery.is_idle() || self.losses.is_waiting();
        let look = is_waiting.then(|| now + LOOK);
        let dues = [frame, spans, look].into_iter().flatten();
        dues.fold(self.losses.due(), Instant::min)
    }

    /// Ships until everything is acknowledged, or there is no server to ship to; what can't be shipped goes to disk, and is
    /// counted as dropped where that fails, too.
    async fn end(&mut self, deadline: Instant) {
        let begun = Instant::now();
        let spans_deadline = deadline.min(begun + SPANS_AT_END);
        let time = deadline.saturating_duration_since(begun);
        let save_from = deadline - SAVING_AT_END.min(time / 4);
        let patience = self.settings.publish.ack_timeout;
        self.losses.note(begun, wall_clock());
        loop {
            let now = Instant::now();
            self.counts.pulse().back_at((now + TICK).into_std());
            let is_saving =
                !self.delivery.is_connected() || now >= save_from || self.delivery.stalled_for(now) >= patience;
            if is_saving {
                self.delivery.evacuate();
            }
            self.work(true);
            self.tell_losses();
            let is_read = self.reading.is_none() && self.taker.is_empty() && self.frame.is_empty();
            let cannot_ship = is_saving || !self.delivery.can_ship();
            let is_sent = self.delivery.is_idle() || self.delivery.is_settled() && cannot_ship;
            let is_hopeless = is_saving && self.delivery.cannot_save(now);
            if is_read && is_sent || is_hopeless || now >= deadline {
                break;
            }
            tokio::select! {
                () = self.delivery.next() => {}
                () = next_export(&mut self.spans) => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
        self.count_rest();
        if let Some(spans) = &mut self.spans {
            spans.finish(spans_deadline).await;
        }
    }

    /// What is left when nothing can be shipped or spooled any more, wherever it is: counted, its spans kept for the
    /// collector.
    fn count_rest(&mut self) {
        let mut lost = self.delivery.give_up(DropReason::Shutdown);
        while let Some((taken, mut at)) = self.next_buffer() {
            while let Some((exchange, generation, next)) = taken.exchange(at) {
                if let Some(spans) = self.spans.as_mut().filter(|_| exchange.trace.span) {
                    let attributes = Attributes::of(&exchange, generation, &self.redactor);
                    spans.push(span::span(&exchange, &attributes, generation));
                }
                at = next;
            }
            self.taker.put_back(taken);
        }
        let ledger = self.queue.ledger();
        let building = ledger.balance().building;
        ledger.drop_at(Stage::Building, DropReason::Shutdown, building);
        lost += building;
        if lost > 0 {
            tracing::error!(
                records = lost,
                "records were dropped at the end: neither NATS nor the spool could take them in time"
            );
        }
    }
}

/// A builder of frames as they are set.
fn builder(settings: &Settings) -> FrameBuilder {
    let frame = &settings.frame;
    FrameBuilder::new(frame.max_records, frame.max_bytes.as_usize())
}

/// Waits for the export under way, if there is one.
async fn next_export(spans: &mut Option<Spans<Otlp>>) {
    match spans {
        Some(spans) => spans.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::QueueLimits;
    use crate::queue::exchange::Fields;
    use crate::queue::exchange::tests::{GENERATION, exchange};

    thread_local!(static TRIP: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });

    /// A fault of sidelog in the middle of the work, if the test asked for it.
    pub(super) fn trip_once() {
        assert!(!TRIP.replace(false), "on purpose");
    }

    /// A fault of sidelog, for an exchange that asks for it.
    pub(super) fn trip(exchange: &Exchange<'_>) {
        assert!(exchange.request.target != b"/trip", "on purpose");
    }

    /// A shipper whose NATS is away, with a folder for its spool.
    async fn shipper(folder: &std::path::Path) -> Shipper {
        let mut settings = Settings::default();
        settings.nats.url = "nats://127.0.0.1:1".parse().unwrap();
        settings.spool.directory = Some(folder.to_owned());
        let limits = QueueLimits {
            bodies_max_bytes: 1 << 20,
            max_bytes: 1 << 20,
        };
        let connection = nats::connect(&settings.nats, "test").await.unwrap();
        let setup = Setup {
            settings,
            identity: Identity {
                service: "api".to_owned(),
                version: None,
                instance: "one".to_owned(),
                environment: "test".to_owned(),
            },
            port: 8080,
            queue: Queue::new(limits, 1),
            counts: Arc::default(),
            spans: Arc::default(),
            shutdown: Shutdown::new(),
        };
        let redactor = Redactor::default();
        Shipper::new(setup, connection, None, redactor)
    }

    #[tokio::test]
    async fn a_panic_costs_what_was_in_hand_and_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut shipper = shipper(folder.path()).await;
        let mut bad = exchange(b"{}");
        bad.request.target = b"/trip";
        for exchange in [&exchange(b"{}"), &bad, &exchange(b"{}"), &exchange(b"{}")] {
            shipper.queue.offer(exchange, &GENERATION);
        }
        shipper.read();
        let balance = shipper.queue.ledger().balance();
        assert_eq!(balance.dropped[DropReason::Panic as usize], 2);
        assert_eq!((balance.building, shipper.frame.count()), (2, 2));
        assert_eq!(shipper.counts.panics(), 1);
        assert!(balance.adds_up(), "{balance:?}");
    }

    #[tokio::test]
    async fn secrets_are_taken_out_by_the_exchange_s_own_generation() {
        let folder = tempfile::tempdir().unwrap();
        let mut shipper = shipper(folder.path()).await;
        let mut fields = Vec::new();
        Fields::push(&mut fields, b"content-type", b"application/json");
        for (number, secret) in [(1, "one"), (2, "two"), (1, "one")] {
            let mut settings = Settings::default();
            settings.redaction.json = vec![secret.parse().unwrap()];
            let mut seen = exchange(br#"{"one":"1","two":"2"}"#);
            seen.generation = number;
            (seen.request.fields, seen.response.fields) = (Fields(&fields), Fields(&fields));
            let generation = Arc::new(Generation::new(number, settings));
            shipper.queue.offer(&seen, &generation);
        }
        shipper.read();
        let frame = shipper.frame.close().unwrap();
        let told = String::from_utf8(frame.payload.to_vec()).unwrap();
        let bodies = told.matches(r#"{\"one\":\"REDACTED\",\"two\":\"2\"}"#).count();
        let others = told.matches(r#"{\"one\":\"1\",\"two\":\"REDACTED\"}"#).count();
        assert_eq!((bodies, others), (4, 2), "{told}");
    }

    #[tokio::test]
    async fn the_thread_goes_on_after_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let shipper = shipper(folder.path()).await;
        let (queue, counts) = (Arc::clone(&shipper.queue), Arc::clone(&shipper.counts));
        (0..100).for_each(|_| queue.offer(&exchange(b"{}"), &GENERATION));
        TRIP.set(true);
        let (finish, finishing) = watch::channel(None);
        let finishing_later = async {
            while counts.panics() == 0 || queue.ledger().balance().queued > 0 {
                tokio::task::yield_now().await;
            }
            finish.send_replace(Some(Instant::now() + Duration::from_secs(60)));
        };
        tokio::join!(shipper.run(finishing), finishing_later);
        let balance = queue.ledger().balance();
        assert_eq!((counts.panics(), balance.spooled), (1, 100));
        assert!(balance.adds_up(), "{balance:?}");
    }

    #[tokio::test]
    async fn nothing_lingers_from_the_drain_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut shipper = shipper(folder.path()).await;
        shipper.queue.offer(&exchange(b"{}"), &GENERATION);
        shipper.work(false);
        assert_eq!(shipper.frame.count(), 1, "a frame lingers");
        shipper.shutdown.drain();
        shipper.work(false);
        assert!(shipper.frame.is_empty());
    }

    #[tokio::test]
    async fn with_nats_away_the_end_spools_everything_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut shipper = shipper(folder.path()).await;
        let ledger = Arc::clone(shipper.queue.ledger());
        (0..1_000).for_each(|_| shipper.queue.offer(&exchange(b"{}"), &GENERATION));
        shipper.recover().await;
        shipper.end(Instant::now() + Duration::from_secs(60)).await;
        let balance = ledger.balance();
        assert_eq!((balance.spooled, balance.dropped_total()), (1_000, 0));
        assert!(balance.adds_up(), "{balance:?}");
    }
}
