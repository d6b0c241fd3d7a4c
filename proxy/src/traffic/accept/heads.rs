//! The judge of HTTP/2 request heads: takes what the judge of HTTP/1 would take, for it may go on as HTTP/1. What fields and
//! pseudo-headers may be made of the `h2` crate has judged, and pingora some of the hosts; both answer by themselves, which is
//! seen among the frames that are sent.
//!
//! Invariants:
//! - Each head that is refused is counted once, whoever refused it (`tests/wall/http2.rs: requests_have_one_reading`).

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use pingora::http::RequestHeader;

use crate::settings::Limits;
use crate::traffic::head::{METHOD_MAX, Reason, is_host};

/// What a field has beside its name and value.
const FRAME: usize = ": \r\n".len();

/// Judges a head by `limits`.
///
/// # Errors
/// When it is not taken; the reason says why.
pub(super) fn judge(request: &RequestHeader, limits: &Limits) -> Result<(), Reason> {
    if request.method == Method::CONNECT {
        return Err(Reason::Connect);
    }
    if request.method.as_str().len() > METHOD_MAX {
        return Err(Reason::Method);
    }
    let target = request.raw_path();
    if target.len() > limits.target_max.as_usize() {
        return Err(Reason::TargetTooLong);
    }
    if target == b"*" && request.method != Method::OPTIONS {
        return Err(Reason::Target);
    }
    if request.headers.len() > limits.header_fields_max {
        return Err(Reason::HeaderCount);
    }
    if bytes(request) > limits.header_max.as_usize() {
        return Err(Reason::HeaderTooLarge);
    }
    host(request)?;
    match only(&request.headers, &header::CONTENT_LENGTH) {
        Ok(_) => Ok(()),
        Err(Several) => Err(Reason::Length),
    }
}

/// Bytes of the head, as HTTP/1 would write it.
fn bytes(request: &RequestHeader) -> usize {
    let line = request.method.as_str().len() + request.raw_path().len();
    let fields = request.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FRAME);
    fields.fold(line, usize::saturating_add)
}

/// One host, told by `:authority`, by `Host`, or by both alike (RFC 9113, 8.3.1).
fn host(request: &RequestHeader) -> Result<(), Reason> {
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    let field = only(&request.headers, &header::HOST).map_err(|Several| Reason::Host)?;
    let (Some(host), other) = (authority.or(field), field) else {
        return Err(Reason::Host);
    };
    // The empty host is of HTTP/1 alone.
    if !host.is_empty() && is_host(host) && other.is_none_or(|other| other == host) {
        Ok(())
    } else {
        Err(Reason::Host)
    }
}

struct Several;

/// The value of a field that must not be there twice.
fn only<'f>(fields: &'f HeaderMap, name: &HeaderName) -> Result<Option<&'f [u8]>, Several> {
    let mut values = fields.get_all(name).iter().map(HeaderValue::as_bytes);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Several),
        (value, None) => Ok(value),
    }
}
