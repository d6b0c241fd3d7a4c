//! One exchange, or one loss, as it is recorded: every key of the contract as a field.
//!
//! A text is borrowed where it can be. An empty text in a field that is not an `Option` is an absent key; so is `None`.

use std::{borrow::Cow, time::Duration};

use crate::{End, Level, Omitted};

/// One HTTP exchange, or (with [`End::Loss`]) what was dropped.
///
/// Made by filling [`Record::default`]; written by [`Record::encode`], read by [`Record::decode`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// `timestamp`: when the request began, in unix nanoseconds.
    pub timestamp: u64,
    /// `observed_timestamp`: when the exchange ended, in unix nanoseconds; the time of the entry in the store.
    pub observed_timestamp: u64,
    /// `level`: see [`End::level`].
    pub level: Level,
    /// `service.name`.
    pub service_name: Cow<'a, str>,
    /// `service.version`.
    pub service_version: Option<Cow<'a, str>>,
    /// `service.instance.id`.
    pub service_instance_id: Cow<'a, str>,
    /// `deployment.environment.name`.
    pub environment: Cow<'a, str>,
    /// `trace_id`, 32 lower-case hexadecimal digits in the record.
    pub trace_id: Option<[u8; 16]>,
    /// `span_id` of the proxy's own span, 16 lower-case hexadecimal digits in the record.
    pub span_id: Option<[u8; 8]>,
    /// `parent_span_id`: the span that the client named.
    pub parent_span_id: Option<[u8; 8]>,
    /// `trace_flags`, two hexadecimal digits in the record, as in W3C `traceparent`.
    pub trace_flags: Option<u8>,
    /// `request_id`: the client's `x-request-id`.
    pub request_id: Option<Cow<'a, str>>,
    /// `http.request.method`.
    pub method: Cow<'a, str>,
    /// `url.scheme`.
    pub scheme: Cow<'a, str>,
    /// `url.path`, raw as it was sent.
    pub path: Cow<'a, str>,
    /// `url.query`, without the `?`; `Some("")` for a lone `?`.
    pub query: Option<Cow<'a, str>>,
    /// `http.route`: the template of the route that matched.
    pub route: Option<Cow<'a, str>>,
    /// `server.address`: the host the client asked for.
    pub server_address: Option<Cow<'a, str>>,
    /// `server.port`.
    pub server_port: Option<u16>,
    /// `client.address`: the peer, or what trusted proxies say of it.
    pub client_address: Option<Cow<'a, str>>,
    /// `user_agent.original`.
    pub user_agent: Option<Cow<'a, str>>,
    /// `network.protocol.version`: `1.0`, `1.1` or `2`.
    pub protocol_version: Cow<'a, str>,
    /// `http.request.header` and `http.request.body.*`.
    pub request: Message<'a>,
    /// `http.response.header` and `http.response.body.*`.
    pub response: Message<'a>,
    /// `http.response.status_code`: what the client got.
    pub status: Option<u16>,
    /// `rpc.response.status_code`: how a call by gRPC ended, by its name (`NOT_FOUND`).
    pub rpc_status: Option<Cow<'a, str>>,
    /// `rpc.response.status_message`: what `grpc-message` says of it, redacted.
    pub rpc_message: Option<Cow<'a, str>>,
    /// `websocket.close_code`: that of the first close frame (RFC 6455, 7.4); 1005 for one without.
    pub close_code: Option<u16>,
    /// `duration_ms`: from the request's first byte to the exchange's end, exact to the nanosecond.
    pub duration: Duration,
    /// `ttfb_ms`: from the request's first byte to the response's head, exact to the nanosecond.
    pub ttfb: Option<Duration>,
    /// `upstream.address`: the peer that was asked last.
    pub upstream_address: Option<Cow<'a, str>>,
    /// `upstream.attempts`: how often the upstream was tried.
    pub upstream_attempts: Option<u32>,
    /// `end`.
    pub end: End,
    /// `error.type`: a short, bounded name for what went wrong.
    pub error_type: Option<Cow<'a, str>>,
    /// `dropped`, only with [`End::Loss`]: how many records were dropped for which reason. Reasons are distinct.
    pub loss: Option<Vec<(Cow<'a, str>, u64)>>,
}

/// The head and body of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// `http.<direction>.header`: names in lower case, values redacted (`REDACTED`), in the order they came.
    ///
    /// A repeated field is written once, at its first place, its values joined by `", "` (RFC 9110 §5.3).
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// `http.<direction>.header.omitted`: fields left out because the record would have been too large.
    pub headers_omitted: u32,
    /// `http.<direction>.body.*`.
    pub body: Body<'a>,
}

/// What is recorded of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body<'a> {
    /// `size`: bytes on the wire, whatever is recorded of them.
    pub size: Option<u64>,
    /// `content`: decoded text.
    pub content: Option<Cow<'a, str>>,
    /// `omitted`: why `content` is absent.
    pub omitted: Option<Omitted>,
    /// `truncated`: `content` is only the beginning, or of a feed the beginning and the end. Absent when false.
    pub truncated: bool,
    /// `events`: the server-sent events, or the lines of a line-delimited feed.
    pub events: Option<u64>,
    /// `messages`: the messages of a call by gRPC.
    pub messages: Option<u64>,
    /// `frames`: the frames of a WebSocket.
    pub frames: Option<u64>,
}
