//! `Expect: 100-continue`: who tells the client to go on with its body (RFC 9110, 10.1.1).
//!
//! An upstream that speaks HTTP/1.1 does, or refuses, and its word passes. Of HTTP/2 pingora passes on no interim answer: the proxy
//! says it itself then, once the upstream is connected.
//!
//! Invariants:
//! - No client waits for a word that can't come
//!   (`tests/upstreams.rs: a_client_that_waits_for_100_continue_is_answered_where_the_upstream_speaks_http2`).

use http::{Version, header};
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

/// Whether the client may wait before it sends its body.
pub fn waits(request: &RequestHeader) -> bool {
    let expect = request.headers.get(header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Tells a client of HTTP/1.1 to go on where nobody else will; the upstream is not asked to, then.
///
/// # Errors
/// When the client can't be written to.
pub async fn answer(session: &mut Session, upstream: &mut RequestHeader) -> Result<()> {
    let client = session.req_header();
    // HTTP/1.0 knows no interim answer, and on HTTP/2 none can be given.
    if upstream.version != Version::HTTP_2 || client.version != Version::HTTP_11 || !waits(client) {
        return Ok(());
    }
    upstream.remove_header(&header::EXPECT);
    let told = session.as_downstream_mut().write_continue_response().await;
    told.map_err(pingora::Error::into_down)
}
