//! What comes between two exchanges of a connection: the next head, awaited without a session of pingora, read until it is
//! whole, and judged.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;

use super::{Answer, Phase, Wire, h2};
use crate::traffic::accept::connections::{Limit, NoRequest};
use crate::traffic::accept::refusal;
use crate::traffic::chunks::Chunks;
use crate::traffic::head::{Framing, Head, Judge, Reason, Verdict, empty_lines};
use crate::traffic::refused::Refused;

/// What a client that speaks HTTP/2 by prior knowledge sends first (RFC 9113, 3.4).
pub(in crate::traffic::accept) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::traffic::accept) enum Next {
    /// A request of HTTP/1, whose head is whole and taken.
    Request,
    /// HTTP/2.
    H2,
    /// Nothing: whoever was to be told something has been told.
    Over,
}

impl Wire {
    /// Waits for what comes next, no longer than `shutdown` lets it: nothing has begun that could be finished.
    pub(in crate::traffic::accept) async fn next(&mut self, shutdown: &mut ShutdownWatch) -> Next {
        self.generation = None;
        self.phase = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Held => {
                self.deadline.set(self.judges.limits.downstream_idle_timeout);
                Phase::Idle
            }
            // Where the two parsers don't agree on the body's end, nobody knows where a head begins.
            Phase::Sized(_) | Phase::Chunked(_) => Phase::Over,
            other => other,
        };
        tokio::select! {
            biased;
            next = self.await_start() => next,
            _ = shutdown.wait_for(|down| *down) => Next::Over,
        }
    }

    async fn await_start(&mut self) -> Next {
        match self.phase {
            Phase::H2(_) => self.await_preface().await,
            Phase::Idle if self.began || self.is_tls() => self.await_head().await,
            Phase::Idle => match self.await_preface().await {
                Next::Request => self.await_head().await,
                next => next,
            },
            _ => Next::Over,
        }
    }

    /// Finds out whether HTTP/2 is spoken, at the first byte that differs from its preface.
    async fn await_preface(&mut self) -> Next {
        loop {
            let start = self.held().get(..PREFACE.len()).unwrap_or(self.held());
            let is_h2 = matches!(self.phase, Phase::H2(_));
            if !PREFACE.starts_with(start) {
                if !is_h2 {
                    return Next::Request;
                }
                // Where HTTP/2 was agreed upon, its own parser closes without a word.
                self.judges.connections.count(NoRequest::Refused(Reason::Http2));
                return Next::H2;
            }
            if start.len() == PREFACE.len() {
                if !is_h2 {
                    self.phase = Phase::H2(Box::new(h2::Connection::new(self.shutdown.clone())));
                }
                return Next::H2;
            }
            match std::future::poll_fn(|cx| self.poll_more(cx)).await {
                Ok(0) if is_h2 || self.held().is_empty() => {
                    self.broke_off();
                    return Next::Over;
                }
                // What ends here is left to HTTP/1, which answers it as it deserves.
                Ok(0) => return Next::Request,
                Ok(_) => {}
                Err(error) => {
                    match error.kind() {
                        io::ErrorKind::TimedOut => self.judges.connections.count(NoRequest::Timeout),
                        _ => self.broke_off(),
                    }
                    return Next::Over;
                }
            }
        }
    }

    /// Reads until a head is whole, or refused.
    async fn await_head(&mut self) -> Next {
        let mut judge = Judge::default();
        let mut has_begun = false;
        loop {
            if !has_begun {
                self.given += empty_lines(self.held());
            }
            if self.held().is_empty() {
                self.release();
            } else {
                self.take_generation();
                let limits = self.head_limits();
                match judge.judge(self.held(), &limits) {
                    Verdict::Taken(head) => {
                        self.begin(&head);
                        return Next::Request;
                    }
                    Verdict::Refused(reason) => {
                        self.refuse(&judge, reason).await;
                        return Next::Over;
                    }
                    Verdict::Incomplete => {
                        if !std::mem::replace(&mut has_begun, true) && self.began {
                            self.deadline.set(self.judges.limits.header_timeout);
                        }
                    }
                }
            }
            match std::future::poll_fn(|cx| self.poll_more(cx)).await {
                Ok(0) => {
                    self.broke_off();
                    return Next::Over;
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    self.late(has_begun).await;
                    return Next::Over;
                }
                Err(_) => {
                    self.broke_off();
                    return Next::Over;
                }
            }
        }
    }

    /// From its first byte on a head is under the generation in force then, and so is its exchange.
    fn take_generation(&mut self) {
        if self.generation.is_none() {
            let generation = self.judges.generations.in_force();
            self.judges.limits = Arc::clone(&generation.limits);
            self.generation = Some(generation);
        }
    }

    /// More bytes, unless it is too late.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.deadline.poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.poll_fill(cx)
    }

    /// The client is gone. One that had said nothing was a probe that looked whether the port is open, or a connection
    /// made in advance.
    fn broke_off(&mut self) {
        if !self.held().is_empty() {
            self.judges.connections.count(NoRequest::BrokeOff);
            self.phase = Phase::Over;
        }
    }

    /// A request is taken: its head is handed on, and its body is read as it is framed.
    fn begin(&mut self, head: &Head) {
        self.owed = head.len;
        self.began = true;
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

    /// No head came in time: whoever began one is told so.
    async fn late(&mut self, has_begun: bool) {
        if !has_begun && self.began {
            self.judges.connections.limit(Limit::Idle);
            return;
        }
        self.judges.connections.count(NoRequest::Timeout);
        if has_begun {
            self.answer(408).await;
        }
    }

    async fn refuse(&mut self, judge: &Judge, reason: Reason) {
        self.judges.connections.count(NoRequest::Refused(reason));
        if let Some(((method, target), generation)) = judge.request().zip(self.generation.as_ref()) {
            let part = |range: Range<usize>| self.held().get(range).unwrap_or_default();
            let refused = Refused {
                method: part(method),
                target: part(target),
                host: part(judge.host().unwrap_or_default()),
                client: self.client(),
                is_h2: false,
                reason: reason.as_str(),
                status: reason.status(),
            };
            self.judges.witness.refused(&refused, generation);
        }
        self.answer(reason.status()).await;
    }

    fn client(&self) -> Option<std::net::SocketAddr> {
        let digest = self.socket.as_ref()?.get_socket_digest()?;
        digest.peer_addr()?.as_inet().copied()
    }

    /// Answers for itself, for the last time.
    async fn answer(&mut self, status: u16) {
        (self.began, self.phase) = (true, Phase::Over);
        let within = self.judges.limits.header_timeout;
        let Some(socket) = &mut self.socket else { return };
        let telling = async {
            socket.write_all(&refusal::answer(status)).await?;
            socket.flush().await
        };
        // Whoever can't be told is refused all the same.
        drop(tokio::time::timeout(within, telling).await);
    }
}
