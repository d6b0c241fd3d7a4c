//! The layer between an accepted socket and pingora: it finds out whether a cleartext connection speaks HTTP/2 without
//! ever waiting on a client that speaks HTTP/1, judges each head of HTTP/1 before pingora sees it, gives each side its
//! time, and counts what dies before a request exists. pingora has a session only while there is a request: a connection
//! between two of them holds little.
//!
//! Invariants:
//! - A connection whose first bytes can't be the HTTP/2 preface is given to HTTP/1 at the first byte that
//!   differs (`a_short_http1_request_is_not_waited_on`).
//! - A head that isn't whole within `limits.header_timeout` ends its connection, the first one from the accept on, later
//!   ones from their first byte (`half_a_preface_is_closed_after_the_deadline`, `a_head_that_drips_is_cut_at_the_deadline`).
//! - pingora gets one head that was taken, then its body, then nothing until its exchange is over
//!   (`pingora_gets_one_request_at_a_time`).
//! - A head that never became a request is counted once, by reason (`what_never_became_a_request_is_counted`).
//! - A connection that has no request ends at once when the process does.
//! - Ten thousand connections that wait fit 256 MiB (`tests/wall`).
//! - An answer is not destroyed by bytes that were not read: the close lingers (`tests/wall`).
//! - An open connection is counted until its socket is closed.

mod connections;
mod deadline;
mod digests;
mod frames;
mod heads;
mod refusal;
mod streams;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{Peek, Stream};
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;

use connections::Open;
pub use connections::{Connections, Limit, NoRequest};
pub use refusal::Refusal;
use streams::Streams;
pub use streams::Upload;
use wire::{Answer, Home, Judges, Next, PREFACE, Wire};

use super::closing::Closing;
use super::refused::Witness;
use super::tls::ServerTls;
use crate::generation::{Generation, Generations};
use crate::settings::Limits;

/// How long pingora would wait for a head, in seconds: it finds each one waiting for it.
const KEEPALIVE: u64 = 60;

/// Wraps every accepted connection before the inner application, the HTTP proxy, sees it.
pub struct Accept<A> {
    inner: Arc<A>,
    connections: Arc<Connections>,
    generations: Arc<Generations>,
    witness: Arc<dyn Witness>,
    tls: Option<Arc<ServerTls>>,
    closing: Closing,
}

impl<A> Accept<A> {
    /// An accept layer in front of `inner`.
    pub fn new(
        inner: A,
        connections: Arc<Connections>,
        generations: Arc<Generations>,
        witness: Arc<dyn Witness>,
        tls: Option<Arc<ServerTls>>,
        closing: Closing,
    ) -> Self {
        Self {
            inner: Arc::new(inner),
            connections,
            generations,
            witness,
            tls,
            closing,
        }
    }

    /// The stream as it is, or the one behind the handshake; `None` where that fails.
    async fn secured(&self, stream: Stream, limits: &Limits, shutdown: &ShutdownWatch) -> Option<Stream> {
        let Some(tls) = &self.tls else {
            return Some(stream);
        };
        match tls.accept(stream, limits.header_timeout, shutdown.clone()).await {
            Ok(stream) => Some(stream),
            Err(reason) => {
                if let Some(reason) = reason {
                    self.connections.count(reason);
                }
                None
            }
        }
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Accept<A> {
    async fn accepted(self: Arc<Self>, mut stream: Stream, _open: Open, shutdown: ShutdownWatch) {
        let limits = Arc::clone(&self.generations.in_force().limits);
        if self.connections.open() > limits.connections_max {
            self.connections.limit(Limit::Connections);
            // Whoever can't be told is refused all the same; with TLS, to tell would cost a handshake.
            if self.tls.is_none() {
                drop(stream.write_all(&refusal::answer(503)).await);
            }
            drop(AsyncWriteExt::shutdown(&mut stream).await);
            return;
        }
        // Boxed, as it is short and large.
        let Some(stream) = Box::pin(self.secured(stream, &limits, &shutdown)).await else {
            return;
        };
        let judges = Judges {
            connections: Arc::clone(&self.connections),
            generations: Arc::clone(&self.generations),
            limits,
            witness: Arc::clone(&self.witness),
        };
        let home = Home::default();
        let wire = Wire::new(stream, judges, Arc::clone(&home), shutdown.clone());
        self.serve(Box::new(wire), shutdown).await;
        let left = home.lock().take();
        if let Some(stream) = left {
            Box::pin(refusal::linger(stream)).await;
        }
    }

    /// Serves a connection to its end.
    async fn serve(&self, mut wire: Box<Wire>, mut shutdown: ShutdownWatch) {
        let closing = self.closing.connection();
        let mut settings: Option<HttpPersistentSettings> = None;
        loop {
            match wire.next(&mut shutdown).await {
                Next::Request => {}
                Next::H2 => {
                    let streams = Streams::new(&self.inner, &wire.judges);
                    Arc::new(streams).process_new(wire, &closing).await;
                    return;
                }
                Next::Over => return,
            }
            let mut session = ServerSession::new_http1(wire);
            match settings.take() {
                Some(settings) => settings.apply_to_session(&mut session),
                None => session.set_keepalive(Some(KEEPALIVE)),
            }
            let Some(reused) = self.inner.process_new_http(session, &closing).await else {
                return;
            };
            let (stream, kept) = reused.consume();
            let Ok(same) = stream.into_any().downcast::<Wire>() else {
                return;
            };
            (wire, settings) = (same, kept);
        }
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Accept<A> {
    /// Serves in a task of its own: the one that pingora accepts in has room for all that it might do, for as long as it lives.
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let open = self.connections.open_one();
        tokio::spawn(Arc::clone(self).accepted(stream, open, shutdown.clone()));
        None
    }

    async fn cleanup(&self) {
        self.inner.http_cleanup().await;
    }
}

/// The generation that the request's head was judged under.
pub fn generation(session: &Session) -> Option<Arc<Generation>> {
    match wire(session) {
        Some(wire) => wire.generation.clone(),
        None => streams::generation(),
    }
}

/// The answer's head is known: what is left of the request's body may take its time.
pub fn answer_begins(session: &Session, upload: Option<&Upload>) {
    answer(session, upload, Answer::Begun);
}

/// The answer has passed: what is left of the request's body is waited for as before.
pub fn answer_is_whole(session: &Session, upload: Option<&Upload>) {
    answer(session, upload, Answer::Whole);
}

/// The client doesn't read the answer, which is given up.
pub fn answer_is_unread() {
    streams::answer_is_unread();
}

/// The connection now carries another protocol.
pub fn upgraded(session: &Session) {
    if let Some(wire) = wire(session) {
        wire.signals.upgraded.store(true, Ordering::Release);
    }
}

fn answer(session: &Session, upload: Option<&Upload>, answer: Answer) {
    match (wire(session), upload) {
        (Some(wire), _) => wire.signals.answer.store(answer as u8, Ordering::Release),
        (None, Some(upload)) => upload.answered(answer),
        (None, None) => {}
    }
}

/// Streams of HTTP/2 have no socket of their own.
fn wire(session: &Session) -> Option<&Wire> {
    session.as_downstream().stream()?.as_any().downcast_ref()
}

#[async_trait]
impl Peek for Wire {
    /// pingora sees a connection that has no request yet only when it speaks HTTP/2.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        buf.iter_mut().zip(PREFACE).for_each(|(shown, known)| *shown = *known);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    use super::super::head::Reason;
    use super::super::refused::Refused;
    use super::*;
    use crate::settings::Settings;

    struct Forgets;

    impl Witness for Forgets {
        fn refused(&self, _: &Refused<'_>, _: &Arc<Generation>) {}
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    fn wire(header_timeout: Duration) -> (tokio::io::DuplexStream, Wire) {
        let (client, server) = tokio::io::duplex(1024);
        let (shutdown, watch) = tokio::sync::watch::channel(false);
        // The process goes on for as long as the test does.
        std::mem::forget(shutdown);
        (
            client,
            Wire::new(Box::new(server), judges(header_timeout), Home::default(), watch),
        )
    }

    fn judges(header_timeout: Duration) -> Judges {
        let mut settings = Settings::default();
        settings.limits.header_timeout = header_timeout;
        let generations = Generations::begin(settings).unwrap();
        Judges {
            connections: Arc::default(),
            limits: Arc::clone(&generations.in_force().limits),
            generations: Arc::new(generations),
            witness: Arc::new(Forgets),
        }
    }

    async fn read(wire: &mut Wire) -> Vec<u8> {
        let mut some = [0; 1024];
        let n = tokio::time::timeout(DEADLINE, wire.read(&mut some))
            .await
            .unwrap()
            .unwrap();
        some[..n].to_vec()
    }

    /// What the connection goes on with, in a process that goes on.
    async fn next(wire: &mut Wire) -> Next {
        let mut shutdown = wire.shutdown.clone();
        tokio::time::timeout(4 * DEADLINE, wire.next(&mut shutdown))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_short_http1_request_is_not_waited_on() {
        let (mut client, mut wire) = wire(DEADLINE);
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert_eq!(next(&mut wire).await, Next::Request);
        assert_eq!(read(&mut wire).await, b"GET / HTTP/1.0\r\n\r\n");
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
        let (spoken, ()) = tokio::join!(next(&mut wire), sending);
        assert_eq!(spoken, Next::H2);
        let mut again = [0; 30];
        wire.read_exact(&mut again).await.unwrap();
        assert_eq!(&again[..24], PREFACE);
        assert_eq!(&again[24..], b"frames");
    }

    #[tokio::test]
    async fn a_method_that_begins_like_the_preface_is_http1() {
        let (mut client, mut wire) = wire(DEADLINE);
        client.write_all(b"PRINT / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(next(&mut wire).await, Next::Request);
    }

    #[tokio::test]
    async fn half_a_preface_is_closed_after_the_deadline() {
        let (mut client, mut wire) = wire(Duration::from_millis(20));
        client.write_all(b"PRI * HTTP").await.unwrap();
        assert_eq!(next(&mut wire).await, Next::Over);
        assert_eq!(wire.judges.connections.without_request(NoRequest::Timeout), 1);
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
        let start = tokio::time::Instant::now();
        assert_eq!(next(&mut wire).await, Next::Over, "nothing of it is handed on");
        assert_eq!(start.elapsed(), DEADLINE);
        assert_eq!(wire.judges.connections.without_request(NoRequest::Timeout), 1);
        drop(wire);
        dripping.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_has_begun_is_not_timed_and_the_next_head_is() {
        let (mut client, mut wire) = wire(DEADLINE);
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(next(&mut wire).await, Next::Request);
        read(&mut wire).await;
        let waiting = tokio::time::timeout(3 * DEADLINE, wire.read(&mut [0; 1])).await;
        assert!(waiting.is_err(), "the client may wait for its answer");
        client.write_all(b"GET ").await.unwrap();
        let start = tokio::time::Instant::now();
        assert_eq!(next(&mut wire).await, Next::Over);
        assert_eq!(start.elapsed(), DEADLINE);
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 408");
    }

    #[tokio::test]
    async fn pingora_gets_one_request_at_a_time() {
        let (mut client, mut wire) = wire(DEADLINE);
        let requests: [&[u8]; 4] = [
            b"POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
            b"POST /2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"GET /3 HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /4 HTTP/1.0\r\n\r\n",
        ];
        client.write_all(&requests.concat()).await.unwrap();
        client.shutdown().await.unwrap();
        for request in requests {
            assert_eq!(next(&mut wire).await, Next::Request);
            let mut got = Vec::new();
            while got.len() < request.len() {
                got.extend(read(&mut wire).await);
            }
            assert_eq!(got.escape_ascii().to_string(), request.escape_ascii().to_string());
            let ahead = futures_util::poll!(std::pin::pin!(wire.read(&mut [0; 1])));
            assert!(ahead.is_pending(), "{}", request.escape_ascii());
        }
        assert_eq!(next(&mut wire).await, Next::Over);
    }

    #[tokio::test]
    async fn where_pingora_does_not_agree_on_the_end_of_a_body_nothing_more_is_read() {
        let (mut client, mut wire) = wire(DEADLINE);
        let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nabc";
        client.write_all(request).await.unwrap();
        assert_eq!(next(&mut wire).await, Next::Request);
        let mut got = vec![0; request.len()];
        wire.read_exact(&mut got).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_eq!(next(&mut wire).await, Next::Over);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_must_get_on_until_the_answer_begins() {
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 50000\r\n\r\n";
        for (bytes, every, answered, lives) in [
            (200, 1, false, true),
            (1000, 25, false, true),
            (1, 1, false, false),
            (10, 25, false, false),
            (1, 20, true, true),
        ] {
            let (mut client, mut wire) = wire(DEADLINE);
            client.write_all(head).await.unwrap();
            assert_eq!(next(&mut wire).await, Next::Request);
            wire.read_exact(&mut vec![0; head.len()]).await.unwrap();
            wire.signals.answer.store(u8::from(answered), Ordering::Release);
            let sending = tokio::spawn(async move {
                for _ in 0..200 / every {
                    tokio::time::sleep(Duration::from_secs(every)).await;
                    if client.write_all(&vec![b'a'; bytes]).await.is_err() {
                        break;
                    }
                }
            });
            let start = tokio::time::Instant::now();
            let failed = loop {
                match wire.read(&mut [0; 1024]).await {
                    Ok(0) => break false,
                    Ok(_) => {}
                    Err(error) => {
                        assert_eq!(Refusal::of(&error), Some(Refusal::Slow));
                        assert!(start.elapsed() <= Duration::from_secs(55));
                        break true;
                    }
                }
            };
            assert_eq!(failed, !lives, "{bytes} bytes every {every} s");
            drop(wire);
            sending.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_is_given_up() {
        let (_client, mut wire) = wire(DEADLINE);
        let start = tokio::time::Instant::now();
        let error = wire.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(Refusal::of(&error), Some(Refusal::Unread));
        assert_eq!(start.elapsed(), Limits::default().downstream_write_timeout);
        assert_eq!(wire.judges.connections.reached(Limit::Unread), 1);
    }

    #[tokio::test]
    async fn what_never_became_a_request_is_counted() {
        let (mut client, mut wire) = wire(DEADLINE);
        let connections = Arc::clone(&wire.judges.connections);
        client.write_all(b"\x16\x03\x01 no HTTP at all").await.unwrap();
        assert_eq!(next(&mut wire).await, Next::Over);
        drop(wire);
        assert_eq!(connections.without_request(NoRequest::Refused(Reason::Tls)), 1);
    }

    #[tokio::test]
    async fn a_connection_that_has_no_request_ends_with_the_process() {
        let (_client, server) = tokio::io::duplex(1024);
        let (shutdown, mut watch) = tokio::sync::watch::channel(false);
        let mut wire = Wire::new(Box::new(server), judges(DEADLINE), Home::default(), watch.clone());
        let (next, ()) = tokio::join!(wire.next(&mut watch), async {
            shutdown.send_replace(true);
        });
        assert_eq!(next, Next::Over);
    }

    #[tokio::test]
    async fn a_probe_is_no_broken_request() {
        let (client, mut wire) = wire(DEADLINE);
        drop(client);
        assert_eq!(next(&mut wire).await, Next::Over);
        assert_eq!(wire.judges.connections.without_request(NoRequest::BrokeOff), 0);
    }
}
