//! One open exchange: what is copied of it while it passes, and its hand-over to the queue at the end.
//!
//! Invariants:
//! - An exchange is handed over exactly once, in `Drop`, whatever ended it: an answer, an error, a panic, or
//!   the runtime going down (`an_exchange_dropped_midway_is_handed_over_as_shutdown`).
//! - What is kept is decided at the end; nothing of a body that isn't goes to the queue.
//! - An exchange is counted in the metrics as it is handed over, recorded or not, whether the queue has room or not.
//! - Nothing of a body is copied that its content type or the policy excludes.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod body;

use http::{HeaderMap, header};
use sidelog_record::{End, Omitted};

use super::count::Counter;
use crate::generation::Generation;
use crate::generation::policy::Policy;
use crate::queue::Queue;
use crate::queue::exchange::{Exchange, Fields, Request, Response, TraceContext, Version};
use crate::queue::feed::Feed;
use crate::queue::grpc::Grpc;
use body::BodyCapture;
pub use body::Budget;

/// What every capture of a process shares.
#[derive(Debug)]
pub struct Recorder {
    /// Where ended exchanges go.
    pub queue: Arc<Queue>,
    /// Bytes that open captures may still reserve.
    pub budget: Arc<Budget>,
}

/// One open exchange.
#[derive(Debug)]
pub struct Capture {
    recorder: Arc<Recorder>,
    generation: Arc<Generation>,
    listener: u16,
    route: Option<u32>,
    trace: TraceContext,
    trace_state: Range<usize>,
    started: SystemTime,
    clock: Instant,
    first_byte: Option<u64>,
    /// When the upstream was first turned to, and when its whole answer had come.
    asked: Option<u64>,
    answered: Option<u64>,
    end: End,
    error_type: &'static str,
    client: Option<SocketAddr>,
    forwarded_for: Option<IpAddr>,
    upstream: Option<SocketAddr>,
    attempts: u32,
    version: Version,
    status: Option<u16>,
    grpc: Option<Grpc>,
    grpc_message: Range<usize>,
    close_code: Option<u16>,
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
    /// The client as trusted proxies told it.
    pub forwarded_for: Option<IpAddr>,
}

impl Capture {
    /// Starts the clock and copies the head, of an exchange under `generation`.
    pub fn new(
        recorder: &Arc<Recorder>,
        generation: Arc<Generation>,
        listener: u16,
        route: Option<u32>,
        trace: TraceContext,
        head: &RequestHead<'_>,
    ) -> Self {
        let mut capture = Self {
            recorder: Arc::clone(recorder),
            generation,
            listener,
            route,
            trace,
            trace_state: 0..0,
            started: SystemTime::now(),
            clock: Instant::now(),
            first_byte: None,
            asked: None,
            answered: None,
            end: End::Shutdown,
            error_type: "shutdown",
            client: head.client,
            forwarded_for: head.forwarded_for,
            upstream: None,
            attempts: 0,
            version: head.version,
            status: None,
            grpc: Grpc::of_request(head.fields),
            grpc_message: 0..0,
            close_code: None,
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
        capture.generation.series().began();
        let policy = capture.generation.policy(route);
        if policy.record() && policy.request_headers() {
            capture.request_fields = append_fields(&mut capture.head, head.fields);
        }
        let plan = body_plan(policy, policy.request_body(), head.fields);
        capture.request_body.plan(plan, feed(head.fields));
        if capture.grpc.is_some() {
            capture.request_body.count(Some(Counter::of_messages()));
            capture.response_body.count(Some(Counter::of_messages()));
        }
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

    /// What it is served and recorded under.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// Index of the route that matched.
    pub fn route(&self) -> Option<u32> {
        self.route
    }

    /// Attempts to reach the upstream so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The address of the last attempt.
    pub fn upstream(&self) -> Option<SocketAddr> {
        self.upstream
    }

    /// Another attempt begins: the request's body will pass again. A Unix socket has no address.
    pub fn attempt(&mut self, upstream: Option<SocketAddr>) {
        self.attempts += 1;
        self.upstream = upstream;
        self.asked = self.asked.or_else(|| Some(self.elapsed()));
        self.request_body.restart();
    }

    /// A part of the request's body passes.
    pub fn request_body(&mut self, chunk: &[u8]) {
        self.request_body.copy(chunk);
        self.close_code = self.close_code.or_else(|| self.request_body.close_code());
    }

    /// The answer's head passes. Informational ones don't count.
    pub fn response_head(&mut self, status: u16, fields: &HeaderMap) {
        self.first_byte = Some(self.elapsed());
        self.status = Some(status);
        self.response_trailers(fields);
        let policy = self.generation.policy(self.route);
        if policy.record() && policy.response_headers() {
            self.response_fields = append_fields(&mut self.head, fields);
        }
        let plan = body_plan(policy, policy.response_body(), fields);
        self.response_body.plan(plan, feed(fields));
    }

    /// The answer's trailers pass. An answer without a body has in its head what would be in them.
    pub fn response_trailers(&mut self, trailers: &HeaderMap) {
        if let Some(grpc) = &mut self.grpc {
            grpc.read(trailers);
            if let Some(message) = trailers.get("grpc-message") {
                self.grpc_message = append(&mut self.head, message.as_bytes());
            }
        }
    }

    /// The connection now carries another protocol: what passes is counted, not kept.
    pub fn upgraded(&mut self) {
        for body in [&mut self.request_body, &mut self.response_body] {
            body.omit(Omitted::Upgraded);
            body.count(Some(Counter::of_frames()));
        }
    }

    /// A part of the answer's body passes.
    pub fn response_body(&mut self, chunk: &[u8]) {
        self.response_body.copy(chunk);
        self.close_code = self.close_code.or_else(|| self.response_body.close_code());
    }

    /// The last of the answer's body has come.
    pub fn answered(&mut self) {
        self.answered = Some(self.elapsed());
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

    /// Nanoseconds that the upstream took, of an exchange that took `duration`; one that failed waited for it to the end.
    fn upstream_took(&self, duration: u64) -> Option<u64> {
        let head = self.first_byte.filter(|_| self.end == End::Complete);
        let until = self.answered.or(head).unwrap_or(duration);
        self.asked.map(|asked| until.saturating_sub(asked))
    }

    fn exchange(&self) -> Exchange<'_> {
        let part = |range: &Range<usize>| self.head.get(range.clone()).unwrap_or_default();
        let policy = self.generation.policy(self.route);
        let duration = self.elapsed();
        let kept = policy.keeps_bodies(self.end, self.status, Duration::from_nanos(duration));
        let since_epoch = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        Exchange {
            generation: self.generation.number,
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
            forwarded_for: self.forwarded_for,
            upstream: self.upstream,
            attempts: self.attempts,
            close_code: self.close_code,
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
                grpc_message: part(&self.grpc_message),
                fields: Fields(part(&self.response_fields)),
                body: self.response_body.view(kept),
            },
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.request_body.settle();
        self.response_body.settle();
        let exchange = self.exchange();
        let upstream = self.upstream_took(exchange.duration);
        self.generation.series().ended(&exchange, upstream);
        if exchange.record || exchange.trace.span {
            self.recorder.queue.offer(&exchange, &self.generation);
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

/// The feed that a body is, if its events can be told from its bytes as they pass.
fn feed(fields: &HeaderMap) -> Option<Feed> {
    let content_type = fields.get(header::CONTENT_TYPE)?.as_bytes();
    let feed = Feed::of(content_type)?;
    let coding = fields.get(header::CONTENT_ENCODING).map(header::HeaderValue::as_bytes);
    let is_plain = coding.is_none_or(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"));
    // In UTF-16 a line feed has two bytes.
    let is_wide = memchr::memmem::find(&content_type.to_ascii_lowercase(), b"utf-16").is_some();
    (is_plain && !is_wide).then_some(feed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Generations;
    use crate::queue::exchange::tests::GENERATION;
    use crate::queue::feed::Parts;
    use crate::queue::{QueueLimits, Taker};
    use crate::settings::Settings;

    fn recorder() -> Arc<Recorder> {
        let limits = QueueLimits {
            bodies_max_bytes: 1 << 20,
            max_bytes: 1 << 20,
        };
        Arc::new(Recorder {
            queue: Queue::new(limits, 1),
            budget: Budget::new(1 << 20),
        })
    }

    fn begun(recorder: &Arc<Recorder>, fields: &HeaderMap) -> Capture {
        under(Arc::clone(&GENERATION), recorder, fields)
    }

    fn under(generation: Arc<Generation>, recorder: &Arc<Recorder>, fields: &HeaderMap) -> Capture {
        let head = RequestHead {
            version: Version::Http11,
            method: b"POST",
            target: b"/",
            authority: b"a.test",
            trace_state: b"",
            fields,
            client: None,
            forwarded_for: None,
        };
        Capture::new(recorder, generation, 0, None, TraceContext::default(), &head)
    }

    fn fields<const N: usize>(fields: [(&'static str, &'static str); N]) -> HeaderMap {
        fields
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    /// Looks at the one exchange that was handed over.
    fn handed_over(recorder: &Arc<Recorder>, look: impl FnOnce(&Exchange<'_>)) {
        let mut taker = Taker::new(Arc::clone(&recorder.queue));
        let taken = taker.take().unwrap();
        let (exchange, rest) = Exchange::decode(taken.bytes()).unwrap();
        assert!(rest.is_empty(), "handed over once");
        look(&exchange);
        taker.put_back(taken);
    }

    #[test]
    fn an_exchange_dropped_midway_is_handed_over_as_shutdown() {
        let recorder = recorder();
        let mut capture = begun(&recorder, &fields([("content-type", "text/plain")]));
        capture.request_body(b"half of");
        drop(capture);
        handed_over(&recorder, |exchange| {
            assert_eq!((exchange.end, exchange.error_type), (End::Shutdown, "shutdown"));
            assert_eq!(exchange.request.body.bytes, b"half of");
        });
    }

    #[test]
    fn a_generation_is_freed_with_its_last_exchange() {
        let generations = Generations::begin(Settings::default()).unwrap();
        let recorder = recorder();
        let capture = under(generations.in_force(), &recorder, &fields([]));
        let mut settings = Settings::default();
        settings.capture.enabled = false;
        generations.succeed(settings).unwrap();
        assert_eq!(generations.in_use(), 2, "the exchange is open");
        drop(capture);
        assert_eq!(generations.in_use(), 2, "the exchange is queued");
        handed_over(&recorder, |exchange| {
            assert_eq!(exchange.generation, 1);
            assert!(exchange.record, "as its own generation has it");
        });
        assert_eq!(generations.in_use(), 1);
    }

    #[test]
    fn another_attempt_begins_the_body_anew() {
        let recorder = recorder();
        let mut capture = begun(&recorder, &fields([("content-type", "application/x-ndjson")]));
        for _ in 0..3 {
            capture.attempt(Some(SocketAddr::from(([127, 0, 0, 1], 1))));
            capture.request_body(b"{\"a\":1}\n{\"b\":2}\n");
        }
        capture.ended(End::Complete, "", Some(200));
        drop(capture);
        handed_over(&recorder, |exchange| {
            assert_eq!(exchange.attempts, 3);
            assert_eq!(exchange.request.body.bytes, b"{\"a\":1}\n{\"b\":2}\n");
            assert_eq!(
                (exchange.request.body.size, exchange.request.body.parts),
                (16, Some(Parts::Events(2)))
            );
        });
    }

    #[test]
    fn what_cannot_be_told_apart_as_it_passes_is_no_feed() {
        let feed = |content_type, coding| feed(&fields([("content-type", content_type), ("content-encoding", coding)]));
        assert_eq!(feed("text/event-stream", "identity"), Some(Feed::Events));
        assert_eq!(feed("text/event-stream", "gzip"), None);
        assert_eq!(feed("application/x-ndjson; charset=UTF-16LE", ""), None);
        assert_eq!(feed("application/json", ""), None);
    }
}
