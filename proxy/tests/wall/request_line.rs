//! The request line: RFC 9112, 3.

use crate::stand::{Case, Stand};

const CASES: &[Case<'static>] = &[
    (b"GET /\r\n\r\n", 400, "RFC 9112, 3: HTTP/0.9"),
    (b"GET\r\n\r\n", 400, "RFC 9112, 3"),
    (
        b"GET  / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        400,
        "RFC 9112, 3: one blank",
    ),
    (
        b"GET /  HTTP/1.1\r\nHost: a.test\r\n\r\n",
        400,
        "RFC 9112, 3: one blank",
    ),
    (b"GET / HTTP/1.1 \r\nHost: a.test\r\n\r\n", 400, "RFC 9112, 3"),
    (b" GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 9112, 3"),
    (b"GET\t/\tHTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 9112, 3"),
    (
        b"GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n",
        400,
        "RFC 9112, 3.2: no blanks in a target",
    ),
    (b"GET /a\tb HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 9112, 3.2"),
    (b"GET /a\x00b HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 3986, 2"),
    (b"GET /a\x7fb HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 3986, 2"),
    (
        b"GET /a#b HTTP/1.1\r\nHost: a.test\r\n\r\n",
        400,
        "RFC 9112, 3.2: no fragment",
    ),
    (b"GET a HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 9112, 3.2"),
    (b"GET * HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 9112, 3.2.4"),
    (b"GET / HTTP/2.0\r\nHost: a.test\r\n\r\n", 505, "RFC 9110, 15.6.6"),
    (b"GET / HTTP/1.2\r\nHost: a.test\r\n\r\n", 505, "RFC 9110, 15.6.6"),
    (b"GET / HTTP/1.10\r\nHost: a.test\r\n\r\n", 400, "RFC 9112, 2.3"),
    (
        b"GET / http/1.1\r\nHost: a.test\r\n\r\n",
        400,
        "RFC 9112, 2.3: case matters",
    ),
    (b"GET / HTTQ/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 9112, 2.3"),
    (b"G{T / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 9110, 9.1"),
    (b"GET / HTTP/1.1\nHost: a.test\r\n\r\n", 400, "RFC 9112, 2.2: bare LF"),
    (b"GET / HTTP/1.1\rHost: a.test\r\n\r\n", 400, "RFC 9112, 2.2: bare CR"),
    (b"\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "RFC 9112, 2.2"),
    (
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        405,
        "RFC 9110, 9.3.6",
    ),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "RFC 9112, 3: TLS"),
    (b"GET / HTTP/1.0\r\n\r\n", 200, "RFC 9112, 3.2"),
    (
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        200,
        "RFC 9112, 2.2: empty lines before",
    ),
    (
        b"PURGE /%zz?%&=//../ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        200,
        "RFC 9110, 9.1",
    ),
    (
        b"GET http://a.test/a HTTP/1.1\r\nHost: a.test\r\n\r\n",
        200,
        "RFC 9112, 3.2.2",
    ),
    (
        b"GET /\xc3\xbc\"{}^?q=\xc3\xbc{}|^`\\[] HTTP/1.1\r\nHost: a.test\r\n\r\n",
        200,
        "RFC 9112, 3.2: as it came",
    ),
];

#[tokio::test]
async fn request_lines_have_one_reading() {
    Stand::start().await.check(CASES).await;
}

#[tokio::test]
async fn methods_and_targets_have_limits() {
    let stand = Stand::start().await;
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(8000));
    let longer_target = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(16 * 1024));
    let long_method = format!("{} / HTTP/1.1\r\nHost: a.test\r\n\r\n", "M".repeat(65));
    let cases: [Case<'_>; 3] = [
        (longer_target.as_bytes(), 414, "RFC 9110, 15.5.15"),
        (long_method.as_bytes(), 501, "RFC 9110, 9.1"),
        (long_target.as_bytes(), 200, "RFC 9112, 3: at least 8,000 bytes"),
    ];
    stand.check(&cases).await;
}
