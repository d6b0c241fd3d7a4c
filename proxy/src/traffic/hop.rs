//! Fields of one hop: what `Connection` names ends here (RFC 9110, 7.6.1), and what must pass does.
//!
//! Invariants:
//! - What sidelog adds can't be named away (`tests/wall/connection.rs`).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr, Result};

/// What sidelog adds to requests.
const ADDED: [&str; 5] = [
    "traceparent",
    "tracestate",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];
/// What says where a message ends, or belongs to the connection itself: pingora writes it anew.
const KEPT: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::DATE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The names in `Connection`.
fn named(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = fields.get_all(header::CONNECTION).into_iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

fn is_added(name: &[u8]) -> bool {
    ADDED.iter().any(|added| name.eq_ignore_ascii_case(added.as_bytes()))
}

/// Takes out of a request's `Connection` what sidelog adds, and an `Upgrade` that it doesn't name: nobody is asked to switch by
/// that (RFC 9110, 7.8), but pingora would ask.
///
/// # Errors
/// Never: what is left of a field's value is one.
pub fn protect(request: &mut RequestHeader) -> Result<()> {
    let upgrades = || named(&request.headers).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    if request.headers.contains_key(header::UPGRADE) && !upgrades() {
        request.remove_header(&header::UPGRADE);
    }
    if !named(&request.headers).any(is_added) {
        return Ok(());
    }
    let rest: Vec<_> = named(&request.headers).filter(|name| !is_added(name)).collect();
    let rest = rest.join(&b", "[..]);
    request.remove_header(&header::CONNECTION);
    if !rest.is_empty() {
        request.insert_header(header::CONNECTION, rest)?;
    }
    Ok(())
}

/// Puts back what pingora takes for a matter of this hop and the service must see.
///
/// # Errors
/// Never: the values were fields' values before.
pub fn restore(client: &RequestHeader, upstream: &mut RequestHeader) -> Result<()> {
    let mut te = client.headers.get_all(header::TE).into_iter();
    let takes_trailers = te.any(|value| {
        let mut codings = value.as_bytes().split(|byte| *byte == b',');
        codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    if takes_trailers {
        upstream.insert_header(header::TE, HeaderValue::from_static("trailers"))?;
    }
    if client.headers.contains_key(header::PROXY_AUTHORIZATION)
        && !upstream.headers.contains_key(header::PROXY_AUTHORIZATION)
    {
        restore_credentials(client, upstream)?;
    }
    Ok(())
}

/// Credentials for a proxy: this hop asks for none, so they are another's (RFC 9110, 11.7.2).
fn restore_credentials(client: &RequestHeader, upstream: &mut RequestHeader) -> Result<()> {
    if !client.has_case() {
        for value in client.headers.get_all(header::PROXY_AUTHORIZATION) {
            upstream.append_header(header::PROXY_AUTHORIZATION, value)?;
        }
        return Ok(());
    }
    let name = header::PROXY_AUTHORIZATION;
    for (cased, value) in client.case_header_iter() {
        if cased.as_slice().eq_ignore_ascii_case(name.as_str().as_bytes()) {
            upstream.append_header(cased.clone(), value)?;
        }
    }
    Ok(())
}

/// Takes out of an answer what belongs to the connection that it came on.
pub fn strip(response: &mut ResponseHeader) {
    if response.headers.contains_key(header::CONNECTION) {
        let names: Vec<_> = named(&response.headers)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| !KEPT.contains(name))
            .collect();
        for name in names {
            response.remove_header(&name);
        }
    }
    for name in ["keep-alive", "proxy-connection"] {
        response.remove_header(name);
    }
}

/// HTTP/2 may part a `cookie` into several fields; other versions know one only (RFC 9113, 8.2.3).
///
/// # Errors
/// Never: joined values are a value.
pub fn join_cookies(upstream: &mut RequestHeader) -> Result<()> {
    let mut crumbs = upstream
        .headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return Ok(());
    };
    let all: Vec<_> = [first, second].into_iter().chain(crumbs).collect();
    let joined = HeaderValue::from_bytes(&all.join(&b"; "[..]));
    upstream.insert_header(
        header::COOKIE,
        joined.or_err(ErrorType::InternalError, "joined values are a value")?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_names_ends_here_but_not_its_framing() {
        let mut response = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "content-length"),
            ("x-hop", "a"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("x-end", "b"),
        ] {
            response.append_header(name, value).unwrap();
        }
        strip(&mut response);
        let mut left: Vec<_> = response.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-length", "x-end"]);
    }

    #[test]
    fn only_what_sidelog_adds_is_taken_out_of_a_request() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header("connection", "TraceParent, close").unwrap();
        request.append_header("connection", "x-hop").unwrap();
        protect(&mut request).unwrap();
        assert_eq!(request.headers[header::CONNECTION], "close, x-hop");
    }
}
