//! Where a body ends: RFC 9112, 6.

use crate::stand::{Case, Stand, with_lines};

#[tokio::test]
async fn a_body_is_framed_in_one_way() {
    let stand = Stand::start().await;
    let refused = [
        (
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            400,
            "RFC 9112, 6.1",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            400,
            "RFC 9112, 6.1",
        ),
        ("Content-Length: 3\r\nContent-Length: 3\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: 3, 3\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: +3\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: -3\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: 0x3\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: 3 3\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: 3.0\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length:\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: three\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: 18446744073709551619\r\n", 400, "RFC 9110, 8.6"),
        ("Content-Length: 9223372036854775808\r\n", 400, "RFC 9110, 8.6"),
        ("Transfer-Encoding: gzip, chunked\r\n", 501, "RFC 9112, 6.1"),
        ("Transfer-Encoding: xchunked\r\n", 501, "RFC 9112, 6.1"),
        ("Transfer-Encoding: identity\r\n", 501, "RFC 9112, 6.1"),
        ("Transfer-Encoding: chunked, chunked\r\n", 400, "RFC 9112, 6.1"),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
            "RFC 9112, 6.1",
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            400,
            "RFC 9112, 6.1",
        ),
        ("Transfer-Encoding: chunked, gzip\r\n", 400, "RFC 9112, 6.3"),
        ("Transfer-Encoding: chunked;a=b\r\n", 400, "RFC 9112, 6.1"),
        ("Transfer-Encoding: \"chunked\"\r\n", 400, "RFC 9112, 6.1"),
        ("Transfer-Encoding:\r\n", 400, "RFC 9112, 6.1"),
        ("Transfer-Encoding: ,chunked\r\n", 400, "RFC 9112, 6.1"),
        ("Transfer-Encoding: \x0bchunked\r\n", 400, "RFC 9110, 5.5"),
        ("Transfer-Encoding : chunked\r\n", 400, "RFC 9112, 5.1"),
    ];
    for (lines, status, section) in refused {
        stand.check(&[(&with_lines(lines), status, section)]).await;
    }
    let cases: [Case<'_>; 4] = [
        (
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "RFC 9112, 6.1",
        ),
        (b"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 200, "RFC 9112, 6.2"),
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 003\r\n\r\nabc",
            200,
            "RFC 9112, 6.2",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a.test\r\nTRANSFER-ENCODING: \t CHUNKED \r\n\r\n0\r\n\r\n",
            200,
            "RFC 9112, 7",
        ),
    ];
    stand.check(&cases).await;
}
