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

use super::attributes::Attributes;
use super::body;
use super::redact::{Applied, Redactor};
use crate::generation::Generation;
use crate::generation::policy::Policy;
use crate::queue::exchange::{Exchange, Fields};

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

/// The record of an exchange that has these attributes.
pub fn record<'a>(
    exchange: &Exchange<'a>,
    attributes: Attributes<'a>,
    identity: &'a Identity,
    generation: &'a Generation,
    redactor: &Redactor,
) -> Record<'a> {
    let policy = generation.policy(exchange.route);
    let redaction = redactor.under(policy);
    let request = &exchange.request;
    let trace = &exchange.trace;
    let in_trace = trace.trace_id != [0; 16];
    let request_id = request.fields.get("x-request-id");
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
        request_id: request_id.map(|id| redaction.at("request_id").text(id)),
        method: attributes.method,
        scheme: Cow::Borrowed(generation.scheme(exchange.listener, exchange.route)),
        path: attributes.path,
        query: attributes.query,
        route: generation.route_path(exchange.route).map(Cow::Borrowed),
        server_address: attributes.server_address,
        server_port: attributes.server_port,
        client_address: attributes.client_address.map(Cow::Owned),
        user_agent: attributes.user_agent,
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
        rpc_status: attributes.rpc_status,
        rpc_message: rpc_message(exchange, redaction.at("rpc.response.status_message")),
        close_code: exchange.close_code,
        duration: Duration::from_nanos(exchange.duration),
        ttfb: exchange.first_byte.map(Duration::from_nanos),
        upstream_address: attributes.upstream_address.map(Cow::Owned),
        upstream_attempts: (exchange.attempts > 0).then_some(exchange.attempts),
        end: exchange.end,
        error_type: attributes.error_type,
        loss: None,
    }
}

/// `grpc-message`: percent-encoded UTF-8 (gRPC over HTTP/2, "Status-Message").
fn rpc_message<'a>(exchange: &Exchange<'a>, redaction: &Applied<'_>) -> Option<Cow<'a, str>> {
    let raw = Some(exchange.response.grpc_message).filter(|raw| !raw.is_empty())?;
    let text: Cow<'_, [u8]> = percent_decode(raw).into();
    Some(Cow::Owned(redaction.text(&text).into_owned()))
}

/// More header fields than most messages have.
const FIELDS: usize = 16;

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
    let mut headers = Vec::with_capacity(if fields.0.is_empty() { 0 } else { FIELDS });
    headers.extend(fields.iter().map(header));
    Message {
        headers,
        headers_omitted: 0,
        body: body::record(body, fields, redaction.at(body_key), policy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::exchange::tests::exchange;
    use crate::settings::Settings;

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
        let redactor = Redactor::default();
        let mut out = Vec::new();
        let attributes = Attributes::of(exchange, &generation, &redactor);
        record(exchange, attributes, &identity, &generation, &redactor).encode(&mut out);
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
}
