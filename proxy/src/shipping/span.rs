//! The span of an exchange, by the stable HTTP semantic conventions, as OTLP encodes it.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>
//!
//! Invariants:
//! - No attribute holds a secret (`no_secret_reaches_a_span`).
//! - Span and record of an exchange agree (`span_and_record_of_an_exchange_agree`).
//! - A span's size is bounded: by `traces.attributes_max` and `traces.attribute_value_max`
//!   (`attributes_over_the_limits_are_cut_and_counted`).

mod wire;

use std::borrow::Cow;

use opentelemetry_proto::tonic::trace::v1::SpanFlags;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use sidelog_record::Level;

use super::attributes::{Attributes, path_and_query};
use crate::generation::Generation;
use crate::queue::exchange::{Exchange, TraceContext};
use crate::settings::{Direction, Traces};
use wire::Value;

/// Fields of `opentelemetry.proto.trace.v1.Span`, of its `Link` and of `Status`.
mod tag {
    pub(super) const TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const TRACE_STATE: u32 = 3;
    pub(super) const PARENT_SPAN_ID: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const KIND: u32 = 6;
    pub(super) const START_TIME: u32 = 7;
    pub(super) const END_TIME: u32 = 8;
    pub(super) const ATTRIBUTES: u32 = 9;
    pub(super) const DROPPED_ATTRIBUTES_COUNT: u32 = 10;
    pub(super) const LINKS: u32 = 13;
    pub(super) const DROPPED_LINKS_COUNT: u32 = 14;
    pub(super) const STATUS: u32 = 15;
    pub(super) const FLAGS: u32 = 16;
    pub(super) const LINK_FLAGS: u32 = 6;
    pub(super) const STATUS_MESSAGE: u32 = 2;
    pub(super) const STATUS_CODE: u32 = 3;
}

/// What most spans take, in bytes.
const USUAL: usize = 768;

/// The span of an exchange that has these attributes, as OTLP encodes it.
pub fn span(exchange: &Exchange<'_>, attributes: &Attributes<'_>, generation: &Generation) -> Vec<u8> {
    let direction = generation.direction(exchange.listener);
    let kind = kind(direction);
    let trace = &exchange.trace;
    let traces = &generation.settings.traces;
    let mut out = Vec::with_capacity(USUAL);
    wire::bytes(tag::TRACE_ID, &trace.trace_id, &mut out);
    wire::bytes(tag::SPAN_ID, &trace.span_id, &mut out);
    if trace.link.is_none() {
        let state = String::from_utf8_lossy(exchange.trace_state);
        wire::bytes(tag::TRACE_STATE, state.as_bytes(), &mut out);
    }
    let parent = trace.parent_id.unwrap_or_default();
    wire::bytes(tag::PARENT_SPAN_ID, trace.parent_id.map_or(&[], |_| &parent), &mut out);
    wire::bytes(tag::NAME, name(exchange, generation).as_bytes(), &mut out);
    wire::varint(tag::KIND, kind as u64, &mut out);
    wire::fixed64(tag::START_TIME, exchange.started, &mut out);
    let end = exchange.started.saturating_add(exchange.duration);
    wire::fixed64(tag::END_TIME, end, &mut out);
    write_attributes(exchange, attributes, generation, kind, &mut out);
    link(trace, exchange.trace_state, traces, &mut out);
    if attributes.failed || exchange.end.level(None) == Level::Error {
        // A status code says enough by itself; what sidelog saw is told.
        let status = |out: &mut Vec<u8>| {
            wire::bytes(tag::STATUS_MESSAGE, exchange.error_type.as_bytes(), out);
            wire::varint(tag::STATUS_CODE, StatusCode::Error as u64, out);
        };
        wire::message(tag::STATUS, status, &mut out);
    }
    wire::fixed32(tag::FLAGS, flags(trace.flags, trace.parent_id.is_some()), &mut out);
    out
}

fn kind(direction: Direction) -> SpanKind {
    match direction {
        Direction::Outbound => SpanKind::Client,
        Direction::Inbound => SpanKind::Server,
    }
}

/// OTLP's flags: those of the trace, and whether the parent is in another process.
fn flags(trace_flags: u8, is_remote: bool) -> u32 {
    let remote = if is_remote {
        SpanFlags::ContextIsRemoteMask as u32
    } else {
        0
    };
    u32::from(trace_flags) | SpanFlags::ContextHasIsRemoteMask as u32 | remote
}

/// In mode `restart`: the span that the request came with, and its state.
fn link(trace: &TraceContext, trace_state: &[u8], traces: &Traces, out: &mut Vec<u8>) {
    let Some((trace_id, span_id)) = trace.link else {
        return;
    };
    if traces.links_max == 0 {
        return wire::varint(tag::DROPPED_LINKS_COUNT, 1, out);
    }
    let link = |out: &mut Vec<u8>| {
        wire::bytes(tag::TRACE_ID, &trace_id, out);
        wire::bytes(tag::SPAN_ID, &span_id, out);
        wire::bytes(tag::TRACE_STATE, String::from_utf8_lossy(trace_state).as_bytes(), out);
        wire::fixed32(tag::LINK_FLAGS, flags(0, true), out);
    };
    wire::message(tag::LINKS, link, out);
}

fn known_method<'a>(exchange: &Exchange<'a>, traces: &Traces) -> Option<&'a str> {
    std::str::from_utf8(exchange.request.method)
        .ok()
        .filter(|method| traces.known_methods.iter().any(|known| known == method))
}

/// `{method} {http.route}`, without a route `{method}`; an unknown method is `HTTP`.
fn name<'a>(exchange: &Exchange<'a>, generation: &Generation) -> Cow<'a, str> {
    let method = known_method(exchange, &generation.settings.traces).unwrap_or("HTTP");
    match generation.route_path(exchange.route) {
        Some(route) => Cow::Owned(format!("{method} {route}")),
        None => Cow::Borrowed(method),
    }
}

fn write_attributes(
    exchange: &Exchange<'_>,
    attributes: &Attributes<'_>,
    generation: &Generation,
    kind: SpanKind,
    out: &mut Vec<u8>,
) {
    let request = &exchange.request;
    let traces = &generation.settings.traces;
    let mut all = Writer::new(traces, out);
    match known_method(exchange, traces) {
        Some(method) => all.text("http.request.method", method),
        None => {
            all.text("http.request.method", "_OTHER");
            all.text("http.request.method_original", &attributes.method);
        }
    }
    all.optional("http.route", generation.route_path(exchange.route));
    all.number("http.response.status_code", exchange.response.status);
    url(
        &mut all,
        exchange,
        attributes,
        kind,
        generation.scheme(exchange.listener, exchange.route),
    );
    all.optional("server.address", attributes.server_address.as_deref());
    all.number("server.port", attributes.server_port);
    let peer = if kind == SpanKind::Client {
        exchange.upstream
    } else {
        exchange.client
    };
    let peer_address = peer.map(|peer| peer.ip().to_string());
    all.optional("network.peer.address", peer_address.as_deref());
    all.number("network.peer.port", peer.map(|peer| peer.port()));
    all.text("network.protocol.version", request.version.as_str());
    all.optional("user_agent.original", attributes.user_agent.as_deref());
    if exchange.response.grpc.is_some() {
        let (path, _) = path_and_query(request.target);
        let method = String::from_utf8_lossy(path);
        all.text("rpc.system.name", "grpc");
        all.text("rpc.method", method.strip_prefix('/').unwrap_or(&method));
        all.optional("rpc.response.status_code", attributes.rpc_status.as_deref());
    }
    all.optional("error.type", attributes.error_type.as_deref());
    all.optional("upstream.address", attributes.upstream_address.as_deref());
    all.text("sidelog.end", exchange.end.as_str());
    all.finish();
}

/// What was asked for: a server is asked by path and query, a client asks by the whole URL.
fn url(
    all: &mut Writer<'_>,
    exchange: &Exchange<'_>,
    attributes: &Attributes<'_>,
    kind: SpanKind,
    scheme: &'static str,
) {
    let (path, query) = (&attributes.path, attributes.query.as_deref());
    if kind == SpanKind::Client {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let authority = String::from_utf8_lossy(exchange.request.authority);
        all.text("url.full", &format!("{scheme}://{authority}{path}{query}"));
        let resent = exchange.attempts.checked_sub(1).filter(|resent| *resent > 0);
        all.number("http.request.resend_count", resent);
    } else {
        all.text("url.scheme", scheme);
        all.text("url.path", path);
        all.optional("url.query", query);
        all.optional("client.address", attributes.client_address.as_deref());
    }
}

/// Writes attributes within the limits of the settings.
struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// How many more are taken, and how many were not.
    left: usize,
    dropped: u64,
    /// The longest value, in characters.
    value_max: usize,
}

impl<'o> Writer<'o> {
    fn new(traces: &Traces, out: &'o mut Vec<u8>) -> Self {
        Self {
            out,
            left: traces.attributes_max,
            dropped: 0,
            value_max: traces.attribute_value_max,
        }
    }

    fn text(&mut self, key: &str, value: &str) {
        let is_long = value.len() > self.value_max;
        let cut = is_long.then(|| value.char_indices().nth(self.value_max)).flatten();
        let value = cut.and_then(|(at, _)| value.get(..at)).unwrap_or(value);
        self.push(key, Value::Text(value));
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn number(&mut self, key: &str, value: Option<impl Into<u64>>) {
        if let Some(value) = value {
            self.push(key, Value::Number(value.into()));
        }
    }

    fn push(&mut self, key: &str, value: Value<'_>) {
        if self.left == 0 {
            self.dropped += 1;
            return;
        }
        self.left -= 1;
        wire::attribute(tag::ATTRIBUTES, key, value, self.out);
    }

    /// Says how many were dropped.
    fn finish(self) {
        wire::varint(tag::DROPPED_ATTRIBUTES_COUNT, self.dropped, self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::exchange::Fields;
    use crate::queue::exchange::tests::exchange;
    use crate::queue::grpc::Grpc;
    use crate::settings::{Route, Settings};
    use crate::shipping::record::{Identity, record};
    use crate::shipping::redact::Redactor;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use proptest::prelude::*;
    use prost::Message;
    use sidelog_record::End;

    /// The span as a collector reads it.
    fn made(exchange: &Exchange<'_>, settings: Settings) -> Span {
        let generation = Generation::new(1, settings);
        let attributes = Attributes::of(exchange, &generation, &Redactor::default());
        Span::decode(&*span(exchange, &attributes, &generation)).unwrap()
    }

    fn outbound() -> Settings {
        let mut settings = Settings::default();
        settings.listeners[0].direction = Direction::Outbound;
        settings
    }

    /// The attribute as text.
    fn told(span: &Span, key: &str) -> Option<String> {
        let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.clone()),
            Value::IntValue(number) => Some(number.to_string()),
            other => panic!("{key} is {other:?}"),
        }
    }

    fn is_error(span: &Span) -> bool {
        span.status
            .as_ref()
            .is_some_and(|status| status.code() == StatusCode::Error)
    }

    #[test]
    fn a_server_span_follows_the_conventions() {
        let settings = Settings {
            routes: vec![Route {
                path: "/api/v1/users".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut seen = exchange(b"{}");
        seen.route = Some(0);
        seen.trace.parent_id = Some([9; 8]);
        seen.trace_state = b"foo=1";
        let span = made(&seen, settings);
        assert_eq!(span.name, "POST /api/v1/users");
        assert_eq!(span.kind(), SpanKind::Server);
        assert_eq!((span.trace_id, span.span_id), (vec![7; 16], vec![8; 8]));
        assert_eq!((span.parent_span_id, span.trace_state.as_str()), (vec![9; 8], "foo=1"));
        assert_eq!(span.flags, 0x303, "sampled, random, and the parent is remote");
        let told: Vec<_> = span.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(
            told,
            [
                "http.request.method",
                "http.route",
                "http.response.status_code",
                "url.scheme",
                "url.path",
                "url.query",
                "client.address",
                "server.address",
                "network.peer.address",
                "network.peer.port",
                "network.protocol.version",
                "upstream.address",
                "sidelog.end",
            ]
        );
        assert_eq!(span.status, None);
    }

    #[test]
    fn a_client_span_names_the_whole_url_and_fails_from_400() {
        let mut seen = exchange(b"{}");
        seen.response.status = Some(404);
        seen.attempts = 3;
        let span = made(&seen, outbound());
        assert_eq!(span.kind(), SpanKind::Client);
        assert_eq!(
            told(&span, "url.full").as_deref(),
            Some("http://example.test/api/v1/users?page=2")
        );
        assert_eq!(told(&span, "http.request.resend_count").as_deref(), Some("2"));
        assert_eq!(told(&span, "network.peer.port").as_deref(), Some("9000"));
        assert_eq!(told(&span, "error.type").as_deref(), Some("404"));
        assert_eq!(told(&span, "url.path"), None);
        assert!(is_error(&span));
    }

    #[test]
    fn a_server_span_fails_from_500() {
        let mut seen = exchange(b"{}");
        seen.response.status = Some(404);
        let span = made(&seen, Settings::default());
        assert!(!is_error(&span) && told(&span, "error.type").is_none());
        seen.response.status = Some(500);
        let span = made(&seen, Settings::default());
        assert!(is_error(&span));
        assert_eq!(told(&span, "error.type").as_deref(), Some("500"));
    }

    #[test]
    fn a_call_by_grpc_fails_by_its_own_status() {
        let mut seen = exchange(b"");
        (seen.request.target, seen.response.status) = (b"/shop.Orders/Get", Some(200));
        for (status, server, client) in [(0, false, false), (5, false, true), (13, true, true)] {
            seen.response.grpc = Some(Grpc { status: Some(status) });
            for (settings, fails) in [(Settings::default(), server), (outbound(), client)] {
                let span = made(&seen, settings);
                assert_eq!(told(&span, "rpc.system.name").as_deref(), Some("grpc"));
                assert_eq!(told(&span, "rpc.method").as_deref(), Some("shop.Orders/Get"));
                assert_eq!(
                    (is_error(&span), told(&span, "error.type").is_some()),
                    (fails, fails),
                    "{status}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_method_is_other_and_keeps_its_name_aside() {
        let mut seen = exchange(b"{}");
        seen.request.method = b"BREW";
        let span = made(&seen, Settings::default());
        assert_eq!(span.name, "HTTP");
        assert_eq!(told(&span, "http.request.method").as_deref(), Some("_OTHER"));
        assert_eq!(told(&span, "http.request.method_original").as_deref(), Some("BREW"));
        let mut settings = Settings::default();
        settings.traces.known_methods = vec!["BREW".to_owned()];
        assert_eq!(made(&seen, settings).name, "BREW");
    }

    #[test]
    fn a_restarted_trace_is_linked_to_the_one_that_came_with_its_state() {
        let mut seen = exchange(b"{}");
        seen.trace.link = Some(([1; 16], [2; 8]));
        seen.trace_state = b"foo=1";
        let span = made(&seen, Settings::default());
        let link = &span.links[0];
        assert_eq!(
            (link.trace_id.as_slice(), link.span_id.as_slice()),
            (&[1; 16][..], &[2; 8][..])
        );
        assert_eq!((link.trace_state.as_str(), span.trace_state.as_str()), ("foo=1", ""));
        let mut settings = Settings::default();
        settings.traces.links_max = 0;
        let span = made(&seen, settings);
        assert_eq!((span.links.len(), span.dropped_links_count), (0, 1));
    }

    #[test]
    fn attributes_over_the_limits_are_cut_and_counted() {
        let all = made(&exchange(b"{}"), Settings::default()).attributes.len();
        let mut settings = Settings::default();
        (settings.traces.attributes_max, settings.traces.attribute_value_max) = (5, 4);
        let mut seen = exchange(b"{}");
        seen.request.target = "/grüße".as_bytes();
        let span = made(&seen, settings);
        assert_eq!(span.attributes.len(), 5);
        assert_eq!(
            usize::try_from(span.dropped_attributes_count).unwrap(),
            all - 1 - 5,
            "there is no query"
        );
        assert_eq!(told(&span, "url.path").as_deref(), Some("/grü"));
    }

    #[test]
    fn no_secret_reaches_a_span() {
        let mut fields = Vec::new();
        for name in ["authorization", "cookie", "x-api-key", "referer"] {
            Fields::push(&mut fields, name.as_bytes(), b"http://me:MARK@a.test/?token=MARK");
        }
        let mut seen = exchange(b"MARK");
        (seen.request.fields, seen.response.fields) = (Fields(&fields), Fields(&fields));
        seen.request.target = b"/a?token=MARK&b=1";
        for settings in [Settings::default(), outbound()] {
            let span = format!("{:?}", made(&seen, settings));
            assert!(!span.contains("MARK") && span.contains("token=REDACTED&b=1"), "{span}");
        }
    }

    proptest! {
        #[test]
        fn span_and_record_of_an_exchange_agree(
            ids in any::<([u8; 16], [u8; 8], Option<[u8; 8]>)>(),
            flags in 0..4_u8,
            times in (0..1_u64 << 62, 0..1_u64 << 40),
            status in proptest::option::of(100..600_u16),
            end in proptest::sample::select(End::ALL.to_vec()),
            error_type in proptest::sample::select(vec!["", "timeout"]),
            route in proptest::option::of(Just(0_u32)),
        ) {
            let settings = Settings {
                routes: vec![Route { path: "/orders/{id}".to_owned(), ..Default::default() }],
                ..Default::default()
            };
            let generation = Generation::new(1, settings);
            let mut seen = exchange(b"{}");
            (seen.trace.trace_id, seen.trace.span_id, seen.trace.parent_id) = ids;
            (seen.started, seen.duration) = times;
            (seen.trace.flags, seen.response.status, seen.end) = (flags, status, end);
            (seen.error_type, seen.route) = (error_type, route);
            let redactor = Redactor::default();
            let identity = Identity {
                service: "api".to_owned(), version: None, instance: "one".to_owned(), environment: "test".to_owned(),
            };
            let attributes = Attributes::of(&seen, &generation, &redactor);
            let span = Span::decode(&*span(&seen, &attributes, &generation)).unwrap();
            let record = record(&seen, attributes, &identity, &generation, &redactor);
            if let Some(trace_id) = record.trace_id {
                prop_assert_eq!(&span.trace_id, &trace_id);
                prop_assert_eq!(Some(span.span_id.clone()), record.span_id.map(Vec::from));
            }
            prop_assert_eq!(&span.parent_span_id[..], record.parent_span_id.as_ref().map_or(&[][..], |id| &id[..]));
            prop_assert_eq!(span.flags & 0xff, u32::from(record.trace_flags.unwrap_or(flags)));
            prop_assert_eq!(span.start_time_unix_nano, record.timestamp);
            prop_assert_eq!(span.end_time_unix_nano, record.observed_timestamp);
            for (key, expected) in [
                ("http.response.status_code", record.status.map(|status| status.to_string())),
                ("http.route", record.route.map(Cow::into_owned)),
                ("sidelog.end", Some(record.end.as_str().to_owned())),
                ("error.type", record.error_type.map(Cow::into_owned)),
                ("url.path", Some(record.path.into_owned())),
                ("url.query", record.query.map(Cow::into_owned)),
            ] {
                prop_assert_eq!(told(&span, key), expected, "{}", key);
            }
        }
    }
}
