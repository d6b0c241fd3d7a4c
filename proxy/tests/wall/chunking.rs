//! Chunks: RFC 9112, 7.1.

use crate::stand::{Stand, with_lines};

#[tokio::test]
async fn chunks_have_one_reading() {
    let stand = Stand::start().await;
    let head = String::from_utf8(with_lines("Transfer-Encoding: chunked\r\n")).unwrap();
    let end = "0\r\n\r\n";
    let cases = [
        ("3\nabc\r\n", 400, "RFC 9112, 2.2: bare LF"),
        ("3\r\nabc\n", 400, "RFC 9112, 7.1"),
        ("3\rabc\r\n", 400, "RFC 9112, 7.1"),
        ("0x3\r\nabc\r\n", 400, "RFC 9112, 7.1: 1*HEXDIG"),
        ("+3\r\nabc\r\n", 400, "RFC 9112, 7.1"),
        ("-3\r\nabc\r\n", 400, "RFC 9112, 7.1"),
        (" 3\r\nabc\r\n", 400, "RFC 9112, 7.1"),
        ("3 \r\nabc\r\n", 400, "RFC 9112, 7.1"),
        ("\r\n", 400, "RFC 9112, 7.1: no size"),
        (";a\r\n", 400, "RFC 9112, 7.1: no size"),
        ("3_0\r\nabc\r\n", 400, "RFC 9112, 7.1"),
        ("g\r\nabc\r\n", 400, "RFC 9112, 7.1"),
        ("10000000000000003\r\nabc\r\n", 400, "RFC 9112, 7.1: overflow"),
        ("ffffffffffffffff\r\nabc\r\n", 400, "RFC 9112, 7.1: overflow"),
        ("3\r\nabcd\r\n", 400, "RFC 9112, 7.1: longer than its size"),
        ("4\r\nabc\r\n", 400, "RFC 9112, 7.1: shorter than its size"),
        ("3 ;a=b\r\nabc\r\n", 400, "RFC 9112, 7.1.1: a blank"),
        ("3;\r\nabc\r\n", 400, "RFC 9112, 7.1.1"),
        ("3;a\nb\r\nabc\r\n", 400, "RFC 9112, 7.1.1: bare LF"),
        ("3;a\rb\r\nabc\r\n", 400, "RFC 9112, 7.1.1: bare CR"),
        ("3;a=\"b\r\nabc\r\n", 400, "RFC 9112, 7.1.1: an open quote"),
        ("3;a=b\0\r\nabc\r\n", 400, "RFC 9112, 7.1.1"),
        ("0\r\nX : a\r\n\r\n", 400, "RFC 9112, 7.1.2"),
        ("0\r\nX: a\n\r\n", 400, "RFC 9112, 2.2"),
        ("0\r\n\n", 400, "RFC 9112, 2.2"),
        ("3;a;b=c;d=\"e;\\\"f\"\r\nabc\r\n", 200, "RFC 9112, 7.1.1"),
        ("A\r\n0123456789\r\n0003\r\na\nc\r\n", 200, "RFC 9112, 7.1"),
        ("", 200, "RFC 9112, 7.1"),
    ];
    for (chunks, status, section) in cases {
        let request = format!("{head}{chunks}{end}");
        stand.check(&[(request.as_bytes(), status, section)]).await;
    }
    let trailers = format!("{head}3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n");
    stand.check(&[(trailers.as_bytes(), 200, "RFC 9112, 7.1.2")]).await;
    let received = stand.upstream.received();
    assert_eq!(received[received.len() - 2].body, "abc");
}
