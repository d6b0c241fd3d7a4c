//! Moves records from JetStream to a store, and acknowledges only what the store has.
//!
//! ```text
//! JetStream ──fetch──► source ──Delivery──► lanes ──Entry──► transfer ──push──► sink (loki, file, stdout)
//!     ▲                  │                  │  ▲                │  │
//!     └────── ack ────── ledger ◄───────────┼──┼───── settled ──┘  │
//!                                           │  └─────── answer ────┘
//!                                           └──Letter──► dead_letter (stream `logs_dead`)
//! ```
//!
//! | Module | What it is for |
//! |---|---|
//! | `source`, `durable` | fetches from the durable pull consumer, no more than there is room for |
//! | `gaps`, `fit` | what expired unread, and what of the server doesn't fit the settings |
//! | `lag` | how far behind it is |
//! | `delivery`, `ledger` | a message on its way, and those that are not acknowledged yet |
//! | `entry`, `metadata` | a message's lines, sorted: records, and what is none; where the values stand that go beside a line |
//! | `lane`, `lanes` | the entries of each stream, collected by bytes and time, and whose turn it is |
//! | `transfer` | one push: send, and acknowledge if it succeeds |
//! | `sink`, `loki`, `file` | the stores |
//! | `answer`, `refusal` | what a store says, and what its words mean for an entry |
//! | `dead_letter` | what is no record, or what the store refuses for good |
//! | `backoff`, `outage` | how to wait, and how to tell that one waits |
//! | [`settings`], [`cli`], `metrics` | what an operator sees |
//!
//! Invariants:
//! - A message is acknowledged only after each of its lines is in the store or in the dead letter stream
//!   (`tests/consumer/restarts.rs`, `a_dead_letter_stream_that_is_denied_holds_the_messages_with_bad_lines_and_no_others`).
//! - Nothing that a server does ends the process; it waits, says what to do, and JetStream keeps the records
//!   (`whatever_is_not_a_204_is_pushed_again_until_it_is_and_the_operator_is_told_what_to_do`).
//! - Memory is bounded in bytes: `source.memory_max` for messages that are held, half as much for what is known of their
//!   lines, and at most `loki.batch_max_bytes`, by experience a quarter, for each of `loki.concurrency` pushes until they are answered
//!   (`a_store_that_is_away_does_not_make_it_hold_more_than_its_memory`, `…_many_small_records_cost_more_than_their_memory`).
//! - A message that comes again gives the same bytes (`killed_between_push_and_acknowledgement_the_same_bytes_come_again`).

pub mod cli;
pub mod settings;

mod answer;
mod backoff;
mod dead_letter;
mod delivery;
mod durable;
mod entry;
mod file;
mod fit;
mod gaps;
mod lag;
mod lane;
mod lanes;
mod ledger;
mod loki;
mod metadata;
mod metrics;
mod outage;
mod refusal;
mod sink;
mod source;
mod transfer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use sidelog_chassis::admin::{Admin, Endpoints};
use sidelog_chassis::drain::Shutdown;
use sidelog_chassis::logging;
use sidelog_chassis::nats::{self, Connection};
use sidelog_chassis::settings::shown;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use backoff::Backoff;
use dead_letter::{DeadLetters, Letters};
use entry::Sorter;
use file::Lines;
use lag::Lag;
use lane::LaneLimits;
use lanes::{Lanes, LanesLimits};
use ledger::Ledger;
use loki::Loki;
use metrics::Metrics;
use outage::{Holds, InTheWay};
use settings::{Settings, SinkKind};
use sink::Sink;
use source::Source;
use transfer::Transfer;

/// Messages between source and lanes. Their bytes are bounded by what they have reserved.
const QUEUE: usize = 1024;
/// At the end: the longest that giving back messages may take.
const LEAVE: Duration = Duration::from_secs(1);

/// Runs a consumer until `shutdown` is requested and what was fetched is stored, or `shutdown.deadline` is over.
///
/// # Errors
/// What keeps it from starting: an admin address that can't be bound, a file of credentials or certificates that can't
/// be read. A server that is away is waited for.
pub async fn run(settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    Consumer::bind(settings).await?.run(shutdown).await
}

/// A consumer that is ready to run: its admin address is bound, its files are read.
#[derive(Debug)]
pub struct Consumer {
    settings: Settings,
    admin: Admin,
    registry: Registry,
    metrics: Metrics,
    connection: Connection,
    sink: Sink,
}

impl Consumer {
    /// Does everything that can fail for good, and begins to connect to NATS.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn bind(settings: Settings) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let admin = Admin::bind(settings.admin.address)?;
        let sink = sink(&settings, &metrics)?;
        let connection = nats::connect(&settings.nats, settings::PROGRAM.name).await?;
        metrics.register_state(&mut registry, connection.clone());
        Ok(Self {
            settings,
            admin,
            registry,
            metrics,
            connection,
            sink,
        })
    }

    /// Where `/livez`, `/readyz` and `/metrics` are served, with the real port.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// None that a server causes; a task of ours that broke down.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        tracing::info!(admin = %self.admin_address(), sink = ?self.settings.sink.kind, "started");
        let Self {
            settings,
            admin,
            registry,
            metrics,
            connection,
            sink,
        } = self;
        let ledger = Arc::new(Ledger::new(connection.client.clone(), metrics.clone()));
        let (holds, connected) = (metrics.holds.clone(), connection.clone());
        let in_force = Arc::new(settings.clone());
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (ack_wait, acks) = watch::channel(settings.source.ack_wait);
        let source = Source::new(
            &settings,
            connection.clone(),
            Arc::clone(&ledger),
            metrics.clone(),
            sender,
            ack_wait,
        );
        let sorter = Sorter::new(&settings.nats.subject, settings.line_max());
        let dead_letters = DeadLetters::new(connection.clone(), settings.dead_letter_stream(), metrics.clone());
        let letters = Letters::new(dead_letters, Arc::clone(&ledger));
        let lag = Lag::new(&settings, connection.clone(), Arc::clone(&ledger), &metrics);
        let transfer = Transfer {
            sink,
            ledger: Arc::clone(&ledger),
            metrics,
        };
        let lanes = Lanes::new(limits(&settings), Arc::new(transfer), sorter, letters);
        let endpoints = Endpoints {
            metrics: Arc::new(registry),
            ready: Arc::new(|| true),
            troubles: Arc::new(move || troubles(&holds, &connected)),
            verbs: vec![logging::verb(), shown::verb(move || Arc::clone(&in_force))],
        };
        let served = admin.serve(endpoints, shutdown.clone());
        let helpers = [
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    tracing::error!(%error, "the admin endpoints ended");
                }
            }),
            tokio::spawn(keep_held(Arc::clone(&ledger), acks)),
            tokio::spawn(lag.watch()),
        ];
        let mut lanes = tokio::spawn(lanes.run(receiver));
        let broken = tokio::select! {
            () = shutdown.requested() => None,
            never = Box::pin(source.run()) => match never {},
            ended = &mut lanes => Some(ended),
        };
        let outcome = match broken {
            None => drain(lanes, &ledger, &connection, settings.shutdown.deadline, &shutdown).await,
            Some(ended) => Err(anyhow::anyhow!(
                "the way to the store broke down: {ended:?}; its messages are delivered again"
            )),
        };
        for helper in helpers {
            helper.abort();
            drop(helper.await);
        }
        outcome
    }
}

/// Stores what was fetched, up to the deadline, and gives the rest back.
async fn drain(
    mut lanes: JoinHandle<()>,
    ledger: &Ledger,
    connection: &Connection,
    deadline: Duration,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let leave = LEAVE.min(deadline / 4);
    let last = Instant::now() + deadline.saturating_sub(leave);
    let outcome = tokio::select! {
        ended = &mut lanes => ended.map_err(|error| anyhow::anyhow!("the way to the store broke down: {error}")),
        () = sleep_until(last) => Ok(()),
        () = shutdown.forced() => Ok(()),
    };
    let left = ledger.held();
    if connection.is_connected() {
        let give_back = async {
            ledger.give_back().await;
            connection.client.flush().await
        };
        match timeout(leave, give_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "failed to send the last acknowledgements"),
            Err(_) => tracing::debug!("no time was left for the last acknowledgements"),
        }
    }
    if left > 0 {
        tracing::warn!(
            messages = left,
            "stopped before everything was stored; NATS delivers these messages again"
        );
    } else {
        tracing::info!("stopped, everything fetched is stored");
    }
    lanes.abort();
    outcome
}

/// Tells the server in time that what is held is being worked on.
async fn keep_held(ledger: Arc<Ledger>, mut ack_wait: watch::Receiver<Duration>) {
    loop {
        let third = *ack_wait.borrow_and_update() / 3;
        // Looked at twice in that time, a message is told of before two thirds of `ack_wait` are over.
        ledger.progress(third).await;
        tokio::select! {
            () = sleep(third / 2) => {}
            Ok(()) = ack_wait.changed() => {}
        }
    }
}

/// What an operator is to know.
fn troubles(holds: &Holds, connection: &Connection) -> Vec<String> {
    let nats = (!connection.is_connected()).then(|| "no connection to NATS".to_owned());
    let held = holds.now().into_iter().filter_map(|(part, in_the_way)| {
        let InTheWay { kind, since } = in_the_way?;
        let seconds = since.elapsed().as_secs();
        Some(format!(
            "{part} is held for {seconds} s: {kind}; the log says what to do"
        ))
    });
    nats.into_iter().chain(held).collect()
}

fn sink(settings: &Settings, metrics: &Metrics) -> anyhow::Result<Sink> {
    Ok(match settings.sink.kind {
        SinkKind::Loki => Sink::Loki(Box::new(Loki::new(&settings.loki, metrics.clone())?)),
        SinkKind::File => Sink::Lines(Box::new(Lines::file(&settings.sink, metrics.clone())?)),
        SinkKind::Stdout => Sink::Lines(Box::new(Lines::stdout(metrics.clone()))),
    })
}

fn limits(settings: &Settings) -> LanesLimits {
    let loki = &settings.loki;
    LanesLimits {
        lane: LaneLimits {
            max_bytes: loki.batch_max_bytes.as_usize(),
            wait: loki.batch_wait,
            backoff: Backoff::new(loki.backoff_min, loki.backoff_max),
        },
        concurrency: loki.concurrency,
        memory_max: settings.source.memory_max.as_usize(),
        away: settings.source.ack_wait,
    }
}
