//! The admin endpoints: `/livez`, `/readyz`, `/metrics`, and the program's own [`Verb`]s.
//!
//! Invariants:
//! - at most [`MAX_CONNECTIONS`] connections, each for one request and [`CONNECTION_TIME`] at most: a scraper that hangs
//!   holds nothing up
//! - what isn't for everybody answers to loopback alone (`admin/verb.rs`)
//! - what troubles the program without stopping it is told by `/livez` and `/readyz`, and makes neither fail
//!   (`troubles_are_told_and_change_no_status`)
//! - `/readyz` is 503 from the moment a shutdown is requested, while the rest still answers

pub mod client;
mod verb;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::drain::Shutdown;
use crate::scrape::{Format, Scrape};
use crate::settings::address;

pub use verb::{Act, Page, Verb};

/// Connections served at a time; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 64;
/// The longest a connection lives.
pub const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// The time a client has for the head of its request.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// The largest head.
const HEADER_BYTES: usize = 16 * 1024;
/// The wait after an accept that failed, which it does when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";

/// `[admin]`. The default address belongs to the program, so there is no `Default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    /// Where the endpoints are served; port 0 is any free port.
    #[serde(with = "address")]
    pub address: SocketAddr,
}

/// Why the admin address can't be served.
#[derive(Debug, thiserror::Error)]
#[error("failed to bind {address} (admin.address): {source}; {hint}")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
    hint: &'static str,
}

/// Whether the program can do its work; asked at each `/readyz`.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// What is not as it should be, though the program does its work: told below `ok`, one line each.
pub type Troubles = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// The bound admin endpoints.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Binds `address`, so that a taken port is known before anything else starts.
    ///
    /// # Errors
    ///
    /// The address can't be bound.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        bound.map_err(|source| BindError {
            address,
            hint: hint(&source),
            source,
        })
    }

    /// The address that is bound, with its real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped or the shutdown is forced: a drain can be watched to its end.
    ///
    /// # Errors
    ///
    /// The runtime refuses the listener.
    pub async fn serve(self, endpoints: Endpoints, shutdown: Shutdown) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let served = Arc::new(Served {
            endpoints,
            shutdown: shutdown.clone(),
        });
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
                let (stream, peer) = listener.accept().await?;
                Ok::<_, io::Error>((permit, stream, peer.ip()))
            };
            tokio::select! {
                () = shutdown.forced() => return Ok(()),
                Some(_) = connections.join_next() => {}
                accepted = accepted => match accepted {
                    Ok((permit, stream, peer)) => {
                        let served = Arc::clone(&served);
                        connections.spawn(async move {
                            serve_connection(stream, peer, served).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept an admin connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: stop it or choose another address",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: 0.0.0.0 means every one it has",
        _ => "choose another address",
    }
}

async fn serve_connection(stream: TcpStream, peer: IpAddr, served: Arc<Served>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let served = Arc::clone(&served);
        async move { Ok::<_, Infallible>(served.answer(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke off"),
        Err(_) => tracing::debug!("an admin connection took too long"),
    }
}

/// What a program answers.
pub struct Endpoints {
    /// `/metrics`.
    pub metrics: Arc<dyn Scrape>,
    /// `/readyz`.
    pub ready: Ready,
    /// What `/livez` and `/readyz` tell beside that; it never changes their status.
    pub troubles: Troubles,
    /// The rest; no two at one path.
    pub verbs: Vec<Verb>,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints")
            .field("verbs", &self.verbs)
            .finish_non_exhaustive()
    }
}

/// The endpoints of a process that may be ending.
#[derive(Debug)]
struct Served {
    endpoints: Endpoints,
    shutdown: Shutdown,
}

impl Served {
    async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let headers = request.headers();
        let endpoint: fn(&Self, &HeaderMap) -> Response<Full<Bytes>> = match request.uri().path() {
            "/livez" => Self::live,
            "/readyz" => Self::readiness,
            "/metrics" => Self::metrics,
            path => match self.endpoints.verbs.iter().find(|verb| verb.path == path) {
                Some(verb) => return act(verb, peer, request).await,
                None => return self.not_found(),
            },
        };
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return not_allowed("GET, HEAD", "use GET\n");
        }
        endpoint(self, headers)
    }

    fn not_found(&self) -> Response<Full<Bytes>> {
        let mut text = "not found; there are GET /livez, GET /readyz, GET /metrics".to_owned();
        for verb in &self.endpoints.verbs {
            text.push_str(&format!(", {verb:?}"));
        }
        text.push('\n');
        response(StatusCode::NOT_FOUND, TEXT, text)
    }

    fn live(&self, _: &HeaderMap) -> Response<Full<Bytes>> {
        response(StatusCode::OK, TEXT, self.well())
    }

    fn well(&self) -> String {
        let troubles = (self.endpoints.troubles)().into_iter();
        std::iter::once("ok".to_owned())
            .chain(troubles)
            .map(|line| line + "\n")
            .collect()
    }

    fn readiness(&self, _: &HeaderMap) -> Response<Full<Bytes>> {
        if self.shutdown.is_requested() {
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "shutting down\n")
        } else if (self.endpoints.ready)() {
            response(StatusCode::OK, TEXT, self.well())
        } else {
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n")
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::accepted(accept);
        let mut text = String::new();
        let mut answer = match self.endpoints.metrics.write(&mut text, format) {
            Ok(()) => response(StatusCode::OK, format.content_type(), text),
            Err(_) => response(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                "the metrics can't be encoded\n",
            ),
        };
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        answer
    }
}

/// Has the program do what it is asked for, if this peer may ask.
async fn act(verb: &Verb, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(reason) = verb::refusal(peer, request.headers()) {
        return response(StatusCode::FORBIDDEN, TEXT, reason);
    }
    if request.method() != verb.method {
        return not_allowed(verb.method.as_str(), format!("use {}\n", verb.method));
    }
    let body = match Limited::new(request.into_body(), verb::BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            return response(
                StatusCode::PAYLOAD_TOO_LARGE,
                TEXT,
                "the body is too large, or broke off\n",
            );
        }
    };
    match (verb.act)(&body) {
        Ok(page) => response(StatusCode::OK, page.content_type, page.text),
        Err(reason) => response(StatusCode::BAD_REQUEST, TEXT, format!("{reason}\n")),
    }
}

fn not_allowed(allowed: &str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        refused.headers_mut().insert(ALLOW, allowed);
    }
    refused
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
