//! Several requests on a connection: RFC 9112, 9.3.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::stand::{Stand, all, next, rest, statuses};

const GOOD: &str = "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n";
const SIZED: &str = "POST /2 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc";
const CHUNKED: &str = "POST /3 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
const BAD: &str = "GET /4 HTTP/1.1\r\nHost: a.test\r\nX : a\r\n\r\n";

#[tokio::test]
async fn each_head_of_a_connection_is_judged() {
    let stand = Stand::start().await;
    let cases = [
        (format!("{GOOD}{BAD}"), vec![200, 400]),
        (format!("{SIZED}{BAD}"), vec![200, 400]),
        (format!("{CHUNKED}{BAD}"), vec![200, 400]),
        (
            format!("{CHUNKED}\r\n{SIZED}\r\n{GOOD}{BAD}{GOOD}"),
            vec![200, 200, 200, 400],
        ),
        (format!("{SIZED}:{GOOD}"), vec![200, 400]),
        (format!("{GOOD}GET /5\r\n\r\n{GOOD}"), vec![200, 400]),
    ];
    for (requests, expected) in cases {
        let before = stand.upstream.received().len();
        let answer = all(stand.address(), requests.as_bytes()).await;
        assert_eq!(statuses(&answer), expected, "{requests:?}\n{answer}");
        let good = expected.iter().filter(|status| **status == 200).count();
        assert_eq!(stand.upstream.received().len() - before, good, "{requests:?}");
        stand.clean().await;
    }
}

#[tokio::test]
async fn a_head_that_comes_in_pieces_behind_a_body_is_judged() {
    let stand = Stand::start().await;
    let mut client = TcpStream::connect(stand.address()).await.unwrap();
    for piece in [CHUNKED, "GET / HTTP/1.1\r\nHost:"] {
        client.write_all(piece.as_bytes()).await.unwrap();
    }
    assert_eq!(statuses(&next(&mut client).await), [200]);
    client.write_all(b" a.test\r\n folded\r\n\r\n").await.unwrap();
    assert_eq!(statuses(&rest(&mut client).await), [400], "RFC 9112, 5.2");
    stand.clean().await;
}

#[tokio::test]
async fn requests_are_answered_in_their_order() {
    let stand = Stand::start().await;
    let mut client = TcpStream::connect(stand.address()).await.unwrap();
    let last = "GET /last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let requests = format!("{GOOD}{SIZED}{CHUNKED}\r\n{last}");
    client.write_all(requests.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let answers = rest(&mut client).await;
    assert_eq!(statuses(&answers), [200; 4], "{answers}");
    let paths: Vec<_> = stand
        .upstream
        .received()
        .iter()
        .map(|request| request.uri.path().to_owned())
        .collect();
    assert_eq!(paths, ["/1", "/2", "/3", "/last"]);
}
