//! What a client waits for: the listeners, the proxy behind each, and the capture of what passes.
//!
//! pingora is hosted as its services, on threads and sockets of ours, and drained by us: its own `Server`
//! would bind late, start whatever happens, and sleep through a shutdown.
//!
//! Invariants:
//! - No request waits for logging, and no failure of logging fails one.
//! - A socket is bound before anything is started; an address that can't be bound is an error at start.
//! - Nothing here knows the shipping side (`tests/layout.rs`).

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use pingora::listeners::ListenerConfig;
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use pingora::time::fast_timeout::set_fast_timeout_to_tokio_threshold;
use pingora_rustls::{RootCertStore, load_platform_certs_incl_env_into_store};
use sidelog_chassis::drain::Shutdown;
use tokio::sync::watch;

pub mod accept;
pub mod answer;
pub mod capture;
pub mod chunks;
pub mod client;
pub mod closing;
pub mod count;
pub mod expect;
pub mod head;
pub mod hop;
pub mod http10;
pub mod outcome;
pub mod peer;
mod pem;
pub mod refused;
pub mod resolve;
pub mod route;
pub mod seldom;
pub mod service;
pub mod tls;
pub mod trace;
pub mod traceparent;
pub mod tracestate;
pub mod unreachable;
pub mod watched;

use crate::generation::Generations;
use crate::settings::{Listener, Settings};
use accept::{Accept, Connections};
use capture::Recorder;
use closing::Closing;
use peer::Upstreams;
use refused::Front;
use resolve::Resolvers;
use service::Proxy;
use tls::ServerTls;
use watched::Watch;

/// Attempts at an upstream for one request, first one included.
const ATTEMPTS: usize = 4;
/// How often a drain looks whether the last connection has closed.
const LOOK: Duration = Duration::from_millis(5);

/// A listener whose socket is bound.
#[derive(Debug)]
pub struct Bound {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerTls>>,
}

/// TLS of the listener with this index.
fn server_tls(index: usize, listener: &Listener, watch: &Watch) -> anyhow::Result<Option<Arc<ServerTls>>> {
    ServerTls::load(&format!("listeners.{index}.tls"), &listener.tls, watch)
}

/// What is wrong with the files that the settings of listeners and upstreams name, the first for each listener.
pub fn misfits(settings: &Settings) -> Vec<anyhow::Error> {
    let (watch, resolvers) = (Watch::default(), Resolvers::default());
    let mut told: Vec<anyhow::Error> = Vec::new();
    for (index, listener) in settings.listeners.iter().enumerate() {
        let loaded = server_tls(index, listener, &watch)
            .and_then(|_| Upstreams::load(settings, index, listener, &watch, &resolvers));
        if let Err(error) = loaded {
            // A route's file is each listener's.
            if !told.iter().any(|other| other.to_string() == error.to_string()) {
                told.push(error);
            }
        }
    }
    told
}

impl Bound {
    /// Binds the socket of the listener with this index; its certificates are followed by `watch`.
    ///
    /// # Errors
    /// When a file can't be used, or the address is taken or not ours; the message says which, and what to do.
    pub fn bind(index: usize, listener: &Listener, watch: &Watch) -> anyhow::Result<Self> {
        let tls = server_tls(index, listener, watch)?;
        let bound = TcpListener::bind(listener.address).and_then(|socket| {
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        });
        let (socket, address) = bound.with_context(|| {
            let address = listener.address;
            format!("failed to bind {address} (listeners.address); set PORT or listeners.address to a free one")
        })?;
        Ok(Self { socket, address, tls })
    }

    /// The address that is bound, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The running listeners.
#[derive(Debug)]
pub struct Traffic {
    thread: JoinHandle<()>,
    stop: watch::Sender<Option<Instant>>,
}

impl Traffic {
    /// Starts serving on the bound sockets. Clients are let go of from the drain on; only [`drain`](Self::drain) stops.
    ///
    /// # Errors
    /// When the threads can't be started.
    pub fn start(
        bound: Vec<Bound>,
        generations: Arc<Generations>,
        recorder: Arc<Recorder>,
        connections: Arc<Connections>,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        // Tokio's timers: for its own pingora has a thread that gets up a hundred times a second, traffic or not.
        set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
        let threads = generations.in_force().settings.runtime.threads;
        let runtime = runtime(threads).context("failed to start the traffic runtime")?;
        let (stop, stopping) = watch::channel(None);
        let thread = std::thread::Builder::new()
            .name("traffic".to_owned())
            .spawn(move || {
                runtime.spawn(Arc::clone(generations.watch()).follow());
                runtime.block_on(serve(bound, &generations, &recorder, &connections, &shutdown, stopping));
                // Whatever is still open is cut here; each exchange hands itself over as it is dropped.
                runtime.shutdown_timeout(Duration::ZERO);
            })
            .context("failed to start the traffic thread")?;
        Ok(Self { thread, stop })
    }

    /// Stops accepting, lets what is in flight end until `deadline`, cuts the rest, and waits for the threads' end.
    pub fn drain(self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
        if self.thread.join().is_err() {
            tracing::error!("the traffic thread had panicked");
        }
    }
}

/// One thread serves without handing tasks around; several share them.
fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("traffic")
            .enable_all()
            .build(),
    }
}

async fn serve(
    bound: Vec<Bound>,
    generations: &Arc<Generations>,
    recorder: &Arc<Recorder>,
    connections: &Arc<Connections>,
    ending: &Shutdown,
    mut stopping: watch::Receiver<Option<Instant>>,
) {
    let (shutdown, watch) = watch::channel(false);
    let closing = Closing::new(ending.clone());
    let services: Vec<_> = (0..)
        .zip(bound)
        .map(|(index, bound)| {
            let (mut service, fds) = listening(index, bound, generations, recorder, connections, &closing);
            let watch = watch.clone();
            tokio::spawn(async move { service.start_service(Some(fds), watch, 1).await })
        })
        .collect();
    // An error means that the handle is gone, and with it the process.
    drop(stopping.changed().await);
    let deadline = (*stopping.borrow()).unwrap_or_else(Instant::now);
    shutdown.send_replace(true);
    for service in services {
        if service.await.is_err() {
            tracing::error!("a listener had panicked");
        }
    }
    while connections.open() > 0 && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
}

/// pingora's service on a socket of ours.
fn listening(
    index: u16,
    bound: Bound,
    generations: &Arc<Generations>,
    recorder: &Arc<Recorder>,
    connections: &Arc<Connections>,
    closing: &Closing,
) -> (Service<Accept<pingora::proxy::HttpProxy<Proxy>>>, ListenFds) {
    let name = bound.address.to_string();
    let mut fds = Fds::new();
    fds.add(name.clone(), bound.socket.into_raw_fd());
    let proxy = Proxy::new(recorder, generations, closing, index);
    let accept = Accept::new(
        http_proxy(&conf(&generations.in_force().settings), proxy),
        Arc::clone(connections),
        Arc::clone(generations),
        Arc::new(Front::new(recorder, index)),
        bound.tls,
        closing.clone(),
    );
    let mut service = Service::new(name.clone(), accept);
    // The accept layer reads straight to where bytes are wanted: a buffer beneath would be held by idle connections, too.
    service.add_listener(ListenerConfig::tcp(&name).l4_buffer(L4BufferSettings::default().read(0)));
    (service, Arc::new(parking_lot::Mutex::new(fds)))
}

/// pingora would panic over a system's certificates that can't be loaded. Without any, no `https` upstream is trusted that
/// has no `ca_file` of its own.
fn system_roots() -> Option<String> {
    let mut roots = RootCertStore::empty();
    let error = load_platform_certs_incl_env_into_store(&mut roots).err()?;
    tracing::warn!(
        %error,
        "the system's certificates can't be used; https upstreams need upstream_tls.ca_file"
    );
    Some("/dev/null".to_owned())
}

fn conf(settings: &Settings) -> Arc<ServerConf> {
    Arc::new(ServerConf {
        ca_file: system_roots(),
        max_retries: ATTEMPTS,
        threads: settings.runtime.threads.max(1),
        ..ServerConf::default()
    })
}
