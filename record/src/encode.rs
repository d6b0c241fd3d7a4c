//! The encoder: a record as one JSON object on one line, keys in the order of the contract.
//!
//! The usual record is written in one pass, straight into the buffer it travels in. Only one that turns out too
//! large is measured ([`Cut::to_fit`]) and written again.

use std::borrow::Cow;

use crate::{
    Body, Message, Record, fields,
    fit::{Cut, Kept},
    frame::SCHEMA,
    json,
    key::Key,
    time,
};

/// The most bytes an encoded record takes. Loki refuses lines over 256 KB.
pub const MAX_ENCODED: usize = 250_000;

/// The most bytes that a path, query, route, user agent or request id takes when escaped.
const LONG_STRING: usize = 16 * 1024;
/// The most bytes that any other single string takes when escaped.
///
/// Five long strings, thirteen of these and the reasons of a loss stay well under [`MAX_ENCODED`].
const STRING: usize = 4 * 1024;
/// The most reasons of a loss that are written each for itself; the counts of further ones go to `other`.
const LOSS_REASONS: usize = 64;
/// The most bytes that a reason of a loss takes when escaped.
const LOSS_REASON: usize = 256;

impl Record<'_> {
    /// Appends the record to `out` as one JSON object without a newline, in at most [`MAX_ENCODED`] bytes.
    ///
    /// The same record is always the same bytes. What does not fit is left out and said so: the larger body is cut
    /// first (`truncated`), then header fields are left out from the end (`header.omitted`); a single string over its limit
    /// (16 KiB for path, query, route, user agent and request id, 4 KiB for others) ends in `…`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        if self.unescaped_len() <= MAX_ENCODED {
            write(self, &Cut::NOTHING, out);
            if out.len() - start <= MAX_ENCODED {
                return;
            }
            out.truncate(start);
        }
        write(self, &Cut::to_fit(self, MAX_ENCODED), out);
        debug_assert!(out.len() - start <= MAX_ENCODED, "a cut record fits");
    }

    /// What headers and contents would take without escapes: over the bound, a first pass is in vain.
    fn unescaped_len(&self) -> usize {
        let message = |message: &Message<'_>| {
            let fields: usize = message
                .headers
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            fields + message.body.content.as_deref().map_or(0, str::len)
        };
        message(&self.request) + message(&self.response)
    }
}

/// The keys of one direction.
pub(crate) struct MessageKeys {
    pub(crate) header: Key,
    header_omitted: Key,
    size: Key,
    content: Key,
    omitted: Key,
    truncated: Key,
    events: Key,
    messages: Key,
    frames: Key,
}

pub(crate) const REQUEST: MessageKeys = MessageKeys {
    header: Key::RequestHeader,
    header_omitted: Key::RequestHeaderOmitted,
    size: Key::RequestBodySize,
    content: Key::RequestBodyContent,
    omitted: Key::RequestBodyOmitted,
    truncated: Key::RequestBodyTruncated,
    events: Key::RequestBodyEvents,
    messages: Key::RequestBodyMessages,
    frames: Key::RequestBodyFrames,
};

pub(crate) const RESPONSE: MessageKeys = MessageKeys {
    header: Key::ResponseHeader,
    header_omitted: Key::ResponseHeaderOmitted,
    size: Key::ResponseBodySize,
    content: Key::ResponseBodyContent,
    omitted: Key::ResponseBodyOmitted,
    truncated: Key::ResponseBodyTruncated,
    events: Key::ResponseBodyEvents,
    messages: Key::ResponseBodyMessages,
    frames: Key::ResponseBodyFrames,
};

/// Appends what `cut` leaves of the record.
pub(crate) fn write(record: &Record<'_>, cut: &Cut, out: &mut Vec<u8>) {
    identity(record, out);
    http(record, out);
    headers(&REQUEST, &record.request, cut.request, out);
    headers(&RESPONSE, &record.response, cut.response, out);
    body(&REQUEST, &record.request.body, cut.request, out);
    body(&RESPONSE, &record.response.body, cut.response, out);
    outcome(record, out);
    out.push(b'}');
}

/// When, who, and which trace.
fn identity(record: &Record<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    out.extend_from_slice(Key::Timestamp.opening().trim_start_matches(',').as_bytes());
    timestamp(record.timestamp, out);
    open(Key::ObservedTimestamp, out);
    timestamp(record.observed_timestamp, out);
    number(Key::Schema, SCHEMA, out);
    name(Key::Level, record.level.as_str(), out);
    text(Key::ServiceName, &record.service_name, out);
    optional(Key::ServiceVersion, STRING, record.service_version.as_deref(), out);
    text(Key::ServiceInstanceId, &record.service_instance_id, out);
    text(Key::Environment, &record.environment, out);
    hex(Key::TraceId, record.trace_id.as_ref(), out);
    hex(Key::SpanId, record.span_id.as_ref(), out);
    hex(Key::ParentSpanId, record.parent_span_id.as_ref(), out);
    hex(Key::TraceFlags, record.trace_flags.map(|flags| [flags]).as_ref(), out);
    optional(Key::RequestId, LONG_STRING, record.request_id.as_deref(), out);
}

/// What was asked, of whom, by whom.
fn http(record: &Record<'_>, out: &mut Vec<u8>) {
    text(Key::Method, &record.method, out);
    text(Key::Scheme, &record.scheme, out);
    if !record.path.is_empty() {
        optional(Key::Path, LONG_STRING, Some(&record.path), out);
    }
    optional(Key::Query, LONG_STRING, record.query.as_deref(), out);
    optional(Key::Route, LONG_STRING, record.route.as_deref(), out);
    optional(Key::ServerAddress, STRING, record.server_address.as_deref(), out);
    optional_number(Key::ServerPort, record.server_port.map(u64::from), out);
    optional(Key::ClientAddress, STRING, record.client_address.as_deref(), out);
    optional(Key::UserAgent, LONG_STRING, record.user_agent.as_deref(), out);
    text(Key::ProtocolVersion, &record.protocol_version, out);
}

fn headers(keys: &MessageKeys, message: &Message<'_>, kept: Kept, out: &mut Vec<u8>) {
    let fields = message.headers.get(..kept.fields).unwrap_or(&message.headers);
    if !fields.is_empty() {
        open(keys.header, out);
        fields::write(fields, out);
    }
    let left_out = u32::try_from(message.headers.len() - fields.len()).unwrap_or(u32::MAX);
    let omitted = message.headers_omitted.saturating_add(left_out);
    if omitted > 0 {
        number(keys.header_omitted, omitted.into(), out);
    }
}

fn body(keys: &MessageKeys, body: &Body<'_>, kept: Kept, out: &mut Vec<u8>) {
    optional_number(keys.size, body.size, out);
    let mut truncated = body.truncated;
    if let Some(content) = &body.content {
        let (content, cut) = json::split(content, kept.content);
        truncated |= !cut.is_empty();
        open(keys.content, out);
        json::string(content, out);
    }
    if let Some(omitted) = body.omitted {
        name(keys.omitted, omitted.as_str(), out);
    }
    if truncated {
        open(keys.truncated, out);
        out.extend_from_slice(b"true");
    }
    optional_number(keys.events, body.events, out);
    optional_number(keys.messages, body.messages, out);
    optional_number(keys.frames, body.frames, out);
}

/// How it ended.
fn outcome(record: &Record<'_>, out: &mut Vec<u8>) {
    optional_number(Key::Status, record.status.map(u64::from), out);
    optional(Key::RpcStatus, STRING, record.rpc_status.as_deref(), out);
    optional(Key::RpcMessage, STRING, record.rpc_message.as_deref(), out);
    optional_number(Key::CloseCode, record.close_code.map(u64::from), out);
    open(Key::Duration, out);
    time::write_millis(record.duration, out);
    if let Some(ttfb) = record.ttfb {
        open(Key::Ttfb, out);
        time::write_millis(ttfb, out);
    }
    optional(Key::UpstreamAddress, STRING, record.upstream_address.as_deref(), out);
    optional_number(Key::UpstreamAttempts, record.upstream_attempts.map(u64::from), out);
    name(Key::End, record.end.as_str(), out);
    optional(Key::ErrorType, STRING, record.error_type.as_deref(), out);
    if let Some(loss) = &record.loss {
        open(Key::Dropped, out);
        dropped(loss, out);
    }
}

fn dropped(loss: &[(Cow<'_, str>, u64)], out: &mut Vec<u8>) {
    let (named, others) = loss.split_at_checked(LOSS_REASONS).unwrap_or((loss, &[]));
    out.push(b'{');
    let mut separator: &[u8] = b"";
    for (reason, count) in named {
        out.extend_from_slice(separator);
        separator = b",";
        json::string_within(LOSS_REASON, reason, out);
        out.push(b':');
        json::integer(*count, out);
    }
    if !others.is_empty() {
        out.extend_from_slice(b",\"other\":");
        json::integer(others.iter().fold(0, |sum, (_, count)| count.saturating_add(sum)), out);
    }
    out.push(b'}');
}

fn open(key: Key, out: &mut Vec<u8>) {
    out.extend_from_slice(key.opening().as_bytes());
}

/// A string whose absence is the empty string.
fn text(key: Key, value: &str, out: &mut Vec<u8>) {
    if !value.is_empty() {
        optional(key, STRING, Some(value), out);
    }
}

fn optional(key: Key, limit: usize, value: Option<&str>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        open(key, out);
        json::string_within(limit, value, out);
    }
}

/// A member of a closed set: its name needs no escape.
fn name(key: Key, name: &'static str, out: &mut Vec<u8>) {
    open(key, out);
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
}

fn number(key: Key, value: u64, out: &mut Vec<u8>) {
    open(key, out);
    json::integer(value, out);
}

fn optional_number(key: Key, value: Option<u64>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        number(key, value, out);
    }
}

fn hex<const N: usize>(key: Key, bytes: Option<&[u8; N]>, out: &mut Vec<u8>) {
    if let Some(bytes) = bytes {
        open(key, out);
        json::hex(bytes, out);
    }
}

fn timestamp(unix_nanos: u64, out: &mut Vec<u8>) {
    out.push(b'"');
    time::write_timestamp(unix_nanos, out);
    out.push(b'"');
}
