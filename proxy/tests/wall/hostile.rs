//! Upstreams that don't keep to HTTP: what of it a client may see.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testbed::Sidelog;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::stand::{all, one, statuses};

/// A proxy in front of a service that answers every request with these bytes and closes.
async fn answering(answer: &'static [u8]) -> Sidelog {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, answer));
        }
    });
    Sidelog::proxy()
        .env("UPSTREAM_URL", url)
        .env("SIDELOG_CAPTURE__ENABLED", "false")
        .env("SIDELOG_TRACES__ENABLED", "false")
        .start()
        .await
}

/// The head of a request; empty where none comes any more.
async fn head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return Vec::new();
        }
        head.push(byte[0]);
    }
    head
}

async fn serve(mut stream: TcpStream, answer: &'static [u8]) {
    let mut request = head(&mut stream).await;
    if request.is_empty() {
        return;
    }
    if request.starts_with(b"GET /clean") {
        drop(
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nclean")
                .await,
        );
    } else {
        drop(stream.write_all(answer).await);
        drop(stream.shutdown().await);
        drop(stream.read_to_end(&mut request).await);
    }
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n";

async fn clean(proxy: &Sidelog) {
    let answer = one(proxy.addresses()[0], b"GET /clean HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nclean"), "{answer}");
}

#[tokio::test]
async fn what_is_no_answer_is_a_502() {
    let cases: [(&[u8], &str); 11] = [
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "RFC 9112, 6.1: twice",
        ),
        (
            b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "RFC 9112, 6.1: unknown to HTTP/1.0",
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
            "RFC 9110, 15.2.2: unasked",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "RFC 9112, 6.3",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nab", "RFC 9112, 6.3"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "RFC 9110, 8.6"),
        (b"HTTP/1.1 2OO OK\r\ncontent-length: 0\r\n\r\n", "RFC 9112, 4"),
        (b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", "RFC 9112, 4"),
        (b"nonsense\r\n\r\n", "RFC 9112, 4"),
        (b"HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n", "RFC 9112, 5"),
        (b"", "RFC 9110, 15.6.3"),
    ];
    for (answer, section) in cases {
        let proxy = answering(answer).await;
        let got = all(proxy.addresses()[0], GET).await;
        assert_eq!(statuses(&got), [502], "{section}: {}\n{got}", answer.escape_ascii());
        assert!(!got.contains("Pingora"), "{got}");
        clean(&proxy).await;
    }
}

#[tokio::test]
async fn what_is_cut_is_never_passed_off_as_whole() {
    let cases: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "RFC 9112, 8"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "RFC 9112, 8",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nz\r\n",
            "RFC 9112, 7.1",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "RFC 9112, 7.1",
        ),
    ];
    for (answer, section) in cases {
        let proxy = answering(answer).await;
        let got = all(proxy.addresses()[0], GET).await;
        assert!(statuses(&got) == [200] || statuses(&got) == [502], "{section}: {got}");
        assert!(!got.ends_with("0\r\n\r\n"), "{section}: {got}");
        if got.contains("content-length: 9") {
            assert!(got.ends_with("\r\n\r\nabc"), "{section}: {got}");
        }
        clean(&proxy).await;
    }
}

#[tokio::test]
async fn only_the_answer_that_was_asked_for_passes() {
    let two = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    let proxy = answering(two).await;
    for _ in 0..3 {
        let got = one(proxy.addresses()[0], GET).await;
        assert!(got.ends_with("\r\n\r\nok"), "RFC 9112, 9.2: {got}");
        clean(&proxy).await;
    }
    let both = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let proxy = answering(both).await;
    let got = all(
        proxy.addresses()[0],
        b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        !got.to_ascii_lowercase().contains("content-length"),
        "RFC 9112, 6.3: {got}"
    );
    assert!(got.ends_with("2\r\nok\r\n0\r\n\r\n"), "{got}");
}

#[tokio::test]
async fn what_an_answer_names_ends_here() {
    let hop = b"HTTP/1.1 200 OK\r\nconnection: x-hop, close\r\nx-hop: a\r\nkeep-alive: timeout=5\r\nx-end: b\r\ncontent-length: 0\r\n\r\n";
    let proxy = answering(hop).await;
    let got = one(proxy.addresses()[0], GET).await.to_ascii_lowercase();
    assert!(
        !got.contains("x-hop") && !got.contains("timeout=5"),
        "RFC 9110, 7.6.1: {got}"
    );
    assert!(got.contains("x-end: b"), "{got}");
}

#[tokio::test]
async fn informational_answers_have_an_end() {
    let flood: &'static [u8] = Box::leak(
        "HTTP/1.1 103 Early Hints\r\n\r\n"
            .repeat(500)
            .into_bytes()
            .into_boxed_slice(),
    );
    let proxy = answering(flood).await;
    let got = all(proxy.addresses()[0], GET).await;
    assert_eq!(statuses(&got).last(), Some(&502), "RFC 9110, 15.2");
    assert!(statuses(&got).len() < 200);
    clean(&proxy).await;
}

#[tokio::test]
async fn a_bomb_of_fields_is_a_502() {
    let head = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: a\r\n".repeat(2000));
    let proxy = answering(Box::leak(head.into_bytes().into_boxed_slice())).await;
    let got = all(proxy.addresses()[0], GET).await;
    assert_eq!(statuses(&got), [502], "RFC 9110, 5.4");
    clean(&proxy).await;
}

#[tokio::test]
async fn a_connection_is_switched_only_to_what_was_asked_for() {
    let asks = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    for answer in [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".as_slice(),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let proxy = answering(answer).await;
        let got = all(proxy.addresses()[0], asks).await;
        assert_eq!(statuses(&got), [502], "RFC 9110, 7.8: {}: {got}", answer.escape_ascii());
        clean(&proxy).await;
    }
}

#[tokio::test]
async fn an_answer_has_one_length_and_none_of_nothing() {
    let cases: [(&[u8], &[&str], &str); 5] = [
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
            &["content-length: 2"],
            "RFC 9112, 6.3",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
            &["content-length: 2"],
            "RFC 9112, 6.3",
        ),
        (
            b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello",
            &[],
            "RFC 9110, 8.6",
        ),
        (
            b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            &[],
            "RFC 9112, 6.1",
        ),
        (
            b"HTTP/1.1 103 Early Hints\r\ncontent-length: 9\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            &["content-length: 2"],
            "RFC 9110, 8.6",
        ),
    ];
    for (answer, expected, section) in cases {
        let proxy = answering(answer).await;
        let asks = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let got = all(proxy.addresses()[0], asks).await.to_ascii_lowercase();
        let framing: Vec<_> = got
            .split("\r\n")
            .filter(|line| line.starts_with("content-length:") || line.starts_with("transfer-encoding:"))
            .collect();
        assert_eq!(framing, expected, "{section}: {got}");
        assert!(!got.contains("hello"), "{got}");
        clean(&proxy).await;
    }
}

/// A service whose connections serve one request as it should be and end at the second one, with some bytes.
async fn ends_at_the_second(listener: TcpListener, last: &'static [u8], asked: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = Arc::clone(&asked);
        tokio::spawn(async move {
            for answer in [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", last] {
                if head(&mut stream).await.is_empty() {
                    return;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                drop(stream.write_all(answer).await);
            }
        });
    }
}

#[tokio::test]
async fn a_request_is_sent_again_only_if_it_is_safe_and_no_answer_began() {
    for (method, last, status, expected) in [
        ("GET", b"".as_slice(), 200, 3),
        ("POST", b"", 502, 2),
        ("GET", b"HTTP/1.1 200 O", 502, 2),
        ("GET", b"HTTP/1.1 103 Early Hints\r\n\r\n", 502, 2),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<AtomicUsize>::default();
        tokio::spawn(ends_at_the_second(listener, last, Arc::clone(&asked)));
        let proxy = Sidelog::proxy()
            .env("UPSTREAM_URL", url)
            .env("SIDELOG_CAPTURE__ENABLED", "false")
            .env("SIDELOG_TRACES__ENABLED", "false")
            .start()
            .await;
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let what = format!("{method} {}", last.escape_ascii());
        let first = all(proxy.addresses()[0], request.as_bytes()).await;
        assert_eq!(statuses(&first), [200], "{what}");
        let second = all(proxy.addresses()[0], request.as_bytes()).await;
        assert_eq!(statuses(&second).last(), Some(&status), "{what}: {second}");
        assert_eq!(asked.load(Ordering::SeqCst), expected, "{what}");
    }
}
