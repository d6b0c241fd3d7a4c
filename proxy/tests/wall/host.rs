//! `Host` and the target's authority: RFC 9112, 3.2.

use crate::stand::{Case, Stand};

#[tokio::test]
async fn a_request_names_one_host() {
    let stand = Stand::start().await;
    let cases: [Case<'_>; 26] = [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "RFC 9112, 3.2: missing"),
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
            400,
            "RFC 9112, 3.2: twice",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nhOST: b.test\r\n\r\n",
            400,
            "RFC 9112, 3.2: twice",
        ),
        (
            b"GET / HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
            400,
            "RFC 9112, 3.2: twice",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
            400,
            "RFC 3986, 3.2.2",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: a.test,b.test\r\n\r\n",
            400,
            "RFC 9110, 5.3: a list of one",
        ),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "RFC 3986, 3.2.2"),
        (b"GET / HTTP/1.1\r\nHost: a\tb\r\n\r\n", 400, "RFC 3986, 3.2.2"),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "RFC 3986, 3.2.2"),
        (b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n", 400, "RFC 3986, 3.2.2"),
        (b"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400, "RFC 3986, 3.2.2"),
        (b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", 400, "RFC 3986, 3.2.2"),
        (b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, "RFC 9110, 4.2.4"),
        (b"GET / HTTP/1.1\r\nHost: a:port\r\n\r\n", 400, "RFC 3986, 3.2.3"),
        (b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400, "RFC 3986, 3.2.3"),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "RFC 3986, 3.2.2"),
        (
            b"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n",
            400,
            "RFC 9112, 3.2.2",
        ),
        (b"GET http://a.test/ HTTP/1.1\r\n\r\n", 400, "RFC 9112, 3.2"),
        (
            b"GET http://user@a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            400,
            "RFC 9110, 4.2.4",
        ),
        (
            b"GET http:/a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            400,
            "RFC 9112, 3.2.2",
        ),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 200, "RFC 9112, 3.2: may be empty"),
        (b"GET / HTTP/1.1\r\nHost: \t a.test:8080 \r\n\r\n", 200, "RFC 9112, 5.1"),
        (b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 200, "RFC 3986, 3.2.2"),
        (b"GET / HTTP/1.1\r\nHost: a_b.test\r\n\r\n", 200, "RFC 3986, 2.3"),
        (b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", 200, "RFC 9112, 3.2"),
        (
            "GET / HTTP/1.1\r\nHost: b\u{fc}cher.test\r\n\r\n".as_bytes(),
            200,
            "RFC 9110, 5.5: as it came",
        ),
    ];
    stand.check(&cases).await;
}
