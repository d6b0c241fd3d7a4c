//! An exchange becomes a record: one function, one input, one output.
//!
//! Invariants:
//! - Every value that names a secret is redacted on the way; nothing reaches a record but through
//!   [`Redactor`] or as a body that the policy keeps (`no_secret_header_reaches_a_record`).
//! - The same exchange gives the same record.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode;
use sidelog_record::{Message, Record};

use super::body;
use super::redact::{Applied, Redactor};
use crate::generation::Generation;
use crate::generation::policy::Policy;
use crate::queue::exchange::{Exchange, Fields};
use crate::queue::grpc::Grpc;
use crate::settings::Direction;

/// What all records of this process share.
#[derive(Debug)]
pub struct Identity {
    /// `service.name`
    pub service: String,
    /// `service.version`
    pub version: Option<String>,
    /// `service.instance.id`
    pub instance: String,
    /// `deployment.environment.name`
    pub environment: String,
}

/// Host and port of an authority; the port only where it is written.
pub fn server(authority: &[u8]) -> (Option<Cow<'_, str>>, Option<u16>) {
    let text = String::from_utf8_lossy(authority);
    if text.is_empty() {
        return (None, None);
    }
    let split = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    match split {
        Some((host, port)) => (Some(Cow::Owned(host)), Some(port)),
        None => (Some(text), None),
    }
}

/// The address of the upstream that was last tried: of a host with the IP address, of a socket its path.
pub fn upstream(exchange: &Exchange<'_>, generation: &Generation) -> Option<String> {
    let address = exchange.upstream.map(|address| address.to_string());
    address.or_else(|| {
        generation
            .socket(exchange.listener, exchange.route)
            .filter(|_| exchange.attempts > 0)
    })
}

/// Path and query of a request target; of one in absolute form (RFC 9112, 3.2.2) without scheme and authority.
pub fn path_and_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let target = match memchr::memmem::find(target, b"://") {
        Some(at) if !target.starts_with(b"/") => {
            let rest = target.get(at + 3..).unwrap_or_default();
            let path = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
            path.and_then(|path| rest.get(path..)).unwrap_or(b"/")
        }
        _ => target,
    };
    match memchr::memchr(b'?', target) {
        Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..)),
        None => (target, None),
    }
}

/// `error.type`: what sidelog saw, else what the answer says of itself.
pub fn error_type<'a>(exchange: &Exchange<'a>, direction: Direction) -> Option<Cow<'a, str>> {
    if exchange.error_type.is_empty() {
        failure(exchange, direction)
    } else {
        Some(Cow::Borrowed(exchange.error_type))
    }
}

/// What failed by the answer's own word: HTTP's status, for a service from 500 and for a caller from 400, else gRPC's.
pub fn failure(exchange: &Exchange<'_>, direction: Direction) -> Option<Cow<'static, str>> {
    let is_caller = direction == Direction::Outbound;
    let from = if is_caller { 400 } else { 500 };
    if let Some(status) = exchange.response.status.filter(|status| *status >= from) {
        return Some(Cow::Owned(status.to_string()));
    }
    let grpc = exchange.response.grpc.filter(|grpc| grpc.is_failure(is_caller))?;
    grpc.status_name()
}

/// The record of an exchange.
pub fn record<'a>(
    exchange: &Exchange<'a>,
    identity: &'a Identity,
    generation: &'a Generation,
    redactor: &Redactor,
) -> Record<'a> {
    let policy = generation.policy(exchange.route);
    let redaction = redactor.under(policy);
    let request = &exchange.request;
    let trace = &exchange.trace;
    let in_trace = trace.trace_id != [0; 16];
    let (path, query) = path_and_query(request.target);
    let (server_address, server_port) = server(request.authority);
    Record {
        timestamp: exchange.started,
        observed_timestamp: exchange.started.saturating_add(exchange.duration),
        level: exchange.end.level(exchange.response.status),
        service_name: Cow::Borrowed(&identity.service),
        service_version: identity.version.as_deref().map(Cow::Borrowed),
        service_instance_id: Cow::Borrowed(&identity.instance),
        environment: Cow::Borrowed(&identity.environment),
        trace_id: in_trace.then_some(trace.trace_id),
        span_id: in_trace.then_some(trace.span_id),
        parent_span_id: trace.parent_id,
        trace_flags: in_trace.then_some(trace.flags),
        request_id: field(request.fields, "x-request-id", redaction.at("request_id")),
        method: String::from_utf8_lossy(request.method),
        scheme: Cow::Borrowed(generation.scheme(exchange.listener, exchange.route)),
        path: redaction.at("url.path").path(path),
        query: query.map(|query| redaction.at("url.query").query(query)),
        route: generation.route_path(exchange.route).map(Cow::Borrowed),
        server_address,
        server_port,
        client_address: exchange.client_address().map(Cow::Owned),
        user_agent: field(request.fields, "user-agent", redaction.at("user_agent.original")),
        protocol_version: Cow::Borrowed(request.version.as_str()),
        request: message(REQUEST, request.fields, &request.body, &redaction, policy),
        response: message(
            RESPONSE,
            exchange.response.fields,
            &exchange.response.body,
            &redaction,
            policy,
        ),
        status: exchange.response.status,
        rpc_status: exchange.response.grpc.and_then(Grpc::status_name),
        rpc_message: rpc_message(exchange, redaction.at("rpc.response.status_message")),
        close_code: exchange.close_code,
        duration: Duration::from_nanos(exchange.duration),
        ttfb: exchange.first_byte.map(Duration::from_nanos),
        upstream_address: upstream(exchange, generation).map(Cow::Owned),
        upstream_attempts: (exchange.attempts > 0).then_some(exchange.attempts),
        end: exchange.end,
        error_type: error_type(exchange, generation.direction(exchange.listener)),
        loss: None,
    }
}

/// `grpc-message`: percent-encoded UTF-8 (gRPC over HTTP/2, "Status-Message").
fn rpc_message<'a>(exchange: &Exchange<'a>, redaction: &Applied<'_>) -> Option<Cow<'a, str>> {
    let raw = Some(exchange.response.grpc_message).filter(|raw| !raw.is_empty())?;
    let text: Cow<'_, [u8]> = percent_decode(raw).into();
    Some(Cow::Owned(redaction.text(&text).into_owned()))
}

fn field<'a>(fields: Fields<'a>, name: &str, redaction: &Applied<'_>) -> Option<Cow<'a, str>> {
    fields.get(name).map(|value| redaction.text(value))
}

/// The record's keys for a message's fields and its body.
type Keys = (&'static str, &'static str);
const REQUEST: Keys = ("http.request.header", "http.request.body.content");
const RESPONSE: Keys = ("http.response.header", "http.response.body.content");

fn message<'a>(
    (header_key, body_key): Keys,
    fields: Fields<'a>,
    body: &crate::queue::exchange::Body<'a>,
    redaction: &Applied<'_>,
    policy: &Policy,
) -> Message<'a> {
    let header = |(name, value): (&'a [u8], &'a [u8])| {
        let name = String::from_utf8_lossy(name);
        let value = redaction.at(header_key).header(&name, value);
        (name, value)
    };
    Message {
        headers: fields.iter().map(header).collect(),
        headers_omitted: 0,
        body: body::record(body, fields, redaction.at(body_key), policy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::exchange::tests::exchange;
    use crate::settings::Settings;
    use sidelog_record::{End, Level};

    fn identity() -> Identity {
        Identity {
            service: "api".to_owned(),
            version: None,
            instance: "one".to_owned(),
            environment: "test".to_owned(),
        }
    }

    fn encoded(exchange: &Exchange<'_>) -> String {
        let (identity, generation) = (identity(), Generation::new(1, Settings::default()));
        let redactor = Redactor::new().unwrap();
        let mut out = Vec::new();
        record(exchange, &identity, &generation, &redactor).encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn no_secret_header_reaches_a_record() {
        let mut fields = Vec::new();
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "x-auth-token",
        ] {
            Fields::push(&mut fields, name.as_bytes(), b"MARK");
        }
        Fields::push(&mut fields, b"referer", b"http://a.test/?token=MARK");
        let mut exchange = exchange(b"{}");
        exchange.request.fields = Fields(&fields);
        exchange.response.fields = Fields(&fields);
        exchange.request.target = b"/a?access_token=MARK&b=1";
        let line = encoded(&exchange);
        assert!(!line.contains("MARK"), "{line}");
        assert_eq!(line.matches("REDACTED").count(), 15);
    }

    #[test]
    fn an_exchange_is_told_by_the_conventions() {
        let mut exchange = exchange(br#"{"name":"Ada"}"#);
        let mut fields = Vec::new();
        Fields::push(&mut fields, b"x-request-id", b"r-1");
        exchange.request.fields = Fields(&fields);
        exchange.request.authority = b"example.test:8080";
        let line: serde_json::Value = serde_json::from_str(&encoded(&exchange)).unwrap();
        assert_eq!(line["url.path"], "/api/v1/users");
        assert_eq!(line["url.query"], "page=2");
        assert_eq!(line["server.address"], "example.test");
        assert_eq!(line["server.port"], 8080);
        assert_eq!(line["request_id"], "r-1");
        assert_eq!(line["http.request.body.content"], r#"{"name":"Ada"}"#);
        assert_eq!(line["duration_ms"], 1.5);
        assert_eq!(line["level"], "info");
        assert_eq!(line["client.address"], "127.0.0.1");
    }

    #[test]
    fn a_failed_exchange_says_why() {
        let mut failed = exchange(b"");
        failed.response.status = Some(503);
        let error_type = |failed: &Exchange<'_>| error_type(failed, Direction::Inbound).map(Cow::into_owned);
        assert_eq!(error_type(&failed).as_deref(), Some("503"));
        failed.end = End::UpstreamTimeout;
        failed.error_type = "timeout";
        assert_eq!(error_type(&failed).as_deref(), Some("timeout"));
        let generation = Generation::new(1, Settings::default());
        let redactor = Redactor::new().unwrap();
        assert_eq!(record(&failed, &identity(), &generation, &redactor).level, Level::Error);
    }

    #[test]
    fn targets_of_every_form_are_told_apart() {
        assert_eq!(path_and_query(b"/a?b=c?d"), (&b"/a"[..], Some(&b"b=c?d"[..])));
        assert_eq!(path_and_query(b"http://a.test:81/b?c"), (&b"/b"[..], Some(&b"c"[..])));
        assert_eq!(path_and_query(b"http://a.test"), (&b"/"[..], None));
        assert_eq!(
            path_and_query(b"/in?next=http://a.test/"),
            (&b"/in"[..], Some(&b"next=http://a.test/"[..]))
        );
        assert_eq!(path_and_query(b"*"), (&b"*"[..], None));
    }

    #[test]
    fn authorities_of_every_form_are_read() {
        let read = |text: &'static str| {
            let (host, port) = server(text.as_bytes());
            (host.map(Cow::into_owned), port)
        };
        assert_eq!(read("a.test"), (Some("a.test".to_owned()), None));
        assert_eq!(read("a.test:80"), (Some("a.test".to_owned()), Some(80)));
        assert_eq!(read("[::1]:80"), (Some("[::1]".to_owned()), Some(80)));
        assert_eq!(read("[::1]"), (Some("[::1]".to_owned()), None));
        assert_eq!(read("üx:80"), (Some("üx".to_owned()), Some(80)));
        assert_eq!(read(""), (None, None));
    }
}
