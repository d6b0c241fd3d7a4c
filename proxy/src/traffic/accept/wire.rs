//! An accepted connection as pingora sees it: it reads one request at a time, and nothing that was not judged.
//!
//! Of HTTP/1 a head is handed on when it is whole and taken, then the bytes of its body, then nothing until the exchange
//! is over: what comes meanwhile is held, and is another head. Where that begins the two parsers must agree on: the end
//! of the body as it was framed here, and pingora's word that it has read it, by which it hands the connection back.

mod body;
mod h2;
mod next;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::connections::{Connections, Limit, NoRequest};
use super::deadline::Deadline;
use super::refusal::Refusal;
use crate::generation::{Generation, Generations};
use crate::settings::Limits;
use crate::traffic::chunks::Chunks;
use crate::traffic::head::{HeadLimits, Judge, Reason, Verdict, empty_lines};
use crate::traffic::refused::Witness;

pub(super) use next::{Next, PREFACE};

/// Bytes read at once while a head is not whole.
const FILL: usize = 4096;
/// Bytes of further requests that are held while one is answered.
const AHEAD_MAX: usize = 16 * 1024;

/// What the phases of an exchange tell the connection it came on.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The connection now carries another protocol.
    pub(super) upgraded: AtomicBool,
    /// [`Answer`] as a number.
    pub(super) answer: AtomicU8,
}

/// How far the answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Answer {
    Awaited = 0,
    Begun = 1,
    Whole = 2,
}

/// Where a connection is handed back to when pingora is done with it and the client may still be reading.
pub(super) type Home = Arc<Mutex<Option<Stream>>>;

/// What a connection is judged by and told to.
#[derive(Clone)]
pub(super) struct Judges {
    pub(super) connections: Arc<Connections>,
    pub(super) generations: Arc<Generations>,
    /// Those of the last head's generation; before the first one, those that the connection was accepted by.
    pub(super) limits: Arc<Limits>,
    pub(super) witness: Arc<dyn Witness>,
}

#[derive(Debug)]
enum Phase {
    /// No request is being read: before the first one, and between two.
    Idle,
    /// A body is read, so many bytes of it are to come.
    Sized(u64),
    Chunked(Chunks),
    /// The request is read, and its answer awaited.
    Held,
    /// Another protocol, that nobody here knows.
    Raw,
    /// HTTP/2, whose requests are judged where they are taken apart.
    H2(Box<h2::Connection>),
    /// Nothing more comes.
    Over,
}

/// An accepted connection.
pub(super) struct Wire {
    pub(super) socket: Option<Stream>,
    pub(super) signals: Signals,
    pub(super) judges: Judges,
    /// What the head that comes, and its exchange, are under.
    pub(super) generation: Option<Arc<Generation>>,
    home: Home,
    /// Bytes that were read and not handed on: those from `given` on, the first `owed` of them judged.
    held: Vec<u8>,
    given: usize,
    owed: usize,
    phase: Phase,
    /// A request was taken, or refused.
    began: bool,
    /// The client sends no other request, and may close its side.
    last: bool,
    /// The client has closed its side.
    finished: bool,
    /// The body must get on; so many bytes of it came while the client was waited for so long, and since then.
    paced: bool,
    moved: u64,
    waited: Duration,
    waiting: Option<Instant>,
    pub(super) deadline: Deadline,
    stalled: Deadline,
    pub(super) shutdown: ShutdownWatch,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(socket: Stream, judges: Judges, home: Home, shutdown: ShutdownWatch) -> Self {
        let h2 = matches!(socket.selected_alpn_proto(), Some(ALPN::H2));
        let mut deadline = Deadline::default();
        deadline.set(judges.limits.header_timeout);
        Self {
            socket: Some(socket),
            signals: Signals::default(),
            judges,
            generation: None,
            home,
            held: Vec::new(),
            given: 0,
            owed: 0,
            phase: if h2 {
                Phase::H2(Box::new(h2::Connection::new(shutdown.clone())))
            } else {
                Phase::Idle
            },
            began: false,
            last: false,
            finished: false,
            paced: false,
            moved: 0,
            waited: Duration::ZERO,
            waiting: None,
            deadline,
            stalled: Deadline::default(),
            shutdown,
        }
    }

    pub(super) fn socket(&mut self) -> io::Result<&mut Stream> {
        self.socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Bytes that were read and not handed on.
    pub(super) fn held(&self) -> &[u8] {
        self.held.get(self.given..).unwrap_or_default()
    }

    /// What streams of HTTP/2 find their connection by.
    pub(super) fn streams_digest(&self) -> Option<Arc<ProxyDigest>> {
        match &self.phase {
            Phase::H2(connection) => connection.digest.clone(),
            _ => None,
        }
    }

    /// Reads more than is held, and says how much; 0 at the client's end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); FILL];
        let mut buf = ReadBuf::uninit(&mut space);
        if !self.finished {
            ready!(Pin::new(self.socket()?).poll_read(cx, &mut buf))?;
        }
        self.finished |= buf.filled().is_empty();
        self.held.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Hands held bytes on, at most `most` of them.
    fn give(&mut self, buf: &mut ReadBuf<'_>, most: usize) -> usize {
        let n = self.held().len().min(buf.remaining()).min(most);
        buf.put_slice(self.held().get(..n).unwrap_or_default());
        self.given += n;
        if self.given >= self.held.len() {
            self.release();
        }
        n
    }

    /// Nothing is held, and no memory for it.
    fn release(&mut self) {
        (self.held, self.given) = (Vec::new(), 0);
    }

    fn is_tls(&self) -> bool {
        self.socket
            .as_ref()
            .is_some_and(|socket| socket.get_ssl_digest().is_some())
    }

    fn head_limits(&self) -> HeadLimits {
        let limits = &self.judges.limits;
        HeadLimits {
            bytes: limits.header_max.as_usize(),
            fields: limits.header_fields_max,
            target: limits.target_max.as_usize(),
        }
    }

    /// Waits for the client to leave: what it sends is another request, and waits for its turn.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.finished && self.held().len() < AHEAD_MAX {
            ready!(self.poll_fill(cx))?;
        }
        if self.finished && !self.may_finish() {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Whether a client that has closed its side still waits for answers.
    fn may_finish(&self) -> bool {
        let next = self.held().get(empty_lines(self.held())..).unwrap_or_default();
        self.last || matches!(Judge::default().judge(next, &self.head_limits()), Verdict::Taken(_))
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.held().is_empty() {
            self.give(buf, usize::MAX);
            return Poll::Ready(Ok(()));
        }
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        Pin::new(self.socket()?).poll_read(cx, buf)
    }

    /// The first `n` bytes of these have been sent. What the parser of HTTP/2 refuses it tells the client alone.
    fn wrote(&mut self, bufs: &[io::IoSlice<'_>], mut n: usize) {
        let Phase::H2(connection) = &mut self.phase else {
            return;
        };
        for buf in bufs {
            let sent = buf.get(..n.min(buf.len())).unwrap_or_default();
            n -= sent.len();
            let told = connection.wrote(sent);
            for (times, reason) in [
                (told.faults, Reason::Http2),
                (told.bad_hosts, Reason::Host),
                (told.too_large, Reason::HeaderTooLarge),
            ] {
                for _ in 0..times {
                    self.judges.connections.count(NoRequest::Refused(reason));
                }
            }
            for _ in 0..told.refused {
                self.judges.connections.limit(Limit::Streams);
            }
        }
    }

    /// A write that can't get on is given up after a while.
    fn unless_stalled<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled.clear();
            return result;
        }
        if !self.stalled.is_set() {
            self.stalled.set(self.judges.limits.downstream_write_timeout);
        }
        ready!(self.stalled.poll(cx));
        self.judges.connections.limit(Limit::Unread);
        // It would not read a farewell either.
        self.began = false;
        Poll::Ready(Err(Refusal::Unread.into()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Phase::H2(connection) = &self.phase
            && !self.finished
            && connection.open.idle_for() >= self.judges.limits.downstream_idle_timeout
        {
            self.judges.connections.limit(Limit::Idle);
        }
        if self.began && !matches!(self.phase, Phase::Idle) {
            *self.home.lock() = self.socket.take();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.owed > 0 {
            this.owed -= this.give(buf, this.owed);
            return Poll::Ready(Ok(()));
        }
        if this.signals.upgraded.swap(false, Ordering::AcqRel) {
            this.phase = Phase::Raw;
            this.deadline.clear();
        }
        match this.phase {
            Phase::Sized(_) | Phase::Chunked(_) => this.poll_body(cx, buf),
            Phase::Idle | Phase::Held => this.poll_held(cx),
            Phase::Raw => this.poll_raw(cx, buf),
            Phase::H2(_) => this.poll_h2(cx, buf),
            Phase::Over => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.socket()?).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = &written {
            self.wrote(&[io::IoSlice::new(buf)], *n);
        }
        self.unless_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.socket()?).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(n)) = &written {
            self.wrote(bufs, *n);
        }
        self.unless_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(self.socket()?).poll_flush(cx);
        self.unless_stalled(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.socket()?).poll_shutdown(cx)
    }
}
