//! Requests of HTTP/2: their limits, which the `h2` crate doesn't keep, and how many a connection has open.
//!
//! A request is judged by the limits of its own generation; what is agreed on with a client once, the window and how many
//! streams there may be, is that of the generation in force as it connected.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use parking_lot::Mutex;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use tokio::time::Instant;

use super::connections::{Connections, Limit, NoRequest};
use super::heads;
use super::wire::{Answer, Judges};
use crate::generation::Generation;
use crate::settings::Limits;
use crate::traffic::head::Reason;
use crate::traffic::refused::Refused;

/// What a stream holds of an answer that its client doesn't take, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// How many times `limits.header_max` the `h2` crate takes. What is larger it answers 431 and tells nobody; what is smaller is
/// refused here, with a record and a count.
const HEADER_ROOM: u64 = 2;

/// Requests that one connection has open.
#[derive(Debug)]
pub(super) struct OpenStreams {
    count: AtomicUsize,
    /// When the last one ended.
    since: Mutex<Instant>,
}

impl Default for OpenStreams {
    fn default() -> Self {
        Self {
            count: AtomicUsize::default(),
            since: Mutex::new(Instant::now()),
        }
    }
}

impl OpenStreams {
    pub(super) fn is_none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// For how long there has been none.
    pub(super) fn idle_for(&self) -> Duration {
        if self.is_none() {
            self.since.lock().elapsed()
        } else {
            Duration::ZERO
        }
    }
}

/// One of them.
struct OpenStream(Arc<OpenStreams>);

impl OpenStream {
    fn of(session: &ServerSession) -> Option<Self> {
        let digest = session.digest()?.proxy_digest.as_ref()?;
        let streams = digest.user_data.as_ref()?.downcast_ref::<Arc<OpenStreams>>()?;
        streams.count.fetch_add(1, Ordering::AcqRel);
        Some(Self(Arc::clone(streams)))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        *self.0.since.lock() = Instant::now();
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The upload of one request: it must get on until the answer begins.
#[derive(Debug, Default)]
pub struct Upload {
    moved: AtomicU64,
    answer: AtomicU8,
    whole: AtomicBool,
    too_slow: AtomicBool,
}

/// A request that is being served.
struct Served {
    generation: Arc<Generation>,
    connections: Arc<Connections>,
    upload: Option<Arc<Upload>>,
}

tokio::task_local! {
    /// That of this task.
    static SERVED: Served;
}

/// The generation of the request that this task serves.
pub(super) fn generation() -> Option<Arc<Generation>> {
    SERVED.try_with(|served| Arc::clone(&served.generation)).ok()
}

/// The client of the request that this task serves doesn't read its answer.
pub(super) fn answer_is_unread() {
    // Of HTTP/1 the connection itself has counted it.
    let counted = SERVED.try_with(|served| served.connections.limit(Limit::Unread));
    counted.unwrap_or_default();
}

impl Upload {
    /// That of the request that is being served, if it is one that is watched.
    pub fn current() -> Option<Arc<Self>> {
        SERVED.try_with(|served| served.upload.clone()).ok()?
    }

    /// It was given up.
    pub fn was_too_slow(&self) -> bool {
        self.too_slow.load(Ordering::Acquire)
    }

    /// More of it has come.
    pub fn moves(&self, bytes: usize, whole: bool) {
        self.moved.fetch_add(bytes as u64, Ordering::AcqRel);
        self.whole.fetch_or(whole, Ordering::AcqRel);
    }

    /// The answer has begun, or has passed.
    pub(super) fn answered(&self, answer: Answer) {
        self.answer.store(answer as u8, Ordering::Release);
    }

    /// Returns when it is given up.
    async fn watch(&self, limits: &Limits) {
        let window = limits.downstream_read_timeout;
        let least = (limits.downstream_rate_min.bytes() as f64 * window.as_secs_f64()).max(1.0);
        loop {
            tokio::time::sleep(window).await;
            let moved = self.moved.swap(0, Ordering::AcqRel);
            let begun = self.answer.load(Ordering::Acquire) == Answer::Begun as u8;
            let whole = self.whole.load(Ordering::Acquire);
            if !whole && !begun && (moved as f64) < least {
                return;
            }
        }
    }
}

/// Passes the requests of one connection on to the HTTP proxy.
pub(super) struct Streams<A> {
    inner: Arc<A>,
    judges: Judges,
    options: HttpServerOptions,
}

impl<A: HttpServerApp + Send + Sync + 'static> Streams<A> {
    pub(super) fn new(inner: &Arc<A>, judges: &Judges) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(judges.limits.downstream_idle_timeout);
        Self {
            inner: Arc::clone(inner),
            judges: judges.clone(),
            options,
        }
    }

    async fn process_h2(
        self: Arc<Self>,
        mut session: ServerSession,
        shutdown: ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let _open = OpenStream::of(&session);
        let generation = self.judges.generations.in_force();
        let limits = Arc::clone(&generation.limits);
        if let Err(reason) = heads::judge(session.req_header(), &limits) {
            self.refuse(&mut session, reason, &generation).await;
            return None;
        }
        let has_upload = !session.is_body_empty() && !is_grpc(session.req_header());
        let upload = has_upload.then(Arc::<Upload>::default);
        let served = Served {
            generation,
            connections: Arc::clone(&self.judges.connections),
            upload: upload.clone(),
        };
        let exchange = SERVED.scope(served, self.inner.process_new_http(session, &shutdown));
        let Some(upload) = upload else {
            return exchange.await;
        };
        tokio::select! {
            done = exchange => done,
            () = upload.watch(&limits) => {
                // The stream is reset as the exchange is dropped, and recorded by what it finds here.
                upload.too_slow.store(true, Ordering::Release);
                self.judges.connections.limit(Limit::UploadRate);
                None
            }
        }
    }

    async fn refuse(&self, session: &mut ServerSession, reason: Reason, generation: &Arc<Generation>) {
        self.judges.connections.count(NoRequest::Refused(reason));
        let request = session.req_header();
        let refused = Refused {
            method: request.method.as_str().as_bytes(),
            target: request.raw_path(),
            host: request.uri.authority().map_or(&[], |host| host.as_str().as_bytes()),
            client: session.client_addr().and_then(|address| address.as_inet()).copied(),
            is_h2: true,
            reason: reason.as_str(),
            status: reason.status(),
        };
        self.judges.witness.refused(&refused, generation);
        if let Ok(answer) = ResponseHeader::build(reason.status(), Some(0)) {
            // Whoever can't be told is refused all the same.
            drop(session.write_error_response(answer, Bytes::new()).await);
        }
    }
}

fn is_grpc(request: &RequestHeader) -> bool {
    let content_type = request.headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Streams<A> {
    fn process_new_http<'a, 'b, 'f>(
        self: &'a Arc<Self>,
        session: ServerSession,
        shutdown: &'b ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'f>>
    where
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        if session.is_http2() {
            Box::pin(Arc::clone(self).process_h2(session, shutdown.clone()))
        } else {
            self.inner.process_new_http(session, shutdown)
        }
    }

    fn h2_options(&self) -> Option<H2Options> {
        let limits = &self.judges.limits;
        let mut options = default_h2_options();
        let window = u32::try_from(limits.h2_window.bytes()).unwrap_or(u32::MAX >> 1);
        options
            .initial_window_size(window)
            .initial_connection_window_size(window)
            .max_send_buffer_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(limits.header_max.bytes() * HEADER_ROOM).unwrap_or(u32::MAX))
            .max_concurrent_streams(limits.h2_streams_max);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.inner.http_cleanup().await;
    }
}
