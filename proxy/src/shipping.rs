//! What nobody waits for: exchanges become records, frames and spans, and go to NATS and the collector.
//!
//! One thread with a runtime of its own. Data flows one way: taken buffer → exchange → record → frame →
//! publisher, and exchange → span → exporter.
//!
//! Invariants:
//! - Nothing here is known to the request path, and the other way round: both know only the queue
//!   (`tests/layout.rs`).
//! - When the publisher has no room the queue is left to fill; memory is bounded by its limit and the window.
//! - A record that was taken is shipped or counted as dropped, also at the end.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use sidelog_chassis::nats::{self, Connection};
use sidelog_record::frame::{Frame, FrameBuilder};
use tokio::sync::watch;
use tokio::time::Instant;

pub mod body;
pub mod jetstream;
pub mod otlp;
pub mod record;
pub mod redact;
pub mod span;
pub mod spans;

use crate::generation::Generation;
use crate::queue::exchange::Exchange;
use crate::queue::ledger::{DropReason, Stage};
use crate::queue::{Queue, Taken, Taker};
use jetstream::Publisher;
use otlp::Otlp;
use record::Identity;
use redact::Redactor;
use spans::{SpanCounts, Spans};

/// How often the queue's buffers are swapped out under load.
const TICK: Duration = Duration::from_millis(5);
/// How often it is looked whether NATS is back.
const SLOW: Duration = Duration::from_millis(50);
/// After this long without an exchange the thread parks.
const IDLE: Duration = Duration::from_millis(100);
/// How long spans may hold up the end of the process.
const SPANS_AT_END: Duration = Duration::from_secs(1);

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
    pub fn start(
        generation: Arc<Generation>,
        identity: Identity,
        queue: Arc<Queue>,
        spans: Arc<SpanCounts>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the shipping runtime")?;
        let settings = &generation.settings;
        let (connection, exporter) = runtime.block_on(async {
            let connection = nats::connect(&settings.nats, &format!("sidelog-proxy {}", identity.service)).await?;
            let exporter = settings
                .traces
                .enabled
                .then(|| Otlp::new(&settings.traces, &identity))
                .transpose()?;
            anyhow::Ok((connection, exporter))
        })?;
        let (finish, finishing) = watch::channel(None);
        let thread = std::thread::Builder::new()
            .name("shipping".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    Shipper::new(&generation, identity, queue, connection, exporter, spans)
                        .run(finishing)
                        .await;
                });
            })
            .context("failed to start the shipping thread")?;
        Ok(Self { thread, finish })
    }

    /// Ships what is left until `deadline`, counts the rest as dropped, and waits for the thread's end.
    pub fn finish(self, deadline: std::time::Instant) {
        self.finish.send_replace(Some(Instant::from_std(deadline)));
        if self.thread.join().is_err() {
            tracing::error!("the shipping thread had panicked; what it held is lost");
        }
    }
}

/// All state of the thread.
struct Shipper {
    generation: Arc<Generation>,
    identity: Identity,
    redactor: Redactor,
    queue: Arc<Queue>,
    taker: Taker,
    /// A buffer that is being read, and how far.
    reading: Option<(Taken, usize)>,
    frame: FrameBuilder,
    /// When the first record of the open frame was put in.
    opened: Option<Instant>,
    publisher: Publisher,
    spans: Option<Spans<Otlp>>,
    last_taken: Instant,
}

impl Shipper {
    fn new(
        generation: &Arc<Generation>,
        identity: Identity,
        queue: Arc<Queue>,
        connection: Connection,
        exporter: Option<Otlp>,
        counts: Arc<SpanCounts>,
    ) -> Self {
        let settings = &generation.settings;
        Self {
            redactor: Redactor::new(&settings.redaction),
            taker: Taker::new(Arc::clone(&queue)),
            reading: None,
            frame: FrameBuilder::new(settings.frame.max_records, settings.frame.max_bytes.as_usize()),
            opened: None,
            publisher: Publisher::new(
                connection,
                &settings.nats,
                &settings.publish,
                &identity.service,
                Arc::clone(&queue),
            ),
            spans: exporter.map(|exporter| Spans::new(exporter, &settings.traces, counts)),
            last_taken: Instant::now(),
            generation: Arc::clone(generation),
            identity,
            queue,
        }
    }

    async fn run(mut self, mut finishing: watch::Receiver<Option<Instant>>) {
        let deadline = loop {
            let deadline = *finishing.borrow_and_update();
            if let Some(deadline) = deadline {
                break deadline;
            }
            self.work(false);
            let may_park = self.is_idle();
            let pace = if self.publisher.is_held_up() { SLOW } else { TICK };
            tokio::select! {
                () = self.publisher.next() => {}
                () = next_export(&mut self.spans) => {}
                () = tokio::time::sleep(pace), if !may_park => {}
                () = self.taker.parked(), if may_park => self.last_taken = Instant::now(),
                _ = finishing.changed() => {}
            }
        };
        self.end(deadline).await;
    }

    /// Moves everything one step on, as far as there is room.
    fn work(&mut self, at_once: bool) {
        self.read();
        let linger = if at_once {
            Duration::ZERO
        } else {
            self.generation.settings.frame.linger
        };
        if self.opened.is_some_and(|opened| opened.elapsed() >= linger) {
            let frame = self.frame.close();
            self.accept(frame);
        }
        self.publisher.publish();
        if let Some(spans) = &mut self.spans {
            spans.begin(at_once);
        }
    }

    /// Reads exchanges while the publisher has room for the frames they make.
    fn read(&mut self) {
        while self.publisher.has_room() {
            let Some((taken, at)) = self.reading.take().or_else(|| Some((self.taker.take()?, 0))) else {
                return;
            };
            self.last_taken = Instant::now();
            match taken
                .bytes()
                .get(at..)
                .filter(|rest| !rest.is_empty())
                .map(Exchange::decode)
            {
                None => self.taker.put_back(taken),
                Some(Some((exchange, rest))) => {
                    let next = taken.bytes().len() - rest.len();
                    self.ship(&exchange);
                    self.reading = Some((taken, next));
                }
                Some(None) => self.unreadable(taken),
            }
        }
    }

    fn ship(&mut self, exchange: &Exchange<'_>) {
        if let Some(spans) = self.spans.as_mut().filter(|_| exchange.trace.span) {
            spans.push(span::span(exchange, &self.generation, &self.redactor));
        }
        if !exchange.record {
            return;
        }
        let record = record::record(exchange, &self.identity, &self.generation, &self.redactor);
        let full = self.frame.push(&record);
        self.opened.get_or_insert_with(Instant::now);
        self.accept(full);
    }

    fn accept(&mut self, frame: Option<Frame>) {
        if let Some(frame) = frame {
            self.publisher.accept(frame);
            self.opened = (!self.frame.is_empty()).then(Instant::now);
        }
    }

    /// The rest of a buffer can't be read: a fault of sidelog's own. What it held is counted.
    fn unreadable(&mut self, taken: Taken) {
        let ledger = self.queue.ledger();
        let held = u64::from(self.frame.count());
        let lost = ledger.balance().building.saturating_sub(held);
        ledger.drop_at(Stage::Building, DropReason::Unreadable, lost);
        tracing::error!(
            records = lost,
            "records in the queue could not be read and were dropped; please report this"
        );
        self.taker.put_back(taken);
    }

    fn is_idle(&self) -> bool {
        let quiet = self.last_taken.elapsed() >= IDLE && self.reading.is_none() && self.frame.is_empty();
        quiet && self.publisher.is_idle() && self.spans.as_ref().is_none_or(Spans::is_idle)
    }

    /// Ships until everything is acknowledged, the deadline has passed, or there is no server to ship to.
    async fn end(mut self, deadline: Instant) {
        let spans_deadline = deadline.min(Instant::now() + SPANS_AT_END);
        loop {
            self.work(true);
            let done =
                self.reading.is_none() && self.taker.is_empty() && self.frame.is_empty() && self.publisher.is_idle();
            if done || Instant::now() >= deadline || !self.publisher.is_connected() {
                break;
            }
            tokio::select! {
                () = self.publisher.next() => {}
                () = next_export(&mut self.spans) => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
        self.count_rest();
        if let Some(spans) = &mut self.spans {
            spans.finish(spans_deadline).await;
        }
    }

    /// What is left when nothing can be shipped any more, wherever it is: counted, its spans kept for the collector.
    fn count_rest(&mut self) {
        let mut lost = self.publisher.give_up(DropReason::Shutdown);
        while let Some((taken, at)) = self.reading.take().or_else(|| Some((self.taker.take()?, 0))) {
            let mut rest = taken.bytes().get(at..).unwrap_or_default();
            while let Some((exchange, next)) = Exchange::decode(rest) {
                if let Some(spans) = self.spans.as_mut().filter(|_| exchange.trace.span) {
                    spans.push(span::span(&exchange, &self.generation, &self.redactor));
                }
                rest = next;
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
                "records were dropped at the end: NATS could not be reached in time"
            );
        }
    }
}

/// Waits for the export under way, if there is one.
async fn next_export(spans: &mut Option<Spans<Otlp>>) {
    match spans {
        Some(spans) => spans.next().await,
        None => std::future::pending().await,
    }
}
