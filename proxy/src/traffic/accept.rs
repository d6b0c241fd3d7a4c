//! The layer between an accepted socket and pingora: counts connections, and finds out whether a
//! cleartext connection speaks HTTP/2 without ever waiting on a client that speaks HTTP/1.
//!
//! Invariants:
//! - A connection whose first bytes can't be the HTTP/2 preface is given to HTTP/1 at the first byte that
//!   differs (`a_short_http1_request_is_not_waited_on`).
//! - A client that sends nothing, or half a preface, is closed after `limits.header_timeout`
//!   (`half_a_preface_is_closed_after_the_deadline`).
//! - An open connection is counted until its socket is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a client that speaks HTTP/2 by prior knowledge sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Counts of connections, shared by all listeners.
#[derive(Debug, Default)]
pub struct Connections {
    accepted: AtomicU64,
    closed: AtomicU64,
    timed_out: AtomicU64,
    broke_off: AtomicU64,
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

    /// Connections closed because no request began in time.
    pub fn timed_out(&self) -> u64 {
        self.timed_out.load(Ordering::Acquire)
    }

    /// Connections that the client closed before it had said what it speaks.
    pub fn broke_off(&self) -> u64 {
        self.broke_off.load(Ordering::Acquire)
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
        let wire = Wire::new(stream, Arc::clone(&self.connections), self.header_timeout);
        self.inner.process_new(Box::new(wire), shutdown).await
    }

    async fn cleanup(&self) {
        self.inner.cleanup().await;
    }
}

/// An accepted connection.
#[derive(Debug)]
struct Wire {
    inner: Stream,
    /// Bytes that were read to tell the protocol, from `replayed` on still to be read again.
    peeked: Vec<u8>,
    replayed: usize,
    header_timeout: Duration,
    connections: Arc<Connections>,
}

impl Wire {
    fn new(inner: Stream, connections: Arc<Connections>, header_timeout: Duration) -> Self {
        connections.accepted.fetch_add(1, Ordering::AcqRel);
        Self {
            inner,
            peeked: Vec::new(),
            replayed: 0,
            header_timeout,
            connections,
        }
    }

    /// Reads until it is known whether the client sends the preface.
    async fn speaks_h2(&mut self) -> io::Result<bool> {
        let mut seen = [0; PREFACE.len()];
        let mut filled = 0;
        while filled < PREFACE.len() {
            let Some(space) = seen.get_mut(filled..) else { break };
            let n = self.inner.read(space).await?;
            if n == 0 && filled == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += n;
            self.peeked = seen.get(..filled).unwrap_or_default().to_vec();
            // What ends here is left to HTTP/1, which answers it as it deserves.
            if n == 0 || !PREFACE.starts_with(&self.peeked) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.connections.closed.fetch_add(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl Peek for Wire {
    /// Fills `buf` with the preface if the client sends it, else with what can't be one. `Ok(false)` would
    /// mean to pingora that the connection can't be peeked at, and force HTTP/2.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let told = tokio::time::timeout(self.header_timeout, self.speaks_h2()).await;
        let speaks_h2 = match told {
            Ok(Ok(speaks_h2)) => speaks_h2,
            Ok(Err(error)) => {
                self.connections.broke_off.fetch_add(1, Ordering::AcqRel);
                return Err(error);
            }
            Err(_) => {
                self.connections.timed_out.fetch_add(1, Ordering::AcqRel);
                return Err(io::ErrorKind::TimedOut.into());
            }
        };
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
        Pin::new(&mut this.inner).poll_read(cx, buf)
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
        (client, Wire::new(Box::new(server), Arc::default(), header_timeout))
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
        assert_eq!(wire.connections.timed_out(), 1);
    }

    #[tokio::test]
    async fn connections_are_counted_while_open() {
        let (client, mut wire) = wire(DEADLINE);
        let connections = Arc::clone(&wire.connections);
        assert_eq!((connections.accepted(), connections.open()), (1, 1));
        drop(client);
        wire.try_peek(&mut [0; PREFACE.len()]).await.unwrap_err();
        assert_eq!(connections.broke_off(), 1);
        drop(wire);
        assert_eq!(connections.open(), 0);
    }
}
