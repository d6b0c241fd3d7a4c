//! What record and span of an exchange both say of it, by the HTTP semantic conventions: found and redacted once.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>
//!
//! Invariants:
//! - Path, query and user agent go through the [`Redactor`] (`no_secret_reaches_a_span`,
//!   `no_secret_header_reaches_a_record`).

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::redact::Redactor;
use crate::generation::Generation;
use crate::queue::exchange::Exchange;
use crate::queue::grpc::Grpc;
use crate::settings::Direction;

/// The attributes of an exchange that its record and its span share.
#[derive(Debug)]
pub struct Attributes<'a> {
    /// `http.request.method`, as sent.
    pub method: Cow<'a, str>,
    /// `url.path`
    pub path: Cow<'a, str>,
    /// `url.query`
    pub query: Option<Cow<'a, str>>,
    /// `server.address`
    pub server_address: Option<Cow<'a, str>>,
    /// `server.port`
    pub server_port: Option<u16>,
    /// `client.address`
    pub client_address: Option<String>,
    /// `user_agent.original`
    pub user_agent: Option<Cow<'a, str>>,
    /// `upstream.address`: of the upstream that was last tried; of a host with the IP address, of a socket its path.
    pub upstream_address: Option<String>,
    /// `rpc.response.status_code`
    pub rpc_status: Option<Cow<'static, str>>,
    /// `error.type`: what sidelog saw, else what the answer says of itself.
    pub error_type: Option<Cow<'a, str>>,
    /// Whether it failed by the answer's own word.
    pub failed: bool,
}

impl<'a> Attributes<'a> {
    /// Those of `exchange`, by the rules of the generation it was served under.
    pub fn of(exchange: &Exchange<'a>, generation: &Generation, redactor: &Redactor) -> Self {
        let redaction = redactor.under(generation.policy(exchange.route));
        let request = &exchange.request;
        let (path, query) = path_and_query(request.target);
        let (server_address, server_port) = server(request.authority);
        let user_agent = request.fields.get("user-agent");
        let failure = failure(exchange, generation.direction(exchange.listener));
        Self {
            method: String::from_utf8_lossy(request.method),
            path: redaction.at("url.path").path(path),
            query: query.map(|query| redaction.at("url.query").query(query)),
            server_address,
            server_port,
            client_address: exchange.client_address().map(written),
            user_agent: user_agent.map(|agent| redaction.at("user_agent.original").text(agent)),
            upstream_address: upstream(exchange, generation),
            rpc_status: exchange.response.grpc.and_then(Grpc::status_name),
            failed: failure.is_some(),
            error_type: match exchange.error_type {
                "" => failure,
                seen => Some(Cow::Borrowed(seen)),
            },
        }
    }
}

/// Path and query of a request target; of one in absolute form (RFC 9112, 3.2.2) without scheme and authority.
pub(super) fn path_and_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
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

/// Host and port of an authority; the port only where it is written.
fn server(authority: &[u8]) -> (Option<Cow<'_, str>>, Option<u16>) {
    if authority.is_empty() {
        return (None, None);
    }
    let split = authority.iter().rposition(|byte| *byte == b':').and_then(|at| {
        let port = std::str::from_utf8(authority.get(at + 1..)?).ok()?;
        Some((authority.get(..at)?, port.parse().ok()?))
    });
    let (host, port) = split.map_or((authority, None), |(host, port)| (host, Some(port)));
    (Some(String::from_utf8_lossy(host)), port)
}

fn upstream(exchange: &Exchange<'_>, generation: &Generation) -> Option<String> {
    let address = exchange.upstream.map(written);
    address.or_else(|| {
        generation
            .socket(exchange.listener, exchange.route)
            .filter(|_| exchange.attempts > 0)
    })
}

/// An address as text. `to_string` begins with an empty string, which grows with each piece that is written; 64 bytes hold the
/// longest.
fn written(address: impl fmt::Display) -> String {
    let mut text = String::with_capacity(64);
    match write!(text, "{address}") {
        // Writing to a String doesn't fail.
        Ok(()) | Err(fmt::Error) => text,
    }
}

/// What failed by the answer's own word: HTTP's status, for a service from 500 and for a caller from 400, else gRPC's.
fn failure(exchange: &Exchange<'_>, direction: Direction) -> Option<Cow<'static, str>> {
    let is_caller = direction == Direction::Outbound;
    let from = if is_caller { 400 } else { 500 };
    if let Some(status) = exchange.response.status.filter(|status| *status >= from) {
        return Some(Cow::Owned(status.to_string()));
    }
    let grpc = exchange.response.grpc.filter(|grpc| grpc.is_failure(is_caller))?;
    grpc.status_name()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::exchange::tests::exchange;
    use crate::settings::Settings;

    #[test]
    fn a_failed_exchange_says_why() {
        let generation = Generation::new(1, Settings::default());
        let redactor = Redactor::default();
        let mut failed = exchange(b"");
        failed.response.status = Some(503);
        let of_answer = Attributes::of(&failed, &generation, &redactor);
        assert_eq!((of_answer.error_type.as_deref(), of_answer.failed), (Some("503"), true));
        failed.error_type = "timeout";
        let seen = Attributes::of(&failed, &generation, &redactor);
        assert_eq!(seen.error_type.as_deref(), Some("timeout"));
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
