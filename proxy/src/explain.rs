//! What would be recorded of an exchange, and why: `sidelog-proxy explain < request.http`.
//!
//! The exchange goes the way that all go: captured, queued, made a record. Only the notes of what was taken out are more.
//!
//! Invariants:
//! - What is printed is what would be published (`an_exchange_is_explained`): with redaction switched off, secrets too.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, bail};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use sidelog_record::End;

use crate::generation::Generation;
use crate::queue::exchange::{Exchange, Version};
use crate::queue::{Queue, QueueLimits, Taker};
use crate::settings::Settings;
use crate::shipping::attributes::Attributes;
use crate::shipping::record;
use crate::shipping::redact::Redactor;
use crate::traffic::capture::{Budget, Capture, Recorder, RequestHead};
use crate::traffic::trace::{self, Sampling};
use crate::traffic::traceparent::Traceparent;

/// Most bytes that are read.
pub const MAX_INPUT: u64 = 16 * 1024 * 1024;

/// Explains a request, and its response if it follows; both as HTTP/1.1 has them, lines may end in `\n` alone.
///
/// # Errors
/// When the input isn't HTTP, or the redaction can't be built.
pub fn explain(settings: Settings, input: &[u8]) -> anyhow::Result<String> {
    let request =
        Message::read(input).context("the input is no HTTP request; begin it with a line such as GET / HTTP/1.1")?;
    let response = Message::read(request.rest);
    let (method, target) = request.request_line()?;
    let identity = crate::identity(&settings);
    let queue = Queue::new(
        QueueLimits {
            bodies_max_bytes: settings.queue.bodies_max_bytes.as_usize(),
            max_bytes: settings.queue.max_bytes.as_usize(),
        },
        settings.runtime.threads,
    );
    let recorder = Arc::new(Recorder {
        queue: Arc::clone(&queue),
        budget: Budget::new(settings.capture.memory_max.as_usize()),
    });
    let generation = Arc::new(Generation::new(1, settings));
    let authority = request.fields.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let path = target.split('?').next().unwrap_or_default();
    let route = generation.router().find(method, authority, path.as_bytes());
    let mut out = String::new();
    tell_policy(&generation, route, &mut out)?;
    pass(
        &recorder,
        &generation,
        route,
        &request,
        response.as_ref(),
        (method, target, authority),
    )?;

    let mut taker = Taker::new(queue);
    let Some(taken) = taker.take() else {
        writeln!(out, "record: none")?;
        return Ok(out);
    };
    let (exchange, _) = Exchange::decode(taken.bytes()).context("the exchange could not be read back")?;
    if exchange.record {
        let redactor = Redactor::default().with_notes();
        let mut line = Vec::new();
        let attributes = Attributes::of(&exchange, &generation, &redactor);
        record::record(&exchange, attributes, &identity, &generation, &redactor).encode(&mut line);
        writeln!(out, "record: {}", String::from_utf8_lossy(&line))?;
        for finding in redactor.findings() {
            writeln!(out, "taken out: {} {} by {}", finding.place, finding.name, finding.rule)?;
        }
    } else {
        writeln!(out, "record: none")?;
    }
    taker.put_back(taken);
    Ok(out)
}

fn tell_policy(generation: &Generation, route: Option<u32>, out: &mut String) -> std::fmt::Result {
    let policy = generation.policy(route);
    let capture = policy.capture();
    match (route, generation.route_path(route)) {
        (Some(index), Some(path)) => writeln!(out, "route: {path} (routes.{index})")?,
        _ => writeln!(out, "route: none")?,
    }
    writeln!(
        out,
        "policy: enabled={} request_headers={} response_headers={} request_body={} response_body={} body_max={} \
         keep_bodies={:?} slow={:?} sample={} redaction={}",
        capture.enabled,
        capture.request_headers,
        capture.response_headers,
        capture.request_body,
        capture.response_body,
        capture.body_max,
        capture.keep_bodies,
        capture.slow,
        capture.sample,
        policy.redaction().is_some(),
    )
}

/// Captures the exchange as it would pass.
fn pass(
    recorder: &Arc<Recorder>,
    generation: &Arc<Generation>,
    route: Option<u32>,
    request: &Message<'_>,
    response: Option<&Message<'_>>,
    (method, target, authority): (&str, &str, &[u8]),
) -> anyhow::Result<()> {
    let mut ids = || rand::random();
    let came = request.fields.get_all("traceparent").iter().map(HeaderValue::as_bytes);
    let sampling = Sampling {
        parent_based: true,
        share: 1.0,
    };
    let decision = trace::decide(
        generation.listener(0).trace,
        Traceparent::only(came),
        sampling,
        &mut ids,
    );
    let head = RequestHead {
        version: Version::Http11,
        method: method.as_bytes(),
        target: target.as_bytes(),
        authority,
        trace_state: &[],
        fields: &request.fields,
        client: None,
        forwarded_for: None,
    };
    let mut capture = Capture::new(recorder, Arc::clone(generation), 0, route, decision.context, &head);
    capture.request_body(request.body);
    let status = response.map(Message::status).transpose()?;
    if let (Some(response), Some(status)) = (response, status) {
        capture.response_head(status, &response.fields);
        capture.response_body(response.body);
    }
    capture.ended(End::Complete, "", status);
    Ok(())
}

/// A request or a response.
#[derive(Debug)]
struct Message<'i> {
    first: &'i str,
    fields: HeaderMap,
    body: &'i [u8],
    /// What follows.
    rest: &'i [u8],
}

impl<'i> Message<'i> {
    /// Reads one from the front of the input; `None` when there is none.
    fn read(input: &'i [u8]) -> Option<Self> {
        let mut lines = input.split_inclusive(|byte| *byte == b'\n');
        let mut at = 0;
        let mut next = || {
            let line = lines.next()?;
            at += line.len();
            Some((std::str::from_utf8(line).ok()?.trim_end(), at))
        };
        let (first, mut end) = next()?;
        if !first.contains("HTTP/") {
            return None;
        }
        let mut fields = HeaderMap::new();
        while let Some((line, at)) = next() {
            end = at;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            let name: HeaderName = name.trim().parse().ok()?;
            fields.append(name, HeaderValue::from_str(value.trim()).ok()?);
        }
        let behind = input.get(end..)?;
        let told = fields
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let len = told.unwrap_or_else(|| memchr::memmem::find(behind, b"\nHTTP/").map_or(behind.len(), |at| at + 1));
        let (body, rest) = behind.split_at_checked(len).unwrap_or((behind, &[]));
        // A file's last line end belongs to the file, and what stands before a response to neither.
        let body = if told.is_none() { body.trim_ascii_end() } else { body };
        Some(Self {
            first,
            fields,
            body,
            rest: rest.trim_ascii_start(),
        })
    }

    fn request_line(&self) -> anyhow::Result<(&'i str, &'i str)> {
        let mut words = self.first.split_whitespace();
        match (words.next(), words.next()) {
            (Some(method), Some(target)) if !method.starts_with("HTTP/") => Ok((method, target)),
            _ => bail!("the input begins with a response; put its request before it"),
        }
    }

    fn status(&self) -> anyhow::Result<u16> {
        let status = self.first.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        status.context("the response has no status; begin it with a line such as HTTP/1.1 200 OK")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Redaction, Route};

    const EXCHANGE: &str = "POST /login?token=MARK HTTP/1.1\nHost: a.test\nAuthorization: Bearer MARK\nContent-Type: \
        application/json\n\n{\"password\":\"MARK\",\"note\":\"to MARK@a.test\",\"id\":7}\n\nHTTP/1.1 201 Created\n\
        Set-Cookie: sid=MARK\n\n";

    #[test]
    fn an_exchange_is_explained() {
        let settings = Settings {
            routes: vec![Route {
                path: "/login".to_owned(),
                ..Route::default()
            }],
            redaction: Redaction {
                json: vec!["$.note".parse().unwrap()],
                ..Redaction::default()
            },
            ..Settings::default()
        };
        let told = explain(settings, EXCHANGE.as_bytes()).unwrap();
        for part in [
            "route: /login (routes.0)\n",
            "policy: enabled=true",
            r#"{\"password\":\"REDACTED\",\"note\":\"REDACTED\",\"id\":7}"#,
            "\"http.response.status_code\":201",
            "taken out: url.query token by name \"token\"\n",
            "taken out: http.request.header authorization by name \"authorization\"\n",
            "taken out: http.request.body.content password by name \"password\"\n",
            "taken out: http.request.body.content note by path \"$.note\"\n",
            "taken out: http.response.header set-cookie by name \"cookie\"\n",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        assert!(!told.contains("MARK"), "{told}");
    }

    #[test]
    fn a_route_without_records_says_so() {
        let mut settings = Settings::default();
        settings.capture.enabled = false;
        let told = explain(settings, b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(told.ends_with("record: none\n"), "{told}");
    }

    #[test]
    fn what_is_no_http_is_refused_with_an_example() {
        for input in ["", "hello", "HTTP/1.1 200 OK\n\n"] {
            let error = explain(Settings::default(), input.as_bytes())
                .expect_err(input)
                .to_string();
            assert!(error.contains("begin"), "{error}");
        }
    }
}
