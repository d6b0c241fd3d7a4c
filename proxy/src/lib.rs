//! The sidecar: a transparent reverse proxy that records each HTTP exchange and ships the records off the
//! request path.
//!
//! ```text
//! traffic/   what a client waits for        queue   the only door        shipping/   what nobody waits for
//! bytes → exchange ───────────────────────► queue ─────────────────────► record → frame → JetStream
//!                                                                      └► span → collector
//! ```
//!
//! | Module | What it is for |
//! |---|---|
//! | [`settings`] | the configuration, from file and environment |
//! | [`generation`] | one generation of it, compiled |
//! | [`reload`], [`files`] | how the next one comes: by a changed file, or SIGHUP |
//! | [`traffic`] | listeners, proxy, capture |
//! | [`queue`] | exchanges as bytes, between the two |
//! | [`shipping`] | redaction, records, frames, JetStream, spans |
//! | [`metrics`] | names and help of all metrics |
//! | [`explain`] | what would be recorded of an exchange, and why |
//! | [`cli`] | the command line |
//!
//! Invariants:
//! - No request ever waits for logging, and nothing that logging does fails one (`tests/absence.rs`).
//! - `traffic` and `shipping` know only the queue, never each other (`tests/layout.rs`).
//! - Records offered = shipped + dropped + still here, at any moment ([`queue::ledger`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use http::Method;
use sidelog_chassis::admin::{Admin, Endpoints, Page, Verb};
use sidelog_chassis::drain::Shutdown;
use sidelog_chassis::logging;
use sidelog_chassis::settings::shown;
use uuid::Uuid;

pub mod cli;
pub mod explain;
pub mod files;
pub mod generation;
pub mod metrics;
pub mod queue;
pub mod reload;
pub mod settings;
pub mod shipping;
pub mod traffic;

use generation::Generations;
use metrics::{Metrics, Sources};
use queue::{Queue, QueueLimits};
use reload::{Origin, Reloader};
use settings::Settings;
use shipping::counts::Counts;
use shipping::record::Identity;
use shipping::{Setup, Shipping};
use traffic::capture::{Budget, Recorder};
use traffic::{Bound, Traffic};

/// The part of the shutdown deadline that is kept for shipping what the last exchanges left: a fifth.
const SHIPPING_SHARE: u32 = 5;

/// Runs the proxy until the shutdown is requested and the drain is over; settings that change at `origin` are reloaded.
///
/// # Errors
/// When an address can't be bound, or a file that the settings name can't be used.
pub fn run(settings: Settings, origin: Origin, shutdown: Shutdown) -> anyhow::Result<()> {
    Sidecar::bind(settings)?.run(origin, shutdown)
}

/// A proxy whose sockets are bound, and that serves nothing yet.
#[derive(Debug)]
pub struct Sidecar {
    settings: Settings,
    generations: Arc<Generations>,
    listeners: Vec<Bound>,
    admin: Admin,
}

impl Sidecar {
    /// Binds every socket of the settings.
    ///
    /// # Errors
    /// When an address can't be bound, or a certificate that the settings name can't be used.
    pub fn bind(settings: Settings) -> anyhow::Result<Self> {
        let generations = Arc::new(Generations::begin(settings.clone())?);
        let listeners = settings
            .listeners
            .iter()
            .enumerate()
            .map(|(index, listener)| Bound::bind(index, listener, generations.watch()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let admin = Admin::bind(settings.admin.address)?;
        Ok(Self {
            settings,
            generations,
            listeners,
            admin,
        })
    }

    /// The listeners' addresses, with their real ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Bound::address).collect()
    }

    /// The admin endpoints' address.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Serves until the shutdown is requested and the drain is over.
    ///
    /// # Errors
    /// When a thread can't be started, or a file that the settings name can't be used.
    pub fn run(self, origin: Origin, shutdown: Shutdown) -> anyhow::Result<()> {
        let Self {
            settings,
            generations,
            listeners,
            admin,
        } = self;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the admin runtime")?;
        let reloads = Arc::default();
        let reloader = Reloader::new(origin, &generations, &reloads);
        let reloader = runtime.block_on(reloader).context("failed to listen for SIGHUP")?;
        warn_of_unredacted(&settings);
        let (delay, deadline) = (settings.shutdown.delay, settings.shutdown.deadline);
        let has_spool = settings.spool.max_bytes.bytes() > 0;
        let identity = identity(&settings);
        let queue = Queue::new(queue_limits(&settings), settings.runtime.threads);
        let budget = Budget::new(settings.capture.memory_max.as_usize());
        let counted = Sources {
            generations: Arc::clone(&generations),
            reloads,
            queue: Arc::clone(&queue),
            budget: Arc::clone(&budget),
            connections: Arc::default(),
            shipping: Arc::default(),
            spans: Arc::default(),
        };
        let counts = Arc::clone(&counted.shipping);
        let metrics = Metrics::new(counted.clone(), &settings);
        let recorder = Arc::new(Recorder {
            queue: Arc::clone(&queue),
            budget,
        });

        let port = listeners.first().map_or(0, |bound| bound.address().port());
        let shipping = Shipping::start(Setup {
            settings,
            identity,
            port,
            queue: Arc::clone(&queue),
            counts: Arc::clone(&counts),
            spans: counted.spans,
            shutdown: shutdown.clone(),
        })?;
        tell_addresses(&listeners, &admin);
        let shown = shown::verb({
            let generations = Arc::clone(&generations);
            move || Arc::new(generations.in_force().settings.clone())
        });
        let traffic = Traffic::start(listeners, generations, recorder, counted.connections, shutdown.clone())?;

        let serving = Arc::new(AtomicBool::new(true));
        let verbs = vec![drain_verb(shutdown.clone()), logging::verb(), shown];
        let endpoints = endpoints(metrics, &serving, counts, has_spool, verbs);
        let admin = admin.serve(endpoints, shutdown.clone());
        runtime.block_on(async {
            let admin = tokio::spawn(admin);
            let reloading = tokio::spawn(reloader.follow());
            shutdown.requested().await;
            serving.store(false, Ordering::Release);
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = shutdown.forced() => {}
            }
            drain(traffic, shipping, deadline, &shutdown).await;
            reloading.abort();
            admin.abort();
        });
        runtime.shutdown_background();
        tell_end(&queue);
        Ok(())
    }
}

fn endpoints(
    metrics: Metrics,
    serving: &Arc<AtomicBool>,
    shipping: Arc<Counts>,
    has_spool: bool,
    verbs: Vec<Verb>,
) -> Endpoints {
    let ready = Arc::clone(serving);
    Endpoints {
        metrics: Arc::new(metrics),
        ready: Arc::new(move || ready.load(Ordering::Acquire)),
        troubles: Arc::new(move || troubles(&shipping, has_spool)),
        verbs,
    }
}

/// What an operator is to know, though traffic goes on.
fn troubles(shipping: &Counts, has_spool: bool) -> Vec<String> {
    let spool_fails = shipping.spool_fails();
    let instead = if has_spool && !spool_fails {
        "records go to the spool"
    } else {
        "records stay in memory"
    };
    let nats = match (shipping.is_connected(), shipping.publishing_fails()) {
        (false, _) => Some(format!("no connection to NATS: {instead}")),
        (true, true) => Some(format!("NATS takes no records, the log says why: {instead}")),
        (true, false) => None,
    };
    let spool = spool_fails.then(|| "the spool can't be used, the log says why".to_owned());
    [shipping.pulse().trouble(), nats, spool]
        .into_iter()
        .flatten()
        .collect()
}

fn queue_limits(settings: &Settings) -> QueueLimits {
    QueueLimits {
        bodies_max_bytes: settings.queue.bodies_max_bytes.as_usize(),
        max_bytes: settings.queue.max_bytes.as_usize(),
    }
}

/// Where `sidelog-proxy drain` asks.
pub(crate) const DRAIN: &str = "/drain";

/// `POST /drain`: clients are let go of, nothing else changes; only a signal ends.
fn drain_verb(shutdown: Shutdown) -> Verb {
    Verb::new(Method::POST, DRAIN, move |_| {
        if !shutdown.is_draining() {
            tracing::info!("draining: answers tell clients to close; SIGTERM ends");
            shutdown.drain();
        }
        Ok(Page::text("draining\n"))
    })
}

fn warn_of_unredacted(settings: &Settings) {
    for key in settings.unredacted() {
        tracing::warn!(
            key,
            "bodies are recorded with redaction switched off: secrets in them reach the store"
        );
    }
}

fn tell_addresses(listeners: &[Bound], admin: &Admin) {
    for bound in listeners {
        tracing::info!(address = %bound.address(), "listening");
    }
    tracing::info!(address = %admin.local_addr(), "admin listening");
}

fn tell_end(queue: &Queue) {
    let balance = queue.ledger().balance();
    tracing::info!(
        offered = balance.offered,
        shipped = balance.shipped,
        dropped = balance.dropped_total(),
        spooled = balance.spooled,
        "ended"
    );
}

/// Lets what is in flight end, then ships what it left; both inside the deadline, unless the end is forced.
async fn drain(traffic: Traffic, shipping: Shipping, deadline: Duration, shutdown: &Shutdown) {
    tracing::info!("shutting down");
    let now = Instant::now();
    let (cut, ends) = (now + deadline.saturating_sub(deadline / SHIPPING_SHARE), now + deadline);
    let drained = tokio::task::spawn_blocking(move || {
        traffic.drain(cut);
        shipping.finish(ends);
    });
    tokio::select! {
        outcome = drained => if outcome.is_err() {
            tracing::error!("the drain had panicked");
        },
        () = shutdown.forced() => tracing::warn!("forced to end at once; what was not shipped is lost"),
    }
}

/// What the settings say of the service, and who this instance of it is.
fn identity(settings: &Settings) -> Identity {
    let service = &settings.service;
    Identity {
        service: service.name.clone(),
        version: service.version.clone(),
        instance: service
            .instance_id
            .clone()
            .unwrap_or_else(|| Uuid::now_v7().to_string()),
        environment: service.environment.clone(),
    }
}
