//! The bodies of HTTP/1: read to their end as it was framed, each chunk judged, and given up when they don't get on.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::{Answer, Phase, Wire};
use crate::traffic::accept::connections::{Limit, NoRequest};
use crate::traffic::accept::refusal::Refusal;
use crate::traffic::chunks::{Chunks, NoChunk};
use crate::traffic::head::Reason;

impl Wire {
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = match self.phase {
            Phase::Sized(left) => usize::try_from(left).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        if self.held().is_empty() {
            let before = buf.filled().len();
            if self.poll_at_most(cx, buf, most)?.is_pending() {
                self.check_pace(cx)?;
                return Poll::Pending;
            }
            self.waited();
            let n = buf.filled().len() - before;
            self.finished |= n == 0;
            let new = buf.filled().get(before..).unwrap_or_default();
            let used = self.passed(n, |chunks| chunks.read(new))?;
            self.held.extend_from_slice(new.get(used..).unwrap_or_default());
            buf.set_filled(before + used);
        } else {
            let n = self.held().len().min(buf.remaining()).min(most);
            let held = std::mem::take(&mut self.held);
            let new = held.get(self.given..self.given + n).unwrap_or_default();
            let used = self.passed(n, |chunks| chunks.read(new));
            self.held = held;
            self.give(buf, used?);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads no more than `most`; pingora itself wants no more of a body than there is.
    fn poll_at_most(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        if buf.remaining() <= most {
            return Pin::new(self.socket()?).poll_read(cx, buf);
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(self.socket()?).poll_read(cx, &mut part))?;
        let n = part.filled().len();
        buf.advance(n);
        Poll::Ready(Ok(()))
    }

    /// Takes note of `n` bytes of the body, and says how many of them are.
    fn passed(&mut self, n: usize, look: impl FnOnce(&mut Chunks) -> Result<usize, NoChunk>) -> io::Result<usize> {
        let (used, is_over) = match &mut self.phase {
            Phase::Sized(left) => {
                self.moved += n as u64;
                *left = left.saturating_sub(n as u64);
                (n, *left == 0)
            }
            Phase::Chunked(chunks) => match look(chunks) {
                Ok(used) => {
                    self.moved += chunks.take_data();
                    (used, chunks.is_done())
                }
                Err(_) => {
                    self.phase = Phase::Over;
                    self.judges.connections.count(NoRequest::Refused(Reason::Chunk));
                    return Err(Refusal::Malformed(Reason::Chunk).into());
                }
            },
            _ => (n, false),
        };
        if is_over {
            self.phase = Phase::Held;
            self.deadline.clear();
        }
        Ok(used)
    }

    /// A body that doesn't get on is given up, as long as it is what the exchange waits for. Only the time counts that the
    /// client was waited for, not the upstream.
    fn check_pace(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let begun = self.signals.answer.load(Ordering::Acquire) == Answer::Begun as u8;
        if !self.paced || begun {
            self.deadline.clear();
            return Ok(());
        }
        let window = self.judges.limits.downstream_read_timeout;
        if self.waiting.is_none() {
            self.waiting = Some(Instant::now());
            self.deadline.set(window.saturating_sub(self.waited));
        }
        while self.deadline.poll(cx).is_ready() {
            let least = self.judges.limits.downstream_rate_min.bytes() as f64 * window.as_secs_f64();
            if (self.moved as f64) < least.max(1.0) {
                self.phase = Phase::Over;
                self.judges.connections.limit(Limit::UploadRate);
                return Err(Refusal::Slow.into());
            }
            (self.moved, self.waited, self.waiting) = (0, Duration::ZERO, Some(Instant::now()));
            self.deadline.set(window);
        }
        Ok(())
    }

    /// The client has sent something.
    fn waited(&mut self) {
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
    }
}
