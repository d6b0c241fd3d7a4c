//! The only file that knows pingora's phases. Each phase calls one function; decisions are elsewhere.
//!
//! Invariants:
//! - No phase waits for anything but the client, the upstream and, for a name never seen, DNS.
//! - A request is sent to an upstream again only when nothing of it was sent, or when its method is safe and
//!   the upstream closed an idle connection on it.
//! - Nothing of a request is logged: the exchange is recorded, and pingora's own error lines are suppressed.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OkOrErr, OrErr, Result};
use rand::Rng;
use sidelog_record::End;

use super::accept::{self, Upload};
use super::answer;
use super::capture::{Capture, Recorder, RequestHead};
use super::client;
use super::closing::Closing;
use super::expect;
use super::hop;
use super::http10::NoChunks;
use super::outcome;
use super::peer::{Asks, Target};
use super::trace::{self, Sampling};
use super::traceparent::Traceparent;
use super::tracestate;
use super::unreachable::For;
use crate::generation::{Generation, Generations};
use crate::queue::exchange::Version;
use crate::queue::grpc::Grpc;
use crate::settings::TraceMode;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Informational answers before the one that counts.
const INFORMATIONAL_MAX: u32 = 100;

/// Bytes of a body that every service takes before its answer is read.
const UPLOAD: u64 = 64 * 1024;

/// The proxy behind one listener.
pub struct Proxy {
    recorder: Arc<Recorder>,
    generations: Arc<Generations>,
    closing: Closing,
    index: u16,
}

/// What one request carries through the phases.
#[derive(Debug, Default)]
pub struct Ctx {
    /// Boxed: pingora keeps this value in futures that are copied for each request.
    capture: Option<Box<Capture>>,
    /// The last byte of the answer has passed.
    answered: bool,
    /// Whether this request's body gets on, if somebody looks.
    upload: Option<Arc<Upload>>,
    /// Informational answers so far.
    informational: u32,
    send_trace: bool,
    keep_state: bool,
}

impl Drop for Ctx {
    fn drop(&mut self) {
        let too_slow = self.upload.as_ref().is_some_and(|upload| upload.was_too_slow());
        if let Some(capture) = self.capture.as_mut().filter(|_| too_slow) {
            capture.ended(End::ClientTimeout, "client_timeout", None);
        }
    }
}

impl Proxy {
    /// The proxy of the listener with this index.
    pub fn new(recorder: &Arc<Recorder>, generations: &Arc<Generations>, closing: &Closing, index: u16) -> Self {
        Self {
            recorder: Arc::clone(recorder),
            generations: Arc::clone(generations),
            closing: closing.clone(),
            index,
        }
    }

    fn begin(&self, session: &Session) -> Ctx {
        let generation = accept::generation(session).unwrap_or_else(|| self.generations.in_force());
        let listener = generation.listener(self.index);
        let request = session.req_header();
        let authority = authority(request);
        let (method, path) = (request.method.as_str(), request.uri.path());
        let route = generation.router().find(method, authority, path.as_bytes());
        let came = Traceparent::only(request.headers.get_all(&TRACEPARENT).iter().map(HeaderValue::as_bytes));
        let traces = &generation.settings.traces;
        let mode = if traces.propagate {
            listener.trace
        } else {
            TraceMode::Ignore
        };
        let sampling = Sampling {
            parent_based: traces.parent_based,
            share: traces.sample,
        };
        let decision = trace::decide(mode, came, sampling, &mut || rand::rng().next_u64());
        let state = came.filter(|_| decision.send).and_then(|_| {
            let values = request.headers.get_all(&TRACESTATE).iter();
            tracestate::join(values.map(HeaderValue::as_bytes))
        });
        let client = peer(session);
        let forwarded_for = client.and_then(|client| {
            let values = request.headers.get_all(client::FORWARDED_FOR).iter();
            client::forwarded_for(
                client.ip(),
                values.map(HeaderValue::as_bytes),
                &listener.trusted_proxies,
            )
        });
        let head = RequestHead {
            version: version(request),
            method: method.as_bytes(),
            target: request.raw_path(),
            authority,
            trace_state: state.as_deref().unwrap_or_default(),
            fields: &request.headers,
            client,
            forwarded_for,
        };
        let capture = Capture::new(
            &self.recorder,
            Arc::clone(&generation),
            self.index,
            route,
            decision.context,
            &head,
        );
        Ctx {
            capture: Some(Box::new(capture)),
            send_trace: decision.send,
            keep_state: decision.keep_state,
            answered: false,
            informational: 0,
            upload: Upload::current(),
        }
    }

    /// The operator learns why; the client, and the record, that it is so.
    fn tell_unreachable(&self, session: &Session, ctx: &Ctx, error: &Error, kind: &'static str) {
        let (Some(capture), Some((generation, target))) = (&ctx.capture, self.way(ctx)) else {
            return;
        };
        let request = For {
            method: session.req_header().method.as_str(),
            route: generation.route_path(capture.route()),
            address: capture.upstream(),
            kind,
        };
        target.unreachable().tell(error, request);
    }

    /// What the exchange is under, and where it goes.
    fn way<'c>(&self, ctx: &'c Ctx) -> Option<(&'c Generation, &'c Target)> {
        let capture = ctx.capture.as_ref()?;
        let generation = capture.generation();
        Some((generation, generation.target(self.index, capture.route())?))
    }
}

/// `:authority` of HTTP/2 (or of an absolute target), else the `Host` field.
fn authority(request: &RequestHeader) -> &[u8] {
    match request.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => request.headers.get(header::HOST).map_or(&[], HeaderValue::as_bytes),
    }
}

/// Who is at the other end of the connection; nobody by a Unix socket.
fn peer(session: &Session) -> Option<SocketAddr> {
    session.client_addr().and_then(|address| address.as_inet()).copied()
}

fn version(request: &RequestHeader) -> Version {
    match request.version {
        http::Version::HTTP_2 => Version::Http2,
        http::Version::HTTP_10 => Version::Http10,
        _ => Version::Http11,
    }
}

fn asks(session: &mut Session) -> Asks {
    let has_body = !session.as_downstream_mut().is_body_empty();
    let fields = &session.req_header().headers;
    let length = fields
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Asks {
        version: version(session.req_header()),
        upgrade: session.as_downstream().is_upgrade_req(),
        grpc: Grpc::of_request(fields).is_some(),
        uploads: has_body && length.is_none_or(|length: u64| length > UPLOAD),
        expects: expect::waits(session.req_header()),
    }
}

/// Puts our `traceparent` in the place of what came; a `tracestate` goes on as it was, or not at all. What the
/// client's `Connection` names is of no account: these are fields of the whole way.
fn write_trace(session: &Session, upstream: &mut RequestHeader, ctx: &Ctx) -> Result<()> {
    let Some(capture) = ctx.capture.as_ref().filter(|_| ctx.send_trace) else {
        return restore_trace(session, upstream);
    };
    let context = capture.trace();
    let own = Traceparent::header(context.trace_id, context.span_id, context.flags);
    let own = HeaderValue::from_bytes(&own).or_err(ErrorType::InternalError, "a traceparent is ASCII")?;
    upstream.insert_header(TRACEPARENT, own)?;
    match capture.trace_state() {
        state if ctx.keep_state && !state.is_empty() => upstream.insert_header(TRACESTATE, state),
        _ => {
            upstream.remove_header(&TRACESTATE);
            Ok(())
        }
    }
}

/// Puts the trace fields back where the client's `Connection` had them taken out.
fn restore_trace(session: &Session, upstream: &mut RequestHeader) -> Result<()> {
    for name in [TRACEPARENT, TRACESTATE] {
        if upstream.headers.contains_key(&name) {
            continue;
        }
        for value in session.req_header().headers.get_all(&name) {
            upstream.append_header(name.clone(), value)?;
        }
    }
    Ok(())
}

/// An answer of our own: its status, and nothing that names a product.
fn own_answer(status: u16) -> Result<ResponseHeader> {
    let mut response = ResponseHeader::build(status, Some(3))?;
    response.insert_header(header::CONTENT_LENGTH, "0")?;
    response.insert_header(header::CACHE_CONTROL, "no-store")?;
    Ok(response)
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::default()
    }

    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        modules.add_module(Box::new(NoChunks));
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        *ctx = self.begin(session);
        hop::protect(session.req_header_mut())?;
        // The accept layer keeps the time of HTTP/1, and hands on one request at a time.
        let timeout = ctx
            .capture
            .as_ref()
            .map(|capture| capture.generation().limits.downstream_write_timeout);
        let downstream = session.as_downstream_mut();
        downstream.set_read_timeout(None);
        // HTTP/1.0 knows none (RFC 9110, 15.2).
        downstream.set_ignore_info_resp(downstream.req_header().version == http::Version::HTTP_10);
        downstream.set_write_timeout(timeout.filter(|_| downstream.is_http2()));
        Ok(())
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let attempt = ctx.capture.as_ref().map_or(0, |capture| capture.attempts());
        let asks = asks(session);
        let (generation, target) = self
            .way(ctx)
            .or_err(ErrorType::InternalError, "an exchange has an upstream until it is over")?;
        let (peer, address) = target.peer(attempt, asks, &generation.limits).await?;
        if let Some(capture) = &mut ctx.capture {
            capture.attempt(address);
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let listener = ctx
            .capture
            .as_ref()
            .map(|capture| capture.generation().listener(self.index));
        if let Some(listener) = listener.filter(|listener| listener.forwarded) {
            let came = session.req_header();
            client::forward(
                came,
                authority(came),
                peer(session),
                listener.scheme(),
                upstream_request,
            )?;
        }
        if upstream_request.version != http::Version::HTTP_2 {
            hop::join_cookies(upstream_request)?;
        }
        hop::restore(session.req_header(), upstream_request)?;
        write_trace(session, upstream_request, ctx)?;
        expect::answer(session, upstream_request).await
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        if let Some(upload) = &ctx.upload {
            upload.moves(body.as_ref().map_or(0, Bytes::len), end_of_stream);
        }
        if let (Some(capture), Some(chunk)) = (&mut ctx.capture, body.as_ref()) {
            capture.request_body(chunk);
        }
        // An empty last chunk would end a chunked body twice and spoil the connection (pingora issue 935).
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        Ok(())
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        let status = response.status;
        let switching = status == http::StatusCode::SWITCHING_PROTOCOLS;
        answer::judge(response, session.as_downstream().is_upgrade_req())?;
        if status.is_informational() && !switching {
            ctx.informational += 1;
            if ctx.informational > INFORMATIONAL_MAX {
                return Err(
                    Error::explain(ErrorType::InvalidHTTPHeader, "informational answers without end").into_up(),
                );
            }
            return Ok(());
        }
        hop::strip(response);
        // What HTTP/1.0 can't read in chunks ends with the connection.
        let is_10 = session.req_header().version == http::Version::HTTP_10;
        if is_10 && !response.headers.contains_key(header::CONTENT_LENGTH) {
            session.set_keepalive(None);
        }
        if let Some(capture) = &mut ctx.capture {
            capture.response_head(status.as_u16(), &response.headers);
            if switching {
                capture.upgraded();
            }
        }
        if switching {
            accept::upgraded(session);
        } else {
            accept::answer_begins(session, ctx.upload.as_deref());
        }
        if self.closing.is_draining() && !switching {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<std::time::Duration>> {
        if end_of_stream {
            ctx.answered = true;
            accept::answer_is_whole(session, ctx.upload.as_deref());
        }
        if let Some(capture) = &mut ctx.capture {
            if let Some(chunk) = body {
                capture.response_body(chunk);
            }
            if end_of_stream {
                capture.answered();
            }
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        if let Some(capture) = &mut ctx.capture {
            capture.response_trailers(trailers);
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing was sent: another address of the same name may serve.
        let tried = ctx.capture.as_ref().map_or(0, |capture| capture.attempts()) as usize;
        let addresses = self.way(ctx).map_or(0, |(_, target)| target.addresses());
        error.set_retry(tried < addresses);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        _ctx: &mut Ctx,
        client_reused: bool,
    ) -> Box<Error> {
        let safe = matches!(
            session.req_header().method,
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
        );
        let began = outcome::answer_began(&error) || session.response_written().is_some();
        if safe && !began && !session.as_ref().retry_buffer_truncated() {
            error.retry.decide_reuse(client_reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        let (end, kind) = outcome::of_error(error);
        if end == End::UpstreamUnreachable {
            self.tell_unreachable(session, ctx, error, kind);
        }
        let status = match error.etype() {
            ErrorType::HTTPStatus(status) => Some(*status),
            _ => outcome::status_of(end),
        };
        if let Some(status) = status {
            // A client that can't be answered any more has left; the record says so by its end.
            if let Ok(answer) = own_answer(status) {
                drop(
                    session
                        .as_downstream_mut()
                        .write_error_response(answer, Bytes::new())
                        .await,
                );
            }
        }
        FailToProxy {
            error_code: status.unwrap_or(0),
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        if error.is_some_and(outcome::is_unread) {
            accept::answer_is_unread();
        }
        let written = session.response_written().map(|response| response.status);
        // An interim answer is none.
        let status = written.filter(|status| !status.is_informational() || session.was_upgraded());
        let status = status.map(|status| status.as_u16());
        let (end, error_type) = match error {
            // Who has the whole answer may leave, also before the request is whole.
            Some(error) if ctx.answered && outcome::client_left(error) => (End::Complete, ""),
            Some(error) => outcome::of_error(error),
            None if session.was_upgraded() => (End::Upgraded, ""),
            None => (End::Complete, ""),
        };
        if let Some(mut capture) = ctx.capture.take() {
            capture.ended(end, error_type, status);
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Ctx, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, _ctx: &Ctx) -> String {
        session.req_header().method.to_string()
    }
}
