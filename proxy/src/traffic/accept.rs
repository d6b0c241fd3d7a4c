//! The layer between an accepted socket and pingora: finds out whether a cleartext connection speaks HTTP/2 without
//! ever waiting on a client that speaks HTTP/1, gives each request's head a deadline, and counts what dies before a
//! request exists.
//!
//! Invariants:
//! - A connection whose first bytes can't be the HTTP/2 preface is given to HTTP/1 at the first byte that
//!   differs (`a_short_http1_request_is_not_waited_on`).
//! - A head that isn't whole within `limits.header_timeout` ends its connection, the first one from the accept on, later
//!   ones from their first byte (`half_a_preface_is_closed_after_the_deadline`, `a_head_that_drips_is_cut_at_the_deadline`).
//! - A head that never became a request is counted once, by reason (`what_never_became_a_request_is_counted`).
//! - A connection that has said nothing ends at once when the process drains.
//! - An open connection is counted until its socket is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a client that speaks HTTP/2 by prior knowledge sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why a head never became a request. Closed set; the metric's `reason` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRequest {
    /// It was not whole within `limits.header_timeout`.
    Timeout,
    /// The client closed in the middle of it.
    BrokeOff,
    /// It can't be a request's head, and was refused.
    Rejected,
}

impl NoRequest {
    /// All reasons, in the order of their metrics.
    pub const ALL: [Self; 3] = [Self::Timeout, Self::BrokeOff, Self::Rejected];

    /// The value of the `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::BrokeOff => "broke_off",
            Self::Rejected => "rejected",
        }
    }
}

/// Counts of connections, shared by all listeners.
#[derive(Debug, Default)]
pub struct Connections {
    accepted: AtomicU64,
    closed: AtomicU64,
    no_request: [AtomicU64; NoRequest::ALL.len()],
}

impl Connections {
    /// Connections accepted since start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        let closed = self.closed.load(Ordering::Acquire);
        self.accepted().saturating_sub(closed)
    }

    /// Heads that never became a request, for `reason`.
    pub fn without_request(&self, reason: NoRequest) -> u64 {
        self.no_request
            .get(reason as usize)
            .map_or(0, |count| count.load(Ordering::Acquire))
    }

    fn count(&self, reason: NoRequest) {
        if let Some(count) = self.no_request.get(reason as usize) {
            count.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Wraps every accepted connection before the inner application, the HTTP proxy, sees it.
pub struct Accept<A> {
    inner: Arc<A>,
    connections: Arc<Connections>,
    header_timeout: Duration,
}

impl<A> Accept<A> {
    /// An accept layer in front of `inner`.
    pub fn new(inner: A, connections: Arc<Connections>, header_timeout: Duration) -> Self {
        Self {
            inner: Arc::new(inner),
            connections,
            header_timeout,
        }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Accept<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let wire = Wire::new(
            stream,
            Arc::clone(&self.connections),
            self.header_timeout,
            shutdown.clone(),
        );
        self.inner.process_new(Box::new(wire), shutdown).await
    }

    async fn cleanup(&self) {
        self.inner.cleanup().await;
    }
}

/// A request of this HTTP/1 connection has begun: its head is whole.
pub fn request_began(session: &Session) {
    expect_head(session, false);
}

/// The request is over, its body read: what comes next on the connection is another head.
pub fn request_ended(session: &Session) {
    expect_head(session, true);
}

/// Streams of HTTP/2 have no socket of their own, and no head that this layer could time.
fn expect_head(session: &Session, expected: bool) {
    let wire = session
        .as_downstream()
        .stream()
        .and_then(|stream| stream.as_any().downcast_ref::<Wire>());
    if let Some(wire) = wire {
        wire.expects_head.store(expected, Ordering::Release);
    }
}

/// An accepted connection.
#[derive(Debug)]
struct Wire {
    inner: Stream,
    /// Bytes that were read to tell the protocol, from `replayed` on still to be read again.
    peeked: Vec<u8>,
    replayed: usize,
    /// What is read belongs to a head that is not whole yet.
    expects_head: AtomicBool,
    /// Bytes of that head have come.
    in_head: bool,
    /// When that head must be whole, if it is timed: the first one is from the accept on, others from their first byte.
    deadline: Pin<Box<Sleep>>,
    timed: bool,
    header_timeout: Duration,
    /// The head's end is known, and counted.
    counted: bool,
    shutdown: ShutdownWatch,
    connections: Arc<Connections>,
}

impl Wire {
    fn new(inner: Stream, connections: Arc<Connections>, header_timeout: Duration, shutdown: ShutdownWatch) -> Self {
        connections.accepted.fetch_add(1, Ordering::AcqRel);
        let h2 = matches!(inner.selected_alpn_proto(), Some(ALPN::H2));
        Self {
            inner,
            peeked: Vec::new(),
            replayed: 0,
            expects_head: AtomicBool::new(!h2),
            in_head: false,
            deadline: Box::pin(tokio::time::sleep(header_timeout)),
            timed: true,
            header_timeout,
            counted: false,
            shutdown,
            connections,
        }
    }

    /// Reads until it is known whether the client sends the preface.
    async fn speaks_h2(inner: &mut Stream, peeked: &mut Vec<u8>) -> io::Result<bool> {
        let mut seen = [0; PREFACE.len()];
        let mut filled = 0;
        while filled < PREFACE.len() {
            let Some(space) = seen.get_mut(filled..) else { break };
            let n = inner.read(space).await?;
            if n == 0 && filled == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += n;
            *peeked = seen.get(..filled).unwrap_or_default().to_vec();
            // What ends here is left to HTTP/1, which answers it as it deserves.
            if n == 0 || !PREFACE.starts_with(peeked) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn count(&mut self, reason: NoRequest) {
        if !self.counted {
            self.counted = true;
            self.connections.count(reason);
        }
    }

    /// Fails once the head that is being read is late.
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.expects_head.load(Ordering::Acquire) {
            // The first byte behind this request begins another head, with a deadline of its own.
            self.in_head = false;
            self.timed = false;
        } else if self.timed && self.deadline.as_mut().poll(cx).is_ready() {
            self.count(NoRequest::Timeout);
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Takes note of bytes of a head.
    fn saw(&mut self, n: usize) {
        let head = self.expects_head.load(Ordering::Acquire);
        if head && n == 0 && self.in_head {
            self.count(NoRequest::BrokeOff);
        }
        if head && n > 0 && !self.in_head {
            self.in_head = true;
            if !std::mem::replace(&mut self.timed, true) {
                self.deadline.as_mut().reset(Instant::now() + self.header_timeout);
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.in_head && self.expects_head.load(Ordering::Acquire) && !*self.shutdown.borrow() {
            self.count(NoRequest::Rejected);
        }
        self.connections.closed.fetch_add(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl Peek for Wire {
    /// Fills `buf` with the preface if the client sends it, else with what can't be one. `Ok(false)` would
    /// mean to pingora that the connection can't be peeked at, and force HTTP/2.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let Self {
            inner,
            peeked,
            deadline,
            shutdown,
            ..
        } = &mut *self;
        let told = tokio::select! {
            told = Self::speaks_h2(inner, peeked) => told,
            () = deadline.as_mut() => Err(io::ErrorKind::TimedOut.into()),
            // Nothing has begun that could be finished.
            _ = shutdown.wait_for(|down| *down) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        self.in_head = !self.peeked.is_empty();
        let speaks_h2 = match told {
            Ok(speaks_h2) => speaks_h2,
            Err(error) => {
                match error.kind() {
                    io::ErrorKind::TimedOut => self.count(NoRequest::Timeout),
                    _ if self.in_head => self.count(NoRequest::BrokeOff),
                    // A probe that looked whether the port is open, or a connection made in advance.
                    _ => {}
                }
                return Err(error);
            }
        };
        if speaks_h2 {
            self.expects_head.store(false, Ordering::Release);
        }
        buf.fill(0);
        if let Some((shown, known)) = buf.get_mut(..PREFACE.len()).zip(speaks_h2.then_some(PREFACE)) {
            shown.copy_from_slice(known);
        }
        Ok(true)
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(again) = this.peeked.get(this.replayed..).filter(|again| !again.is_empty()) {
            let n = again.len().min(buf.remaining());
            buf.put_slice(again.get(..n).unwrap_or_default());
            this.replayed += n;
            if this.replayed == this.peeked.len() {
                this.peeked = Vec::new();
                this.replayed = 0;
            }
            return Poll::Ready(Ok(()));
        }
        this.check_deadline(cx)?;
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        this.saw(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Wire {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn wire(header_timeout: Duration) -> (tokio::io::DuplexStream, Wire) {
        let (client, server) = tokio::io::duplex(1024);
        let (shutdown, watch) = tokio::sync::watch::channel(false);
        // The process goes on for as long as the test does.
        std::mem::forget(shutdown);
        (
            client,
            Wire::new(Box::new(server), Arc::default(), header_timeout, watch),
        )
    }

    async fn peek(wire: &mut Wire) -> [u8; PREFACE.len()] {
        let mut buf = [1; PREFACE.len()];
        let peeked = tokio::time::timeout(DEADLINE, wire.try_peek(&mut buf)).await.unwrap();
        assert!(peeked.unwrap());
        buf
    }

    #[tokio::test]
    async fn a_short_http1_request_is_not_waited_on() {
        let (mut client, mut wire) = wire(DEADLINE);
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert_ne!(peek(&mut wire).await, PREFACE);
        let mut again = [0; 18];
        wire.read_exact(&mut again).await.unwrap();
        assert_eq!(&again, b"GET / HTTP/1.0\r\n\r\n");
    }

    #[tokio::test]
    async fn the_preface_is_recognised_in_pieces_and_read_again() {
        let (mut client, mut wire) = wire(DEADLINE);
        let sending = async {
            for piece in PREFACE.chunks(5) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.write_all(b"frames").await.unwrap();
        };
        let (shown, ()) = tokio::join!(peek(&mut wire), sending);
        assert_eq!(shown, PREFACE);
        let mut again = [0; 30];
        wire.read_exact(&mut again).await.unwrap();
        assert_eq!(&again[..24], PREFACE);
        assert_eq!(&again[24..], b"frames");
    }

    #[tokio::test]
    async fn a_method_that_begins_like_the_preface_is_http1() {
        let (mut client, mut wire) = wire(DEADLINE);
        client.write_all(b"PRINT / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_ne!(peek(&mut wire).await, PREFACE);
    }

    #[tokio::test]
    async fn half_a_preface_is_closed_after_the_deadline() {
        let (mut client, mut wire) = wire(Duration::from_millis(20));
        client.write_all(b"PRI * HTTP").await.unwrap();
        let error = wire.try_peek(&mut [0; PREFACE.len()]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(wire.connections.without_request(NoRequest::Timeout), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_cut_at_the_deadline() {
        let (mut client, mut wire) = wire(DEADLINE);
        let dripping = tokio::spawn(async move {
            for byte in b"GET / HTTP/1.1\r\nx-long: aaaaaaaaaaaaaaaaaaaa" {
                if client.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        assert_ne!(peek(&mut wire).await, PREFACE);
        let mut head = Vec::new();
        let error = wire.read_to_end(&mut head).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(head.len() <= 11, "{} bytes were taken", head.len());
        assert_eq!(wire.connections.without_request(NoRequest::Timeout), 1);
        drop(wire);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_has_begun_is_not_timed_and_the_next_head_is() {
        let (mut client, mut wire) = wire(DEADLINE);
        client.write_all(b"POST").await.unwrap();
        assert_ne!(peek(&mut wire).await, PREFACE);
        let mut some = [0; 4];
        wire.read_exact(&mut some).await.unwrap();
        wire.expects_head.store(false, Ordering::Release);
        tokio::time::advance(3 * DEADLINE).await;
        client.write_all(b"body").await.unwrap();
        wire.read_exact(&mut some).await.unwrap();
        wire.expects_head.store(true, Ordering::Release);
        client.write_all(b"GET ").await.unwrap();
        wire.read_exact(&mut some).await.unwrap();
        let error = wire.read_exact(&mut some).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_never_became_a_request_is_counted() {
        let (mut client, mut wire) = wire(DEADLINE);
        let connections = Arc::clone(&wire.connections);
        client.write_all(b"\x16\x03\x01 no HTTP at all").await.unwrap();
        assert_ne!(peek(&mut wire).await, PREFACE);
        drop(wire);
        assert_eq!(connections.without_request(NoRequest::Rejected), 1);
    }

    #[tokio::test]
    async fn a_connection_that_said_nothing_ends_with_the_process() {
        let (_client, server) = tokio::io::duplex(1024);
        let (shutdown, watch) = tokio::sync::watch::channel(false);
        let mut wire = Wire::new(Box::new(server), Arc::default(), DEADLINE, watch);
        let mut buf = [0; PREFACE.len()];
        let (peeked, ()) = tokio::join!(wire.try_peek(&mut buf), async {
            shutdown.send_replace(true);
        });
        assert_eq!(peeked.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn connections_are_counted_while_open() {
        let (client, mut wire) = wire(DEADLINE);
        let connections = Arc::clone(&wire.connections);
        assert_eq!((connections.accepted(), connections.open()), (1, 1));
        drop(client);
        wire.try_peek(&mut [0; PREFACE.len()]).await.unwrap_err();
        assert_eq!(
            connections.without_request(NoRequest::BrokeOff),
            0,
            "a probe is no broken request"
        );
        drop(wire);
        assert_eq!(connections.open(), 0);
    }
}
