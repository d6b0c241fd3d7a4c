//! An accepted connection as pingora sees it: it reads one request at a time, and nothing that was not judged.
//!
//! Of HTTP/1 a head is handed on when it is whole and taken, then the bytes of its body, then nothing until the exchange
//! is over: what comes meanwhile is held, and is another head. Where that begins the two parsers must agree on: the end
//! of the body as it was framed here, and pingora's word that it has read it ([`Signals::ended`]).

mod body;
mod h2;

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
use super::refusal::{self, Refusal};
use crate::settings::Limits;
use crate::traffic::chunks::Chunks;
use crate::traffic::head::{Framing, Head, HeadLimits, Judge, Reason, Verdict, empty_lines};
use crate::traffic::refused::{Refused, Witness};

/// Bytes read at once while a head is not whole.
const FILL: usize = 4096;
/// Bytes of further requests that are held while one is answered.
const AHEAD_MAX: usize = 16 * 1024;

/// What the phases of an exchange tell the connection it came on.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The exchange is over, its body read.
    pub(super) ended: AtomicBool,
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
    pub(super) limits: Arc<Limits>,
    pub(super) witness: Arc<dyn Witness>,
}

#[derive(Debug)]
enum Phase {
    /// A head is read.
    Head,
    /// A body is read, so many bytes of it are to come.
    Sized(u64),
    Chunked(Chunks),
    /// The request is read, and its answer awaited.
    Held,
    /// Another protocol, that nobody here knows.
    Raw,
    /// HTTP/2, whose requests are judged where they are taken apart.
    H2(Box<h2::Connection>),
    /// This is sent, from there on, and the rest of what comes ignored.
    Refusing(Vec<u8>, usize),
    /// Nothing more comes.
    Over,
}

/// An accepted connection.
pub(super) struct Wire {
    pub(super) socket: Option<Stream>,
    pub(super) signals: Signals,
    pub(super) judges: Judges,
    home: Home,
    /// Bytes that were read and not handed on: those from `given` on, the first `owed` of them judged.
    held: Vec<u8>,
    given: usize,
    owed: usize,
    phase: Phase,
    judge: Judge,
    /// Some of the head that is awaited has come.
    in_head: bool,
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
            home,
            held: Vec::new(),
            given: 0,
            owed: 0,
            phase: if h2 {
                Phase::H2(Box::new(h2::Connection::new(shutdown.clone())))
            } else {
                Phase::Head
            },
            judge: Judge::default(),
            in_head: false,
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

    /// The client speaks HTTP/2.
    pub(super) fn is_h2(&mut self) {
        self.phase = Phase::H2(Box::new(h2::Connection::new(self.shutdown.clone())));
    }

    /// What streams of HTTP/2 find their connection by.
    pub(super) fn streams_digest(&self) -> Option<Arc<ProxyDigest>> {
        match &self.phase {
            Phase::H2(connection) => connection.digest.clone(),
            _ => None,
        }
    }

    /// Nothing of it is judged.
    pub(super) fn is_raw(&self) -> bool {
        matches!(self.phase, Phase::Raw)
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
            self.held = Vec::new();
            self.given = 0;
        }
        n
    }

    /// What the exchange has told since the last read.
    fn heed(&mut self) {
        if self.signals.upgraded.swap(false, Ordering::AcqRel) {
            self.phase = Phase::Raw;
            self.deadline.clear();
        }
        if self.signals.ended.swap(false, Ordering::AcqRel) {
            // Where the two parsers don't agree on the body's end, nobody knows where a head begins.
            self.phase = match self.phase {
                Phase::Held => Phase::Head,
                _ => Phase::Over,
            };
            self.deadline.set(self.judges.limits.downstream_idle_timeout);
        }
    }

    fn begin(&mut self, head: &Head) {
        (self.began, self.in_head) = (true, false);
        self.judge = Judge::default();
        self.last = head.last;
        self.paced = !head.grpc;
        (self.moved, self.waited, self.waiting) = (0, Duration::ZERO, None);
        self.signals.answer.store(Answer::Awaited as u8, Ordering::Release);
        self.deadline.clear();
        self.phase = match head.framing {
            Framing::Length(0) => Phase::Held,
            Framing::Length(length) => Phase::Sized(length),
            Framing::Chunked => Phase::Chunked(Chunks::new()),
        };
    }

    fn head_limits(&self) -> HeadLimits {
        let limits = &self.judges.limits;
        HeadLimits {
            bytes: limits.header_max.as_usize(),
            fields: limits.header_fields_max,
            target: limits.target_max.as_usize(),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(verdict) = self.judge_held() {
                match verdict {
                    Verdict::Taken(head) => {
                        self.owed = head.len;
                        self.begin(&head);
                        self.owed -= self.give(buf, head.len);
                        return Poll::Ready(Ok(()));
                    }
                    Verdict::Refused(reason) => {
                        self.refuse(reason);
                        return self.poll_refuse(cx);
                    }
                    Verdict::Incomplete => {
                        if !std::mem::replace(&mut self.in_head, true) && self.began {
                            self.deadline.set(self.judges.limits.header_timeout);
                        }
                    }
                }
            }
            if self.deadline.poll(cx).is_ready() {
                return self.late(cx);
            }
            if self.held().is_empty() {
                if ready!(self.poll_direct(cx, buf))? {
                    return Poll::Ready(Ok(()));
                }
            } else if ready!(self.poll_fill(cx))? == 0 {
                self.judges.connections.count(NoRequest::BrokeOff);
                self.phase = Phase::Over;
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// The verdict over what is held, if anything is.
    fn judge_held(&mut self) -> Option<Verdict> {
        if !self.in_head {
            self.given += empty_lines(self.held());
        }
        if self.held().is_empty() {
            self.give(&mut ReadBuf::new(&mut []), 0);
            return None;
        }
        let limits = self.head_limits();
        let bytes = self.held.get(self.given..).unwrap_or_default();
        Some(self.judge.judge(bytes, &limits))
    }

    /// Reads a head to where it is wanted, where that can be done: most come whole and alone. Says whether there is
    /// something to hand on: such a head, or the client's end.
    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if self.finished {
            return Poll::Ready(Ok(true));
        }
        let before = buf.filled().len();
        ready!(Pin::new(self.socket()?).poll_read(cx, buf))?;
        let limits = self.head_limits();
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            self.finished = true;
            return Poll::Ready(Ok(true));
        }
        let len = match Judge::default().judge(new, &limits) {
            Verdict::Taken(head) => {
                self.begin(&head);
                head.len
            }
            _ => 0,
        };
        self.held.extend_from_slice(new.get(len..).unwrap_or_default());
        buf.set_filled(before + len);
        Poll::Ready(Ok(len > 0))
    }

    /// No head came in time: whoever began one is told so.
    fn late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.in_head && self.began {
            self.judges.connections.limit(Limit::Idle);
            self.began = false;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.judges.connections.count(NoRequest::Timeout);
        if !self.in_head {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.answer(408);
        self.poll_refuse(cx)
    }

    fn refuse(&mut self, reason: Reason) {
        self.judges.connections.count(NoRequest::Refused(reason));
        if let Some((method, target)) = self.judge.request() {
            let part = |range: std::ops::Range<usize>| self.held().get(range).unwrap_or_default();
            self.judges.witness.refused(&Refused {
                method: part(method),
                target: part(target),
                host: part(self.judge.host().unwrap_or_default()),
                client: self.client(),
                is_h2: false,
                reason: reason.as_str(),
                status: reason.status(),
            });
        }
        self.answer(reason.status());
    }

    fn client(&self) -> Option<std::net::SocketAddr> {
        let digest = self.socket.as_ref()?.get_socket_digest()?;
        digest.peer_addr()?.as_inet().copied()
    }

    fn answer(&mut self, status: u16) {
        self.began = true;
        self.phase = Phase::Refusing(refusal::answer(status), 0);
        self.deadline.set(self.judges.limits.header_timeout);
    }

    /// Sends the answer to what was refused, then ends.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Phase::Refusing(answer, mut sent) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return Poll::Ready(Ok(()));
        };
        while let Some(rest) = answer.get(sent..).filter(|rest| !rest.is_empty()) {
            match Pin::new(self.socket()?).poll_write(cx, rest)? {
                Poll::Ready(n) => sent += n,
                Poll::Pending => {
                    self.phase = Phase::Refusing(answer, sent);
                    ready!(self.deadline.poll(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        let flushed = Pin::new(self.socket()?).poll_flush(cx)?;
        if flushed.is_pending() {
            self.phase = Phase::Refusing(answer, sent);
        }
        flushed.map(Ok)
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
        let idle = matches!(self.phase, Phase::Head) && !self.in_head;
        if self.began && !idle {
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
        this.heed();
        match this.phase {
            Phase::Head => this.poll_head(cx, buf),
            Phase::Sized(_) | Phase::Chunked(_) => this.poll_body(cx, buf),
            Phase::Held => this.poll_held(cx),
            Phase::Raw => this.poll_raw(cx, buf),
            Phase::H2(_) => this.poll_h2(cx, buf),
            Phase::Refusing(..) => this.poll_refuse(cx),
            Phase::Over => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.socket()?).poll_write(cx, buf);
        self.unless_stalled(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.socket()?).poll_write_vectored(cx, bufs);
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
