//! What honest clients and services say to each other passes as if no proxy were between them: each case is run directly
//! and through the proxy, byte by byte, and what both sides got is compared.
//!
//! Not compared is what a proxy owns: `Date`, `Connection`, the framing, and the trace headers that it adds.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first thing that is not as it expects"
)]

use std::net::SocketAddr;
use std::time::Duration;

use testbed::{Port, Sidelog, SidelogCommand, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

/// The proxy in front of `upstream`, with neither NATS nor a collector: traffic does not depend on them.
fn proxy(upstream: SocketAddr) -> SidelogCommand {
    Sidelog::proxy()
        .env("UPSTREAM_URL", format!("http://{upstream}"))
        .env("NATS_URL", format!("nats://{}", Port::reserve().address()))
        .env("SIDELOG_TRACES__ENABLED", "false")
}

/// One message without what a proxy owns: its first line, its fields by name in their order, its body.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    first: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

const OWNED: [&str; 5] = ["date", "connection", "transfer-encoding", "traceparent", "tracestate"];

/// The messages of `bytes`, each interim answer one of its own; the last one's body goes to the end.
fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = find(rest, b"\r\n\r\n").unwrap();
        let mut lines = rest[..end].split(|byte| *byte == b'\n');
        let first = text(lines.next().unwrap()).trim_end().to_owned();
        let mut chunked = false;
        let mut fields = Vec::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            let (name, value) = (text(&line[..colon]), line[colon + 1..].trim_ascii().to_vec());
            let known = name.to_ascii_lowercase();
            chunked |= known == "transfer-encoding";
            if !OWNED.contains(&known.as_str()) {
                fields.push((name, value));
            }
        }
        fields.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        rest = &rest[end + 4..];
        let interim = first
            .split(' ')
            .nth(1)
            .is_some_and(|status| status.len() == 3 && status.starts_with('1'));
        let body = if interim {
            Vec::new()
        } else {
            std::mem::take(&mut rest).to_vec()
        };
        let body = if chunked { unchunked(&body) } else { body };
        found.push(Message { first, fields, body });
    }
    found
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = find(bytes, b"\r\n").unwrap();
        let size = usize::from_str_radix(&text(&bytes[..line]), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        bytes = &bytes[line + 2 + size + 2..];
    }
}

/// One request as it came, to its end; where a body's framing is chunks, to the last one.
async fn request(stream: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = find(&read, b"\r\n\r\n") {
            let head = text(&read[..end]).to_ascii_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .map(|rest| rest.split('\r').next().unwrap());
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            let chunked = head.contains("transfer-encoding: chunked");
            if (chunked && read.ends_with(b"0\r\n\r\n")) || (!chunked && read.len() >= end + 4 + length) {
                return read;
            }
        }
        assert!(
            timeout(SOON, stream.read_buf(&mut read)).await.unwrap().unwrap() > 0,
            "the request broke off: {}",
            text(&read)
        );
    }
}

/// A service that reads one request of one connection, gives `answer`, and closes.
async fn serve(listener: &TcpListener, answer: &[u8]) -> Vec<u8> {
    let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let asked = request(&mut stream).await;
    stream.write_all(answer).await.unwrap();
    stream.shutdown().await.unwrap();
    asked
}

/// All that comes back on a connection of its own until it is closed.
async fn ask(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Both ways of every case; the interim answers and the final one, and the request, are the same.
async fn compare(cases: &[(&str, &[u8], &[u8])]) {
    assert!(!cases.is_empty());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let proxy = proxy(upstream).start().await;
    for (name, asked, answer) in cases {
        let (direct_request, direct) = tokio::join!(serve(&listener, answer), ask(upstream, asked));
        let (through_request, through) = tokio::join!(serve(&listener, answer), ask(proxy.addresses()[0], asked));
        assert_eq!(
            messages(trimmed(&through_request)),
            messages(trimmed(&direct_request)),
            "the request of {name}"
        );
        assert_eq!(messages(&through), messages(&direct), "the answer to {name}");
    }
}

/// Empty lines before a request line are to be ignored (RFC 9112, 2.2).
fn trimmed(request: &[u8]) -> &[u8] {
    let start = request.iter().position(|byte| !b"\r\n".contains(byte)).unwrap();
    &request[start..]
}

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What is said of them, what is asked, and what is answered.
const ANSWERS: &[(&str, &[u8], &[u8])] = &[
    ("a reason of its own", GET, b"HTTP/1.1 200 Just Fine\r\nContent-Length: 2\r\n\r\nok"),
    ("a status of its own", GET, b"HTTP/1.1 299 Whatever\r\nContent-Length: 0\r\n\r\n"),
    ("no reason", GET, b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n"),
    ("names in any case", GET, b"HTTP/1.1 200 OK\r\nX-mIxEd-cAsE: 1\r\nETag: \"x\"\r\ncontent-length: 0\r\n\r\n"),
    (
        "a name twice",
        GET,
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nset-cookie: c=3\r\nContent-Length: 0\r\n\r\n",
    ),
    ("bytes that are not ASCII", GET, b"HTTP/1.1 200 OK\r\nX-Name: \xe9t\xc3\xa9\r\nContent-Length: 0\r\n\r\n"),
    ("an empty value", GET, b"HTTP/1.1 200 OK\r\nX-Empty:\r\nContent-Length: 0\r\n\r\n"),
    ("no content", GET, b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"),
    ("not modified", GET, b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1000\r\n\r\n"),
    (
        "a range",
        b"GET /x HTTP/1.1\r\nHost: a.test\r\nRange: bytes=0-1\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/10\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        "a compressed body",
        GET,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
    ),
    ("chunks", GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n"),
    ("an end by closing", GET, b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nto the end"),
    (
        "early hints",
        GET,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
    (
        "HEAD",
        b"HEAD /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
    ),
    ("Server and Via", GET, b"HTTP/1.1 200 OK\r\nServer: theirs\r\nVia: 1.1 theirs\r\nContent-Length: 0\r\n\r\n"),
];

#[tokio::test]
async fn answers_pass_as_they_are() {
    compare(ANSWERS).await;
}

/// The same, but for what HTTP/2 doesn't have: reasons, names in any case, and framing.
#[tokio::test]
async fn answers_pass_as_they_are_to_clients_of_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap())
        .env("SIDELOG_LISTENERS__0__UPSTREAM_PROTOCOL", "h1")
        .start()
        .await;
    let client = http::h2c_client();
    for (name, asked, answer) in ANSWERS {
        let method = text(asked.split(|byte| *byte == b' ').next().unwrap());
        let asking = client
            .request(method.parse().unwrap(), format!("{}/x", proxy.url()))
            .send();
        let (_, got) = tokio::join!(serve(&listener, answer), asking);
        let got = got.unwrap();
        let expected = messages(answer).pop().unwrap();
        assert_eq!(Some(got.status().as_str()), expected.first.split(' ').nth(1), "{name}");
        let mut fields: Vec<_> = expected
            .fields
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        let mut came: Vec<_> = got
            .headers()
            .iter()
            .filter(|(name, _)| !OWNED.contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect();
        fields.sort();
        came.sort();
        assert_eq!(came, fields, "{name}");
        assert_eq!(got.bytes().await.unwrap(), expected.body, "{name}");
    }
}

/// The service says no event before the one before it has arrived.
#[tokio::test]
async fn events_arrive_at_once() {
    for client in [http::client(), http::h2c_client()] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = proxy(listener.local_addr().unwrap())
            .env("SIDELOG_LISTENERS__0__UPSTREAM_PROTOCOL", "h1")
            .start()
            .await;
        let serving = async {
            let (mut stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
            request(&mut stream).await;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await
                .unwrap();
            stream
        };
        let (mut stream, answer) = tokio::join!(serving, client.get(proxy.url()).send());
        let mut answer = answer.unwrap();
        for event in ["data: 1\n\n", ": a comment\n\n", "id: 3\ndata: 3\n\n"] {
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            stream.write_all(chunk.as_bytes()).await.unwrap();
            let arrived = timeout(SOON, answer.chunk()).await.unwrap().unwrap().unwrap();
            assert_eq!(arrived, event);
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        assert_eq!(timeout(SOON, answer.text()).await.unwrap().unwrap(), "");
    }
}

#[tokio::test]
async fn requests_pass_as_they_are() {
    let close = "Connection: close\r\n\r\n";
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n{close}", "a".repeat(8_000));
    let long_field = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n{close}", "a".repeat(16_000));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}{close}", "X: a\r\n".repeat(99));
    compare(&[
        ("a target of 8,001 bytes", long_target.as_bytes(), OK),
        ("a field of 16,000 bytes", long_field.as_bytes(), OK),
        ("101 fields", many_fields.as_bytes(), OK),
        ("a raw target", "GET /caf\u{e9}/\u{2603}?q=\u{e9} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".as_bytes(), OK),
        ("odd escapes", b"GET /%zz/%2f//a/../b/./?a=%&b=1;c HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", OK),
        ("UTF-8 in Host", "GET / HTTP/1.1\r\nHost: caf\u{e9}.test\r\nConnection: close\r\n\r\n".as_bytes(), OK),
        ("empty lines before", b"\r\n\r\nGET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", OK),
        (
            "names in any case, twice, bytes",
            b"GET / HTTP/1.1\r\nhOsT: a.test\r\nX-A: 1\r\nx-a: 2\r\nX-Name: \xe9\r\nX-Empty:\r\nConnection: close\r\n\r\n",
            OK,
        ),
        ("a method of its own", b"PROPFIND /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", OK),
        ("the server as a whole", b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", OK),
        ("the whole URL", b"GET http://a.test/x?y HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", OK),
        (
            "a body of known length",
            b"POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            OK,
        ),
        ("an empty body", b"PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", OK),
        (
            "a body in chunks",
            b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
            OK,
        ),
        (
            "an expectation",
            b"POST /x HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "credentials for a proxy behind",
            b"GET /x HTTP/1.1\r\nHost: a.test\r\nProxy-Authorization: Basic eDp5\r\nConnection: close\r\n\r\n",
            OK,
        ),
        (
            "what other hops added",
            b"GET /x HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\nVia: 1.0 b\r\nConnection: close\r\n\r\n",
            OK,
        ),
    ])
    .await;
}

/// HTTP/1.0 knows no chunks: an answer in chunks ends by closing (RFC 9112, 6.1).
#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap()).start().await;
    for answer in [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\n\r\none two",
        b"HTTP/1.0 200 OK\r\n\r\none two",
    ] {
        for request in [
            b"GET / HTTP/1.0\r\n\r\n".as_slice(),
            b"GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
        ] {
            let (_, answer) = tokio::join!(serve(&listener, answer), ask(proxy.addresses()[0], request));
            let answer = text(&answer);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
            assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
            assert_eq!(body, "one two");
        }
    }
}

/// A FIN after a request that is the connection's last one is no sign of leaving.
#[tokio::test]
async fn a_client_that_closes_its_half_after_its_last_request_gets_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap()).start().await;
    for asked in [b"GET / HTTP/1.0\r\n\r\n".as_slice(), GET] {
        let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
        client.write_all(asked).await.unwrap();
        client.shutdown().await.unwrap();
        let (mut service, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        request(&mut service).await;
        service.write_all(OK).await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, client.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(text(&answer).ends_with("\r\n\r\nok"), "{}", text(&answer));
    }
}

/// A FIN on a connection that was to be kept is leaving: the upstream sees it, and need not go on.
#[tokio::test]
async fn the_upstream_sees_within_a_second_that_a_client_has_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap()).start().await;
    let mut client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    let (mut service, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    request(&mut service).await;
    client.shutdown().await.unwrap();
    let mut byte = [0];
    let gone = timeout(Duration::from_secs(1), service.read(&mut byte)).await.unwrap();
    assert!(matches!(gone, Ok(0) | Err(_)), "{gone:?}");
}

/// What the proxy says itself names no product, and has no body to be mistaken for the service's.
#[tokio::test]
async fn an_error_of_the_proxy_says_no_more_than_its_status() {
    let proxy = proxy(Port::reserve().address()).start().await;
    let answer = text(&ask(proxy.addresses()[0], GET).await);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("server:"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-length: 0"), "{head}");
    assert_eq!(body, "");
}

/// An answer that comes before the upload is over arrives whole, also when the client is still sending.
#[tokio::test]
async fn an_answer_before_the_end_of_the_request_arrives_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap()).start().await;
    let client = TcpStream::connect(proxy.addresses()[0]).await.unwrap();
    let (mut from, mut to) = client.into_split();
    to.write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n")
        .await
        .unwrap();
    let uploading = tokio::spawn(async move {
        // It ends by an error once the proxy has closed.
        while to.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
    });
    let (service, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let (mut upload, mut service) = service.into_split();
    let mut some = vec![0; 64 * 1024];
    assert!(upload.read(&mut some).await.unwrap() > 0);
    let reading = tokio::spawn(async move { while upload.read(&mut some).await.is_ok_and(|n| n > 0) {} });
    let body = "e".repeat(200_000);
    let answer = format!(
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    service.write_all(answer.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let whole = answer_of(&mut from, &mut got, body.len());
    timeout(SOON, whole).await.unwrap();
    assert!(text(&got).starts_with("HTTP/1.1 413 "), "{}", text(&got[..64]));
    drop(from);
    drop(service);
    timeout(SOON, uploading).await.unwrap().unwrap();
    timeout(SOON, reading).await.unwrap().unwrap();
}

/// Reads until a head and `length` bytes of body are there; a reset before is what the test is for.
async fn answer_of(from: &mut tokio::net::tcp::OwnedReadHalf, got: &mut Vec<u8>, length: usize) {
    while find(got, b"\r\n\r\n").is_none_or(|head| got.len() < head + 4 + length) {
        let read = from.read_buf(got).await;
        assert!(matches!(read, Ok(n) if n > 0), "{read:?} after {} bytes", got.len());
    }
}
