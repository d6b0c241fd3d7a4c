//! One open exchange: what is copied of it while it passes, and its hand-over to the queue at the end.
//!
//! Invariants:
//! - An exchange is handed over exactly once, in `Drop`, whatever ended it: an answer, an error, a panic, or
//!   the runtime going down (`an_exchange_dropped_midway_is_handed_over_as_shutdown`).
//! - Open exchanges never hold more body bytes than `capture.memory_max`
//!   (`the_budget_of_open_exchanges_is_kept`); when it is spent a body is left out, with the reason.
//! - What is kept is decided at the end; nothing of a body that isn't goes to the queue.
//! - Nothing of a body is copied that its content type or the policy excludes.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header};
use sidelog_record::{End, Omitted};

use crate::generation::{Generation, Policy};
use crate::queue::Queue;
use crate::queue::exchange::{Body, Exchange, Fields, Request, Response, TraceContext, Version};
use crate::queue::grpc::Grpc;

/// What every capture of a process shares.
#[derive(Debug)]
pub struct Recorder {
    /// Where ended exchanges go.
    pub queue: Arc<Queue>,
    /// The configuration in force.
    pub generation: Arc<Generation>,
    /// Bytes that open captures may still reserve.
    pub budget: Arc<Budget>,
}

/// The memory of open captures, in bytes.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(bytes),
        })
    }

    fn reserve(&self, bytes: usize) -> bool {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
    }

    fn release(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is copied of one body.
#[derive(Debug)]
struct BodyCapture {
    budget: Arc<Budget>,
    bytes: Vec<u8>,
    /// Bytes taken from the budget, at least the buffer's capacity.
    reserved: usize,
    /// Most bytes to copy.
    limit: usize,
    size: u64,
    omitted: Option<Omitted>,
}

impl BodyCapture {
    fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            bytes: Vec::new(),
            reserved: 0,
            limit: 0,
            size: 0,
            omitted: None,
        }
    }

    fn plan(&mut self, plan: Result<usize, Omitted>) {
        match plan {
            Ok(limit) => self.limit = limit,
            Err(reason) => self.omit(reason),
        }
    }

    fn omit(&mut self, reason: Omitted) {
        self.omitted = Some(reason);
        self.limit = 0;
        self.free();
    }

    fn copy(&mut self, chunk: &[u8]) {
        self.size += chunk.len() as u64;
        let room = self.limit.saturating_sub(self.bytes.len());
        let Some(part) = chunk.get(..chunk.len().min(room)).filter(|part| !part.is_empty()) else {
            return;
        };
        let needed = self.bytes.len() + part.len();
        if needed > self.reserved {
            let step = needed.max(2 * self.reserved).min(self.limit) - self.reserved;
            if !self.budget.reserve(step) {
                return self.omit(Omitted::Budget);
            }
            self.reserved += step;
            self.bytes.reserve_exact(self.reserved - self.bytes.len());
        }
        self.bytes.extend_from_slice(part);
    }

    fn free(&mut self) {
        self.budget.release(std::mem::take(&mut self.reserved));
        self.bytes = Vec::new();
    }

    /// Forgets what was copied, for another attempt to send the same body.
    fn restart(&mut self) {
        self.bytes.clear();
        self.size = 0;
    }

    fn view(&self, kept: bool) -> Body<'_> {
        let omitted = self.omitted.or((!kept).then_some(Omitted::Tail));
        Body {
            size: self.size,
            bytes: if kept { &self.bytes } else { &[] },
            omitted: omitted.filter(|_| self.size > 0),
        }
    }
}

impl Drop for BodyCapture {
    fn drop(&mut self) {
        self.free();
    }
}

/// One open exchange.
#[derive(Debug)]
pub struct Capture {
    recorder: Arc<Recorder>,
    listener: u16,
    route: Option<u32>,
    trace: TraceContext,
    trace_state: Range<usize>,
    started: SystemTime,
    clock: Instant,
    first_byte: Option<u64>,
    end: End,
    error_type: &'static str,
    client: Option<SocketAddr>,
    upstream: Option<SocketAddr>,
    attempts: u32,
    version: Version,
    status: Option<u16>,
    grpc: Option<Grpc>,
    /// Method, target, authority, tracestate, request fields, response fields, one behind the other.
    head: Vec<u8>,
    method: Range<usize>,
    target: Range<usize>,
    authority: Range<usize>,
    request_fields: Range<usize>,
    response_fields: Range<usize>,
    request_body: BodyCapture,
    response_body: BodyCapture,
}

/// The request's head, as it came.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// HTTP version.
    pub version: Version,
    /// Method.
    pub method: &'a [u8],
    /// Raw target.
    pub target: &'a [u8],
    /// `:authority` or `Host`.
    pub authority: &'a [u8],
    /// The well-formed `tracestate` of it, joined; empty when there is none.
    pub trace_state: &'a [u8],
    /// Header fields.
    pub fields: &'a HeaderMap,
    /// The peer.
    pub client: Option<SocketAddr>,
}

impl Capture {
    /// Starts the clock and copies the head.
    pub fn new(
        recorder: &Arc<Recorder>,
        listener: u16,
        route: Option<u32>,
        trace: TraceContext,
        head: &RequestHead<'_>,
    ) -> Self {
        let mut capture = Self {
            recorder: Arc::clone(recorder),
            listener,
            route,
            trace,
            trace_state: 0..0,
            started: SystemTime::now(),
            clock: Instant::now(),
            first_byte: None,
            end: End::Shutdown,
            error_type: "shutdown",
            client: head.client,
            upstream: None,
            attempts: 0,
            version: head.version,
            status: None,
            grpc: Grpc::of_request(head.fields),
            head: Vec::with_capacity(1024),
            method: 0..0,
            target: 0..0,
            authority: 0..0,
            request_fields: 0..0,
            response_fields: 0..0,
            request_body: BodyCapture::new(&recorder.budget),
            response_body: BodyCapture::new(&recorder.budget),
        };
        capture.method = append(&mut capture.head, head.method);
        capture.target = append(&mut capture.head, head.target);
        capture.authority = append(&mut capture.head, head.authority);
        capture.trace_state = append(&mut capture.head, head.trace_state);
        let policy = recorder.generation.policy(route);
        if policy.record() && policy.request_headers() {
            capture.request_fields = append_fields(&mut capture.head, head.fields);
        }
        capture
            .request_body
            .plan(body_plan(policy, policy.request_body(), head.fields));
        capture
    }

    /// The trace this exchange belongs to.
    pub fn trace(&self) -> &TraceContext {
        &self.trace
    }

    /// The well-formed `tracestate` that came; empty when there was none.
    pub fn trace_state(&self) -> &[u8] {
        self.head.get(self.trace_state.clone()).unwrap_or_default()
    }

    /// Index of the route that matched.
    pub fn route(&self) -> Option<u32> {
        self.route
    }

    /// Attempts to reach the upstream so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Another attempt begins: the request's body will pass again.
    pub fn attempt(&mut self, upstream: SocketAddr) {
        self.attempts += 1;
        self.upstream = Some(upstream);
        self.request_body.restart();
    }

    /// A part of the request's body passes.
    pub fn request_body(&mut self, chunk: &[u8]) {
        self.request_body.copy(chunk);
    }

    /// The answer's head passes. Informational ones don't count.
    pub fn response_head(&mut self, status: u16, fields: &HeaderMap) {
        self.first_byte = Some(self.elapsed());
        self.status = Some(status);
        self.response_trailers(fields);
        let policy = self.recorder.generation.policy(self.route);
        if policy.record() && policy.response_headers() {
            self.response_fields = append_fields(&mut self.head, fields);
        }
        self.response_body
            .plan(body_plan(policy, policy.response_body(), fields));
    }

    /// The answer's trailers pass. An answer without a body has in its head what would be in them.
    pub fn response_trailers(&mut self, trailers: &HeaderMap) {
        if let Some(grpc) = &mut self.grpc {
            grpc.read(trailers);
        }
    }

    /// The connection now carries another protocol: what passes is counted, not kept.
    pub fn upgraded(&mut self) {
        self.request_body.omit(Omitted::Upgraded);
        self.response_body.omit(Omitted::Upgraded);
    }

    /// A part of the answer's body passes.
    pub fn response_body(&mut self, chunk: &[u8]) {
        self.response_body.copy(chunk);
    }

    /// How the exchange ended, and the status that the client was sent. It is handed over when this value is dropped.
    pub fn ended(&mut self, end: End, error_type: &'static str, status: Option<u16>) {
        self.end = end;
        self.error_type = error_type;
        self.status = status.or(self.status);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn exchange(&self) -> Exchange<'_> {
        let part = |range: &Range<usize>| self.head.get(range.clone()).unwrap_or_default();
        let policy = self.recorder.generation.policy(self.route);
        let duration = self.elapsed();
        let kept = policy.keeps_bodies(self.end, self.status, Duration::from_nanos(duration));
        let since_epoch = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        Exchange {
            generation: self.recorder.generation.number,
            listener: self.listener,
            route: self.route,
            record: policy.records(self.trace.trace_id, self.end, self.status),
            started: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX),
            duration,
            first_byte: self.first_byte,
            end: self.end,
            error_type: self.error_type,
            trace: self.trace,
            trace_state: part(&self.trace_state),
            client: self.client,
            upstream: self.upstream,
            attempts: self.attempts,
            request: Request {
                version: self.version,
                method: part(&self.method),
                target: part(&self.target),
                authority: part(&self.authority),
                fields: Fields(part(&self.request_fields)),
                body: self.request_body.view(kept),
            },
            response: Response {
                status: self.status,
                grpc: self.grpc,
                fields: Fields(part(&self.response_fields)),
                body: self.response_body.view(kept),
            },
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let exchange = self.exchange();
        if exchange.record || exchange.trace.span {
            self.recorder.queue.offer(&exchange);
        }
    }
}

fn append(out: &mut Vec<u8>, bytes: &[u8]) -> Range<usize> {
    let start = out.len();
    out.extend_from_slice(bytes);
    start..out.len()
}

fn append_fields(out: &mut Vec<u8>, fields: &HeaderMap) -> Range<usize> {
    let start = out.len();
    for (name, value) in fields {
        Fields::push(out, name.as_str().as_bytes(), value.as_bytes());
    }
    start..out.len()
}

/// How many bytes of a body to copy, or why none.
fn body_plan(policy: &Policy, wanted: bool, fields: &HeaderMap) -> Result<usize, Omitted> {
    if !policy.record() || !wanted || policy.keeps_no_bodies() {
        return Err(Omitted::Policy);
    }
    let content_type = fields.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    if !content_type.is_some_and(|value| policy.records_type(value)) {
        return Err(Omitted::ContentType);
    }
    Ok(policy.body_max())
}
