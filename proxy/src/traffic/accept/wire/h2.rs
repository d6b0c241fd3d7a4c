//! A connection of HTTP/2: its frames pass as they are, and are counted; who has no request open at the end of the process
//! is sent away.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::server::ShutdownWatch;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::{Phase, Wire};
use crate::traffic::accept::connections::{Limit, NoRequest};
use crate::traffic::accept::frames::{Frames, Told};
use crate::traffic::accept::streams::OpenStreams;

/// How long a client that has no request open has to take note of the process's end.
const FAREWELL: Duration = Duration::from_millis(300);

impl Wire {
    pub(super) fn poll_h2(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let came = self.poll_raw(cx, buf)?;
        self.finished |= came.is_ready() && buf.filled().len() == before && buf.remaining() > 0;
        let Phase::H2(connection) = &mut self.phase else {
            return came.map(Ok);
        };
        let limits = &self.judges.limits;
        if connection.read(buf.filled().get(before..).unwrap_or_default(), limits.h2_resets_max) {
            self.judges.connections.limit(Limit::Resets);
            self.phase = Phase::Over;
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let is_leaving = connection.has_ended(cx) && connection.open.is_none();
        let (was_reading, is_reading) = (connection.is_reading, connection.frames.is_incomplete());
        connection.is_reading = is_reading;
        match (is_reading, is_leaving) {
            (_, true) if was_reading || !self.deadline.is_set() => self.deadline.set(FAREWELL),
            (_, true) => {}
            (true, false) if !was_reading => self.deadline.set(limits.header_timeout),
            (true, false) => {}
            (false, false) => self.deadline.clear(),
        }
        if came.is_pending() && self.deadline.poll(cx).is_ready() {
            if !is_leaving {
                self.judges.connections.count(NoRequest::Timeout);
            }
            self.phase = Phase::Over;
            return Poll::Ready(Ok(()));
        }
        came.map(Ok)
    }
}

/// What is known of a connection of HTTP/2.
pub(super) struct Connection {
    frames: Frames,
    answers: Frames,
    pub(super) open: Arc<OpenStreams>,
    pub(super) digest: Option<Arc<ProxyDigest>>,
    /// Requests taken back since then.
    resets: u32,
    since: Instant,
    /// Why the deadline runs: a request is not whole, not the process's end.
    is_reading: bool,
    ending: Ending,
    has_ended: bool,
}

/// The end of the process, waited for.
type Ending = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(mut shutdown: ShutdownWatch) -> Self {
        let open = Arc::<OpenStreams>::default();
        let answer = ResponseHeader::build(200, Some(0)).ok();
        let digest = answer.map(|answer| {
            let data: Box<dyn std::any::Any + Send + Sync> = Box::new(Arc::clone(&open));
            Arc::new(ProxyDigest::new(Box::new(answer), Some(data)))
        });
        Self {
            frames: Frames::of_client(),
            answers: Frames::of_server(),
            open,
            digest,
            resets: 0,
            since: Instant::now(),
            is_reading: false,
            ending: Box::pin(
                async move { while !*shutdown.borrow_and_update() && shutdown.changed().await.is_ok() {} },
            ),
            has_ended: false,
        }
    }

    /// Takes note of what came, and says whether too many requests were taken back.
    fn read(&mut self, bytes: &[u8], resets_max: u32) -> bool {
        let resets = self.frames.read(bytes).resets;
        if resets == 0 {
            return false;
        }
        let now = Instant::now();
        if now - self.since >= Duration::from_secs(1) {
            (self.since, self.resets) = (now, 0);
        }
        self.resets = self.resets.saturating_add(resets);
        self.resets > resets_max
    }

    /// Takes note of what is sent, and says what it tells the client of its faults.
    pub(super) fn wrote(&mut self, bytes: &[u8]) -> Told {
        self.answers.read(bytes)
    }

    /// Whether the process ends; if not yet, `cx` is to hear of it.
    fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        self.has_ended = self.has_ended || self.ending.as_mut().poll(cx).is_ready();
        self.has_ended
    }
}
